"""A Chain of Normal layers: its law by torch.distributions, its score and its path by plain autograd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, distributions

from problems.families.bernoulli import Bernoulli
from problems.families.chain import Chain
from problems.families.normal import Normal

K, R, B, F = 2, 3, 4, 2


def normal(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def lower(theta: Tensor, earlier: list[Tensor], data: Tensor) -> Tensor:
    """Two sites, both means and scales of which depend on the data: `[B, 2, 2]`."""
    return torch.stack([data @ theta[:4].reshape(F, 2), data @ theta[4:8].reshape(F, 2) / 2], -2)


def upper(theta: Tensor, earlier: list[Tensor]) -> Tensor:
    """One site, of which the scale too depends on those before: `[..., 2, 1]`."""
    h = earlier[0].tanh()
    return torch.stack([h @ theta[8:10], theta[10] * h[..., 0] * h[..., 1]], -1)[..., None]


Layered = Chain(Normal, [lower, upper], [2, 1], data=True)
WEIGHTS, DATA = normal((11,), 1), normal((B, F), 2)


def laws(theta: Tensor, x: Tensor, data: Tensor) -> tuple[distributions.Normal, distributions.Normal]:
    h = x[..., :2].tanh()
    first = distributions.Normal(data @ theta[:4].reshape(F, 2), (data @ theta[4:8].reshape(F, 2) / 2).exp())
    return first, distributions.Normal(h @ theta[8:10], (theta[10] * h.prod(-1)).exp())


def written_out(theta: Tensor, x: Tensor, data: Tensor) -> Tensor:
    first, second = laws(theta, x, data)
    return first.log_prob(x[..., :2]).sum(-1) + second.log_prob(x[..., 2])


def test_its_law_is_the_product_of_its_layers() -> None:
    q, x = Layered(WEIGHTS, DATA), normal((K, R, B, 3), 3)
    assert q.name == "chain of normal"
    assert q.params(x).shape == (K, R, B, 2, 3)
    torch.testing.assert_close(q.log_prob(x), written_out(WEIGHTS, x, DATA), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("own_rows", [False, True])
def test_its_score_and_its_path_are_autograd(own_rows: bool) -> None:
    data = normal((R, B, F), 4) if own_rows else DATA
    q, eps = Layered(WEIGHTS, data), normal((K, R, B, 3), 5)
    x, weight, cotangent = q.sample(eps), normal((K, R, B), 6), normal((K, R, B, 3), 7)
    score, path = q.score(x, weight), q.path(x, cotangent)
    for r in range(R):
        rows = data[r] if own_rows else data
        theta = WEIGHTS.clone().requires_grad_()
        (wanted,) = torch.autograd.grad((weight[:, r] * written_out(theta, x[:, r], rows)).sum(), theta)
        torch.testing.assert_close(score[r], wanted, rtol=1e-11, atol=1e-12)
        first, _ = laws(theta, x[:, r], rows)
        h = first.loc + first.scale * eps[:, r, :, :2]
        _, second = laws(theta, h, rows)
        again = torch.cat([h, (second.loc + second.scale * eps[:, r, :, 2])[..., None]], -1)
        torch.testing.assert_close(again, x[:, r], rtol=1e-12, atol=1e-12)
        (wanted,) = torch.autograd.grad((cotangent[:, r] * again).sum(), theta)
        torch.testing.assert_close(path[r], wanted, rtol=1e-11, atol=1e-12)


def test_bits_in_layers_have_no_path() -> None:
    q = Chain(Bernoulli, [lambda w, earlier: w], [3])(torch.zeros(3))
    with pytest.raises(NotImplementedError, match="chain of bernoulli variables have no pathwise derivative"):
        q.path(torch.zeros(1, 1, 3), torch.zeros(1, 1, 3))
