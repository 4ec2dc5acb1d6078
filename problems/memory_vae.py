"""Hard attention over a memory: a categorical address is read inside a variational autoencoder."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from problems.autoencoder import perceptron, pixel_logits
from problems.base import Point, Problem
from problems.belief_network import affine, digits, log_bernoulli
from problems.families.base import Noise
from problems.families.categorical import Categorical
from problems.labelled_digits import MOST_ROWS
from problems.latent_sums import MOST_LATENTS, by_sums
from problems.objectives import Elbo
from problems.points import stored_points
from problems.settings import at_least, one_of, rows_drawn

if TYPE_CHECKING:
    from torch import Tensor

KEYS = 8


def memory_vae(
    slots: int = 10, latent: int = 2, hidden: int = 16, data: int = 50, batch: int = 10, side: int = 8
) -> Problem:
    """ELBO of a variational autoencoder that reads one of the digits in a memory: hard attention, amortised.

    p(a) = 1/M, p(z | m_a) = N(m(m_a), diag s(m_a)^2), p(x | z, m_a) = Bernoulli(sigmoid d(z, m_a)), with m_1 .. m_M the first
    M = `slots` of scikit-learn's digits (ten is one of each) and x the `data` digits after them; q(z | x, m_a) is Normal, its mean
    and log scale g(x, m_a), z = mean + scale eps; q(a | x) = softmax over a of e(x).k(m_a) / sqrt 8, an address by content. theta:
    e and the affine k; model: the maps of p(z | m), q(z | x, m) and d, perceptrons with one layer of `hidden` tanh units as e is.
    `latent` variables z, side^2 pixels; every replicate draws `batch` rows (0: takes all). Points: `init`, `mid`, `converged` of a
    training run.
    f at a soft address reads a blend of digits that no training has seen: by `mid` straight-through is off by three times the
    gradient in theta, Gumbel-softmax by all of it, and REBAR's correction costs three times RLOO's deviation. Summing the M
    addresses out is the floor, a quarter of two-sample RLOO's deviation; the unordered set comes near it. Like attention that has
    settled, q is sure of nearly every address at `converged`, and the gradient that is left hangs on those that are never drawn.
    Exact, by M quadratures for each row, where latent is at most 2.
    Bornschein, Mnih, Zoran & Rezende 2017, arXiv:1709.07116; hard attention: Mnih, Heess, Graves &
    Kavukcuoglu 2014, arXiv:1406.6247; Xu et al. 2015, arXiv:1502.03044.
    """
    at_least("memory_vae", 2, slots=slots)
    at_least("memory_vae", 1, latent=latent, hidden=hidden, data=data)
    one_of("memory_vae", (4, 8), side=side)
    if slots + data > MOST_ROWS:
        raise ValueError(f"memory_vae[data={data},slots={slots}]: there are {MOST_ROWS} digits for both")
    rows_drawn("memory_vae", batch, data=data)
    pixels = side * side
    memory, rows = digits(slots + data, side).split([slots, data])
    of_query, query = perceptron(pixels, hidden, KEYS, seed=0)
    of_key = torch.from_numpy(np.random.default_rng(1).standard_normal((pixels + 1, KEYS)) / side).reshape(-1)
    of_p, prior = perceptron(pixels, hidden, 2 * latent, seed=2)
    of_q, posterior = perceptron(2 * pixels, hidden, 2 * latent, seed=3)
    of_x, decoder = perceptron(latent + pixels, hidden, pixels, seed=4, bias=pixel_logits(rows))

    def f(x: Tensor, noise: Tensor, data: Tensor, model: Tensor) -> Tensor:
        """log p(a) + log p(z | m_a) + log p(x | z, m_a) - log q(z | x, m_a), z drawn from q(z | x, m_a)."""
        m = x.squeeze(-2) @ memory.to(x)
        to_p, to_q, to_x = model.split([len(of_p), len(of_q), len(of_x)])
        mean_p, log_s_p = prior(to_p, m).chunk(2, -1)
        mean_q, log_s_q = posterior(to_q, torch.cat([data.expand(m.shape), m], -1)).chunk(2, -1)
        z = mean_q + log_s_q.exp() * noise
        eps_p = (z - mean_p) * (-log_s_p).exp()
        log_ratios = log_s_q - log_s_p + 0.5 * (noise * noise - eps_p * eps_p)  # of p(z | m) to q(z | x, m), each z
        return log_bernoulli(data, decoder(to_x, torch.cat([z, m], -1))) + log_ratios.sum(-1) - math.log(slots)

    def encode(theta: Tensor, data: Tensor) -> Tensor:
        """Logits of the address `[(R,) B, 1, M]`."""
        to_query, to_key = theta.split([len(of_query), len(of_key)])
        keys = affine(to_key, memory.to(data))
        return (query(to_query, data) @ keys.T / KEYS**0.5)[..., None, :]

    init = Point(torch.cat([of_query, of_key]), torch.cat([of_p, of_q, of_x]))
    settings: dict[str, Any] = {
        "slots": slots,
        "latent": latent,
        "hidden": hidden,
        "data": data,
        "batch": batch,
        "side": side,
    }
    return Problem(
        name="memory_vae",
        family=Categorical,
        theta=init.theta,
        f=f,
        objective=Elbo(),
        smooth=2,
        relaxed=True,
        encode=encode,
        model=init.model,
        data=rows,
        batch=batch,
        noise=[Noise("normal", (), (latent,))],
        exact=by_sums if latent <= MOST_LATENTS else None,
        points=stored_points("memory_vae", settings, init),
        settings=settings,
        source="Bornschein, Mnih, Zoran & Rezende 2017, arXiv:1709.07116",
    )
