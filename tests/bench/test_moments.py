"""Sums: what a block adds, and that merging, storing and recentring lose nothing."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.moments import GROUPS, TOP, Sums, block_sums, empty, fold, from_bytes, merge, recentre, to_bytes

GROUPED = ("n", "s1", "q1", "cos")
SUMMED = (*GROUPED, "s2", "s3", "s4", "high", "top")


def gradients(replicates: int, size: int, seed: int = 0) -> np.ndarray:
    """Skewed, correlated, with a mean far from zero."""
    noise = np.random.default_rng(seed)
    return noise.exponential(size=(replicates, size)) + noise.normal(size=(replicates, 1)) + np.arange(size)


def unit(size: int) -> np.ndarray:
    return np.full(size, size**-0.5)


def one_pass(g: np.ndarray, pilot: np.ndarray, axis: np.ndarray, start: int = 0) -> dict[str, np.ndarray]:
    """The definitions of the fields, written out with a mask for each group."""
    d = np.column_stack([g - pilot, (g - pilot) @ axis])
    squares = (d[:, :-1] ** 2).sum(1)
    cos = g @ axis / np.linalg.norm(g, axis=1)
    group = (start + np.arange(len(g))) % GROUPS
    masks = [group == b for b in range(GROUPS)]
    return {
        "n": np.array([m.sum() for m in masks]),
        "s1": np.array([d[m].sum(0) for m in masks]),
        "q1": np.array([squares[m].sum() for m in masks]),
        "cos": np.array([cos[m].sum() for m in masks]),
        "s2": (d**2).sum(0),
        "s3": (d**3).sum(0),
        "s4": (d**4).sum(0),
        "high": np.abs(d).max(0),
        "top": np.sort(np.append(squares, np.zeros(TOP)))[-TOP:],
    }


def assert_close(
    found: Sums, wanted: Sums | dict[str, np.ndarray], tolerance: float = 1e-12, only: tuple[str, ...] = SUMMED
) -> None:
    """Equal to `tolerance` times the largest entry of each field: single entries may cancel."""
    for name in only:
        a, b = getattr(found, name), wanted[name] if isinstance(wanted, dict) else getattr(wanted, name)
        assert np.abs(a - b).max() <= tolerance * np.abs(b).max(), name


@pytest.mark.parametrize(
    ("replicates", "size", "start"), [(256, 3, 0), (4096, 7, 128), (100, 2, 0), (131, 5, 37), (1, 1, 63), (70, 300, 1)]
)
def test_block_is_its_definition(replicates: int, size: int, start: int) -> None:
    g = gradients(replicates, size)
    pilot, axis = np.arange(size) + 0.5, unit(size)
    assert_close(block_sums(g, pilot, axis, 1.0, start), one_pass(g, pilot, axis, start))


def test_float32_gradients_are_summed_in_float64() -> None:
    g = gradients(512, 3).astype(np.float32)
    pilot, axis = g[:64].mean(0), unit(3)
    assert to_bytes(block_sums(g, pilot, axis, 1.0, 0)) == to_bytes(
        block_sums(g.astype(np.float64), pilot, axis, 1.0, 0)
    )


@given(cuts=st.lists(st.integers(0, 700), max_size=6), size=st.integers(1, 4), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_any_split_folds_to_one_pass(cuts: list[int], size: int, seed: int) -> None:
    g = gradients(700, size, seed)
    pilot, axis = g[:50].mean(0), unit(size)
    ends = [0, *sorted(cuts), 700]
    parts = [block_sums(g[a:b], pilot, axis, 1.0, a) for a, b in pairwise(ends)]
    whole = block_sums(g, pilot, axis, 1.0, 0)
    assert_close(fold(parts), whole)
    assert_close(merge(empty(pilot, axis), fold(reversed(parts))), whole)


@given(moves=st.lists(st.integers(-9, 9), min_size=1, max_size=4), size=st.integers(1, 4), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_recentring_is_exact(moves: list[int], size: int, seed: int) -> None:
    """Whole numbers along an axis of the coordinates: every sum is a whole number below 2^53, and equal to the last
    bit.
    """
    g = np.round(gradients(300, size, seed))
    start, axis = np.round(g.mean(0)), np.eye(size)[0]
    found = block_sums(g, start, axis, 1.0, 0)
    for move in moves:
        found = recentre(found, start + move * np.arange(1, size + 1))
    wanted = block_sums(g, found.pilot, axis, 1.0, 0)
    for name in (*GROUPED, "s2", "s3", "s4"):
        assert np.array_equal(getattr(found, name), getattr(wanted, name)), name
    assert np.all(found.high >= wanted.high)
    assert np.all(found.top >= wanted.top * (1 - 1e-12))


def test_recentring_projects_on_the_axis() -> None:
    g, pilot = gradients(300, 3), np.array([0.4, 2.0, 1.5])
    found = recentre(block_sums(g, g.mean(0), unit(3), 1.0, 0), pilot)
    assert_close(found, block_sums(g, pilot, unit(3), 1.0, 0), only=(*GROUPED, "s2", "s3", "s4"))


def test_recentred_zeros_stay_an_upper_bound() -> None:
    g = np.zeros((10, 2))
    found = recentre(block_sums(g, np.zeros(2), unit(2), 1.0, 0), np.array([3.0, 4.0]))
    assert np.allclose(found.top[-10:], 25.0)
    assert np.all(found.top[:-10] == 0)


@given(replicates=st.integers(0, 200), size=st.integers(1, 4), start=st.integers(0, 10**9), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_bytes_round_trip(replicates: int, size: int, start: int, seed: int) -> None:
    g = gradients(replicates, size, seed)
    g[::7] = np.nan
    sums = block_sums(g, np.ones(size), unit(size), 0.25, start)
    back = from_bytes(to_bytes(sums))
    for name in ("pilot", "axis", *SUMMED):
        a, b = getattr(sums, name), getattr(back, name)
        assert a.dtype == b.dtype, name
        assert np.array_equal(a, b), name
    assert (back.nonfinite, back.zero, back.scale) == (sums.nonfinite, sums.zero, sums.scale)
    assert to_bytes(back) == to_bytes(sums)
    assert back.s1.flags.writeable


@given(data=st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_damaged_bytes_are_refused_in_a_sentence(data: st.DataObject) -> None:
    whole = to_bytes(block_sums(gradients(64, 2), np.zeros(2), unit(2), 1.0, 0))
    damage = data.draw(st.sampled_from(["cut", "flip", "more", "other"]))
    if damage == "cut":
        bad = whole[: data.draw(st.integers(0, len(whole) - 1))]
    elif damage == "flip":
        place = data.draw(st.integers(0, len(whole) - 1))
        bad = whole[:place] + bytes([whole[place] ^ 0x40]) + whole[place + 1 :]
    else:
        bad = whole + b"\0" if damage == "more" else data.draw(st.binary(max_size=300))
    with pytest.raises(ValueError, match="not stored sums"):
        from_bytes(bad)


def test_rows_that_are_not_finite_are_counted_and_left_out() -> None:
    g = gradients(192, 3)
    bad = np.array([5, 64, 70, 191])
    dirty = g.copy()
    dirty[bad, [0, 1, 2, 0]] = [np.nan, np.inf, -np.inf, 1e200]
    pilot, axis = np.ones(3), unit(3)
    found = block_sums(dirty, pilot, axis, 1.0, 0)
    keep = np.setdiff1d(np.arange(192), bad)
    wanted = fold([block_sums(g[r : r + 1], pilot, axis, 1.0, int(r)) for r in keep])
    assert found.nonfinite == 4
    assert merge(found, found).nonfinite == 8
    assert found.n.sum() == 188
    assert found.n[5] == 2
    assert_close(found, wanted)


def test_rounding_noise_is_a_zero_gradient() -> None:
    """A DisARM gradient that should be 0 and is 1e-18 has no direction; found through the pilot it would have cosine of
    order 1.
    """
    g = np.array([[1e-18, -2e-18], [3.0, 4.0], [0.0, 0.0], [1e-9, 0.0]])
    found = block_sums(g, np.array([0.7, 0.1]), np.array([0.6, 0.8]), 1.0, 0)
    assert found.zero == 2
    assert np.allclose(found.cos[:4], [0.0, 1.0, 0.0, 0.6], atol=1e-15)
    assert merge(found, found).zero == 4


def test_without_truth_the_projection_is_nothing() -> None:
    found = block_sums(gradients(128, 3), np.zeros(3), np.zeros(3), 1.0, 0)
    assert np.all(found.cos == 0)
    assert found.s2[-1] == 0
    assert found.zero == 0


def test_different_centres_are_refused() -> None:
    a = empty(np.zeros(2), unit(2))
    with pytest.raises(ValueError, match="different pilot"):
        merge(a, empty(np.full(2, 1e-9), unit(2)))
    with pytest.raises(ValueError, match="different axis"):
        merge(a, empty(np.zeros(2), -unit(2)))
    with pytest.raises(ValueError, match="different pilot"):
        merge(a, empty(np.zeros(3), unit(3)))


def test_what_cannot_be_summed_is_refused() -> None:
    with pytest.raises(ValueError, match="no block to fold"):
        fold([])
    with pytest.raises(ValueError, match=r"\(5, 3\) do not fit a pilot of 2"):
        block_sums(np.zeros((5, 3)), np.zeros(2), unit(2), 1.0, 0)
    with pytest.raises(ValueError, match="not finite"):
        empty(np.array([np.nan]), unit(1))
    with pytest.raises(ValueError, match="vectors of one length"):
        empty(np.zeros(2), unit(3))


def test_blocks_in_order_give_equal_bits() -> None:
    """Who measured a block does not matter, nor where the run was cut and continued."""
    g = gradients(2048, 5)
    pilot, axis = g[:256].mean(0), unit(5)
    parts = [block_sums(g[a : a + 256], pilot, axis, 1.0, a) for a in range(0, 2048, 256)]
    stored = from_bytes(to_bytes(fold(parts[:3])))
    assert to_bytes(fold([stored, *parts[3:]])) == to_bytes(fold(parts))
