"""Variational dropout with a keep probability for each unit, learned with the network."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import softplus

from problems.base import Point, Problem
from problems.families.bernoulli import Bernoulli
from problems.objectives import Expectation
from problems.points import stored_points
from problems.regression import (
    MOST_ROWS,
    Layers,
    expected_log_likelihood,
    friedman,
    initial_weights,
    layers,
    log_likelihood,
)
from problems.settings import at_least, rows_drawn
from problems.truth import Truth, exactly

MOST_INPUTS = 10
INITIAL_LOGIT = 1.0


def dropout_bnn(hidden: int = 16, inputs: int = 8, data: int = 128, batch: int = 32) -> Problem:
    """ELBO of a regression network under dropout whose keep probabilities are learned: a mask of bits for each datum.

    y | x, z ~ N(v.(z_h * tanh(W (z_x * x) + b)) + c, .3^2), masks z = (z_x, z_h) of `inputs` and `hidden` units, 24 by default,
    drawn anew for each datum with the same probabilities, z ~ Bernoulli(sigmoid theta); w = (W, b, v, c) is the model. Masks and
    weights together are the variational distribution of z * w, under a N(0, I) prior:
    L = sum_i E log p(y_i | x_i, z) - 1/2 (sum_d p_d |w_d|^2 + |b|^2 + c^2) + sum_d H(p_d), w_d the weights that leave unit d, p_d
    its keep probability; the entropies H in closed form. `data` rows, of which every replicate draws `batch` (0: takes all). Every
    datum says a little about every logit, so that the gradient is a small sum of many noisy terms, whose noise grows with the
    weights. Coupled and baselined score functions (ARM was tried on this) meet relaxed masks, which are biased (`gumbel_softmax`
    is concrete dropout): at `mid` the variance in theta, over |g|^2, is .4 of local expectations, 3 of ARMS, 9 of DisARM and 10 of
    ARM, and .2 of the relaxed, whose squared bias is another .25. Three of the eight inputs are of no use: they end with keep
    probabilities of .87 to .98, the others above .99. Points: `init`, and `mid` and `converged` of training. Exact for any number
    of hidden units and few inputs: given the mask of its inputs, the output is a sum of independent terms.
    Gal, Hron & Kendall 2017, arXiv:1705.07832; Boluki et al. 2020, arXiv:2002.05155; data: Friedman 1991.
    """
    at_least("dropout_bnn", 1, hidden=hidden, inputs=inputs, data=data)
    if inputs > MOST_INPUTS:
        raise ValueError(
            f"dropout_bnn[inputs={inputs}]: the exact gradient sums over their masks, of {MOST_INPUTS} at most"
        )
    if data > MOST_ROWS:
        raise ValueError(f"dropout_bnn[data={data}]: there are {MOST_ROWS}")
    rows_drawn("dropout_bnn", batch, data=data)
    rows = friedman(data, inputs)

    def f(x: torch.Tensor, data: torch.Tensor, model: torch.Tensor) -> torch.Tensor:
        """log N(y_i; v.(z_h * tanh(W (z_x * x_i) + b)) + c, .3^2) - 1/(2 N) (sum_d z_d |w_d|^2 + |b|^2 + c^2)."""
        of_inputs, of_hidden = x.split([inputs, hidden], -1)
        w = layers(model, inputs, hidden)
        h = ((of_inputs * data[..., :-1]) @ w.W.T + w.b).tanh()
        output = (of_hidden * h) @ w.v + w.c
        return log_likelihood(data[..., -1], output) + log_prior(x, w) / len(rows)

    def exact(problem: Problem) -> Truth:
        return exactly(elbo_gradient(problem, inputs, hidden), "enumeration")

    settings: dict[str, Any] = {"hidden": hidden, "inputs": inputs, "data": data, "batch": batch}
    theta = torch.full((inputs + hidden,), INITIAL_LOGIT, dtype=torch.float64)
    init = Point(theta, initial_weights(inputs, hidden))
    return Problem(
        name="dropout_bnn",
        family=Bernoulli,
        theta=init.theta,
        f=f,
        objective=Expectation(),
        smooth=2,
        relaxed=True,
        model=init.model,
        data=rows,
        batch=batch,
        closed_form=entropy,
        exact=exact,
        points=stored_points("dropout_bnn", settings, init),
        settings=settings,
        source="Gal, Hron & Kendall 2017, arXiv:1705.07832; Boluki et al. 2020, arXiv:2002.05155",
    )


def log_prior(keep: torch.Tensor, w: Layers) -> torch.Tensor:
    """-1/2 (sum_d keep_d |w_d|^2 + |b|^2 + c^2), w_d the weights that leave unit d; keep `[..., I + H]`, bits or probabilities."""
    squares = torch.cat([(w.W**2).sum(0), w.v**2])
    return -0.5 * (keep @ squares + (w.b**2).sum() + w.c**2)


def entropy(theta: torch.Tensor) -> torch.Tensor:
    """sum_d H(p_d) = sum_d log(1 + exp theta_d) - p_d theta_d."""
    return (softplus(theta) - theta.sigmoid() * theta).sum(-1)


def elbo_gradient(problem: Problem, inputs: int, hidden: int) -> torch.Tensor:
    """The gradient by autograd, in the logits and in the weights, with a sum over all masks of the inputs.

    Given one, the output sum_j z_j v_j h_j + c has mean sum_j p_j v_j h_j + c and variance sum_j p_j (1 - p_j) v_j^2 h_j^2.
    """
    assert problem.model is not None
    assert problem.data is not None
    theta, model = (t.detach().double().clone().requires_grad_() for t in (problem.theta, problem.model))
    x, y = problem.data[:, :-1], problem.data[:, -1]
    p, w = torch.distributions.Bernoulli(logits=theta), layers(model, inputs, hidden)
    of_hidden = p.probs[inputs:]
    masks = torch.cartesian_prod(*[torch.arange(2.0, dtype=x.dtype)] * inputs).reshape(-1, inputs)
    log_chance = torch.distributions.Bernoulli(logits=theta[:inputs]).log_prob(masks).sum(-1)
    vh = w.v * ((masks[:, None] * x) @ w.W.T + w.b).tanh()  # [2^I, N, H]
    mean, variance = vh @ of_hidden + w.c, vh**2 @ (of_hidden * (1 - of_hidden))
    likelihood = (log_chance.exp()[:, None] * expected_log_likelihood(y, mean, variance)).sum()
    L = likelihood + log_prior(p.probs, w) + p.entropy().sum()
    return torch.cat(torch.autograd.grad(L, (theta, model)))
