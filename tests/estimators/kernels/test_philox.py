"""Words in lanes: Philox-4x32-10's known answers, and the words of `estimators.noise` at the same addresses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from estimators.kernels import philox
from estimators.kernels.backend import Backend, cpu, plain
from estimators.kernels.base import Here
from estimators.noise import addressed
from problems.families.base import Noise

ONES = 0xFFFFFFFF
# Random123, kat_vectors: philox4x32 10
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES, ONES, ONES, ONES), (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize("be", [plain(), cpu()], ids=lambda be: be.name)
@pytest.mark.parametrize(("counter", "key", "wanted"), KNOWN, ids=["zeros", "ones", "pi"])
def test_known_answers(be: Backend, counter: tuple[int, ...], key: tuple[int, int], wanted: tuple[int, ...]) -> None:
    block = philox.philox(be)
    found = block(*[np.uint64(c) for c in counter], np.uint64(key[0] | key[1] << 32))
    assert tuple(int(word) for word in found) == wanted


@pytest.mark.parametrize("be", [plain(), cpu()], ids=lambda be: be.name)
def test_lanes_hold_the_addressed_words(be: Backend) -> None:
    lanes, key, phase, index, event = 64, 0x0123456789ABCDEF, 2, 5, 3
    buf = np.empty(lanes, np.uint32)
    tag = index << 24 | 1
    philox.words(be, lanes)(buf, event, tag, here(np.zeros(1, np.uint64), np.uint64(10), np.uint64(key)))
    noise = Noise("uniform", (2,), (4,))
    u = addressed(noise, key, phase, index, range(40, 40 + lanes), None, torch.float64)[1, :, event]
    assert np.array_equal((buf + 0.5) * 2.0**-32, u.numpy()[philox.replicates_of(lanes)])


@pytest.mark.parametrize("be", [plain(), cpu()], ids=lambda be: be.name)
def test_lanes_with_a_datum_each_hold_their_own(be: Backend) -> None:
    lanes, key, event = 8, 77, 1
    data = np.array([5, 0, 3, 3, 7, 1, 2, 6], np.uint64)
    buf = np.empty(lanes, np.uint32)
    philox.words(be, lanes, 1)(buf, event, 0, here(data, np.uint64(3), np.uint64(key)))
    place = philox.replicates_of(lanes)
    rows = torch.from_numpy(data[np.argsort(place)].astype(np.int64))[:, None]
    u = addressed(Noise("uniform", (), (2,)), key, 2, 0, range(12, 12 + lanes), rows, torch.float64)[:, 0, event]
    assert np.array_equal((buf + 0.5) * 2.0**-32, u.numpy()[place])


def here(datum: np.ndarray, first: np.uint64, key: np.uint64) -> Here:
    """With the address of the noise, in phase 2, and nothing else."""
    no, word = np.zeros(1), np.zeros(1, np.uint32)
    return Here(no, no, datum, no, no, no, no, word, no, no, first, np.uint64(2 << 30), key)
