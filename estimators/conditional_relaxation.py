"""z, and z given b, the relaxed variable whose hard value is b: both reparameterised, as REBAR and RELAX need them.

Both forms are written in log space, so that nothing is lost where a probability rounds to 0 or 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import softplus

from estimators.relaxation import perturbed

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family

Pull = Callable[["Tensor"], "Tensor"]


def free(q: Family, noise: Tensor) -> Tensor:
    """z whose hard value is the sample that q makes of this noise; finite. dz/dl is the identity."""
    return perturbed(q, within_unit(noise) if q.name == "bernoulli" else noise)


def conditioned(q: Family, b: Tensor, noise: Tensor) -> tuple[Tensor, Pull]:
    """z~ given b from fresh noise of q's family, and the pull-back c -> (dz~/dl)' c to the logits l."""
    return bits_given(q.theta, b, noise) if q.name == "bernoulli" else categories_given(q.theta, b, noise)


def tied(q: Family, b: Tensor, z: Tensor) -> Pull:
    """The pull-back of z~ = z: of the noise of z given b that gives z again, held fixed where the logits move; b is z's hard value.

    dz~/dl = p (1 - e^-z) where b = 1, (1 - p) (1 - e^z) where b = 0; of categories d z~_i / d log p_i = 1 - e^(z_i - z_b).
    """
    if q.name == "bernoulli":
        sign = 2 * b - 1
        slope = -(sign * q.theta).sigmoid() * (-sign * z).expm1()
        return lambda c: slope * c
    z_b = (b * z).sum(-1, keepdim=True)
    return categories_pull(q.theta.softmax(-1), -(z - z_b).expm1())


def bits_given(logits: Tensor, b: Tensor, v: Tensor) -> tuple[Tensor, Pull]:
    """z~ = l + logit v', v' = v p + 1 - p where b = 1, v (1 - p) where b = 0; dz~/dl runs through p in v' too.

    Where b = 1 that is z~ = log(1 + v e^l) - log(1 - v) and dz~/dl = sigmoid(l + log v); where b = 0 it is minus the same with
    -l and 1 - v for l and v. Tucker et al. 2017, arXiv:1703.07370.
    """
    v = within_unit(v)
    up = torch.where(b > 0, v, 1 - v)
    toward = torch.where(b > 0, logits, -logits) + up.log()
    sign = 2 * b - 1
    return sign * (softplus(toward) - (1 - up).log()), lambda c: toward.sigmoid() * c


def categories_given(logits: Tensor, b: Tensor, gumbel: Tensor) -> tuple[Tensor, Pull]:
    """z~_b = -log E_b, and z~_i = -log(E_i / p_i + E_b) for the others, E = -log v = e^-G of the fresh Gumbel noise.

    d z~_i / d log p_i = E_i / p_i / (E_i / p_i + E_b), 0 for b. Grathwohl et al. 2018, arXiv:1711.00123, appendix.
    """
    log_p = logits.log_softmax(-1)
    log_E_b = -(b * gumbel).sum(-1, keepdim=True)
    log_ratio = -gumbel - log_p
    z = -torch.where(b > 0, log_E_b, torch.logaddexp(log_ratio, log_E_b))
    share = torch.where(b > 0, 0.0, (log_ratio - log_E_b).sigmoid())
    return z, categories_pull(log_p.exp(), share)


def categories_pull(p: Tensor, share: Tensor) -> Pull:
    """c -> share c - p sum share c: through log p to the logits, share the derivatives in log p."""
    return lambda c: share * c - p * (share * c).sum(-1, keepdim=True)


def within_unit(u: Tensor) -> Tensor:
    """u with a uniform that rounds to 1, as one in 2^25 does in float32, put just below it."""
    return u.clamp(max=1 - torch.finfo(u.dtype).eps / 2)
