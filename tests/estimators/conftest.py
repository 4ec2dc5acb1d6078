"""What the tests of estimators share: small problems with an exact gradient, and `agreement` of an estimator with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist

import pytest
import torch
from torch import Tensor

from bench.evaluate import Count, gradients, learn, prepare
from bench.measure import pinned
from estimators.base import Estimator
from problems.base import Problem
from problems.families.bernoulli import Bernoulli
from problems.families.categorical import Categorical
from problems.families.chain import Chain
from problems.families.gamma import Gamma
from problems.families.normal import Normal
from problems.families.poisson import Poisson
from problems.objectives import Elbo, Expectation, Objective
from problems.truth import by_quadrature, gauss_hermite, true_gradient

ERROR_RATE = 1e-5


@dataclass(frozen=True, eq=False)
class Agreement:
    """The gradients `[R, P]` of an estimator beside the exact gradient `[P]`, and what they cost: evaluations per replicate."""

    gradients: Tensor
    truth: Tensor
    f: float
    df: float
    hf: float
    learning: Count
    state: dict[str, Tensor] | None

    @property
    def mean(self) -> Tensor:
        return self.gradients.mean(0)

    @property
    def variance(self) -> Tensor:
        """Of each coordinate."""
        return self.gradients.var(0)

    @property
    def variance_se(self) -> Tensor:
        """Standard error of each coordinate's variance, from its fourth moment."""
        return (self.gradients - self.mean).square().std(0) / math.sqrt(len(self.gradients))

    @property
    def total_variance(self) -> float:
        return float(self.variance.sum())

    @property
    def total_variance_se(self) -> float:
        return float((self.gradients - self.mean).square().sum(1).std()) / math.sqrt(len(self.gradients))

    @property
    def z(self) -> float:
        """Largest |mean - truth| in standard errors; rounding (1e-12 of the gradient's size) counts as one."""
        rounding = 1e-12 * float(self.gradients.abs().max().clamp(min=self.truth.abs().max()))
        se = self.gradients.std(0) / math.sqrt(len(self.gradients))
        return float(((self.mean - self.truth).abs() / se.clamp(min=max(rounding, 1e-300))).max())

    @property
    def allowed(self) -> float:
        """What z passes with probability at most ERROR_RATE where there is no bias: Bonferroni over the coordinates."""
        return NormalDist().inv_cdf(1 - ERROR_RATE / (2 * self.truth.numel()))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors are slower on several threads than on one."""
    with pinned(1):
        yield


@pytest.fixture(scope="session")
def agreement() -> Callable[..., Agreement]:
    """`agreement(estimator, problem, replicates=16384, seed=0)`: an estimator without bias has `z < allowed`."""

    def measure(estimator: Estimator, problem: Problem, replicates: int = 16_384, seed: int = 0) -> Agreement:
        trial, count, chunk = prepare(estimator, problem, seed), Count(), 4096
        state, learning = learn(trial)
        starts = range(0, replicates, chunk)
        g = torch.cat([gradients(trial, range(a, min(a + chunk, replicates)), state, count=count) for a in starts])
        truth = true_gradient(problem)
        assert truth is not None
        assert g.isfinite().all()
        each = [n / replicates for n in (count.f, count.gradient, count.hessian)]
        return Agreement(g, truth.gradient, *each, learning, state)

    return measure


@pytest.fixture(scope="session")
def small() -> Callable[[str], Problem]:
    """`small(name)`: a problem of a few variables with an exact gradient; its name says what it is made of (see SMALL)."""

    def find(name: str) -> Problem:
        return SMALL[name]()

    return find


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def numbers(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bits(objective: Objective) -> Problem:
    """A cubic of three bits."""

    def f(x: Tensor) -> Tensor:
        return (x @ tensor(1.0, -0.7, 0.5).to(x) - 0.4) ** 3 + 0.8 * x[..., 0] * x[..., 1] - x[..., 1] * x[..., 2] + 0.3

    return Problem("bits", Bernoulli, tensor(-0.8, 0.3, 1.1), f, objective, smooth=2, relaxed=True)


def categories(objective: Objective) -> Problem:
    """A cubic of two variables of three categories."""
    A = numbers(3, 6, 2)

    def f(x: Tensor) -> Tensor:
        y, z = (x.flatten(-2) @ A.to(x)).unbind(-1)
        return 0.5 * y**3 + z * z - y * z + 0.7

    theta = torch.stack([tensor(0.3, -0.5, 0.8), tensor(-0.2, 1.0, 0.1)])
    return Problem("categories", Categorical, theta, f, objective, smooth=2, relaxed=True)


def normals(objective: Objective) -> Problem:
    """A smooth function of two Normal variables that is no polynomial; exact gradient by Gauss-Hermite quadrature."""

    def f(x: Tensor) -> Tensor:
        y, z = x.unbind(-1)
        return (y - 0.5 * z).sin() + 0.3 * y * z - 0.4 * z * z - 0.2 * y * y + 0.5 * z

    def exact(problem: Problem) -> Tensor:
        def gradient(nodes: int) -> Tensor:
            eps, weight = gauss_hermite(2, nodes)
            theta = problem.theta.clone().requires_grad_()
            L = (weight * f(theta[0] + theta[1].exp() * eps)).sum()
            if objective.ratio:
                L = L + theta[1].sum()
            return torch.autograd.grad(L, theta)[0]

        return by_quadrature(gradient, 30)

    theta = torch.stack([tensor(0.3, -0.6), tensor(-0.2, 0.1)])
    return Problem("normals", Normal, theta, f, objective, smooth=2, relaxed=True, exact=exact)


def counts(objective: Objective) -> Problem:
    """A smooth function of two Poisson variables; exact gradient by enumeration of the first 50 values of each."""

    def f(x: Tensor) -> Tensor:
        y, z = x.unbind(-1)
        return (1 + y + 2 * z).sqrt() - 0.2 * (y - z) ** 2

    def exact(problem: Problem) -> Tensor:
        x = torch.cartesian_prod(*[torch.arange(50.0, dtype=torch.float64)] * 2)
        theta = problem.theta.clone().requires_grad_()
        log_q = torch.distributions.Poisson(theta.exp()).log_prob(x).sum(-1)
        fx = f(x) - log_q if objective.ratio else f(x)
        return torch.autograd.grad((log_q.exp() * fx).sum(), theta)[0]

    return Problem("counts", Poisson, tensor(-0.3, 0.7), f, objective, smooth=2, relaxed=True, exact=exact)


def gammas(objective: Objective) -> Problem:
    """E [log x0 + x0 x1 + x1^2 / 10] of two Gamma variables, in closed form, and their entropy."""

    def f(x: Tensor) -> Tensor:
        return x[..., 0].log() + x[..., 0] * x[..., 1] + 0.1 * x[..., 1] ** 2

    def exact(problem: Problem) -> Tensor:
        theta = problem.theta.clone().requires_grad_()
        a, b = theta.exp()
        L = torch.digamma(a[0]) - b[0].log() + (a / b).prod() + 0.1 * (a[1] + a[1] ** 2) / b[1] ** 2
        if objective.ratio:
            L = L + torch.distributions.Gamma(a, b).entropy().sum()
        return torch.autograd.grad(L, theta)[0]

    theta = torch.stack([tensor(0.2, -0.4), tensor(0.3, 0.5)])
    return Problem("gammas", Gamma, theta, f, objective, smooth=2, exact=exact)


DATA = torch.stack([tensor(0.9, -0.4), tensor(-1.1, 0.2), tensor(0.3, 1.3)])


def decoded(x: Tensor, data: Tensor, model: Tensor) -> Tensor:
    """log p(data, x) of a linear decoder, up to a constant; x: [..., D], model: [2 D]."""
    return -0.5 * (x @ model.reshape(-1, 2) - data).square().sum(-1) + 0.3 * x.prod(-1)


def amortised_bits(objective: Objective) -> Problem:
    """Two bits for each of three data, whose logits an encoder of weights theta gives; the decoder is a model."""
    return Problem(
        "amortised bits",
        Bernoulli,
        numbers(5, 4),
        lambda x, data, model: decoded(x, data, model),
        objective,
        smooth=2,
        relaxed=True,
        encode=lambda w, data: data @ w.reshape(2, 2),
        model=numbers(6, 4),
        data=DATA,
    )


def amortised_categories(objective: Objective) -> Problem:
    """Two variables of three categories for each of three data, encoder and decoder."""
    return Problem(
        "amortised categories",
        Categorical,
        numbers(7, 12),
        lambda x, data, model: decoded(x.flatten(-2), data, model),
        objective,
        smooth=2,
        relaxed=True,
        encode=lambda w, data: (data @ w.reshape(2, 6)).unflatten(-1, (2, 3)),
        model=numbers(8, 12),
        data=DATA,
    )


def amortised_normals(objective: Objective) -> Problem:
    """Two Normal variables for each of three data, encoder and decoder; exact gradient by Gauss-Hermite quadrature."""

    def f(x: Tensor, data: Tensor, model: Tensor) -> Tensor:
        return decoded(x, data, model) - 0.5 * x.square().sum(-1) + x[..., 0].sin()

    def encode(w: Tensor, data: Tensor) -> Tensor:
        return 0.5 * (data @ w.reshape(2, 4)).unflatten(-1, (2, 2))

    def exact(problem: Problem) -> Tensor:
        def gradient(nodes: int) -> Tensor:
            eps, weight = gauss_hermite(2, nodes)
            w, model = (t.clone().requires_grad_() for t in (problem.theta, problem.model))
            mu, log_sigma = encode(w, DATA).unbind(-2)
            fx = f(mu + log_sigma.exp() * eps[:, None], DATA, model)
            L = (weight[:, None] * fx).sum() + (log_sigma.sum() if objective.ratio else 0)
            return torch.cat(torch.autograd.grad(L, (w, model)))

        return by_quadrature(gradient, 30)

    return Problem(
        "amortised normals",
        Normal,
        numbers(9, 8),
        f,
        objective,
        smooth=2,
        relaxed=True,
        encode=encode,
        model=numbers(10, 4),
        data=DATA,
        exact=exact,
    )


def amortised_gammas(objective: Objective) -> Problem:
    """Two Gamma variables for each of three data, encoder and model; in closed form, with their entropy."""

    def f(x: Tensor, data: Tensor, model: Tensor) -> Tensor:
        y, z = x.unbind(-1)
        return model[0] * data[..., 0] * y.log() + model[1] * y * z + data[..., 1] * z - 0.1 * z * z

    def encode(w: Tensor, data: Tensor) -> Tensor:
        return 0.3 * (data @ w.reshape(2, 4)).unflatten(-1, (2, 2))

    def exact(problem: Problem) -> Tensor:
        w, model = (t.clone().requires_grad_() for t in (problem.theta, problem.model))
        a, b = encode(w, DATA).exp().unbind(-2)
        y, z = (a / b).unbind(-1)
        log_y = torch.digamma(a[:, 0]) - b[:, 0].log()
        L = model[0] * DATA[:, 0] * log_y + model[1] * y * z + DATA[:, 1] * z - 0.1 * (z * z + z / b[:, 1])
        L = L.sum() + (torch.distributions.Gamma(a, b).entropy().sum() if objective.ratio else 0)
        return torch.cat(torch.autograd.grad(L, (w, model)))

    return Problem(
        "amortised gammas",
        Gamma,
        numbers(15, 8),
        f,
        objective,
        smooth=2,
        encode=encode,
        model=tensor(0.8, -0.5),
        data=DATA,
        exact=exact,
    )


def amortised_counts(objective: Objective) -> Problem:
    """One Poisson variable for each of three data, encoder and model; exact gradient by enumeration of the first 60 values."""

    def f(x: Tensor, data: Tensor, model: Tensor) -> Tensor:
        y = x[..., 0]
        return (1 + y).log() * (data @ model) - 0.1 * y * y

    def exact(problem: Problem) -> Tensor:
        x = torch.arange(60.0, dtype=torch.float64)[:, None, None]
        w, model = (t.clone().requires_grad_() for t in (problem.theta, problem.model))
        log_q = torch.distributions.Poisson((DATA @ w.reshape(2, 1)).exp()).log_prob(x).sum(-1)
        fx = f(x, DATA, model)
        L = (log_q.exp() * (fx - log_q if objective.ratio else fx)).sum()
        return torch.cat(torch.autograd.grad(L, (w, model)))

    return Problem(
        "amortised counts",
        Poisson,
        tensor(0.7, 0.4),
        f,
        objective,
        smooth=2,
        relaxed=True,
        encode=lambda w, data: data @ w.reshape(2, 1),
        model=tensor(0.8, -0.5),
        data=DATA,
        exact=exact,
    )


def layers(objective: Objective) -> Problem:
    """Two layers of two bits for each of three data, and a decoder."""
    family = Chain(
        Bernoulli,
        [
            lambda w, earlier, data: data @ w[:4].reshape(2, 2),
            lambda w, earlier: earlier[0] @ w[4:8].reshape(2, 2) + w[8:10],
        ],
        [2, 2],
        data=True,
    )
    return Problem(
        "layers",
        family,
        numbers(11, 10),
        lambda x, data, model: decoded(x, data, model) + x[..., 0] * x[..., 3],
        objective,
        smooth=2,
        relaxed=True,
        model=numbers(12, 8),
        data=DATA,
    )


def layers_of_categories(objective: Objective) -> Problem:
    """Two layers of one variable of three categories, without data."""
    A = numbers(13, 6, 2)
    family = Chain(
        Categorical,
        [lambda w, earlier: w[:3].reshape(1, 3), lambda w, earlier: earlier[0] @ w[3:12].reshape(3, 3)],
        [1, 1],
        categories=3,
    )

    def f(x: Tensor) -> Tensor:
        y, z = (x.flatten(-2) @ A.to(x)).unbind(-1)
        return y**3 - y * z + 0.5 * z

    return Problem("layers of categories", family, numbers(14, 12), f, objective, smooth=2, relaxed=True)


_MADE = (
    bits,
    categories,
    normals,
    counts,
    gammas,
    amortised_bits,
    amortised_categories,
    amortised_normals,
    amortised_counts,
    amortised_gammas,
    layers,
    layers_of_categories,
)
_OBJECTIVES = {"": Expectation, " elbo": Elbo}
SMALL: dict[str, Callable[[], Problem]] = {
    make.__name__.replace("_", " ") + suffix: (lambda make=make, objective=objective: make(objective()))
    for make in _MADE
    for suffix, objective in _OBJECTIVES.items()
}
