"""Rationale extraction by hand, against plain sums over masks, and by autograd of a surrogate through the whole network."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bench.conformance import check, failures
from bench.evaluate import gradients, prepare
from estimators.arms import arms
from estimators.double_cv import double_cv
from estimators.local_expectation import local_expectation
from estimators.noise import MEASURE, addressed
from estimators.reinmax import reinmax
from estimators.score_function import rloo
from problems.base import Problem
from problems.families.base import Noise
from problems.rationale import FEATURES as F
from problems.rationale import OPINIONS, corpus, embeddings, log_partition, rationale
from problems.rationale_large import elbo, exact, gradient, log_cosh, rationale_large
from problems.truth import true_gradient

LIKELIHOODS = ["logistic", "gaussian"]


def log_joint(z: tuple[float, ...], row: list[float], model: list[float], likelihood: str) -> float:
    """log p(y, z | x) of ten readers, length 2 and coherence 1/2, in plain Python; Z by listing the masks."""

    def log_weight(z: tuple[float, ...]) -> float:
        return -2 * sum(z) - 0.5 * sum(abs(b - a) for a, b in itertools.pairwise(z))

    Z = sum(math.exp(log_weight(other)) for other in itertools.product((0.0, 1.0), repeat=len(z)))
    table = embeddings().tolist()
    s = sum(on * sum(u * e for u, e in zip(model, table[int(w)], strict=True)) for on, w in zip(z, row, strict=False))
    y = row[-1]
    if likelihood == "logistic":
        return log_weight(z) - math.log(Z) - 10 * math.log1p(math.exp(-y * s))
    return log_weight(z) - math.log(Z) - 5 * (y - s) ** 2 + 0.5 * math.log(10 / (2 * math.pi))


def gate(row: list[float], i: int, theta: list[float]) -> float:
    """q(z_i = 1 | x, y)."""
    e, y = embeddings()[int(row[i])].tolist(), row[-1]
    logit = sum((theta[k] + y * theta[F + k]) * e[k] for k in range(F)) + theta[-1]
    return 1 / (1 + math.exp(-logit))


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_f_and_the_truth_are_plain_sums_over_masks(likelihood: str, differences: Callable[..., Tensor]) -> None:
    n = 4
    problem = rationale(words=n, sentences=2, likelihood=likelihood)
    assert problem.data is not None
    assert problem.model is not None
    rows, P = problem.data.tolist(), len(problem.theta)
    masks = list(itertools.product((0.0, 1.0), repeat=n))
    x = torch.tensor(masks, dtype=torch.float64)[:, None].expand(-1, 2, -1)
    by_hand = [[log_joint(z, row, problem.model.tolist(), likelihood) for row in rows] for z in masks]
    torch.testing.assert_close(problem.value(x), torch.tensor(by_hand, dtype=torch.float64), rtol=1e-12, atol=0)

    def L(weights: list[float]) -> float:
        total = 0.0
        for row in rows:
            p = [gate(row, i, weights[:P]) for i in range(n)]
            for z in masks:
                q = math.prod(p[i] if z[i] else 1 - p[i] for i in range(n))
                total += q * (log_joint(z, row, weights[P:], likelihood) - math.log(q))
        return total

    truth = true_gradient(problem)
    assert truth is not None
    assert truth.tier == "enumeration"
    wanted = differences(L, torch.cat([problem.theta, problem.model]).tolist())
    torch.testing.assert_close(truth.gradient, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("point", ["init", "mid", "converged"])
def test_what_the_large_one_computes_is_the_enumeration_of_the_small_one(likelihood: str, point: str) -> None:
    problem = rationale(likelihood=likelihood).at(point)
    enumerated, own = true_gradient(problem), exact(problem)
    assert enumerated is not None
    assert own.tier == {"logistic": "quadrature", "gaussian": "closed form"}[likelihood]
    torch.testing.assert_close(own.gradient, enumerated.gradient, rtol=1e-11, atol=1e-10)


def test_mean_log_cosh_is_the_sum_over_the_law_of_s() -> None:
    """40 gates whose scores are multiples of 1/4: the law of s by convolution, in plain Python."""
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(40, generator=generator, dtype=torch.float64)
    steps = torch.randint(-9, 10, (40,), generator=generator)
    law = {0: 1.0}
    for probability, step in zip(p.tolist(), steps.tolist(), strict=True):
        after: dict[int, float] = {}
        for s, mass in law.items():
            after[s] = after.get(s, 0.0) + mass * (1 - probability)
            after[s + step] = after.get(s + step, 0.0) + mass * probability
        law = after
    wanted = sum(mass * math.log(math.cosh(s / 8)) for s, mass in law.items())
    assert float(log_cosh(p[None], steps[None] / 4, 200)) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_the_large_gradient_is_that_of_its_objective(likelihood: str, differences: Callable[..., Tensor]) -> None:
    problem = rationale_large(sentences=3, batch=0, likelihood=likelihood)
    assert problem.model is not None
    at = torch.cat([problem.theta, problem.model])

    def L(weights: list[float]) -> float:
        theta, model = torch.tensor(weights, dtype=torch.float64).split([len(problem.theta), F])
        return float(elbo(problem, theta, model, 400))

    torch.testing.assert_close(gradient(problem, 400), differences(L, at.tolist()), rtol=0, atol=2e-5)


@pytest.mark.parametrize("point", ["init", "mid", "converged"])
def test_estimators_agree_with_the_large_truth(point: str) -> None:
    """RLOO on all sentences and ARMS on drawn ones, along the gradient, |z| < 4.5 each: under 1e-4 in all."""
    for problem, estimator in (
        (replace(rationale_large(), batch=0), rloo(4)),
        (rationale_large(likelihood="gaussian"), arms()),
    ):
        there = problem.at(point)
        truth = true_gradient(there)
        assert truth is not None
        trial = prepare(estimator, there, 5)
        g = torch.cat([gradients(trial, range(a, a + 128)) for a in range(0, 1024, 128)])
        along = g @ (truth.gradient / truth.gradient.norm())
        assert abs(float((along.mean() - truth.gradient.norm()) / along.std())) * 32 < 4.5


@pytest.mark.parametrize("make", [rloo, double_cv, local_expectation, reinmax])
def test_small_ones_pass_the_suite(make: Callable[[], object]) -> None:
    """Scores, a control variate from the gradient, a sum over each gate, and ReinMax, unbiased where f is quadratic."""
    problems = [rationale(4, 3), rationale(4, 3, likelihood="gaussian"), rationale_large(5, 4, 2)]
    found = check(make(), problems, level=1e-4)  # type: ignore[arg-type]
    assert failures(found) == []
    assert sum(f.p == f.p for f in found) == (1 if make is reinmax else 3)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_rloo_is_plain_autograd_of_its_surrogate(likelihood: str) -> None:
    """Through the tagger, with the model's own gradient after it, on the same noise."""
    problem = rationale(likelihood=likelihood)
    assert problem.model is not None
    assert problem.data is not None
    trial = prepare(rloo(2), problem, 3)
    u = addressed(Noise("uniform", (2,), (10,)), trial.key, MEASURE, 0, range(4), range(8), torch.float64)
    words, y = problem.data[:, :-1].long(), problem.data[:, -1:]
    rows = []
    for r in range(4):
        theta, model = problem.theta.clone().requires_grad_(), problem.model.clone().requires_grad_()
        e = embeddings()[words]
        logits = (torch.cat([e, y[..., None] * e], -1) * theta[:-1]).sum(-1) + theta[-1]
        z = (u[:, r] < logits.sigmoid()).double()
        log_q = torch.distributions.Bernoulli(logits=logits).log_prob(z).sum(-1)
        f = problem.f(z, problem.data, model)
        fx = (f - log_q).detach()
        surrogate = ((fx - fx.mean(0)) * log_q).sum() + f.mean(0).sum()
        rows.append(torch.cat(torch.autograd.grad(surrogate, (theta, model))))
    torch.testing.assert_close(gradients(trial, range(4)), torch.stack(rows), rtol=1e-9, atol=1e-9)


def test_the_prior_sums_to_one() -> None:
    """log_partition, by listing."""
    for n, length, coherence in ((2, 0.0, 0.0), (5, 2.0, 0.5), (7, 0.3, 1.7)):
        masks = itertools.product((0, 1), repeat=n)
        each = (-length * sum(z) - coherence * sum(a != b for a, b in itertools.pairwise(z)) for z in masks)
        assert log_partition(n, length, coherence) == pytest.approx(math.log(sum(map(math.exp, each))))


def test_sentences_are_as_stated() -> None:
    """Of 2,000: spans of a quarter of the words hold y's polarity, a tenth of the others are opinions, half of them praise."""
    rows, inside = corpus(12, 2000, 10, "logistic")
    words, y = rows[:, :-1], rows[:, -1:]
    assert torch.equal(inside.sum(1), torch.full((2000,), 3))
    polarity = (words < OPINIONS).double() - ((words >= OPINIONS) & (words < 2 * OPINIONS)).double()
    assert torch.equal(torch.where(inside, polarity, y), y.expand(-1, 12))
    stray = (polarity != 0)[~inside].double()
    assert abs(float(stray.mean()) - 0.1) < 5 * math.sqrt(0.09 / len(stray))
    assert abs(float(polarity[~inside].sum())) < 5 * math.sqrt(float(stray.sum()))
    assert abs(float(y.sum())) < 5 * math.sqrt(2000)
    rated = corpus(12, 2000, 10, "gaussian")[0]
    assert torch.equal(rated[:, :-1], words)
    off = rated[:, -1:] - 2 * y
    assert abs(float(off.mean())) < 5 * math.sqrt(0.1 / 2000)
    assert abs(float(off.square().mean()) - 0.1) < 5 * 0.1 * math.sqrt(2 / 2000)


@pytest.mark.parametrize("make", [rationale, rationale_large])
def test_certain_gates_give_numbers(make: Callable[..., Problem]) -> None:
    """Tagger weights that make logits of +-30 and more, and a model whose scores are as large."""
    problem = make(sentences=5)
    assert problem.model is not None
    far = replace(problem, theta=60 * problem.theta, model=60 * problem.model)
    truth = true_gradient(far)
    assert truth is not None
    assert truth.gradient.isfinite().all()
    for dtype in ("float64", "float32"):
        assert gradients(prepare(rloo(2), far, 0, "", dtype), range(64)).isfinite().all()


@pytest.mark.parametrize(
    ("make", "settings", "sentence"),
    [
        (rationale, {"words": 1}, r"rationale\[words=1\]: words must be at least 2"),
        (
            rationale,
            {"words": 13},
            r"rationale\[words=13\]: the truth sums over every mask, .* rationale_large takes more",
        ),
        (rationale, {"sentences": 0}, r"rationale\[sentences=0\]: sentences must be at least 1"),
        (rationale, {"readers": 0}, r"rationale\[readers=0\]: readers must be at least 1"),
        (rationale, {"length": -1.0}, r"rationale\[length=-1.0\]: length must be at least 0"),
        (rationale, {"length": math.inf}, r"rationale\[length=inf\]: length must be finite"),
        (rationale, {"coherence": math.inf}, r"rationale\[coherence=inf\]: coherence must be finite"),
        (rationale, {"likelihood": "beta"}, r"rationale\[likelihood=beta\]: likelihood is logistic or gaussian"),
        (rationale_large, {"batch": 21}, r"rationale_large\[batch=21\]: batch is 0 \(all\) .* up to sentences=20"),
        (rationale_large, {"sentences": 0}, r"rationale_large\[sentences=0\]: sentences must be at least 1"),
        (rationale_large, {"coherence": -0.1}, r"rationale_large\[coherence=-0.1\]: coherence must be at least 0"),
    ],
)
def test_settings_it_cannot_take(make: Callable[..., Problem], settings: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        make(**settings)
