"""The only caller of f: draws points, asks f what the estimator asked, combines, and counts.

`Trial` is one estimator on one problem with everything that does not change between replicates; `gradients(range)` is a pure
function of it and of the learned state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch

from estimators.base import Ask, Estimator, asks, mismatch, noise_of, size_of
from estimators.noise import INNER_INDEX, LEARN, MEASURE, addressed, key_of, rows_without_replacement
from problems.base import Problem
from problems.calling import call, names
from problems.families.base import Noise, across

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family

State = Mapping[str, "Tensor"]


class MemberError(Exception):
    """A member broke the contract; the sentence says which, and how."""


class Mismatch(ValueError):
    """The pair was asked for and cannot run; the sentence says why."""


@dataclass
class Count:
    """Evaluations of f, of its gradient and of its Hessian, each of one point of one datum."""

    f: int = 0
    gradient: int = 0
    hessian: int = 0


@dataclass(frozen=True, eq=False)
class Trial:
    """An estimator on a problem, ready to be asked for gradients of replicates.

    key: of the noise. rows_key: of the rows of data drawn, where it is another.
    """

    estimator: Estimator
    problem: Problem
    key: int
    dtype: torch.dtype = torch.float64
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    rows_key: int | None = None

    @property
    def dim(self) -> int:
        """P: entries of one gradient."""
        return self.problem.dim


def prepare(
    estimator: Estimator, problem: Problem, seed: int = 0, point: str = "", dtype: str = "float64", device: str = "cpu"
) -> Trial:
    """A Trial of the pair, on the noise that every estimator of this problem and point shares.

    Raises Mismatch where the pair cannot run.
    """
    if why := mismatch(estimator, problem):
        raise Mismatch(why)
    kind, where = getattr(torch, dtype), torch.device(device)

    def cast(t: Tensor) -> Tensor:
        return t.detach().to(where, kind, copy=True)

    def optionally(t: Tensor | None) -> Tensor | None:
        return None if t is None else cast(t)

    moved = replace(
        problem,
        theta=cast(problem.theta),
        model=optionally(problem.model),
        data=optionally(problem.data),
        parts=optionally(problem.parts),
    )
    key = key_of(int(seed), problem.name, sorted(problem.settings.items()), point)
    return Trial(estimator, moved, key, kind, where)


def plain_samples(problem: Problem, samples: int = 1) -> Estimator:
    """Independent draws of q, of which no gradient is made: to evaluate f, or to time that."""
    claims, family = {problem.objective.name: "unbiased"}, [problem.family_name]
    return Estimator("samples", samples, lambda q, noise: q.sample(noise), lambda theta: theta, family, claims)


@dataclass(frozen=True, eq=False)
class Given:
    """What the replicates bring besides their points: rows of data of their own `[R, B, F]`, or None, and the noise f draws."""

    data: Tensor | None = None
    noise: Sequence[Tensor] = ()


@dataclass(frozen=True, eq=False)
class Answers:
    """What one draw gave: all that combine and learn may name, and what the replicates brought."""

    known: dict[str, Any]
    given: Given


def gradients(
    trial: Trial, replicates: range, state: State | None = None, phase: int = MEASURE, count: Count | None = None
) -> Tensor:
    """One gradient for each replicate, `[R, P]`: theta's entries, then the model's."""
    count = count or Count()
    problem, rows = trial.problem, None
    if trial.estimator.gradients is not None:
        g = _whole(trial, replicates, phase, count)
    else:
        answers = ask(trial, replicates, state, phase, count)
        rows = answers.given.data
        with torch.no_grad():
            g = _combine(trial, answers, len(replicates))
        parts = [_pull_back(problem, g, rows)]
        if problem.model is not None:
            parts.append(_model_gradient(trial, answers))
        g = torch.cat(parts, -1)
        g = g * (problem.rows / problem.batch) if problem.batch else g
    return g if problem.closed_form is None else g + closed_form_gradient(problem, rows)


def ask(trial: Trial, replicates: range, state: State | None, phase: int, count: Count, graph: bool = False) -> Answers:
    """Draw the points of these replicates and evaluate f on them; with `graph`, differentiably in the state."""
    estimator, problem = trial.estimator, trial.problem
    size = size_of(problem)
    asked = asks(estimator.points, size)
    rows, data = _rows(trial, replicates, phase)
    theta = problem.site_parameters(problem.theta, data).detach()
    q = problem.bind(theta, data)
    read = noise_of(estimator.noise, size, len(asked))
    if len(read) > INNER_INDEX:
        raise MemberError(f"{estimator.name}: it reads {len(read)} arrays of noise; {INNER_INDEX} is the most")
    noise = [_addressed(trial, n, phase, index, replicates, rows) for index, n in enumerate(read)]
    inner = [
        _addressed(trial, n, phase, INNER_INDEX + index, replicates, rows) for index, n in enumerate(problem.noise)
    ]
    given = Given(data, inner)
    known: dict[str, Any] = {
        "theta": theta,
        "q": q,
        "size": size,
        "objective": problem.objective,
        "share": problem.share,
        "noise": noise[0] if len(noise) == 1 else tuple(noise),
        "state": state,
        "parts": problem.parts,
        "data": problem.data if data is None else data,
    }
    with torch.set_grad_enabled(graph):
        assert estimator.draw is not None
        x = call(estimator.draw, known)
        _check_points(trial, x, len(asked), len(replicates), size.event)
        known["x"] = x
        known["fx"], known["dfx"], known["hfx"] = _evaluate(problem, q, asked, x, given, count, graph)
    if _names_weight(estimator):
        known["weight"] = _weights(trial, known, _weighed(trial))
    return Answers(known, given)


def _names_weight(estimator: Estimator) -> bool:
    learn_ = estimator.learning.learn if estimator.learning else None
    return any("weight" in names(one) for one in (estimator.combine, learn_) if one is not None)


def _rows(trial: Trial, replicates: range, phase: int) -> tuple[Any, Tensor | None]:
    """Indices of the data that address the noise, and the rows drawn where each replicate has its own."""
    problem = trial.problem
    if problem.data is None:
        return None, None
    if not problem.batch:
        return range(problem.rows), None
    key = trial.key if trial.rows_key is None else trial.rows_key
    wanted = (key, phase, replicates, problem.rows, problem.batch)
    if (there := _noise_maker(trial.device)) is not None:
        rows = there.rows_without_replacement(*wanted, trial.device)
        return rows, problem.data[rows]
    rows = rows_without_replacement(*wanted)
    return rows, problem.data[rows.to(trial.device)]


def _addressed(trial: Trial, noise: Noise, phase: int, index: int, replicates: range, rows: Any) -> Tensor:
    """One array of noise on the trial's device; that of x is the same for all data where they share one point."""
    shared = trial.problem.shared and noise.per_datum and index < INNER_INDEX
    wanted = (
        noise._replace(per_datum=False) if shared else noise,
        trial.key,
        phase,
        index,
        replicates,
        rows,
        trial.dtype,
    )
    if (there := _noise_maker(trial.device)) is not None:
        made: Tensor = there.addressed(*wanted, trial.device)
    else:
        made = addressed(*wanted).to(trial.device)
    if not shared:
        return made
    axis = len(noise.front) + 1
    return made.expand(*made.shape[:axis], trial.problem.batch or trial.problem.rows, *made.shape[axis + 1 :])


def _noise_maker(device: torch.device) -> Any:
    """What makes noise on this device; None where it is made on the CPU and copied."""
    if device.type != "cuda":
        return None
    from estimators.kernels.cuda import why_unusable

    return import_module("estimators.kernels.cuda_noise") if why_unusable() is None else None


def _check_points(trial: Trial, x: Any, points: int, replicates: int, event: tuple[int, ...]) -> None:
    rows = trial.problem.batch or trial.problem.rows
    wanted = (points, replicates, *([rows] if rows else []), *event)
    if not isinstance(x, torch.Tensor) or tuple(x.shape) != wanted:
        found = tuple(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__
        raise MemberError(
            f"{trial.estimator.name}: draw gave x of shape {found}; {wanted} was declared [K, R, (B,) *event]"
        )
    _check_kind(trial, "draw gave x", x)


def _check_kind(trial: Trial, what: str, t: Tensor) -> None:
    """A result in another dtype, or on another device, would be measured as what it is not."""
    if t.dtype != trial.dtype or t.device.type != trial.device.type:
        found, wanted = (
            f"{d} on {w}".replace("torch.", "") for d, w in ((t.dtype, t.device), (trial.dtype, trial.device))
        )
        raise MemberError(
            f"{trial.estimator.name}: {what} in {found}; this is measured in {wanted} (`.to(theta)` converts)"
        )


def _integrand(problem: Problem, q: Family, x: Tensor, given: Given, parts: bool) -> Tensor:
    """fx: f, or f - log q where the objective is one of a ratio (a datum's share of log q, where all data share one point)."""
    fx = problem.value(x, None, given.data, given.noise)
    if not isinstance(fx, torch.Tensor) or not fx.is_floating_point():
        found = str(fx.dtype).replace("torch.", "") if isinstance(fx, torch.Tensor) else type(fx).__name__
        raise MemberError(f"{problem.name}: f gave {found}; a tensor of floats, one for each point, was expected")
    if problem.parts is not None and not parts:
        fx = fx.sum(-1)
    if not parts and tuple(fx.shape) != tuple(x.shape[: x.ndim - q.event_axes]):
        lead = tuple(x.shape[: x.ndim - q.event_axes])
        raise MemberError(
            f"{problem.name}: f gave shape {tuple(fx.shape)} for points {tuple(x.shape)}; {lead} was expected"
        )
    return fx - problem.share * q.log_prob(x) if problem.objective.ratio else fx


def _evaluate(
    problem: Problem, q: Family, asked: list[Ask], x: Tensor, given: Given, count: Count, graph: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """fx [K, R, (B)], and dfx, hfx where any point asks for them (NaN at the points that do not)."""
    parts = any(Ask.PARTS in one for one in asked)
    alive = ~x.detach().isnan().flatten(x.ndim - q.event_axes).any(-1)
    if not alive.all():
        _check_dead(asked, alive)
        count.f += int(alive.sum())
        fx = _integrand(problem, q, torch.nan_to_num(x), given, parts)
        return torch.where(across(alive, fx), fx, torch.nan), None, None
    each = alive[0].numel()
    kinds: dict[int, list[int]] = {}
    for k, one in enumerate(asked):
        kinds.setdefault(_order(one), []).append(k)
    count.f += each * len(asked)
    count.gradient += each * sum(len(points) for order, points in kinds.items() if order >= 1)
    count.hessian += each * len(kinds.get(2, []))
    found = [
        _answers(problem, q, x if len(kinds) == 1 else x[points], given, order, parts, graph)
        for order, points in kinds.items()
    ]
    if len(kinds) == 1:
        return found[0]
    asked_at = [k for points in kinds.values() for k in points]
    place = torch.tensor([asked_at.index(k) for k in range(len(asked))], device=x.device)
    points = list(kinds.values())
    fx = torch.cat([one[0] for one in found])[place]
    return fx, _together([one[1] for one in found], points, place), _together([one[2] for one in found], points, place)


def _check_dead(asked: list[Ask], alive: Tensor) -> None:
    """A point of NaN may be one whose value alone is asked: there is no derivative of f there, and it is no sample."""
    dead = [one for one, live in zip(asked, alive.flatten(1).all(1).tolist(), strict=True) if not live]
    if any(one & (Ask.GRADIENT | Ask.HESSIAN) for one in dead):
        raise MemberError("draw gave NaN at a point where a derivative of f is asked")


def _order(one: Ask) -> int:
    """Derivatives asked at a point: 0, 1 or 2."""
    return 2 if Ask.HESSIAN in one else 1 if Ask.GRADIENT in one else 0


Answered = tuple["Tensor", "Tensor | None", "Tensor | None"]


def _answers(problem: Problem, q: Family, x: Tensor, given: Given, order: int, parts: bool, graph: bool) -> Answered:
    """fx at points of which all ask the same, and so many derivatives."""
    if order == 0:
        return _integrand(problem, q, x, given, parts), None, None
    with torch.enable_grad():
        y = x if graph and x.requires_grad else x.detach().requires_grad_()
        fy = _integrand(problem, q, y, given, False)
        (df,) = torch.autograd.grad(fy.sum(), y, create_graph=graph or order == 2, materialize_grads=True)
        hf = torch.stack([_second(df[..., d], y) for d in range(y.shape[-1])], -2) if order == 2 else None
    return (fy, df, hf) if graph else (fy.detach(), df.detach(), None if hf is None else hf.detach())


def _second(df_d: Tensor, y: Tensor) -> Tensor:
    if not df_d.requires_grad:
        return torch.zeros_like(y)
    return torch.autograd.grad(df_d.sum(), y, retain_graph=True, materialize_grads=True)[0]


def _together(values: list[Tensor | None], points: list[list[int]], place: Tensor) -> Tensor | None:
    """One array for all points, NaN at those that did not ask; None where none did."""
    like = next((v for v in values if v is not None), None)
    if like is None:
        return None
    filled = [
        like.new_full((len(p), *like.shape[1:]), torch.nan) if v is None else v
        for v, p in zip(values, points, strict=True)
    ]
    return torch.cat(filled)[place]


def _weighed(trial: Trial) -> list[int]:
    """Places of the points that count in the objective's value: all if the estimator has a value of its own, else its samples."""
    asked = asks(trial.estimator.points, size_of(trial.problem))
    return [k for k, one in enumerate(asked) if trial.estimator.value or Ask.SAMPLE in one]


def _weights(trial: Trial, known: dict[str, Any], weighed: list[int]) -> Tensor:
    """weight_k = d value / d fx_k of the points that count: `[K', R, (B)]`."""
    own, objective = trial.estimator.value, trial.problem.objective
    fx = known["fx"][weighed].detach()
    if own is None and bool(fx.isnan().any()):
        raise MemberError(
            f"{trial.estimator.name}: a point of NaN is declared a SAMPLE; it is none, so that the model has no gradient"
        )
    with torch.enable_grad():
        leaf = fx.requires_grad_()
        if own is not None:
            value = call(own, {**known, "fx": leaf})
        elif objective.exact is None:  # draws of L: the mean of their values
            value = objective.value(leaf.unflatten(0, (-1, objective.samples)).movedim(1, 0)).mean(0)
        else:
            value = objective.value(leaf)
        weight = torch.autograd.grad(value.sum(), leaf)[0]
    return torch.where(fx.isnan(), 0.0, weight)


def _combine(trial: Trial, answers: Answers, replicates: int) -> Tensor:
    estimator, known = trial.estimator, answers.known
    assert estimator.combine is not None
    g = call(estimator.combine, known)
    chain = bool(getattr(trial.problem.family, "layers", ()))
    rows = trial.problem.batch or trial.problem.rows
    site = tuple(known["size"].theta)
    wanted = (replicates, *site) if chain or not rows else (replicates, rows, *site)
    if not isinstance(g, torch.Tensor) or tuple(g.shape) != wanted:
        found = tuple(g.shape) if isinstance(g, torch.Tensor) else type(g).__name__
        raise MemberError(f"{estimator.name}: combine gave shape {found}; {wanted} was expected [R, (B,) *theta]")
    _check_kind(trial, "combine gave a gradient", g)
    return g


def _pull_back(problem: Problem, g: Tensor, data: Tensor | None) -> Tensor:
    """Gradients of the sites' parameters `[R, B, ...]` to those of theta, `[R, P]`."""
    chain = bool(getattr(problem.family, "layers", ()))
    if problem.encode is None:
        if problem.data is not None and not chain:
            g = g.sum(1)  # every datum's sites have the same parameters
        return g.reshape(len(g), -1)

    def weights(cotangent: Tensor, rows: Tensor | None) -> Tensor:
        back = torch.func.vjp(lambda w: problem.site_parameters(w, rows), problem.theta)[1]
        return back(cotangent)[0]

    axes = (0, None if data is None else 0)
    return torch.func.vmap(weights, in_dims=axes)(g, data).reshape(len(g), -1)


def closed_form_gradient(problem: Problem, rows: Tensor | None = None) -> Tensor:
    """Gradient of the term of L that needs no draw: `[P]`, or `[R, P]` with rows of data for each replicate."""
    closed_form = problem.closed_form
    assert closed_form is not None
    per_datum = "data" in names(closed_form)

    def of(data: Tensor | None) -> Tensor:
        g = torch.func.grad(lambda theta: call(closed_form, {"data": data}, theta).sum())(problem.theta)
        return torch.cat([g.reshape(-1), g.new_zeros(problem.dim - g.numel())])

    if rows is None or not per_datum:
        return of(problem.data)
    return torch.func.vmap(of)(rows) * (problem.rows / problem.batch)


def _model_gradient(trial: Trial, answers: Answers) -> Tensor:
    """sum_k weight_k grad_model f(x_k), for each replicate: `[R, M]`."""
    problem, weighed = trial.problem, _weighed(trial)

    asked = asks(trial.estimator.points, size_of(problem))
    whole = problem.parts is not None and not any(Ask.PARTS in one for one in asked)

    def f(x: Tensor, model: Tensor, rows: Tensor | None, noise: Sequence[Tensor]) -> Tensor:
        fx = problem.value(x, model, rows, noise)
        return fx.sum(-1) if whole else fx

    def one(x: Tensor, weight: Tensor, rows: Tensor | None, noise: Sequence[Tensor]) -> Tensor:
        return torch.func.grad(lambda model: (weight * f(x, model, rows, noise)).sum())(problem.model)

    x, given = torch.nan_to_num(answers.known["x"].detach()[weighed]), answers.given
    axes = (1, 1, None if given.data is None else 0, 0)
    with torch.no_grad():
        weight = _weights(trial, answers.known, weighed)
        g = torch.func.vmap(one, in_dims=axes)(x, weight, given.data, tuple(given.noise))
    return g.reshape(len(g), -1)


def learn(trial: Trial) -> tuple[dict[str, Tensor] | None, Count]:
    """The estimator's learned state, a pure function of the trial, and what learning it cost."""
    count, learning, state = Count(), trial.estimator.learning, initial_state(trial)
    if learning is None or state is None or learning.learn is None:
        return state, count
    study = trial
    if learning.draw is not None:
        there = replace(trial.estimator, draw=learning.draw, points=learning.points or 0, noise=learning.noise)
        study = replace(trial, estimator=there)
    for step in range(learning.steps):
        state = _learning_step(study, learning.learn, state, step, count)
    return state, count


def initial_state(trial: Trial) -> dict[str, Tensor] | None:
    """The state before anything is learned; None where there is none."""
    learning = trial.estimator.learning
    if learning is None:
        return None
    size = size_of(trial.problem)
    theta = trial.problem.site_parameters(trial.problem.theta).detach()
    generator = torch.Generator().manual_seed(trial.key % 2**63)
    known = {"theta": theta, "size": size, "generator": generator, "data": trial.problem.data}
    found = call(learning.init, known)
    return {n: t.to(trial.device, trial.dtype) for n, t in found.items()}


def _learning_step(
    trial: Trial, learn_: Callable[..., Any], state: Mapping[str, Tensor], step: int, count: Count
) -> dict[str, Tensor]:
    learning = trial.estimator.learning
    assert learning is not None
    descends = "gradient" in names(learn_)
    live = {n: t.detach().requires_grad_(descends) for n, t in state.items()}
    replicates = range(step * learning.batch, (step + 1) * learning.batch)
    answers = ask(trial, replicates, live, LEARN, count, graph=descends)
    with torch.set_grad_enabled(descends):
        known = {**answers.known, "step": step}
        if descends:
            g = _combine(trial, answers, len(replicates))
            known["gradient"] = _pull_back(trial.problem, g, answers.given.data)
        return {n: t.detach() for n, t in call(learn_, known).items()}


def _whole(trial: Trial, replicates: range, phase: int, count: Count) -> Tensor:
    """Gradients of an estimator that calls the counting f itself; its generator is seeded for this range."""
    problem, estimator = trial.problem, trial.estimator
    theta = problem.theta.detach()
    q = problem.bind(theta)
    seed = key_of(trial.key, phase, replicates.start) % 2**63
    generator = torch.Generator(device=trial.device).manual_seed(seed)
    known = {
        "theta": theta,
        "q": q,
        "f": CountingF(lambda x: _integrand(problem, q, x, Given(), False), q.event_axes, count),
        "generator": generator,
        "replicates": len(replicates),
        "objective": problem.objective,
    }
    assert estimator.gradients is not None
    g = call(estimator.gradients, known)
    if (
        not isinstance(g, torch.Tensor)
        or g.ndim < 1
        or g.shape[0] != len(replicates)
        or g.numel() != len(replicates) * trial.dim
    ):
        found = tuple(g.shape) if isinstance(g, torch.Tensor) else type(g).__name__
        raise MemberError(
            f"{estimator.name}: gradients of shape {found}; ({len(replicates)}, {trial.dim}) was expected [R, P]"
        )
    return g.detach().reshape(len(replicates), -1)


class CountingF:
    """f for code that calls it itself: every point is counted, and every point through which a derivative is taken.

    `times`: how many replicates one call stands for, where the caller maps it over replicates (vmap).
    """

    def __init__(self, f: Callable[[Tensor], Tensor], event_axes: int, count: Count) -> None:
        self._f, self._event_axes, self._count, self.times = f, event_axes, count, 1

    def __call__(self, x: Tensor) -> Tensor:
        points = self.times
        for length in x.shape[: x.ndim - self._event_axes]:
            points *= length
        self._count.f += points

        def differentiated() -> None:
            self._count.gradient += points

        return self._f(_Watched.apply(x, differentiated))  # type: ignore[no-untyped-call]


class _Watched(torch.autograd.Function):
    """The identity, which reports when a derivative comes back through it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, report: Callable[[], None]) -> Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.report = inputs[1]

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, None]:
        ctx.report()
        return cotangents[0], None
