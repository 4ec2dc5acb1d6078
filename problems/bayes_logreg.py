"""Bayesian logistic regression: a posterior over weights that all the data share."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch.nn.functional import softplus

from problems.base import Point, Problem
from problems.bayes_logreg_lanes import logistic_lanes
from problems.families.normal import Normal
from problems.objectives import Elbo
from problems.points import stored_points
from problems.settings import rows_drawn
from problems.truth import Truth, by_quadrature, trapezoid

MOST_ROWS = 569
NODES = 500
WIDTH = 9.0


def bayes_logreg(data: int = 569, batch: int = 0) -> Problem:
    """ELBO of Bayesian logistic regression on scikit-learn's breast cancer data: 30 standardised features and a bias.

    log p(y, w) = sum_i y_i w.x_i - log(1 + exp w.x_i) + log N(w; 0, I), q(w) = N(mu, diag sigma^2), 31 weights; `data`: the first
    so many of the 569 patients. batch = 0: all of them in every f; otherwise every replicate draws so many, which share its w, and
    scales them by N / batch, at the points of the whole (`mid` and `converged` where data = 569). The workhorse on which score
    functions, measure-valued and pathwise gradients are compared: smooth, with strongly correlated features. Under q each logit
    w.x_i is Normal, so that the exact gradient is made of 569 integrals over a line. A minibatch adds its own noise to all
    estimators alike: what is gained by more draws of w, or better ones, then soon ends.
    Mohamed, Rosca, Figurnov & Mnih, JMLR 2020, arXiv:1906.10652, section 8.3 (minibatches of 32).
    """
    if not 1 <= data <= MOST_ROWS:
        raise ValueError(f"bayes_logreg[data={data}]: data is the number of patients, 1 to {MOST_ROWS}")
    rows_drawn("bayes_logreg", batch, data=data)
    features, labels = breast_cancer()
    rows, y = features[:data], labels[:data]

    def f(x: torch.Tensor) -> torch.Tensor:
        """log p(y, w) = sum_i y_i w.x_i - log(1 + exp w.x_i) + log N(w; 0, I)."""
        logits = x @ rows.to(x).T
        log_likelihood = (y.to(x) * logits - softplus(logits)).sum(-1)
        log_prior = (-0.5 * x * x - 0.5 * math.log(2 * math.pi)).sum(-1)
        return log_likelihood + log_prior

    def share(x: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
        """y_i w.x_i - log(1 + exp w.x_i) + 1/N log N(w; 0, I), a patient's share of log p(y, w)."""
        logits = (x * data[..., :-1]).sum(-1)
        log_prior = (-0.5 * x * x - 0.5 * math.log(2 * math.pi)).sum(-1)
        return data[..., -1] * logits - softplus(logits) + log_prior / len(rows)

    def exact(problem: Problem) -> Truth:
        return by_quadrature(lambda nodes: elbo_gradient(problem.theta.double(), rows, y, nodes), NODES)

    init = Point(torch.stack([torch.zeros(rows.shape[1]), torch.full((rows.shape[1],), -1.0)]).double())
    settings = {"data": data, "batch": batch}
    return Problem(
        name="bayes_logreg",
        family=Normal,
        theta=init.theta,
        f=share if batch else f,
        objective=Elbo(),
        smooth=2,
        relaxed=True,
        data=torch.cat([rows, y[:, None]], 1) if batch else None,
        batch=batch,
        shared=batch > 0,
        exact=exact,
        lanes=None if batch else logistic_lanes(rows.numpy(), y.numpy()),
        points=stored_points("bayes_logreg", settings, init),
        settings=settings,
        source="Mohamed et al. 2020, arXiv:1906.10652, section 8.3",
    )


def elbo_gradient(theta: torch.Tensor, rows: torch.Tensor, y: torch.Tensor, nodes: int) -> torch.Tensor:
    """sum_i x_i (y_i - E s(l_i)) - mu and 1 - sigma^2 - sigma^2 sum_i x_i^2 E s'(l_i), with l_i ~ N(x_i.mu, x_i^2.sigma^2) and
    s the sigmoid; `[2, 31]`. The expectations by the trapezoidal rule on +-WIDTH standard deviations, exponentially exact here.
    """
    mu, variance = theta[0], (2 * theta[1]).exp()
    z, weight = trapezoid(1, nodes, WIDTH)
    s = ((rows @ mu)[:, None] + (rows**2 @ variance).sqrt()[:, None] * z[:, 0]).sigmoid()
    toward_mu = (y - s @ weight) @ rows - mu
    toward_log_sigma = 1 - variance - variance * ((s * (1 - s) @ weight) @ rows**2)
    return torch.stack([toward_mu, toward_log_sigma])


@lru_cache(maxsize=1)
def breast_cancer() -> tuple[torch.Tensor, torch.Tensor]:
    """Features `[569, 31]`, each of mean 0 and variance 1 over the patients, the last one 1; and labels `[569]`, 1 if benign."""
    from sklearn.datasets import load_breast_cancer

    found = load_breast_cancer()
    raw = torch.from_numpy(found.data)
    standardised = (raw - raw.mean(0)) / raw.std(0, unbiased=False)
    bias = torch.ones(len(raw), 1, dtype=torch.float64)
    return torch.cat([standardised, bias], 1), torch.from_numpy(found.target).double()
