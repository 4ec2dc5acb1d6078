"""What every family of distributions offers an estimator: q, the family bound to its parameters.

Points come first and the event last, replicates and data between: x is `[K, R, (B,) *event]`, theta `[(B,) *site]`, so theta
broadcasts against the points. The derivatives are written by hand, once for each family; the tests hold them against autograd.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class Noise(NamedTuple):
    """An addressed array `[*front, R, (B,) *event]` of random numbers, a pure function of its address.

    kind: uniform, normal, exponential, gumbel or sign: each a fixed map of the same Philox words.
    front: axes before the replicates, usually (K,).
    event: axes of one draw; None is the event of the family's own noise.
    per_datum: False for one draw that all the data share.
    """

    kind: str = "uniform"
    front: tuple[int, ...] = ()
    event: tuple[int, ...] | None = None
    per_datum: bool = True


class Size(NamedTuple):
    """All that the points and the noise of an estimator may depend on.

    family: the family's class. theta: shape of the parameters of one datum. event: shape of one point.
    samples: K of the objective. states: size of a finite support, None where it is infinite.
    """

    family: Any
    theta: tuple[int, ...]
    event: tuple[int, ...]
    samples: int
    states: int | None

    @property
    def D(self) -> int:
        """Number of latent sites."""
        return self.event[0]


def across(weight: Tensor, g: Tensor) -> Tensor:
    """`weight` with trailing axes added, so that it multiplies `g` over g's last axes."""
    return weight.reshape(*weight.shape, *[1] * (g.ndim - weight.ndim))


class Family:
    """A distribution q bound to its parameters theta.

    Class attributes: `name`; `finite` (its support can be listed); `factorised` (its sites are independent); `scored` (log q has a
    gradient in theta); `event_axes`, the number of trailing axes of a point.
    """

    name: ClassVar[str]
    finite: ClassVar[bool] = False
    factorised: ClassVar[bool] = True
    scored: ClassVar[bool] = True
    event_axes: ClassVar[int] = 1
    layers: ClassVar[Sequence[Any]] = ()

    def __init__(self, theta: Tensor) -> None:
        self.theta = theta

    @staticmethod
    def event(theta: Tensor) -> tuple[int, ...]:
        """Shape of one point, given the parameters of one datum."""
        return tuple(theta.shape[-1:])

    @classmethod
    def noise(cls, size: Size) -> list[Noise]:
        """The noise of one draw."""
        raise NotImplementedError

    @classmethod
    def states(cls, theta: Tensor) -> int | None:
        """Number of points of the support; None where it is infinite."""
        return None

    def at(self, theta: Tensor) -> Family:
        """The same family at other parameters, which may have axes for points and replicates."""
        return type(self)(theta)

    def sample(self, noise: Tensor) -> Tensor:
        """x ~ q from the noise of one draw: `[..., *event]`."""
        raise NotImplementedError

    def log_prob(self, x: Tensor) -> Tensor:
        """log q(x): `[..., *event] -> [...]`. Off the support it is the formula's continuation."""
        raise NotImplementedError

    def local(self, x: Tensor) -> Tensor:
        """The score of each site, d log q(x) / d params, in the shape of the parameters: `[..., *site]`."""
        raise NotImplementedError

    def params(self, x: Tensor) -> Tensor:
        """Parameters of the sites at x: theta, wherever they do not depend on the draw."""
        return self.theta

    def pull(self, x: Tensor, g: Tensor) -> Tensor:
        """sum_k (d params(x_k) / d theta)' g_k: `[K, R, ...] -> [R, ...]`."""
        return g.sum(0)

    def score(self, x: Tensor, weight: Tensor) -> Tensor:
        """sum_k weight_k grad_theta log q(x_k); weight: `[K, R, (B)]`."""
        local = self.local(x)
        return self.pull(x, across(weight, local) * local)

    def path(self, x: Tensor, cotangent: Tensor) -> Tensor:
        """sum_k (d x_k / d theta)' cotangent_k along the reparameterisation of x; cotangent is shaped as x."""
        raise NotImplementedError(f"{self.name} variables have no pathwise derivative")

    @property
    def mean(self) -> Tensor:
        """E_q x: `[(B,) *event]`."""
        raise NotImplementedError(f"{self.name} variables offer no mean")

    def mean_pull(self, g: Tensor) -> Tensor:
        """(d mean / d theta)' g."""
        raise NotImplementedError(f"{self.name} variables offer no derivative of their mean")

    def support(self) -> Tensor:
        """Every point of a finite support: `[S, *event]`."""
        raise NotImplementedError(f"{self.name} variables have no finite support to list")
