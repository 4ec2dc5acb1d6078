"""Problem: what is known of an expectation whose gradient is estimated. What is None or 0 is not offered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple

from problems.calling import call
from problems.objectives import Expectation, Objective

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family, Noise
    from problems.lanes import Kit, LaneModel

DEFAULT_POINT = "init"
MOST_NOISE = 7  # arrays that f draws: the addresses between those of an estimator and that of the rows


def _is_float_tensor(value: Any) -> bool:
    return bool(getattr(value, "is_floating_point", bool)())


class Point(NamedTuple):
    """A named place in parameter space: theta, and the model's parameters where there are any."""

    theta: Tensor
    model: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Problem:
    """An expectation E_q f(x), or a bound built on it, as a function of theta.

    name: as the command line writes it.
    family: theta -> q (`problems.families`); estimators are matched by its `name`.
    theta: what is differentiated: `[D, C]` of categorical and Dirichlet variables, `[2, D]` of Normal, Gamma, Beta and von Mises
        variables, `[D]` of the other families; or the weights `[P]` that give the sites' parameters (`encode`, Chain).
    f: x `[..., *event] -> [...]` in the dtype and on the device of x; addends `[..., T]` where `parts` is given; it may also name
        `data` and `model`. With data its value has the data axis last: x `[..., B, D] -> [..., B]`.
    objective: what is made of f; the objective says what the true gradient is.
    smooth: derivatives of f that exist (0, 1, 2). degree: degree of f as a polynomial in x, where it is one.
    relaxed: f is defined off the support. parts: `[T, D]` bool, addend t depends on site d.
    encode: weights -> site parameters `[(B,) ...]` that do not depend on the draw (amortised, or tied); it may name `data`.
    model: parameters of f whose gradient is wanted as well, `[M]`; it follows theta's in the gradient.
    data: `[N, F]`, the axis B. batch: rows drawn (without replacement) for each replicate, scaled by N / batch; 0: all of them.
    shared: one x for all the data of a replicate (weights, say), where otherwise each datum has its own: the axis B of x holds the
        same point over and over, f is a datum's share of the whole, and so is the log q that a ratio takes from it, 1 / N of it.
    noise: what f itself draws, once for each replicate and datum, the same at all points: f may name `noise`, `[R, (B,) *event]`,
        an array for each Noise. So variables that are reparameterised inside f go beside those that x is.
    closed_form: a term of L that needs no draw (a KL divergence, say): `closed_form(theta) -> []`, or, naming `data`, `-> [B]`,
        which is scaled as f is. Its gradient is added to the true one and to every replicate.
    exact: the true gradient where the support cannot be enumerated: a Tensor `[P]`, or a `problems.truth.Truth`; None where it
        has none for these settings.
    scalar_f: the same f of one point as plain Python over floats, for the kernels to compile; for problems without data or model.
    lanes: the same f over lanes of points, `lanes(kit) -> LaneModel` (`problems.lanes`); it goes before scalar_f.
    points: named parameter points. settings: those of the factory. source: paper or origin.
    """

    name: str
    family: Callable[..., Family]
    theta: Tensor
    f: Callable[..., Tensor]
    objective: Objective = field(default_factory=Expectation)
    smooth: int = 0
    relaxed: bool = False
    degree: int | None = None
    parts: Tensor | None = None
    encode: Callable[..., Tensor] | None = None
    model: Tensor | None = None
    data: Tensor | None = None
    batch: int = 0
    shared: bool = False
    noise: Sequence[Noise] = ()
    closed_form: Callable[..., Tensor] | None = None
    exact: Callable[[Problem], Any] | None = None
    scalar_f: Callable[..., float] | None = None
    lanes: Callable[[Kit], LaneModel] | None = None
    points: Mapping[str, Point] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""

    @property
    def family_name(self) -> str:
        """Name of the family, as estimators are matched by it."""
        return str(getattr(self.family, "name", "unnamed"))

    def __post_init__(self) -> None:
        """Raises ValueError, in a sentence, where the record says what cannot be."""
        for holds, why in self._conditions():
            if not holds:
                raise ValueError(f"{self.name}: {why}")

    def _conditions(self) -> Iterator[tuple[bool, str]]:
        objective, rows = self.objective, self.rows
        yield isinstance(objective, Objective), f"objective is {objective!r}; call it, as in Elbo()"
        yield _is_float_tensor(self.theta), "theta must be a tensor of floats"
        yield (
            hasattr(self.family, "event") and hasattr(self.family, "noise"),
            "family must be one of the families, such as Bernoulli",
        )
        yield 0 <= self.smooth <= 2, f"smooth is {self.smooth}; it counts derivatives of f: 0, 1 or 2"
        yield self.model is None or _is_float_tensor(self.model), "model must be a flat tensor of floats"
        yield self.data is None or self.data.ndim == 2, "data must be a matrix [N, F], a row for each datum"
        yield 0 <= self.batch <= rows, f"batch is {self.batch} of {rows} rows of data"
        yield not self.shared or self.data is not None, "shared says that all data have one x, but there is no data"
        yield not self.shared or self.encode is None, "shared says that all data have one x, which no encoder can give"
        single = (objective.samples == 1 and objective.exact is None) or not (self.shared or self.noise)
        yield single, f"{objective.name} takes several draws, each with its own x for each datum and its own noise of f"
        yield all(n.event is not None for n in self.noise), "the noise of f must say its event"
        yield (
            not any(n.front for n in self.noise),
            "the noise of f is the same at all points, and so without axes in front",
        )
        yield len(self.noise) <= MOST_NOISE, f"f draws {len(self.noise)} arrays of noise; {MOST_NOISE} is the most"
        yield (
            self.model is None or objective.moves_model,
            f"{objective.name} does not say what a model's gradient is; leave model out",
        )
        for name, point in self.points.items():
            same = (point.model is None) == (self.model is None) and point.theta.shape == self.theta.shape
            yield same, f"its point {name!r} has another shape than theta, or lacks the model"

    @property
    def share(self) -> float:
        """How much of log q is in fx where the objective is one of a ratio: all, or a datum's share where all data share one x."""
        return 1 / self.rows if self.shared else 1.0

    def at(self, point: str) -> Problem:
        """This problem at one of its named points. Raises ValueError where there is no such point."""
        if not self.points and point == DEFAULT_POINT:
            return self
        if point not in self.points:
            near = get_close_matches(point, self.points, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"{self.name} has no point {point!r}: it has {', '.join(self.points) or DEFAULT_POINT}{hint}"
            )
        there = self.points[point]
        return replace(self, theta=there.theta, model=there.model)

    def point_names(self) -> list[str]:
        """Names of the parameter points; `init` alone where none is named."""
        return list(self.points) or [DEFAULT_POINT]

    @property
    def rows(self) -> int:
        """Number of data in the sum; 0 where there are none."""
        return 0 if self.data is None else len(self.data)

    @property
    def dim(self) -> int:
        """Number of entries of the gradient: theta's, and the model's."""
        return self.theta.numel() + (0 if self.model is None else self.model.numel())

    def site_parameters(self, theta: Tensor, data: Tensor | None = None) -> Tensor:
        """The parameters of the sites at the weights `theta`: `[(B,) ...]`."""
        if self.encode is None:
            return theta
        return call(self.encode, {"data": self.data if data is None else data}, theta)

    def bind(self, theta: Tensor, data: Tensor | None = None) -> Family:
        """q: the family bound to the site parameters `theta`, and to the data where its layers read them."""
        if getattr(self.family, "takes_data", False):
            return self.family(theta, self.data if data is None else data)
        return self.family(theta)

    def value(
        self, x: Tensor, model: Tensor | None = None, data: Tensor | None = None, noise: Sequence[Tensor] = ()
    ) -> Tensor:
        """f at x, with the model's parameters and the rows of data given or else the problem's own, and the noise it draws."""
        known: dict[str, Any] = {
            "model": self.model if model is None else model,
            "data": self.data if data is None else data,
        }
        if self.noise:
            known["noise"] = noise[0] if len(noise) == 1 else tuple(noise)
        return call(self.f, known, x)
