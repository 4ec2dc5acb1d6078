"""Gapped straight-through: the published algorithm by autograd, and nothing random given the sample."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.evaluate import Count, ask, gradients, prepare
from estimators.base import claim_of, mismatch
from estimators.gapped_straight_through import gapped_straight_through
from estimators.gumbel_rao import gumbel_rao
from estimators.noise import MEASURE
from problems.base import Problem
from problems.families.bernoulli import Bernoulli
from problems.families.categorical import Categorical

SETTINGS = [(1.0, 1.0, False), (0.6, 0.3, False), (0.8, 1.0, True), (1.0, 0.0, False)]


def published(
    logits: torch.Tensor, point: torch.Tensor, temperature: float, gap: float, adaptive: bool
) -> torch.Tensor:
    """softmax((l + sg(m1 - m2)) / tau) for logits and one-hot points `[D, C]`."""
    l = logits.detach()
    most = l.max(-1, keepdim=True).values
    chosen = point.argmax(-1, keepdim=True)
    pi = l.softmax(-1).gather(-1, chosen)
    width = -(1 - pi).log() / pi if adaptive else gap
    m1 = (most - l.gather(-1, chosen)) * point
    m2 = torch.relu(l - most + width) * (1 - point)
    return ((logits + m1 - m2) / temperature).softmax(-1)


@pytest.mark.parametrize(("temperature", "gap", "adaptive"), SETTINGS)
@pytest.mark.parametrize("name", ["amortised bits elbo", "amortised categories elbo", "amortised bits"])
def test_it_is_the_published_algorithm(
    name: str, temperature: float, gap: float, adaptive: bool, small: Callable[[str], Problem]
) -> None:
    """Encoder and decoder at x + y - sg(y), on the same samples, to rounding; log q's own theta held fixed."""
    problem = small(name)
    assert problem.model is not None
    trial = prepare(gapped_straight_through(temperature, gap, adaptive), problem)
    g = gradients(trial, range(8))
    answers = ask(trial, range(8), None, MEASURE, Count())
    bits = problem.family is Bernoulli
    for r in range(8):
        w, model = problem.theta.clone().requires_grad_(), problem.model.clone().requires_grad_()
        theta = problem.site_parameters(w)
        x = answers.known["x"][0, r]
        logits = torch.stack([theta, torch.zeros_like(theta)], -1) if bits else theta
        y = published(logits, torch.stack([x, 1 - x], -1) if bits else x, temperature, gap, adaptive)
        y = y[..., 0] if bits else y
        at = x + y - y.detach()
        L = problem.value(at, model).sum()
        if problem.objective.ratio:
            L = L - problem.bind(theta.detach()).log_prob(at).sum()
        assert torch.allclose(g[r], torch.cat(torch.autograd.grad(L, [w, model])), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", ["bits", "categories"])
def test_the_sample_comes_first_by_the_gap(name: str, small: Callable[[str], Problem]) -> None:
    """A gap so wide that the soft point is the sample: no gradient; no gap and a fair site: half way."""
    problem = small(name)
    wide = gradients(prepare(gapped_straight_through(0.5, 60.0), problem), range(64))
    assert float(wide.abs().max()) < 1e-40
    fair = replace(problem, theta=torch.zeros_like(problem.theta))
    trial = prepare(gapped_straight_through(1.0, 0.0), fair)
    slope = ask(trial, range(64), None, MEASURE, Count()).known["dfx"][0]
    expected = fair.bind(fair.theta).mean_pull(slope)
    assert torch.allclose(gradients(trial, range(64)), expected.flatten(1))


@pytest.mark.parametrize("name", ["bits", "categories"])
def test_nothing_is_random_given_the_sample(name: str, small: Callable[[str], Problem]) -> None:
    """As many gradients as there are samples; Gumbel-Rao, of the same samples, has more."""
    g, rao = (gradients(prepare(e, small(name)), range(512)) for e in (gapped_straight_through(), gumbel_rao(1.0, 4)))
    assert len(g.unique(dim=0)) <= 9
    assert len(rao.unique(dim=0)) == 512


@pytest.mark.parametrize("name", ["bits", "bits elbo", "categories", "categories elbo"])
def test_it_is_biased(name: str, agreement: Callable[..., Any], small: Callable[[str], Problem]) -> None:
    """16,384 replicates are enough to see it."""
    estimator, problem = gapped_straight_through(), small(name)
    assert claim_of(estimator, problem) == "biased"
    found = agreement(estimator, problem)
    assert found.z > found.allowed
    assert (found.f, found.df) == (1, 1)


@pytest.mark.parametrize("adaptive", [False, True])
def test_a_bit_is_a_category_of_two(adaptive: bool) -> None:
    theta = torch.tensor([0.4, -1.2, 0.0], dtype=torch.float64)
    bits = Problem("bits", Bernoulli, theta, lambda x: (x.sum(-1) - 0.4) ** 3, smooth=2)
    two = torch.stack([theta + 0.3, torch.full_like(theta, 0.3)], -1)
    pairs = replace(bits, family=Categorical, theta=two, f=lambda x: bits.f(x[..., 0]))
    x = bits.bind(theta).support()
    estimator = gapped_straight_through(0.7, 1.0, adaptive)
    of_bits = gradients(prepare(replace(estimator, draw=lambda: x[None]), bits), range(8))
    of_pairs = gradients(prepare(replace(estimator, draw=lambda: torch.stack([x, 1 - x], -1)[None]), pairs), range(8))
    assert torch.allclose(of_bits, of_pairs.unflatten(-1, (3, 2))[..., 0], rtol=1e-12)


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("family", [Bernoulli, Categorical], ids=lambda f: f.name)
def test_logits_of_thirty(family: Any, adaptive: bool) -> None:
    theta = torch.tensor([30.0, -30.0]) if family is Bernoulli else torch.tensor([[30.0, -30.0, -30.0]])
    axes = 1 if family is Bernoulli else 2
    problem = Problem("far", family, theta.double(), lambda x: x.flatten(-axes).square().sum(-1), smooth=2)
    likely, unlikely = theta > 0, theta < 0
    for dtype in ("float64", "float32"):
        for x in (likely, unlikely if family is Bernoulli else torch.tensor([[False, True, False]])):
            estimator = replace(
                gapped_straight_through(0.5, 1.0, adaptive),
                draw=lambda theta, x=x: x.to(theta).expand(1, 4, *theta.shape),
            )
            assert gradients(prepare(estimator, problem, dtype=dtype), range(4)).isfinite().all()


def test_what_does_not_fit_is_refused_in_a_sentence(small: Callable[[str], Problem]) -> None:
    for gap in (-1, math.nan):
        with pytest.raises(ValueError, match=rf"gapped_straight_through\[gap={gap}\]: gap must be at least 0"):
            gapped_straight_through(gap=gap)
    with pytest.raises(ValueError, match=r"gapped_straight_through\[temperature=0\]: the temperature must be positive"):
        gapped_straight_through(0)
    assert mismatch(gapped_straight_through(), small("normals")) == (
        "gapped_straight_through is for bernoulli or categorical variables; normals's are normal"
    )
