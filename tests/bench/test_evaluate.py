"""The only caller of f: it counts, it refuses what breaks the contract in a sentence, and a replicate is a replicate."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.evaluate import Count, MemberError, Mismatch, ask, gradients, learn, prepare
from estimators.base import Ask, Estimator, Learning, Noise, mismatch
from estimators.disarm import disarm
from estimators.noise import MEASURE
from estimators.score_function import reinforce, rloo
from problems.base import Problem
from problems.bernoulli_toy import bernoulli_toy
from problems.calling import UnknownName
from problems.families.bernoulli import Bernoulli
from problems.families.chain import Chain
from problems.families.normal import Normal
from problems.objectives import Elbo, ImportanceWeighted, LogMarginal, Objective, Renyi

A = torch.tensor([[1.0, 0.5, -0.3], [0.2, -1.0, 0.7], [0.4, 0.1, 0.6]], dtype=torch.float64)
ROWS = torch.linspace(-1, 1, 15, dtype=torch.float64).reshape(5, 3)
WEIGHTS = torch.linspace(-1, 1, 12, dtype=torch.float64)


def bits() -> Problem:
    theta = torch.tensor([0.3, -0.8, 1.2], dtype=torch.float64)
    return Problem("bits", Bernoulli, theta, lambda x: (x @ A.to(x) * x).sum(-1), smooth=2, relaxed=True)


def amortised(batch: int = 0) -> Problem:
    """Four bits for each of five data, an encoder of 12 weights, a model of 12."""

    def f(x: torch.Tensor, data: torch.Tensor, model: torch.Tensor) -> torch.Tensor:
        return -(x @ model.reshape(4, 3) - data).square().sum(-1)

    def encode(theta: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
        return data @ theta.reshape(3, 4)

    return Problem(
        "amortised", Bernoulli, WEIGHTS, f, Elbo(), encode=encode, model=WEIGHTS.flip(0), data=ROWS, batch=batch
    )


def layered() -> Problem:
    encoders = [
        lambda theta, earlier, data: data @ theta[:12].reshape(3, 4),
        lambda theta, earlier: earlier[0] @ theta[12:20].reshape(4, 2),
    ]

    def f(x: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
        return (x[..., :4].sum(-1) - data.sum(-1)) ** 2 + x[..., 4] * x[..., 5]

    family = Chain(Bernoulli, encoders, [4, 2], data=True)
    return Problem("layered", family, torch.linspace(-1, 1, 20, dtype=torch.float64), f, Elbo(), data=ROWS)


def points(asked: list[Ask], **changes: object) -> Estimator:
    """An estimator that asks this, at samples, and returns zeros."""

    def combine(theta: torch.Tensor, fx: torch.Tensor) -> torch.Tensor:
        return torch.zeros(*fx.shape[1:], *theta.shape[-1:], dtype=fx.dtype)

    return replace(Estimator("asks", asked, lambda q, noise: q.sample(noise), combine), **changes)


def test_evaluations_are_counted_by_kind() -> None:
    asked = [Ask.SAMPLE, Ask.VALUE | Ask.GRADIENT, Ask.SAMPLE | Ask.GRADIENT | Ask.HESSIAN]
    trial, count = prepare(points(asked), bits()), Count()
    found = ask(trial, range(10), None, MEASURE, count).known
    assert (count.f, count.gradient, count.hessian) == (30, 20, 10)
    x, fx, dfx, hfx = (found[n] for n in ("x", "fx", "dfx", "hfx"))
    assert torch.allclose(fx, bits().f(x))
    assert dfx[0].isnan().all()
    assert torch.allclose(dfx[1:], x[1:] @ (A + A.T))
    assert hfx[:2].isnan().all()
    assert torch.allclose(hfx[2], (A + A.T).expand(10, 3, 3))


def test_points_of_nan_are_neither_evaluated_nor_counted() -> None:
    def draw(q: Bernoulli, noise: torch.Tensor) -> torch.Tensor:
        x = q.sample(noise)
        x[1, ::2] = torch.nan
        return x

    trial, count = prepare(replace(points([Ask.SAMPLE] * 2), draw=draw), bits()), Count()
    fx = ask(trial, range(10), None, MEASURE, count).known["fx"]
    assert count.f == 15
    assert fx[1, ::2].isnan().all()
    assert fx[0].isfinite().all()


def test_of_points_of_nan_no_addend_is_known() -> None:
    """As many addends as replicates, which must not be taken for each other."""

    def draw(q, noise):  # type: ignore[no-untyped-def]
        x = q.sample(noise)
        x[1, 0] = torch.nan
        return x

    estimator = Estimator("e", [Ask.SAMPLE | Ask.PARTS, Ask.VALUE | Ask.PARTS], draw, lambda theta: theta)
    problem = replace(bernoulli_toy(dim=3), f=lambda x: x, parts=torch.eye(3, dtype=torch.bool))
    fx = ask(prepare(estimator, problem), range(3), None, MEASURE, Count()).known["fx"]
    assert fx.isnan().tolist() == [[[False] * 3] * 3, [[True] * 3, [False] * 3, [False] * 3]]


@pytest.mark.parametrize(
    "problem", [bits(), amortised(), amortised(batch=2), layered()], ids=lambda p: f"{p.name}{p.batch}"
)
@pytest.mark.parametrize("estimator", [rloo(3), reinforce(2)], ids=lambda e: e.name)
def test_a_replicate_is_the_same_in_any_range(problem: Problem, estimator: Estimator) -> None:
    trial = prepare(estimator, problem, seed=3)
    whole = gradients(trial, range(64))
    assert whole.shape == (64, problem.dim)
    assert torch.equal(whole, gradients(trial, range(64)))
    assert torch.allclose(whole[16:32], gradients(trial, range(16, 32)), rtol=1e-12, atol=1e-14)


def test_estimators_share_the_noise_of_a_problem_and_not_of_its_points() -> None:
    first = ask(prepare(reinforce(2), bits(), 0, "init"), range(32), None, MEASURE, Count()).known["x"]
    second = ask(prepare(rloo(2), bits(), 0, "init"), range(32), None, MEASURE, Count()).known["x"]
    elsewhere = ask(prepare(rloo(2), bits(), 0, "mid"), range(32), None, MEASURE, Count()).known["x"]
    assert torch.equal(first, second)
    assert not torch.equal(first, elsewhere)


def test_amortised_gradients_are_those_of_plain_autograd() -> None:
    """Pathwise through encoder and model on the same noise, to rounding."""

    def f(x: torch.Tensor, data: torch.Tensor, model: torch.Tensor) -> torch.Tensor:
        return -(x @ model.reshape(2, 3) - data).square().sum(-1) - 0.5 * x.square().sum(-1)

    def encode(theta: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
        return (data @ theta.reshape(3, 4)).unflatten(-1, (2, 2))

    model = torch.linspace(-1, 1, 6, dtype=torch.float64)
    problem = Problem("vae", Normal, 0.1 * WEIGHTS, f, Elbo(), smooth=2, encode=encode, model=model, data=ROWS)
    total = Estimator(
        "total",
        [Ask.SAMPLE | Ask.GRADIENT] * 2,
        lambda q, noise: q.sample(noise),
        lambda q, x, dfx, fx: q.path(x, dfx / 2) - q.score(x, torch.ones_like(fx) / 2),
    )
    trial = prepare(total, problem)
    g = gradients(trial, range(4))
    noise = ask(trial, range(4), None, MEASURE, Count()).known["noise"]
    for r in range(4):
        w, m = (0.1 * WEIGHTS).requires_grad_(), model.clone().requires_grad_()
        q = Normal(encode(w, ROWS))
        z = q.sample(noise[:, r])
        objective = (f(z, ROWS, m) - q.log_prob(z)).mean(0).sum()
        plain = torch.cat(torch.autograd.grad(objective, [w, m]))
        assert torch.allclose(g[r], plain, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("objective", [ImportanceWeighted(1), Renyi(2.0, 1)], ids=lambda o: o.name)
def test_several_draws_of_a_bound_of_one_sample_are_draws_of_the_elbo(objective: Objective) -> None:
    """The model's gradient is the mean of theirs, and not that of the bound of them all."""
    estimator = replace(rloo(3), claims=dict.fromkeys(["Elbo", objective.name], "unbiased"))
    found, elbo = (
        gradients(prepare(estimator, replace(amortised(), objective=o)), range(16)) for o in (objective, Elbo())
    )
    assert torch.allclose(found, elbo, rtol=1e-12, atol=1e-13)


def test_the_log_evidence_moves_the_model_by_the_log_of_the_mean_of_all_samples() -> None:
    estimator, problem = (
        replace(rloo(3), claims={"LogMarginal": "consistent"}),
        replace(amortised(), objective=LogMarginal()),
    )
    trial = prepare(estimator, problem)
    known = ask(trial, range(4), None, MEASURE, Count()).known
    model = WEIGHTS.flip(0).requires_grad_()
    log_w = problem.value(known["x"], model, ROWS) - known["q"].log_prob(known["x"])
    L = log_w.logsumexp(0).sum(-1)
    plain = torch.stack([torch.autograd.grad(of_replicate, model, retain_graph=True)[0] for of_replicate in L])
    assert torch.allclose(gradients(trial, range(4))[:, 12:], plain, rtol=1e-12, atol=1e-13)


def test_minibatches_are_scaled_to_the_whole() -> None:
    """The mean over rows drawn is the full-batch gradient: within 5 standard errors, over 24 coordinates."""
    full = gradients(prepare(rloo(4), amortised()), range(4096))
    part = gradients(prepare(rloo(4), amortised(batch=2)), range(16384))
    se = (full.var(0) / len(full) + part.var(0) / len(part)).sqrt()
    assert float(((full.mean(0) - part.mean(0)) / se).abs().max()) < 5


def test_learning_is_repeatable_counted_and_does_not_touch_the_measured_stream() -> None:
    def learn_mean(state: dict[str, torch.Tensor], fx: torch.Tensor, step: int) -> dict[str, torch.Tensor]:
        return {"b": state["b"] + (fx.mean() - state["b"]) / (step + 1)}

    learning = Learning(lambda: {"b": torch.tensor(0.0)}, learn_mean, steps=50, batch=20)
    estimator = replace(
        reinforce(1),
        learning=learning,
        combine=lambda q, x, fx, state: q.score(x, fx - state["b"]),
        name="with a baseline",
    )
    trial = prepare(estimator, bits())
    (state, count), (again, _) = learn(trial), learn(trial)
    assert count.f == 1000
    assert state is not None
    assert again is not None
    assert torch.equal(state["b"], again["b"])
    measured = ask(trial, range(1000), state, MEASURE, Count()).known["fx"].mean()
    assert float(state["b"]) == pytest.approx(float(measured), abs=0.2)
    assert float(state["b"]) != float(measured)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"draw": lambda q, noise: q.sample(noise)[:1]}, r"draw gave x of shape \(1, 8, 3\); \(2, 8, 3\) was declared"),
        ({"combine": lambda fx: fx.mean(0)}, r"combine gave shape \(8,\); \(8, 3\) was expected"),
        ({"combine": lambda fx: 0.0}, "combine gave shape float"),
        ({"draw": lambda q, u: q.sample(u)}, "asks for 'u'; there are: theta, q, size, objective, share, noise"),
    ],
)
def test_a_broken_contract_is_one_sentence(changes: dict[str, object], sentence: str) -> None:
    trial = prepare(points([Ask.SAMPLE] * 2, **changes), bits())
    with pytest.raises((MemberError, UnknownName), match=sentence):
        gradients(trial, range(8))


def test_f_of_the_wrong_shape_is_named() -> None:
    with pytest.raises(MemberError, match=r"bits: f gave shape \(2, 8, 3\)"):
        gradients(prepare(rloo(2), replace(bits(), f=lambda x: x)), range(8))


@pytest.mark.parametrize(
    ("estimator", "problem", "sentence"),
    [
        (
            disarm(),
            replace(bits(), family=Normal, theta=torch.zeros(2, 3)),
            "disarm is for bernoulli variables; bits's are normal",
        ),
        (
            rloo(2),
            replace(bits(), objective=ImportanceWeighted(2)),
            "gradient of Expectation or Elbo; bits's objective is Importance",
        ),
        (points([Ask.GRADIENT]), replace(bits(), smooth=0), "asks needs 1 derivative of f; bits offers none"),
        (points([Ask.HESSIAN]), replace(bits(), smooth=1), "asks needs 2 derivatives of f; bits offers 1"),
        (points([Ask.RELAXED]), replace(bits(), relaxed=False), "evaluates f off its support"),
        (points([Ask.PARTS]), bits(), "needs the addends of f; bits gives only their sum"),
        (points([Ask.VALUE]), amortised(), "draws no sample of q, so that amortised's model would get no gradient"),
        (points([Ask.VALUE], states=4), bits(), "enumerates the support, at most 4 states; bits has 8 states"),
        (
            points([Ask.SAMPLE] * 3, claims={"ImportanceWeighted": "unbiased"}),
            replace(bits(), objective=ImportanceWeighted(2)),
            "draws 3 samples; bits's bound takes 2",
        ),
    ],
)
def test_mismatch_says_why(estimator: Estimator, problem: Problem, sentence: str) -> None:
    why = mismatch(estimator, problem)
    assert why is not None
    assert sentence in why
    with pytest.raises(Mismatch):
        prepare(estimator, problem)


def test_learning_that_moves_gradient_points_needs_second_derivatives() -> None:
    def learn_gradient(state: dict[str, torch.Tensor], gradient: torch.Tensor) -> dict[str, torch.Tensor]:
        return dict(state)

    moving = points(
        [Ask.RELAXED | Ask.GRADIENT],
        draw=lambda theta, noise, state: (theta + noise.logit()).sigmoid() * state["a"],
        learning=Learning(lambda: {"a": torch.tensor(1.0)}, learn_gradient, steps=3),
        noise=[Noise("uniform", (1,))],
    )
    why = mismatch(moving, replace(bits(), smooth=1))
    assert why is not None
    assert "2 derivatives" in why
    assert mismatch(moving, bits()) is None


def test_float32_is_measured_in_float32() -> None:
    assert gradients(prepare(rloo(2), bits(), dtype="float32"), range(8)).dtype == torch.float32
    assert gradients(prepare(rloo(2), bernoulli_toy()), range(8)).dtype == torch.float64
