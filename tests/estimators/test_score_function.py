"""What rloo is by another name."""

from __future__ import annotations

import pytest
import torch

from bench.evaluate import Count, ask, gradients, prepare
from estimators.noise import MEASURE
from estimators.score_function import rloo


@pytest.mark.parametrize("problem", ["bits elbo", "categories elbo", "normals elbo"])
@pytest.mark.parametrize("samples", [2, 4])
def test_of_a_bound_it_is_the_derivative_of_the_log_variance_loss(small, problem, samples):
    """VarGrad: -1/2 d/dtheta var_k log (q(x_k) / p(x_k)), of K - 1 degrees of freedom, the samples held fixed."""
    trial = prepare(rloo(samples), small(problem))
    g = gradients(trial, range(8))
    x = ask(trial, range(8), None, MEASURE, Count()).known["x"]
    theta = trial.problem.theta.expand(8, *trial.problem.theta.shape).clone().requires_grad_()
    ratio = trial.problem.bind(theta).log_prob(x) - trial.problem.f(x)
    (wanted,) = torch.autograd.grad(-0.5 * ratio.var(0).sum(), theta)
    assert torch.allclose(g, wanted.reshape(8, -1), rtol=1e-11, atol=1e-12)
