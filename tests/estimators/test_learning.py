"""Adam, the descent of the variance, and slopes of learned functions."""

from __future__ import annotations

import pytest
import torch

from estimators.learning import adam, check_learning, least_variance, slope


def test_adam_is_that_of_torch():
    start = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    ours, theirs = {"w": start.clone()}, start.clone().requires_grad_()
    optimiser = torch.optim.Adam([theirs], lr=0.05)
    for step in range(20):
        ours = adam(ours, {"w": ours["w"] ** 3 - 1}, 0.05, step)
        theirs.grad = (theirs**3 - 1).detach()
        optimiser.step()
    torch.testing.assert_close(ours["w"], theirs.detach(), rtol=1e-10, atol=1e-10)


def test_the_variance_is_descended_in_the_named_parts_only():
    learn = least_variance("eta", lr=0.1)
    noise = torch.randn(1000, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    state = {"eta": torch.tensor(0.0, dtype=torch.float64), "kept": torch.tensor(7.0, dtype=torch.float64)}
    for step in range(100):
        live = {n: t.detach().requires_grad_() for n, t in state.items()}
        g = 1 + (live["eta"] - 0.8) * noise
        state = {n: t.detach() for n, t in learn(live, g, step).items()}
    assert state["eta"].item() == pytest.approx(0.8, abs=0.05)
    assert state["kept"].item() == 7


def test_the_slope_carries_the_weights_only_while_they_are_learned():
    w = torch.tensor([2.0, 3.0], requires_grad=True)
    z = torch.tensor([[0.1, 0.2]])
    c, dc = slope(lambda z: (w * z**2).sum(-1), z)
    (second,) = torch.autograd.grad(dc.sum(), w)
    torch.testing.assert_close(second, 2 * z[0])
    with torch.no_grad():
        c, dc = slope(lambda z: (w.detach() * z**2).sum(-1), z)
    assert not c.requires_grad
    assert not dc.requires_grad
    torch.testing.assert_close(dc, torch.tensor([[0.4, 1.2]]))


@pytest.mark.parametrize(("steps", "lr", "setting"), [(-1, 0.1, "steps"), (1, 0.0, "lr"), (1, -1.0, "lr")])
def test_steps_and_rates_that_make_no_sense_are_refused(steps, lr, setting):
    with pytest.raises(ValueError, match=rf"member\[{setting}="):
        check_learning("member", steps, lr)
