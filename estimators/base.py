"""The records of an estimator, and the one place that says whether it fits a problem.

An estimator says where f is asked (`draw`) and how the answers make a gradient (`combine`); only the harness calls f.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Flag, auto
from typing import TYPE_CHECKING, Any

from problems.base import Problem
from problems.calling import names
from problems.families.base import Noise, Size, across

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "Ask",
    "Claim",
    "Estimator",
    "Learning",
    "Noise",
    "Size",
    "across",
    "asks",
    "claim_of",
    "mismatch",
    "noise_of",
    "size_of",
    "takes",
    "target_of",
]


class Ask(Flag):
    """What is asked at a point; what is not asked is NaN.

    SAMPLE: f there, and the point is distributed as q, so that it counts in the objective's value and in the model's gradient.
    VALUE: f, at a point that is no sample. GRADIENT: df/dx too. HESSIAN: d2f/dx2 too.
    RELAXED: the point lies off the support. PARTS: f as its addends.
    """

    SAMPLE = auto()
    VALUE = auto()
    GRADIENT = auto()
    HESSIAN = auto()
    RELAXED = auto()
    PARTS = auto()


@dataclass(frozen=True)
class Claim:
    """What is claimed of an estimator for one objective.

    kind: unbiased, biased, or consistent (biased at any finite number of samples, vanishing as it grows).
    unless, because: a biased estimator is unbiased where `unless(problem)` holds, `because` saying so in words.
    target, of: what a biased estimator's mean is instead, `of` saying so in words ("the relaxed objective"): target(problem)
    is that gradient `[P]`, computed without the estimator, or None where it is not to be had for this problem.
    """

    kind: str
    unless: Callable[[Problem], bool] | None = None
    because: str = ""
    target: Callable[[Problem], Tensor | None] | None = None
    of: str = ""

    def __str__(self) -> str:
        return "; ".join(
            [
                self.kind,
                *([f"unbiased where {self.because}"] if self.because else []),
                *([f"unbiased for {self.of}"] if self.of else []),
            ]
        )


KINDS = ("unbiased", "biased", "consistent")
Points = int | Sequence[Ask] | Callable[[Size], "int | Sequence[Ask]"]
Noises = Sequence[Noise] | Callable[[Size], Sequence[Noise]]
UNBIASED: Mapping[str, str | Claim] = {"Expectation": "unbiased", "Elbo": "unbiased"}
BIASED: Mapping[str, str | Claim] = {"Expectation": "biased", "Elbo": "biased"}


@dataclass(frozen=True, eq=False)
class Learning:
    """A state is learned once for each cell, before anything is measured, and measured frozen.

    state = init(...), a dict of tensors; init may name theta, size, generator, data (all its rows).
    Then `steps` times state = learn(...), on `batch` replicates of a noise stream of its own; learn may name all that combine
    may, and `step`, and `gradient`: combine's result `[batch, P]` with its graph in the state.
    points, noise, draw: where f is asked meanwhile, if elsewhere than in the estimator.
    """

    init: Callable[..., dict[str, Tensor]]
    learn: Callable[..., dict[str, Tensor]] | None = None
    steps: int = 0
    batch: int = 1
    points: Points | None = None
    noise: Noises | None = None
    draw: Callable[..., Tensor] | None = None


@dataclass(frozen=True, eq=False)
class Estimator:
    """A stochastic gradient estimator. Functions are given what they name, out of:
    theta, q, size, objective, share, noise, state, x, fx, dfx, hfx, weight, parts, data.
    (share: how much of log q is in fx, where the objective is one of a ratio: 1, or 1/N where all N data share one x.)

    points: how many samples; or one Ask for each point; or a function of Size that gives either.
    draw: -> x `[K, R, (B,) *event]`. A point of NaN is neither evaluated nor counted.
    combine: -> the gradient `[R, (B,) *theta]`, or `[R, P]` by `q.pull` / `q.score` of a Chain.
    family: names of the families it is for; None: any that have a score.
    claims: objective -> unbiased | biased | consistent, or a Claim; an objective that is not there is refused.
    noise: the arrays that draw and combine read; None: one draw of the family for each point.
    value: its own estimate of the objective, where that is not the objective's value of the samples (serves the model's gradient).
    states: it enumerates a support of at most so many points; 0: it does not enumerate.
    gradients: instead of draw and combine, a function that calls the counting f itself (see estimators.adapters); points then
        says only which derivatives of f it takes.
    kernel: "module:factory" of the same estimator in lanes (`estimators.kernels.base.Form`), called with the settings.
    """

    name: str
    points: Points = 0
    draw: Callable[..., Tensor] | None = None
    combine: Callable[..., Tensor] | None = None
    family: Sequence[str] | None = None
    claims: Mapping[str, str | Claim] = field(default_factory=lambda: UNBIASED)
    noise: Noises | None = None
    value: Callable[..., Tensor] | None = None
    learning: Learning | None = None
    states: int = 0
    gradients: Callable[..., Tensor] | None = None
    kernel: Any = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""

    def __post_init__(self) -> None:
        """Raises ValueError, in a sentence, where the record says what cannot be."""
        for holds, why in self._conditions():
            if not holds:
                raise ValueError(f"{self.name}: {why}")

    def _conditions(self) -> Iterator[tuple[bool, str]]:
        whole = self.gradients is not None
        yield whole or (callable(self.draw) and callable(self.combine)), "it needs draw and combine, or gradients"
        yield not isinstance(self.family, str), f"family is {self.family!r}; it is a list of names, or None for any"
        yield not isinstance(self.noise, Noise), "noise is one Noise; it is a list of them"
        yield (
            bool(self.claims),
            "it claims nothing: claims says for which objectives it is unbiased, biased or consistent",
        )
        for objective, claim in self.claims.items():
            kind = claim if isinstance(claim, str) else claim.kind
            yield (
                kind in KINDS,
                f"it claims to be {kind!r} for {objective}; a claim is {', '.join(KINDS[:-1])} or {KINDS[-1]}",
            )
            if not isinstance(claim, str):
                words = (claim.unless is None) == (not claim.because) and (claim.target is None) == (not claim.of)
                yield words, f"its claim for {objective} has a condition or a target without its words, or words alone"


def size_of(problem: Problem) -> Size:
    """The shapes of one datum's parameters and points."""
    theta = problem.site_parameters(problem.theta)
    if problem.encode is not None and problem.rows:
        theta = theta[0]
    family: Any = problem.family
    return Size(family, tuple(theta.shape), tuple(family.event(theta)), problem.objective.samples, family.states(theta))


def asks(points: Points, size: Size) -> list[Ask]:
    """One Ask for each point."""
    found = points(size) if callable(points) else points
    return [Ask.SAMPLE] * found if isinstance(found, int) else list(found)


def noise_of(estimator_noise: Noises | None, size: Size, points: int) -> list[Noise]:
    """The noise arrays with their events filled in; by default one draw of the family for each point."""
    own = size.family.noise(size)
    if estimator_noise is None:
        return [n._replace(front=(points,)) for n in own]
    wanted = estimator_noise(size) if callable(estimator_noise) else estimator_noise
    return [n if n.event is not None else n._replace(event=own[0].event) for n in wanted]


def claim_of(estimator: Estimator, problem: Problem) -> str:
    """unbiased, biased or consistent, for this problem: a claim's condition is looked up in it."""
    claim = estimator.claims[problem.objective.name]
    if isinstance(claim, str):
        return claim
    return "unbiased" if claim.unless is not None and claim.unless(problem) else claim.kind


def target_of(estimator: Estimator, problem: Problem) -> tuple[Tensor, str] | None:
    """What a biased estimator's mean is claimed to be on this problem, `[P]`, and of what it is the gradient.

    None where it has no target, or f draws noise, or all data share one x, for which targets are not written.
    """
    from problems.truth import of_closed_form

    claim = estimator.claims[problem.objective.name]
    if isinstance(claim, str) or claim.target is None or problem.noise or problem.shared:
        return None
    found = claim.target(problem)
    return None if found is None else (found.reshape(-1) + of_closed_form(problem), claim.of)


def takes(estimator: Estimator, family: Any) -> bool:
    """Whether it is for variables of this family: those that it names, or else any that have a score."""
    return bool(getattr(family, "scored", True)) if estimator.family is None else family.name in estimator.family


def mismatch(estimator: Estimator, problem: Problem) -> str | None:
    """Why the pair cannot run, in a sentence; None if it can."""
    e, p, objective = estimator, problem, problem.objective
    family: Any = problem.family
    if not takes(e, family):
        named = "variables that have a score" if e.family is None else f"{' or '.join(e.family)} variables"
        return f"{e.name} is for {named}; {p.name}'s are {family.name}"
    if objective.name not in e.claims:
        return f"{e.name} estimates the gradient of {' or '.join(e.claims)}; {p.name}'s objective is {objective.name}"
    if e.gradients is not None and (why := _whole_mismatch(e, p)):
        return why
    size = size_of(p)
    if e.states and (size.states is None or size.states > e.states):
        count = "an infinite support" if size.states is None else f"{size.states:.3g} states"
        return f"{e.name} enumerates the support, at most {e.states} states; {p.name} has {count}"
    try:
        asked = asks(e.points, size)
    except ValueError as error:  # the points are a function of the size, which may not do for them
        return str(error)
    union = Ask(0)
    for one in asked:
        union |= one
    if (order := _order(e, union)) > p.smooth:
        moves = order == 2 and Ask.HESSIAN not in union
        why = " (learning moves the points where it asks for gradients)" if moves else ""
        return f"{e.name} needs {order} derivative{'s' * (order > 1)} of f{why}; {p.name} offers {p.smooth or 'none'}"
    if Ask.RELAXED in union and not p.relaxed:
        return f"{e.name} evaluates f off its support; {p.name}'s f is defined on it only"
    if Ask.PARTS in union and p.parts is None:
        return f"{e.name} needs the addends of f; {p.name} gives only their sum"
    if Ask.PARTS in union and objective.ratio:
        return f"{e.name} needs the addends of f; {p.name}'s integrand, for {objective.name}, has log q in it as well"
    samples = sum(Ask.SAMPLE in one for one in asked)
    if e.gradients is None and objective.samples > 1 and (samples == 0 or samples % objective.samples):
        return f"{e.name} draws {samples} samples; {p.name}'s bound takes {objective.samples}"
    if p.model is not None and not samples and e.value is None:
        return f"{e.name} draws no sample of q, so that {p.name}'s model would get no gradient"
    return None


def _order(estimator: Estimator, union: Ask) -> int:
    """Derivatives of f that it needs: one more where points that ask for gradients move with what is learned."""
    order = 2 if Ask.HESSIAN in union else 1 if Ask.GRADIENT in union else 0
    learning = estimator.learning
    if not order or learning is None or learning.learn is None or not learning.steps or learning.draw is not None:
        return order
    assert estimator.draw is not None
    moves = "gradient" in names(learning.learn) and "state" in names(estimator.draw)
    return 2 if moves else order


def _whole_mismatch(e: Estimator, p: Problem) -> str | None:
    """Estimators that call f themselves see a plain f(x) of theta."""
    if p.encode is not None or p.model is not None or p.data is not None or p.noise:
        return f"{e.name} is handed a plain f of theta; {p.name} has an encoder, a model, data or noise of its own"
    if getattr(p.family, "layers", ()):
        return f"{e.name} is handed a plain f of theta; {p.name} has layers"
    return None
