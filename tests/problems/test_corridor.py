"""The corridor: its walk by hand, its gradient by two ways, and addends that later steps do not change."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from problems.corridor import corridor
from problems.truth import true_gradient


@pytest.mark.parametrize("point", ["init", "mid", "converged"])
@pytest.mark.parametrize("settings", [{"cells": 3, "steps": 5}, {"cells": 2, "steps": 3, "slip": 0.3}])
def test_its_gradient_is_that_of_the_sum_over_every_walk(settings, point):
    problem = corridor(**settings).at(point)
    wanted = true_gradient(replace(problem, exact=None))
    assert wanted.tier == "enumeration"
    assert torch.allclose(true_gradient(problem).gradient, wanted.gradient, rtol=1e-12, atol=1e-15)


def test_a_walk_by_hand():
    """On, on with a slip (back), on, on, back with a slip (on): cells 1, 0, 1, 2, 2."""
    walk = torch.tensor([[1, 0], [1, 1], [1, 0], [1, 0], [0, 1]], dtype=torch.float64).flatten()
    assert corridor(cells=3, steps=5).f(walk).tolist() == pytest.approx([0, 0.2, 0, 1, 1])


def test_the_policy_looks_at_the_cell():
    problem = corridor(cells=3, steps=3)
    q = problem.bind(torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64))
    x = torch.tensor([[1, 0, 1, 0, 0, 0], [0, 0, 1, 0, 0, 0]], dtype=torch.float64)[:, None]
    logits = q.params(x)[:, 0].unflatten(-1, (3, 2))
    assert logits[..., 0].tolist() == [[0.1, 0.2, 0.3], [0.1, 0.1, 0.2]]
    assert logits[..., 1].sigmoid().tolist() == [[pytest.approx(0.1)] * 3] * 2


def test_a_reward_does_not_depend_on_later_steps():
    problem = corridor(cells=3, steps=4)
    x = problem.bind(problem.theta).support()
    fx = problem.f(x)
    for t, reach in enumerate(problem.parts):
        assert reach.tolist() == [d // 2 <= t for d in range(8)]
        groups = {}
        for bits, reward in zip(x[:, reach].tolist(), fx[:, t].tolist(), strict=True):
            groups.setdefault(tuple(bits), set()).add(reward)
        assert all(len(rewards) == 1 for rewards in groups.values())


@pytest.mark.parametrize(("setting", "value"), [("cells", 1), ("steps", 0), ("slip", 0.0), ("slip", 0.5)])
def test_settings_that_make_no_sense_are_refused(setting, value):
    with pytest.raises(ValueError, match=rf"corridor\[{setting}={value}\]"):
        corridor(**{setting: value})
