"""The gridworld: walks by hand, its gradient by enumeration and by Bellman's equation in plain Python, and its addends."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from bench.conformance import check, failures
from estimators.actor_critic import actor_critic
from estimators.local_expectation import local_expectation
from estimators.score_function import rloo
from estimators.stochastic_ad import stochastic_ad
from problems.gridworld import best_actions, grid_of, gridworld
from problems.truth import true_gradient

POINTS = ["init", "mid", "converged"]
RIGHT, DOWN, LEFT, UP = range(4)


def walk(*sites: int) -> Tensor:
    """One-hot actions and turns `[sites, 4]`."""
    return one_hot(torch.tensor(sites), 4).double()


def value(theta: list[float], side: int, steps: int, slip: float) -> float:
    """V_t(s) = sum_a pi(a | s) sum_k P(k) [r + V_{t+1}(s')], backwards from V_T = 0; cells as rows and columns."""
    goal, pit = (side - 1, side - 1), (side - 2, 1)
    V = {(i, j): 0.0 for i in range(side) for j in range(side)}
    for _ in range(steps):
        before, V = V, {}
        for i, j in before:
            V[i, j] = 0.0
            if (i, j) in (goal, pit):
                continue
            place = 4 * (side * i + j)
            weights = [math.exp(t) for t in theta[place : place + 4]]
            for action in range(4):
                for turn in range(4):
                    chance = weights[action] / sum(weights) * (slip / 3 if turn else 1 - slip)
                    down, right = [(0, 1), (1, 0), (0, -1), (-1, 0)][(action + turn) % 4]
                    there = (i + down, j + right)
                    if there not in before:
                        there = (i, j)
                    reward = -0.04 + (there == goal) - (there == pit)
                    V[i, j] += chance * (reward + before[there])
    return V[0, 0]


@pytest.mark.parametrize("settings", [{}, {"side": 3, "steps": 4, "slip": 0.5}, {"side": 3, "steps": 6, "slip": 0.0}])
@pytest.mark.parametrize("point", POINTS)
def test_the_gradient_is_that_of_bellmans_equation(
    settings: dict[str, Any], point: str, differences: Callable[..., Tensor]
) -> None:
    problem = gridworld(**settings).at(point)
    side, steps, slip = (problem.settings[name] for name in ("side", "steps", "slip"))
    wanted = differences(lambda theta: value(theta, side, steps, slip), problem.theta.tolist())
    truth = true_gradient(problem)
    assert truth is not None
    assert truth.tier == "closed form"
    torch.testing.assert_close(truth.gradient, wanted, rtol=0, atol=1e-9)
    ends = [side * side - 1, (side - 2) * side + 1]
    assert not truth.gradient.reshape(-1, 4)[ends].any()
    assert float(wanted.norm()) > 1e-3


@pytest.mark.parametrize("settings", [{"side": 2, "steps": 3}, {"side": 3, "steps": 5, "slip": 0.0}])
@pytest.mark.parametrize("point", POINTS)
def test_the_gradient_is_that_of_the_sum_over_every_walk(settings: dict[str, Any], point: str) -> None:
    problem = gridworld(**settings).at(point)
    truth, wanted = true_gradient(problem), true_gradient(replace(problem, exact=None))
    assert truth is not None
    assert wanted is not None
    assert wanted.tier == "enumeration"
    torch.testing.assert_close(truth.gradient, wanted.gradient, rtol=0, atol=1e-14)


def test_walks_by_hand() -> None:
    """Into a wall, right, right; down by a turn of down to the right; down into the goal, and nothing after it."""
    problem = gridworld(side=3, steps=6)
    steps = [(UP, 0), (RIGHT, 0), (RIGHT, 0), (RIGHT, 1), (UP, 2), (LEFT, 3)]
    x = walk(*[site for step in steps for site in step])
    assert problem.f(x).tolist() == pytest.approx([-0.04, -0.04, -0.04, -0.04, 0.96, 0])
    into_the_pit = walk(DOWN, RIGHT, RIGHT)
    assert gridworld(side=3, steps=3, slip=0.0).f(into_the_pit).tolist() == pytest.approx([-0.04, -1.04, 0])


def test_the_policy_looks_at_the_cell() -> None:
    problem = gridworld(side=2, steps=3)
    theta = torch.arange(16.0, dtype=torch.float64) / 10
    q = problem.bind(theta)
    x = walk(LEFT, 0, DOWN, 0, RIGHT, 0)[None, None]  # stays, goes to cell 2, and on to the goal
    logits = q.params(x)[0, 0].unflatten(0, (3, 2))
    assert torch.equal(logits[:, 0], theta.reshape(4, 4)[[0, 0, 2]])
    assert logits[:, 1].softmax(-1).tolist() == [pytest.approx([0.8, 0.2 / 3, 0.2 / 3, 0.2 / 3])] * 3


def test_a_reward_does_not_depend_on_later_steps() -> None:
    problem = gridworld(side=2, steps=2)
    x = problem.bind(problem.theta).support()
    fx = problem.f(x)
    assert problem.parts is not None
    assert problem.parts.tolist() == [[True, True, False, False], [True] * 4]
    for t, reach in enumerate(problem.parts):
        groups: dict[tuple[float, ...], set[float]] = {}
        for sites, reward in zip(x[:, reach].flatten(1).tolist(), fx[:, t].tolist(), strict=True):
            groups.setdefault(tuple(sites), set()).add(reward)
        assert all(len(rewards) == 1 for rewards in groups.values())


@pytest.mark.parametrize("slip", [0.0, 0.3])
def test_f_is_linear_in_every_site(slip: float) -> None:
    """A uniform policy does not look at the cell: E f(x) = f(E x), off the support; and f knows neither axes nor dtype."""
    problem = gridworld(side=3, steps=5, slip=slip)
    uniform = torch.full((5, 2 if slip else 1, 4), 0.25, dtype=torch.float64)
    if slip:
        uniform[:, 1] = torch.tensor([1 - slip, slip / 3, slip / 3, slip / 3], dtype=torch.float64)
    expected = float(problem.f(uniform.flatten(0, 1)).sum())
    assert expected == pytest.approx(value(problem.theta.tolist(), 3, 5, slip), rel=1e-12)
    noise = torch.rand(
        2, 7, *uniform.flatten(0, 1).shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64
    )
    x = problem.bind(problem.theta).sample(noise)
    assert problem.f(x).shape == (2, 7, 5)
    single = problem.f(x.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), problem.f(x), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(torch.func.vmap(torch.func.vmap(problem.f))(x), problem.f(x), rtol=0, atol=1e-15)


def test_the_best_actions_go_around_the_pit() -> None:
    actions = best_actions(grid_of(3), 0.0).reshape(3, 3).tolist()
    assert actions[0] == [RIGHT, RIGHT, DOWN]
    assert actions[1][2] == DOWN
    assert actions[2][:2] == [RIGHT, RIGHT]
    slippery = best_actions(grid_of(4), 0.2).reshape(4, 4)
    assert int(slippery[1, 1]) != DOWN
    assert int(slippery[2, 0]) != RIGHT
    values = [value(gridworld().points[point].theta.tolist(), 4, 8, 0.2) for point in POINTS]
    assert values[0] < values[1] < values[2]


def test_estimators_of_four_kinds_reach_the_truth() -> None:
    """Scores of the whole return and of rewards to go, sums over actions, and stochastic derivatives: at three points each."""
    for estimator in (rloo(4), actor_critic(), local_expectation(), stochastic_ad()):
        findings = check(estimator, [gridworld(side=2, steps=2)], replicates=4096, level=1e-4)
        assert failures(findings) == []
        assert len({f.point for f in findings}) == 3


@pytest.mark.parametrize(("setting", "value"), [("side", 1), ("steps", 0), ("slip", -0.1), ("slip", 0.75)])
def test_settings_that_make_no_sense_are_refused(setting: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"gridworld\[{setting}={value}\]"):
        gridworld(**{setting: value})  # type: ignore[arg-type]
