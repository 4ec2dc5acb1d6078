"""A recurrent language model with a continuous latent variable behind each sentence, and an amortised encoder."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from problems.base import Point, Problem
from problems.corpus import END, LONGEST, WORDS, corpus
from problems.families.normal import Normal
from problems.modules import functional
from problems.objectives import chosen
from problems.points import stored_points
from problems.settings import at_least, rows_drawn
from problems.truth import Truth, by_quadrature, over_normal_draws

SEED = 6349
EMBEDDED = 8
V = len(WORDS)
NODES = {1: 400, 2: 60}  # of an axis, by the number of axes
MOST_NODES = 20_000
WIDEST = 8.5  # standard deviations: what lies beyond has a probability of 2e-17


def latent_lm(
    hidden: int = 16, latent: int = 4, data: int = 100, batch: int = 20, samples: int = 1, inputless: bool = False
) -> Problem:
    """ELBO of a latent-variable language model: one Normal z behind each sentence, a recurrent decoder, an encoder of its words.

    p(x) = int N(z; 0, I) prod_i p(x_i | z, x_<i) dz: h_0 = tanh(W z + b), a GRU of `hidden` units reads the word before (8 numbers
    a word), p(x_i | .) = softmax of an affine map of its state; q(z | x) = N(mu, diag sigma^2) from the counts of the words, by a
    tanh layer of `hidden` units. theta: the encoder's weights; model: the decoder's. `data` sentences of 6 to 8 words out of 28,
    drawn with a fixed seed from a language with three topics and two tenses (`problems.corpus`), of which every replicate draws
    `batch` (0: takes all). samples > 1: the importance-weighted bound of so many draws, at the ELBO's points where none of its own
    are stored.
    What it is known for is posterior collapse: a decoder that reads the words before learns to do without z, q goes to the prior,
    and the encoder's gradient with it (norm 212 at `init`, 12 at `mid`, 2.8 at `converged`). The noise of a path falls as far, for
    f - log q hardly depends on z any more (108, 11, 4 a replicate, the noise of which rows are drawn, 23 at `converged`, left
    out); that of the total derivative, which keeps the score of q, is still 111 there (of 231 at `init`), and REINFORCE's without
    a baseline 523 (of 4600). With inputless=True the decoder reads no word, only z and how many have gone
    (Bowman's word dropout at its limit), so that topic and tense must come through z: the signal stays, and the noise.
    By quadrature where latent * samples is 1 (up to 50 sentences) or 2 (up to 5); else a stored reference, or none.
    Bowman et al. 2016, arXiv:1511.06349.
    """
    at_least("latent_lm", 1, hidden=hidden, latent=latent, data=data, samples=samples)
    rows_drawn("latent_lm", batch, data=data)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        theta, encoder = functional(Encoder(hidden, latent))
        weights, decoder = functional(Decoder(hidden, latent, inputless))
    rows, _ = corpus(data)

    def f(x: Tensor, data: Tensor, model: Tensor) -> Tensor:
        """log N(z; 0, I) + sum_i log p(x_i | z, x_<i)."""
        log_prior = -0.5 * (x * x).sum(-1) - 0.5 * latent * math.log(2 * math.pi)
        log_likelihood: Tensor = decoder(model, x, one_hot(data).to(x))
        return log_prior + log_likelihood

    def encode(theta: Tensor, data: Tensor) -> Tensor:
        found: Tensor = encoder(theta, one_hot(data).to(theta))
        return found

    def exact(problem: Problem) -> Truth:
        return by_quadrature(lambda nodes: over_normal_draws(problem, nodes, WIDEST), NODES[axes], tolerance=1e-7)

    axes = latent * samples
    init = Point(theta, weights)
    settings: dict[str, Any] = {
        "hidden": hidden,
        "latent": latent,
        "data": data,
        "batch": batch,
        "samples": samples,
        "inputless": inputless,
    }
    points = stored_points("latent_lm", settings | {"samples": 1}, init) | stored_points("latent_lm", settings, init)
    return Problem(
        name="latent_lm",
        family=Normal,
        theta=init.theta,
        f=f,
        objective=chosen("elbo", samples, 0.0),
        smooth=2,
        relaxed=True,
        encode=encode,
        model=init.model,
        data=rows,
        batch=batch,
        exact=exact if axes in NODES and NODES[axes] ** axes * data <= MOST_NODES else None,
        points=points,
        settings=settings,
        source="Bowman et al. 2016, arXiv:1511.06349, with a seeded corpus",
    )


def one_hot(data: Tensor) -> Tensor:
    """Words `[..., T]` as rows of the identity, `[..., T, V]`."""
    return data[..., None] == torch.arange(V, device=data.device)


class Encoder(nn.Module):
    """The counts of a sentence's words -> mu and log sigma."""

    def __init__(self, hidden: int, latent: int) -> None:
        super().__init__()
        self.inward = nn.Linear(V, hidden)
        self.outward = nn.Linear(hidden, 2 * latent)

    def forward(self, words: Tensor) -> Tensor:
        """words `[..., T, V] -> [..., 2, L]`."""
        counts = words.sum(-2)
        found: Tensor = self.outward(self.inward(counts).tanh())
        return found.unflatten(-1, (2, -1))


class Decoder(nn.Module):
    """A gated recurrent unit that starts at z and reads each word to tell the next."""

    def __init__(self, hidden: int, latent: int, inputless: bool) -> None:
        super().__init__()
        self.inputless = inputless
        self.start = nn.Linear(latent, hidden)
        self.embed = nn.Linear(V, EMBEDDED, bias=False)
        self.inward = nn.Linear(EMBEDDED, 3 * hidden)
        self.inner = nn.Linear(hidden, 3 * hidden)
        self.outward = nn.Linear(hidden, V)

    def forward(self, z: Tensor, words: Tensor) -> Tensor:
        """log p(x | z), z `[..., B, L]`, words `[(R,) B, T, V] -> [..., B]`; what follows the first full stop does not count."""
        before = torch.cat([torch.zeros_like(words[..., :1, :]), words[..., :-1, :]], -2)
        read = self.inward(self.embed(torch.zeros_like(before) if self.inputless else before))
        h, states = self.start(z).tanh(), []
        for i in range(LONGEST):
            h = gated(read[..., i, :], self.inner(h), h)
            states.append(h)
        log_p: Tensor = self.outward(torch.stack(states, -2)).log_softmax(-1)
        return ((log_p * words).sum(-1) * (1 - before[..., END])).sum(-1)


def gated(read: Tensor, recalled: Tensor, h: Tensor) -> Tensor:
    """h' = u h + (1 - u) tanh(a_n + r b_n), r = sigmoid(a_r + b_r), u = sigmoid(a_u + b_u); a is the word's, b is h's.

    Cho et al. 2014, arXiv:1406.1078, with r taken after the map of h, not before it, as in torch's GRUCell.
    """
    (a_r, a_u, a_n), (b_r, b_u, b_n) = read.chunk(3, -1), recalled.chunk(3, -1)
    r, u = (a_r + b_r).sigmoid(), (a_u + b_u).sigmoid()
    return u * h + (1 - u) * (a_n + r * b_n).tanh()
