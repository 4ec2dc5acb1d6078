"""A variational autoencoder with Gaussian latents on handwritten digits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from problems.autoencoder import analytic, check, perceptron, pixel_logits
from problems.base import Point, Problem
from problems.belief_network import digits, log_bernoulli
from problems.families.normal import Normal
from problems.objectives import Elbo, ImportanceWeighted
from problems.points import stored_points
from problems.settings import at_least
from problems.truth import Truth, by_quadrature, over_normal_draws

if TYPE_CHECKING:
    from torch import Tensor

NODES = {1: 240, 2: 100}  # along each axis, of the quadrature over so many normal variables
REACH = 8.0  # standard deviations, beyond which 1e-15 of a normal variable lies


def gaussian_vae(
    latent: int = 8,
    hidden: int = 32,
    data: int = 100,
    batch: int = 20,
    samples: int = 1,
    kl: str = "sampled",
    side: int = 8,
) -> Problem:
    """ELBO of a variational autoencoder with Gaussian latents on binarised digits, amortised, with the decoder's gradient.

    z ~ N(0, I), x_i | z ~ Bernoulli(sigmoid(d_i(z))), q(z | x) = N(m(x), diag s(x)^2), (m, log s) = e(x); encoder e (theta) and
    decoder d (model) are perceptrons with one layer of `hidden` tanh units, between side^2 pixels and `latent` variables. Every
    replicate draws `batch` of the first `data` digits (0: takes all).
    samples > 1: the importance-weighted bound of so many draws, at the ELBO's points where none of its own are stored.
    kl=closed_form: -KL(q || p) is known, and what is drawn for is E log p(x | z) alone, a plain expectation: the same true
    gradient, and another estimate of it, for every estimator.
    Where reparameterisation made its name, and where its forms differ by where training is. In the encoder's gradient RLOO of two
    samples varies nine times as much as one pathwise sample at the start, and three times at the end; the total derivative five
    times as much as the path derivative half way; the divergence in closed form takes away 96% of the variance at the start, where
    it is most of the gradient's noise, and later none. For bounds, the doubly reparameterised gradient keeps its signal. The truth
    is a stored reference; a quadrature where latent x samples is at most 2.
    Kingma & Welling 2014, arXiv:1312.6114; Rezende et al. 2014, arXiv:1401.4082; Burda et al. 2016, arXiv:1509.00519; Roeder et
    al. 2017, arXiv:1703.09194; Tucker et al. 2019, arXiv:1810.04152.
    """
    at_least("gaussian_vae", 1, latent=latent)
    check("gaussian_vae", hidden, data, batch, samples, kl, side)
    rows = digits(data, side)
    pixels = side * side
    theta, encoder = perceptron(pixels, hidden, 2 * latent, seed=0)
    model, decoder = perceptron(latent, hidden, pixels, seed=1, bias=pixel_logits(rows))

    def encode(theta: Tensor, data: Tensor) -> Tensor:
        """(m, log s) `[..., B, 2, D]`."""
        out: Tensor = encoder(theta, data)
        return out.unflatten(-1, (2, latent))

    def likelihood(x: Tensor, data: Tensor, model: Tensor) -> Tensor:
        """log p(x | z) = sum_i x_i d_i(z) - log(1 + exp d_i(z))."""
        return log_bernoulli(data, decoder(model, x))

    def joint(x: Tensor, data: Tensor, model: Tensor) -> Tensor:
        """log p(x, z) = sum_i x_i d_i(z) - log(1 + exp d_i(z)) + log N(z; 0, I)."""
        return likelihood(x, data, model) - 0.5 * ((x * x).sum(-1) + latent * math.log(2 * math.pi))

    def divergence(theta: Tensor, data: Tensor) -> Tensor:
        """-KL(q || p) = 1/2 sum_d 1 + 2 log s_d - m_d^2 - s_d^2."""
        m, log_s = encode(theta, data).unbind(-2)
        return 0.5 * (1 + 2 * log_s - m * m - (2 * log_s).exp()).sum(-1)

    init = Point(theta, model)
    settings: dict[str, Any] = {
        "latent": latent,
        "hidden": hidden,
        "data": data,
        "batch": batch,
        "samples": samples,
        "kl": kl,
        "side": side,
    }
    of_elbo = settings | {"samples": 1, "kl": "sampled"}
    bound = Problem(
        name="gaussian_vae",
        family=Normal,
        theta=init.theta,
        f=joint,
        objective=Elbo() if samples == 1 else ImportanceWeighted(samples),
        smooth=2,
        relaxed=True,
        encode=encode,
        model=init.model,
        data=rows,
        batch=batch,
        exact=exact if latent * samples in NODES else None,
        points=stored_points("gaussian_vae", of_elbo, init) | stored_points("gaussian_vae", settings, init),
        settings=settings | {"kl": "sampled"},
        source="Kingma & Welling 2014, arXiv:1312.6114",
    )
    return bound if kl == "sampled" else analytic(bound, likelihood, divergence)


def exact(problem: Problem) -> Truth:
    """By quadrature over the noise of the bound's draws, z_k = m + s eps_k, datum by datum."""
    K, D = problem.objective.samples, problem.settings["latent"]
    return by_quadrature(lambda nodes: over_normal_draws(problem, nodes, REACH), NODES[K * D], 1e-6)
