"""Semi-supervised learning with deep generative models: the label is a latent category wherever nobody has written it down."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from problems.autoencoder import perceptron, pixel_logits
from problems.base import Point, Problem
from problems.belief_network import log_bernoulli
from problems.families.base import Noise
from problems.families.categorical import Categorical
from problems.labelled_digits import CLASSES, PIXELS, check_rows, labelled_digits
from problems.latent_sums import MOST_LATENTS, by_sums
from problems.objectives import Elbo
from problems.points import stored_points
from problems.settings import at_least

if TYPE_CHECKING:
    from torch import Tensor

CERTAIN = 30.0


def semi_supervised(
    latent: int = 2, hidden: int = 16, data: int = 50, batch: int = 10, labelled: int = 10, alpha: float = 0.1
) -> Problem:
    """The M2 model of digits: the label y a categorical latent, beside a Gaussian z that is reparameterised inside f.

    p(y) = 1/10, p(z) = N(0, I), p(x | y, z) = Bernoulli(sigmoid d(y, z)); q(y | x) = softmax e(x), q(z | x, y) = N(m, diag s^2),
    (m, log s) = g(x, y); z = m + s eps, `latent` of them. Perceptrons e (theta), g and d (model) with one layer of `hidden` tanh
    units. The first `labelled` of `data` digits keep their label (ten is one of each); every replicate draws `batch` rows (0:
    takes all). L = sum_labelled L(x, y) + sum_unlabelled sum_y q(y | x) (L(x, y) - log q(y | x)) + alpha N sum_labelled log
    q(y | x) / N_labelled, L(x, y) = E_eps f. A label that is known is a category that q is sure of: for those rows the logits
    that are given are +-30 at the label, whatever theta is, so that both sums are one ELBO, to 1e-24, and no estimator spends
    noise on them; the last term, which teaches e, needs no draw. Points: `init`, `mid`, `converged` of a training run.
    Ten categories can be summed out, as the paper does, at ten evaluations, so that the question is what fewer are worth: at
    `mid` the deviation of two-sample RLOO is four times that of the sum, the unordered set's 1.7 times. f is a network of the
    one-hot y; read at blends of labels that no training has seen, straight-through and Gumbel-softmax are off by three times the
    gradient in theta. The model's gradient has the noise of eps and of the rows, whatever is done about y. At `converged` q is sure
    of every label, and what is left of theta's gradient hangs on labels of probability 1e-3 and less, which samples do not meet.
    Exact, by ten quadratures for each row, where latent is at most 2.
    Kingma, Rezende, Mohamed & Welling 2014, arXiv:1406.5298.
    """
    at_least("semi_supervised", 1, latent=latent, hidden=hidden)
    if not 0 <= alpha < math.inf:
        raise ValueError(f"semi_supervised[alpha={alpha}]: alpha must be at least 0, and finite")
    check_rows("semi_supervised", data, batch)
    if not 1 <= labelled <= data:
        raise ValueError(f"semi_supervised[labelled={labelled}]: labelled is a number of rows, 1 to data={data}")
    rows = labelled_digits(data)
    rows[labelled:, PIXELS:] = 0  # no label
    theta, classifier = perceptron(PIXELS, hidden, CLASSES, seed=0)
    of_z, encoder = perceptron(PIXELS + CLASSES, hidden, 2 * latent, seed=1)
    of_x, decoder = perceptron(CLASSES + latent, hidden, PIXELS, seed=2, bias=pixel_logits(rows[:, :PIXELS]))

    def f(x: Tensor, noise: Tensor, data: Tensor, model: Tensor) -> Tensor:
        """log p(y) + log p(z) + log p(x | y, z) - log q(z | x, y), z = m(x, y) + s(x, y) eps."""
        y, pixels = x.squeeze(-2), data[..., :PIXELS]
        to_z, to_x = model.split([len(of_z), len(of_x)])
        m, log_s = encoder(to_z, beside(pixels, y)).chunk(2, -1)
        z = m + log_s.exp() * noise
        log_ratio = (log_s + 0.5 * (noise * noise - z * z)).sum(-1)  # log p(z) - log q(z | x, y)
        return log_bernoulli(pixels, decoder(to_x, torch.cat([y, z], -1))) + log_ratio - math.log(CLASSES)

    def encode(theta: Tensor, data: Tensor) -> Tensor:
        """Logits of y `[(R,) B, 1, 10]`: those of e(x), or the label that is known."""
        pixels, label = data.split([PIXELS, CLASSES], -1)
        known = label.sum(-1, keepdim=True) > 0
        return torch.where(known, CERTAIN * (2 * label - 1), classifier(theta, pixels))[..., None, :]

    def supervised(theta: Tensor, data: Tensor) -> Tensor:
        """alpha N / N_labelled log q(y | x) where y is known, `[B]`."""
        pixels, label = data.split([PIXELS, CLASSES], -1)
        return alpha * len(rows) / labelled * (label * classifier(theta, pixels).log_softmax(-1)).sum(-1)

    init = Point(theta, torch.cat([of_z, of_x]))
    settings: dict[str, Any] = {
        "latent": latent,
        "hidden": hidden,
        "data": data,
        "batch": batch,
        "labelled": labelled,
        "alpha": alpha,
    }
    return Problem(
        name="semi_supervised",
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
        closed_form=supervised,
        exact=by_sums if latent <= MOST_LATENTS else None,
        points=stored_points("semi_supervised", settings, init),
        settings=settings,
        source="Kingma, Rezende, Mohamed & Welling 2014, arXiv:1406.5298",
    )


def beside(rows: Tensor, points: Tensor) -> Tensor:
    """Rows of data `[(R,) B, F]` beside every point `[K, R, B, C]`: `[K, R, B, F + C]`."""
    return torch.cat([rows.expand(*points.shape[:-1], rows.shape[-1]), points], -1)
