"""Bayesian logistic regression: a posterior over weights that all the data share."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch.nn.functional import softplus

from problems.base import Point, Problem
from problems.families.normal import Normal
from problems.objectives import Elbo
from problems.points import stored_points

MOST_ROWS = 569


def bayes_logreg(data: int = 569) -> Problem:
    """ELBO of Bayesian logistic regression on scikit-learn's breast cancer data: 30 standardised features and a bias.

    log p(y, w) = sum_i y_i w.x_i - log(1 + exp w.x_i) + log N(w; 0, I), q(w) = N(mu, diag sigma^2), 31 weights; `data`: the first
    so many of the 569 patients, all of them in every f. The workhorse on which score functions, measure-valued and pathwise
    gradients are compared: smooth, with strongly correlated features, and at `converged` the path and the total derivative
    change places.
    Mohamed, Rosca, Figurnov & Mnih, JMLR 2020, arXiv:1906.10652, section 8.3.
    """
    if not 1 <= data <= MOST_ROWS:
        raise ValueError(f"bayes_logreg[data={data}]: data is the number of patients, 1 to {MOST_ROWS}")
    features, labels = breast_cancer()
    rows, y = features[:data], labels[:data]

    def f(x: torch.Tensor) -> torch.Tensor:
        logits = x @ rows.to(x).T
        log_likelihood = (y.to(x) * logits - softplus(logits)).sum(-1)
        log_prior = (-0.5 * x * x - 0.5 * math.log(2 * math.pi)).sum(-1)
        return log_likelihood + log_prior

    init = Point(torch.stack([torch.zeros(rows.shape[1]), torch.full((rows.shape[1],), -1.0)]).double())
    settings = {"data": data}
    return Problem(
        name="bayes_logreg",
        family=Normal,
        theta=init.theta,
        f=f,
        objective=Elbo(),
        smooth=2,
        relaxed=True,
        points=stored_points("bayes_logreg", settings, init),
        settings=settings,
        source="Mohamed et al. 2020, arXiv:1906.10652, section 8.3",
    )


@lru_cache(maxsize=1)
def breast_cancer() -> tuple[torch.Tensor, torch.Tensor]:
    """Features `[569, 31]`, each of mean 0 and variance 1 over the patients, the last one 1; and labels `[569]`, 1 if benign."""
    from sklearn.datasets import load_breast_cancer

    found = load_breast_cancer()
    raw = torch.from_numpy(found.data)
    standardised = (raw - raw.mean(0)) / raw.std(0, unbiased=False)
    bias = torch.ones(len(raw), 1, dtype=torch.float64)
    return torch.cat([standardised, bias], 1), torch.from_numpy(found.target).double()
