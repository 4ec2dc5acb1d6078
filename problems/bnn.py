"""A Bayesian neural network: Normal weights, one draw for all data, a draw for each datum, or none but of what it computes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from problems.base import Point, Problem
from problems.families.base import Family
from problems.families.chain import Chain
from problems.families.normal import Normal
from problems.objectives import Elbo, Expectation
from problems.points import stored_points
from problems.regression import (
    MOST_INPUTS,
    MOST_ROWS,
    expected_log_likelihood,
    friedman,
    initial_weights,
    layers,
    log_likelihood,
)
from problems.settings import at_least, one_of, rows_drawn
from problems.truth import Truth, by_quadrature, exactly, trapezoid

VIEWS, KLS, ACTIVATIONS = ("weights", "per_datum", "activations"), ("closed_form", "sampled"), ("tanh", "relu")
LOG_SIGMA = -2.0
NODES, WIDTH = 160, 9.0
POINTS = {"view": "activations", "kl": "closed_form"}  # of the settings that theta's optimum does not depend on


def bnn(
    hidden: int = 16,
    inputs: int = 8,
    data: int = 128,
    batch: int = 32,
    view: str = "weights",
    kl: str = "closed_form",
    activation: str = "tanh",
) -> Problem:
    """ELBO of a Bayesian neural network for regression, by its weights or by what it computes (local reparameterisation).

    y | x, w ~ N(v.h(W x + b) + c, .3^2), w = (W, b, v, c) ~ N(0, I), q(w) = N(mu, diag sigma^2), theta = (mu, log sigma); h tanh or
    relu; `inputs`-`hidden`-1 units, by default 161 weights; Friedman's function with its useless inputs, `data` rows, of which
    every replicate draws `batch` (0: takes all). One L and one gradient, seen in three ways. view=weights: one draw of w for all
    data of a replicate, whose errors are common to them and do not average out. per_datum: each datum has its own, of which
    `flipout` needs but one. activations: what is drawn are the pre-activations a ~ N(x.M, x^2.V) and then the output, a Chain of
    Normal layers, 17 numbers for each datum instead of 161: the local reparameterisation trick is `pathwise` here.
    At `init` the variance of `pathwise`, over |g|^2, is .67, .06 and .04 in these views of all data (`flipout` .06), to which rows
    of 32 add .4: a better draw than one for each datum gains little, and what is left is the minibatch's.
    kl: in closed form, or (view=weights) sampled with the likelihood, as an ELBO of which all estimators see log q.
    Points: `init`, and `mid` and `converged` of training in the view of activations; they are the same in every view. Exact for
    any size: given x the hidden units are independent and E log p(y | x, w) takes but two moments of each, an integral over a line.
    Kingma, Salimans & Welling 2015, arXiv:1506.02557; Blundell et al. 2015, arXiv:1505.05424; data: Friedman 1991.
    """
    at_least("bnn", 1, hidden=hidden, inputs=inputs, data=data)
    for name, value, most in (("inputs", inputs, MOST_INPUTS), ("data", data, MOST_ROWS)):
        if value > most:
            raise ValueError(f"bnn[{name}={value}]: there are {most}")
    rows_drawn("bnn", batch, data=data)
    one_of("bnn", VIEWS, view=view)
    one_of("bnn", KLS, kl=kl)
    one_of("bnn", ACTIVATIONS, activation=activation)
    if kl == "sampled" and view != "weights":
        raise ValueError(
            f"bnn[kl=sampled,view={view}]: log q of the weights is sampled where one draw of them is for all data"
        )
    rows, act = friedman(data, inputs), {"tanh": torch.tanh, "relu": torch.relu}[activation]

    def log_p(x: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
        """log p(y_i | x_i, w) = log N(y_i; v.h(W x_i + b) + c, .3^2)."""
        w = layers(x, inputs, hidden)
        h = act((w.W @ data[..., :-1, None])[..., 0] + w.b)
        return log_likelihood(data[..., -1], (w.v * h).sum(-1) + w.c)

    def log_joint(x: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
        """log N(y_i; v.h(W x_i + b) + c, .3^2) + 1/N log N(w; 0, I), a datum's share of log p(y, w)."""
        log_prior = (-0.5 * x * x - 0.5 * math.log(2 * math.pi)).sum(-1)
        return log_p(x, data) + log_prior / len(rows)

    def of_output(x: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
        """log N(y_i; a_i, .3^2), a_i the output: the last of the pre-activations."""
        return log_likelihood(data[..., -1], x[..., -1])

    def exact(problem: Problem) -> Truth:
        def gradient(moments: Moments) -> torch.Tensor:
            assert problem.data is not None
            return elbo_gradient(problem.theta, problem.data, inputs, hidden, moments)

        if activation == "relu":
            return exactly(gradient(moments_of_relu))
        return by_quadrature(lambda nodes: gradient(lambda m, s: moments_of_tanh(m, s, nodes)), NODES)

    mu = initial_weights(inputs, hidden)
    init = Point(torch.stack([mu, torch.full_like(mu, LOG_SIGMA)]))
    settings: dict[str, Any] = {
        "hidden": hidden,
        "inputs": inputs,
        "data": data,
        "batch": batch,
        "view": view,
        "kl": kl,
        "activation": activation,
    }
    family: Callable[..., Family] = Normal
    if view == "activations":
        family = Chain(Normal, pre_activations(inputs, hidden, act), [hidden, 1], data=True)
    return Problem(
        name="bnn",
        family=family,
        theta=init.theta,
        f=of_output if view == "activations" else log_p if kl == "closed_form" else log_joint,
        objective=Expectation() if kl == "closed_form" else Elbo(),
        smooth=1 if activation == "relu" and view != "activations" else 2,
        relaxed=True,
        degree=2 if view == "activations" else None,
        data=rows,
        batch=batch,
        shared=view == "weights",
        closed_form=minus_kl if kl == "closed_form" else None,
        exact=exact,
        points=stored_points("bnn", settings | POINTS, init),
        settings=settings,
        source="Kingma, Salimans & Welling 2015, arXiv:1506.02557",
    )


def minus_kl(theta: torch.Tensor) -> torch.Tensor:
    """-KL(q || N(0, I)) = sum_d log sigma_d - 1/2 (mu_d^2 + sigma_d^2 - 1)."""
    mu, log_sigma = theta.unbind(-2)
    return (log_sigma - 0.5 * (mu * mu + (2 * log_sigma).exp() - 1)).sum(-1)


def pre_activations(
    inputs: int, hidden: int, act: Callable[[torch.Tensor], torch.Tensor]
) -> list[Callable[..., torch.Tensor]]:
    """Means and log scales of the hidden units' inputs given the data, and of the output given those."""

    def of_hidden(theta: torch.Tensor, earlier: list[torch.Tensor], data: torch.Tensor) -> torch.Tensor:
        """a ~ N(x.M + m_b, x^2.V + v_b): `[..., 2, H]`."""
        mean, variance = (layers(t, inputs, hidden) for t in (theta[0], (2 * theta[1]).exp()))
        x = data[..., :-1]
        spread = (x * x) @ variance.W.T + variance.b
        return torch.stack([x @ mean.W.T + mean.b, 0.5 * spread.log()], -2)

    def of_output(theta: torch.Tensor, earlier: list[torch.Tensor]) -> torch.Tensor:
        """o ~ N(h(a).m_v + m_c, h(a)^2.v_v + v_c): `[..., 2, 1]`."""
        mean, variance = (layers(t, inputs, hidden) for t in (theta[0], (2 * theta[1]).exp()))
        h = act(earlier[0])
        spread = (h * h) @ variance.v + variance.c
        return torch.stack([h @ mean.v + mean.c, 0.5 * spread.log()], -1)[..., None]

    return [of_hidden, of_output]


Moments = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def elbo_gradient(theta: torch.Tensor, rows: torch.Tensor, inputs: int, hidden: int, moments: Moments) -> torch.Tensor:
    """The gradient of sum_i E log p(y_i | x_i, w) - KL by autograd, `[2 D]`.

    moments: E h(a) and E h(a)^2 of a ~ N(m, s^2). The output o = sum_j v_j h_j + c of independent v_j and h_j has mean
    sum_j E v_j E h_j + E c and variance sum_j E v_j^2 E h_j^2 - (E v_j E h_j)^2 + var c.
    """
    leaf = theta.detach().double().clone().requires_grad_()
    mean, sigma = (layers(t, inputs, hidden) for t in (leaf[0], leaf[1].exp()))
    x, y = rows[:, :-1], rows[:, -1]
    m = x @ mean.W.T + mean.b
    s = ((x**2) @ (sigma.W**2).T + sigma.b**2).sqrt()
    first, second = moments(m, s)
    output = first @ mean.v + mean.c
    variance = second @ (mean.v**2 + sigma.v**2) - first**2 @ mean.v**2 + sigma.c**2
    prior = torch.distributions.Normal(0.0, 1.0)
    kl = torch.distributions.kl_divergence(torch.distributions.Normal(leaf[0], leaf[1].exp()), prior).sum()
    L = expected_log_likelihood(y, output, variance).sum() - kl
    return torch.autograd.grad(L, leaf)[0].reshape(-1)


def moments_of_tanh(m: torch.Tensor, s: torch.Tensor, nodes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """E tanh(a) and E tanh(a)^2, a ~ N(m, s^2), by the trapezoidal rule on +-WIDTH standard deviations."""
    z, weight = trapezoid(1, nodes, WIDTH)
    h = (m[..., None] + s[..., None] * z[:, 0]).tanh()
    return h @ weight, (h * h) @ weight


def moments_of_relu(m: torch.Tensor, s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """E max(a, 0) = m Phi + s phi and E max(a, 0)^2 = (m^2 + s^2) Phi + m s phi at m / s, a ~ N(m, s^2)."""
    Phi, phi = torch.special.ndtr(m / s), (-0.5 * (m / s) ** 2).exp() / math.sqrt(2 * math.pi)
    return m * Phi + s * phi, (m * m + s * s) * Phi + m * s * phi
