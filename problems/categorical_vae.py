"""A variational autoencoder with categorical latents on handwritten digits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from problems.autoencoder import analytic, check, perceptron, pixel_logits
from problems.base import Point, Problem
from problems.belief_network import digits, log_bernoulli
from problems.families.categorical import Categorical
from problems.objectives import Elbo, ImportanceWeighted
from problems.points import stored_points
from problems.settings import at_least

if TYPE_CHECKING:
    from torch import Tensor


def categorical_vae(
    variables: int = 8,
    categories: int = 4,
    hidden: int = 16,
    data: int = 100,
    batch: int = 20,
    samples: int = 1,
    kl: str = "sampled",
    side: int = 8,
) -> Problem:
    """ELBO of a variational autoencoder with categorical latents on binarised digits, amortised, with the decoder's gradient.

    z = (z_1, ..., z_D) one-hot, p(z) uniform over C^D states, x_i | z ~ Bernoulli(sigmoid(d_i(z))), q(z_d | x) =
    softmax(e_d(x)); D = variables, C = categories; encoder e (theta) and decoder d (model), which reads the one-hot vectors side by
    side, are perceptrons with one layer of `hidden` tanh units. Every replicate draws `batch` of the first `data` digits (0: takes
    all). samples > 1: the importance-weighted bound of so many draws, at the ELBO's points where none of its own are stored.
    kl=closed_form: -KL(q || p) is known, and what is drawn for is E log p(x | z) alone, as the papers on straight-through
    estimators train it; the same true gradient.
    The task on which relaxed and straight-through gradients are compared, and on which their bias is not small: in the encoder's
    gradient straight-through has a 280th of RLOO's variance at the start and a bias of 7%, half way a bias longer than the
    gradient itself; the second-order ReinMax trades that for variance. Truth: with 8 x 4, the sum over all 65,536 states of each
    digit, stored as the reference; with 20 x 10, the mean of a long run, known to 0.5% at the start and 5% at the end; small
    sizes are enumerated.
    Jang et al. 2017, arXiv:1611.01144; Maddison et al. 2017, arXiv:1611.00712; Fan et al. 2022, arXiv:2206.07235; Liu et al. 2023,
    arXiv:2304.08612.
    """
    at_least("categorical_vae", 1, variables=variables)
    at_least("categorical_vae", 2, categories=categories)
    check("categorical_vae", hidden, data, batch, samples, kl, side)
    rows = digits(data, side)
    pixels, width = side * side, variables * categories
    theta, encoder = perceptron(pixels, hidden, width, seed=0)
    model, decoder = perceptron(width, hidden, pixels, seed=1, bias=pixel_logits(rows))

    def encode(theta: Tensor, data: Tensor) -> Tensor:
        """Logits e(x) `[..., B, D, C]`."""
        out: Tensor = encoder(theta, data)
        return out.unflatten(-1, (variables, categories))

    def likelihood(x: Tensor, data: Tensor, model: Tensor) -> Tensor:
        """log p(x | z) = sum_i x_i d_i(z) - log(1 + exp d_i(z))."""
        return log_bernoulli(data, decoder(model, x.flatten(-2)))

    def joint(x: Tensor, data: Tensor, model: Tensor) -> Tensor:
        """log p(x, z) = sum_i x_i d_i(z) - log(1 + exp d_i(z)) - D log C."""
        return likelihood(x, data, model) - variables * math.log(categories)

    def divergence(theta: Tensor, data: Tensor) -> Tensor:
        """-KL(q || p) = sum_d H(q_d) - D log C."""
        log_q = encode(theta, data).log_softmax(-1)
        return -(log_q.exp() * log_q).sum((-2, -1)) - variables * math.log(categories)

    init = Point(theta, model)
    settings: dict[str, Any] = {
        "variables": variables,
        "categories": categories,
        "hidden": hidden,
        "data": data,
        "batch": batch,
        "samples": samples,
        "kl": kl,
        "side": side,
    }
    of_elbo = settings | {"samples": 1, "kl": "sampled"}
    bound = Problem(
        name="categorical_vae",
        family=Categorical,
        theta=init.theta,
        f=joint,
        objective=Elbo() if samples == 1 else ImportanceWeighted(samples),
        smooth=2,
        relaxed=True,
        encode=encode,
        model=init.model,
        data=rows,
        batch=batch,
        points=stored_points("categorical_vae", of_elbo, init) | stored_points("categorical_vae", settings, init),
        settings=settings | {"kl": "sampled"},
        source="Jang et al. 2017, arXiv:1611.01144",
    )
    return bound if kl == "sampled" else analytic(bound, likelihood, divergence)
