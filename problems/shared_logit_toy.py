"""Three bits that share one logit: the toy of Rao-Blackwellised and without-replacement gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from problems.base import Point, Problem
from problems.families.base import Family
from problems.families.bernoulli import Bernoulli
from problems.families.categorical import Categorical
from problems.settings import one_of

TARGETS = (0.6, 0.51, 0.48)


def shared_logit_toy(form: str = "bernoulli") -> Problem:
    """E sum_i (b_i - t_i)^2 over three bits with ONE shared logit eta, t = (.6, .51, .48).

    theta = [eta]. form=bernoulli: three Bernoulli sites whose logits are all eta; form=categorical: one site over the 8 states
    of (b_1, b_2, b_3), state s with logit eta |s|, and f the table of its 8 values. The gradient, p (1 - p) sum_i (1 - 2 t_i) =
    -.18 p (1 - p), is a small difference of larger ones. The two forms have the same law and the same gradient, so that they tell
    estimators for bits from estimators for categories; at `low_entropy` (eta = -4) nearly every sample is 000, which is where
    sampling without replacement and summing over the likely states pay. Liu et al. 2019, arXiv:1810.04777; Kool et al. 2020,
    arXiv:2002.06043.
    """
    one_of("shared_logit_toy", ("bernoulli", "categorical"), form=form)
    targets = torch.tensor(TARGETS, dtype=torch.float64)
    bits = torch.cartesian_prod(*[torch.arange(2.0, dtype=torch.float64)] * 3)
    table = ((bits - targets) ** 2).sum(-1)

    def cost_of_bits(x: torch.Tensor) -> torch.Tensor:
        """sum_i (x_i - p_i)^2."""
        return ((x - targets.to(x)) ** 2).sum(-1)

    def cost_of_state(x: torch.Tensor) -> torch.Tensor:
        """sum_s x_s sum_i (b_si - p_i)^2, b_s the bits of state s."""
        return (x * table.to(x)).sum((-2, -1))

    values = table.numpy()

    def bits_f(x: Sequence[float]) -> float:
        total = 0.0
        for i in range(3):
            total += (x[i] - TARGETS[i]) ** 2
        return total

    def state_f(x: Sequence[Sequence[float]]) -> float:
        total = 0.0
        for s in range(8):
            total += x[0][s] * values[s]
        return total

    def three_logits(theta: torch.Tensor) -> torch.Tensor:
        return theta.expand(3)

    def eight_logits(theta: torch.Tensor) -> torch.Tensor:
        return theta * bits.sum(-1).to(theta)[None]

    as_bits = form == "bernoulli"
    family: type[Family] = Bernoulli if as_bits else Categorical
    points = {
        name: Point(torch.tensor([eta], dtype=torch.float64)) for name, eta in [("init", 0.0), ("low_entropy", -4.0)]
    }
    return Problem(
        name="shared_logit_toy",
        family=family,
        theta=points["init"].theta,
        f=cost_of_bits if as_bits else cost_of_state,
        smooth=2,
        relaxed=True,
        degree=2 if as_bits else 1,
        scalar_f=bits_f if as_bits else state_f,
        encode=three_logits if as_bits else eight_logits,
        points=points,
        settings={"form": form},
        source="Liu et al. 2019, arXiv:1810.04777; Kool et al. 2020, arXiv:2002.06043",
    )
