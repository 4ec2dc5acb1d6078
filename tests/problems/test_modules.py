"""A torch.nn.Module as a function of a flat vector of weights: the same numbers, the same derivatives, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from problems.modules import functional


def network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.LayerNorm(3), nn.Linear(3, 2))


def test_it_is_the_module_at_its_own_weights():
    module, x = network(), torch.randn(5, 4)
    weights, call = functional(module)
    assert weights.shape == (4 * 3 + 3 + 3 + 3 + 3 * 2 + 2,)
    assert weights.dtype == torch.float64
    assert torch.equal(call(weights.float(), x), module(x))


def test_its_gradient_is_that_of_backward():
    module, x = network().double(), torch.randn(5, 4, dtype=torch.float64)
    weights, call = functional(module)
    module(x).square().sum().backward()
    wanted = torch.cat([p.grad.reshape(-1) for p in module.parameters()])
    found = torch.func.grad(lambda w: call(w, x).square().sum())(weights)
    assert torch.allclose(found, wanted, rtol=1e-12, atol=0)
    each = torch.func.vmap(torch.func.grad(lambda w, x: call(w, x).square().sum()), (None, 0))(weights, x)
    assert torch.allclose(each.sum(0), wanted, rtol=1e-12, atol=1e-14)


def test_a_later_change_of_the_module_is_not_seen():
    module, x = network().double(), torch.randn(5, 4, dtype=torch.float64)
    weights, call = functional(module)
    before = call(weights, x)
    with torch.no_grad():
        for p in module.parameters():
            p.zero_()
    assert torch.equal(call(weights, x), before)


def test_what_is_not_trained_and_buffers_stay_what_they_are():
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)).eval()
    module[0].requires_grad_(False)
    weights, call = functional(module)
    assert weights.numel() == 6 + 3 * 2 + 2
    x = torch.randn(5, 4)
    assert torch.allclose(call(weights, x.double()), module(x).double(), atol=1e-6)


def test_a_shared_weight_counts_once():
    module = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)).double()
    module[1].weight = module[0].weight
    weights, call = functional(module)
    assert weights.numel() == 9
    x = torch.randn(2, 3, dtype=torch.float64)
    W = weights.reshape(3, 3)
    assert torch.allclose(call(2 * weights, x), x @ (2 * W).T @ (2 * W).T)


@pytest.mark.parametrize("part", [nn.Dropout(0.1), nn.BatchNorm1d(3), nn.RReLU()])
def test_what_is_no_function_is_refused(part):
    with pytest.raises(ValueError, match=r"in training mode.*call \.eval\(\) on the module first"):
        functional(nn.Sequential(nn.Linear(4, 3), part))
    functional(nn.Sequential(nn.Linear(4, 3), part).eval())


def test_what_has_no_weights_is_refused():
    with pytest.raises(ValueError, match="Tanh has no trainable parameter"):
        functional(nn.Tanh())
    with pytest.raises(ValueError, match=r"is no torch\.nn\.Module"):
        functional(torch.sin)
