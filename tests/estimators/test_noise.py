"""Addressed noise: known answers, the address map, independence of the range asked for, and the distributions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from estimators.noise import (
    KINDS,
    LEARN,
    MEASURE,
    ROWS_INDEX,
    addressed,
    key_of,
    philox,
    rows_without_replacement,
)
from problems.families.base import Noise

KEY = key_of(0, "a problem")


def plain_philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox-4x32-10 from its definition, in Python integers."""
    c, k = list(counter), list(key)
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & 0xFFFFFFFF, (p0 >> 32) ^ c[3] ^ k[1], p0 & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_random123_known_answers(counter: list[int], key: list[int], words: list[int]) -> None:
    assert [int(w) for w in philox(*[np.uint64(v) for v in counter + key])] == words
    assert plain_philox(counter, key) == words


def test_the_address_map_is_the_stated_one() -> None:
    """Counter (r // 4, datum, flat event, phase << 30 | index << 24 | flat front); word r % 4; u = (w + 1/2) 2^-32."""
    noise = Noise("uniform", (2, 3), (2, 2))
    u = addressed(noise, KEY, LEARN, 5, range(6, 11), [7, 3], torch.float64)
    assert u.shape == (2, 3, 5, 2, 2, 2)
    for front, r, row, event in ((0, 0, 0, 0), (4, 1, 1, 3), (5, 4, 0, 2)):
        replicate, datum = 6 + r, [7, 3][row]
        counter = [replicate // 4, datum, event, LEARN << 30 | 5 << 24 | front]
        word = plain_philox(counter, [KEY & 0xFFFFFFFF, KEY >> 32])[replicate % 4]
        assert u.reshape(6, 5, 2, 4)[front, r, row, event] == (word + 0.5) * 2.0**-32


@pytest.mark.parametrize("kind", KINDS)
def test_a_replicate_does_not_depend_on_the_range(kind: str) -> None:
    noise = Noise(kind, (2,), (3,))
    whole = addressed(noise, KEY, MEASURE, 0, range(256), [0, 4, 2], torch.float64)
    for first, last in ((0, 1), (3, 9), (13, 200), (255, 256)):
        part = addressed(noise, KEY, MEASURE, 0, range(first, last), [0, 4, 2], torch.float64)
        assert torch.equal(part, whole[:, first:last])


@pytest.mark.parametrize("kind", KINDS)
def test_a_datum_has_its_noise_in_any_batch(kind: str) -> None:
    noise = Noise(kind, (2,), (3,))
    whole = addressed(noise, KEY, MEASURE, 1, range(5, 25), range(6), torch.float64)
    rows = torch.tensor([[4, 1]] * 10 + [[0, 5]] * 10)
    own = addressed(noise, KEY, MEASURE, 1, range(5, 25), rows, torch.float64)
    assert torch.equal(own[:, :10], whole[:, :10, [4, 1]])
    assert torch.equal(own[:, 10:], whole[:, 10:, [0, 5]])


def test_noise_that_the_data_share_broadcasts_over_them() -> None:
    noise = Noise("normal", (2,), (3,), per_datum=False)
    shared = addressed(noise, KEY, MEASURE, 0, range(8), range(5), torch.float64)
    assert shared.shape == (2, 8, 1, 3)
    assert torch.equal(shared[:, :, 0], addressed(noise, KEY, MEASURE, 0, range(8), None, torch.float64))


@pytest.mark.parametrize(
    ("kind", "cdf"),
    [
        ("uniform", stats.uniform.cdf),
        ("normal", stats.norm.cdf),
        ("exponential", stats.expon.cdf),
        ("gumbel", stats.gumbel_r.cdf),
    ],
)
def test_distributions(kind: str, cdf: object) -> None:
    """Kolmogorov-Smirnov on 65,536 numbers at level 0.001, one fixed seed; a scale of 1.05 is found."""
    values = addressed(Noise(kind, (), (8,)), KEY, MEASURE, 0, range(8192), None, torch.float64).reshape(-1).numpy()
    assert stats.kstest(values, cdf).pvalue > 1e-3
    assert stats.kstest(1.05 * values, cdf).pvalue < 1e-3


def test_the_normals_of_a_block_are_uncorrelated() -> None:
    """Box-Muller pairs share a radius: their values and squares must not correlate; 5 standard errors."""
    values = addressed(Noise("normal", (), (16,)), KEY, MEASURE, 0, range(65536), None, torch.float64)
    four = values.reshape(-1, 4, 16).movedim(1, -1).reshape(-1, 4)
    for x in (four, four.square() - 1):
        correlation = torch.corrcoef(x.T) - torch.eye(4)
        assert float(correlation.abs().max()) < 5 / math.sqrt(len(four))


def test_signs_are_even_and_kinds_share_their_words() -> None:
    kinds = {k: addressed(Noise(k, (), (4,)), KEY, MEASURE, 0, range(4096), None, torch.float64) for k in KINDS}
    assert set(kinds["sign"].unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(kinds["sign"] > 0, kinds["uniform"] < 0.5)
    assert torch.allclose(kinds["exponential"], -kinds["uniform"].log(), rtol=1e-14)


def test_rows_are_distinct_uniform_and_addressed() -> None:
    """Inclusion of every row at its rate batch / rows within 5 standard errors."""
    rows = rows_without_replacement(KEY, MEASURE, range(8192), 10, 3)
    assert all(len(set(r)) == 3 for r in rows.tolist())
    rate = torch.bincount(rows.reshape(-1), minlength=10).double() / 8192
    assert float((rate - 0.3).abs().max()) < 5 * math.sqrt(0.3 * 0.7 / 8192)
    assert torch.equal(rows_without_replacement(KEY, MEASURE, range(100, 140), 10, 3), rows[100:140])
    assert ROWS_INDEX == 63


def test_an_unknown_kind_is_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match="no noise of kind 'cauchy'; there are uniform, normal"):
        addressed(Noise("cauchy", (), (1,)), KEY, MEASURE, 0, range(4), None, torch.float64)


def test_keys_differ_in_every_part() -> None:
    keys = {key_of(0, "p", 1), key_of(1, "p", 1), key_of(0, "q", 1), key_of(0, "p", 2), key_of("0", "p", 1)}
    assert len(keys) == 5


def test_a_float32_uniform_stays_below_one() -> None:
    """The largest words round to one in float32, where log(1 - u) would be infinite."""
    from estimators.noise import _cast

    largest = np.array([(2.0**32 - 1 + 0.5) * 2.0**-32, 0.5])
    assert float(torch.from_numpy(largest).float()[0]) == 1.0
    assert float(_cast("uniform", largest, torch.float32)[0]) == 1 - 2.0**-24
    assert float(_cast("uniform", largest, torch.float64)[0]) == largest[0]
