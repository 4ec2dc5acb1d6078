"""Linear regression on minibatches: a sum over data as the expectation over a uniform index."""

from __future__ import annotations

import math

import numpy as np
import torch

from problems.base import Point, Problem
from problems.families.minibatch import Minibatch
from problems.settings import at_least, positive
from problems.truth import Truth, exactly

SEED = 1309


def linear_regression_minibatch(data: int = 256, dim: int = 10, spread: float = 0.5) -> Problem:
    """The log-likelihood of linear regression on N data as an expectation over the index of one of them.

    L(w) = sum_i log N(y_i; w.x_i, 1) = E_i N log N(y_i; w.x_i, 1), i uniform, as stochastic variational inference and stochastic
    gradients see it: no latent variable, all noise is that of the rows. x_i = e^{spread z_i} N(0, I_dim), z ~ N(0, 1): rows of very
    different lengths; y_i = w*.x_i + N(0, 1), all from a fixed seed. A family of points (i, w) with w = theta certain; estimators
    see the lengths |x_i| of the rows (`norms`). Exact: sum_i (y_i - w.x_i) x_i. Points: `init` (zero), `mid` (half of the least
    squares), `converged` (the least squares plus N(0, .01^2) in each number).
    It separates ways of choosing rows: `pathwise` is the plain minibatch with replacement; rows without replacement save the share
    of the data that they are; importance sampling saves what the lengths of the rows tell; anchors (SVRG) save nearly all, the more
    the nearer the anchor. At `converged` the gradient is nearly gone and the noise of plain rows is not.
    Hoffman, Blei, Wang & Paisley 2013, arXiv:1206.7051 (stochastic variational inference).
    """
    at_least("linear_regression_minibatch", 2, data=data)
    at_least("linear_regression_minibatch", 1, dim=dim)
    at_least("linear_regression_minibatch", 0, spread=spread)
    positive("linear_regression_minibatch", spread=1 + spread)
    if data <= dim:
        raise ValueError(
            f"linear_regression_minibatch[data={data},dim={dim}]: least squares needs more data than dimensions"
        )
    rows, y = draws(data, dim, spread)

    def f(x: torch.Tensor) -> torch.Tensor:
        """N log N(y_i; w.x_i, 1), x = (i, w)."""
        i, w = x[..., 0].detach().long(), x[..., 1:]
        residual = y.to(x)[i] - (rows.to(x)[i] * w).sum(-1)
        return -0.5 * data * (residual * residual + math.log(2 * math.pi))

    def exact(problem: Problem) -> Truth:
        """sum_i (y_i - w.x_i) x_i."""
        return exactly((y - rows @ problem.theta) @ rows)

    points = places(rows, y)
    return Problem(
        name="linear_regression_minibatch",
        family=Minibatch(data, rows.norm(dim=-1)),
        theta=points["init"].theta,
        f=f,
        smooth=2,
        exact=exact,
        points=points,
        settings={"data": data, "dim": dim, "spread": spread},
        source="Hoffman et al. 2013, arXiv:1206.7051",
    )


def draws(data: int, dim: int, spread: float) -> tuple[torch.Tensor, torch.Tensor]:
    """x `[N, D]` and y `[N]` from the fixed seed."""
    rng = np.random.default_rng(SEED)
    truth = rng.standard_normal(dim)
    rows = np.exp(spread * rng.standard_normal((data, 1))) * rng.standard_normal((data, dim))
    return torch.from_numpy(rows), torch.from_numpy(rows @ truth + rng.standard_normal(data))


def places(rows: torch.Tensor, y: torch.Tensor) -> dict[str, Point]:
    """Zero, half of the least squares, and the least squares plus N(0, .01^2) from the fixed seed."""
    best = torch.linalg.lstsq(rows, y[:, None]).solution[:, 0]
    off = 0.01 * torch.from_numpy(np.random.default_rng(SEED + 1).standard_normal(len(best)))
    return {"init": Point(0 * best), "mid": Point(best / 2), "converged": Point(best + off)}
