"""`show`: all that is known of one member or suite, as a dict for JSON and as lines for people."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from bench.errors import Refusal, nearest
from bench.plugins import Catalogue
from bench.selector import choose, parse, written
from bench.suite import names, read_suite

if TYPE_CHECKING:
    from estimators.base import Ask, Estimator
    from problems.base import Problem
    from problems.objectives import Objective


def shown(text: str, members: Catalogue) -> dict[str, Any]:
    """What there is to say of a problem, an estimator (either with settings) or a suite. Raises Refusal."""
    if text in names() or text.endswith(".toml"):
        return {"name": text, "kind": "suite", "suite": msgspec.to_builtins(read_suite(text))}
    name = parse(text)[0].pattern
    for kind in ("problem", "estimator"):
        if name in members.of(kind):
            choices = choose(text, members.of(kind), kind)
            if len(choices) != 1:
                raise Refusal(f"{text!r} names {len(choices)} members; show one of them")
            built = members.of(kind)[name].build(choices[0].settings)
            doc = inspect.getdoc(members.of(kind)[name].load()) or ""
            about = {"name": name, "kind": kind, "settings": dict(choices[0].settings), "doc": doc}
            return about | (_problem(built, members) if kind == "problem" else _estimator(built, members))
    raise Refusal(
        f"there is nothing called {name!r}{nearest(name, [*members.problems, *members.estimators, *names()])}"
    )


def _problem(problem: Any, members: Catalogue) -> dict[str, Any]:
    try:
        points = {point: _truth(problem.at(point)) for point in problem.point_names()}
    except ArithmeticError as error:
        raise Refusal(f"{problem.name}: its gradient is not to be had exactly with these settings: {error}") from error
    return {
        "f": inspect.getdoc(problem.f) or "",
        "objective": objective_in_words(problem.objective),
        "family": problem.family_name,
        **sizes(problem),
        "derivatives of f": problem.smooth,
        "f off its support": problem.relaxed,
        "source": problem.source,
        "points": points,
        **_pairs(
            {
                name: (entry.build(entry.settings()), problem)
                for name, entry in members.estimators.items()
                if not entry.lacks
            }
        ),
    }


def objective_in_words(objective: Objective) -> str:
    """Its name, and L in symbols where it is one of ours."""
    from problems import objectives

    doc = inspect.getdoc(getattr(objectives, objective.name, None)) or ""
    formula = doc.split("\n")[0]
    return f"{objective.name}: {formula}" if formula.startswith("L") else objective.name


def sizes(problem: Problem) -> dict[str, int | str]:
    """Sites, categories, layers, data, rows drawn, parameters of q and of the model; what there is none of is left out."""
    from estimators.base import size_of

    event = size_of(problem).event
    found = {
        "dim": event[0],
        "categories": event[1] if len(event) > 1 else 0,
        "layers": len(getattr(problem.family, "layers", ())),
        "samples": problem.objective.samples if problem.objective.samples > 1 else 0,
        "data": problem.rows,
        "rows drawn for each replicate": problem.batch,
        "params": problem.dim,
        "of them the model's": 0 if problem.model is None else problem.model.numel(),
    }
    return {name: count for name, count in found.items() if count}


def _truth(problem: Problem) -> dict[str, Any]:
    """Tier of the true gradient at the problem's parameters, its length, and its relative standard error where it has one."""
    from problems.truth import true_gradient

    found = true_gradient(problem)
    if found is None:
        return {"truth": "none", "gradient_norm": None}
    norm, error = float(found.gradient.norm()), float(found.se.norm())
    of_error = {"relative_se": error / norm} if error and norm else {}
    return {"truth": found.tier, "gradient_norm": _finite(norm)} | of_error


def _estimator(estimator: Any, members: Catalogue) -> dict[str, Any]:
    problems = _forms_that_fit(estimator, members)
    return {
        "formula": (inspect.getdoc(estimator.combine) or "") if estimator.combine is not None else "",
        "families": list(estimator.family) if estimator.family is not None else "any",
        "claims": {objective: str(claim) for objective, claim in estimator.claims.items()},
        "asks of f": asked_of_f(estimator, problems.values()),
        "learns": estimator.learning is not None,
        "source": estimator.source,
        **_pairs({name: (estimator, problem) for name, problem in problems.items()}),
    }


def _forms_that_fit(estimator: Estimator, members: Catalogue) -> dict[str, Problem]:
    """Every problem: with its defaults, or else in the first form of the suite `standard` that the estimator fits."""
    from estimators.base import mismatch

    found: dict[str, Problem] = {}
    forms = [
        choice
        for table in read_suite("standard").cells
        for text in table.problems
        for choice in choose(text, members.problems, "problem")
    ]
    for name, entry in members.problems.items():
        default = entry.build(entry.settings())
        others = [choice for choice in forms if choice.name == name] if mismatch(estimator, default) else []
        fit = ((c, made) for c in others if mismatch(estimator, made := entry.build(c.settings)) is None)
        choice, problem = next(fit, (None, default))
        told = {} if choice is None else {k: v for k, v in choice.settings.items() if entry.settings()[k] != v}
        found[written(name, told)] = problem
    return found


def asked_of_f(estimator: Estimator, problems: Iterable[Problem]) -> list[str]:
    """What one estimate asks of f for one datum, at each size of variables among the problems that it fits."""
    from estimators.base import asks, mismatch, size_of

    if estimator.gradients is not None:
        return ["counted as it runs"]
    found: dict[str, list[str]] = {}
    for problem in problems:
        if mismatch(estimator, problem) is None:
            size = size_of(problem)
            dims = zip("DC", size.event, strict=False)
            at = ", ".join([f"{n} = {d}" for n, d in dims] + ([f"K = {size.samples}"] if size.samples > 1 else []))
            found.setdefault(_in_words(asks(estimator.points, size)), []).append(at)
    if len(found) == 1:
        return list(found)
    return [f"{words} ({' or '.join(dict.fromkeys(sizes))})" for words, sizes in found.items()]


def _in_words(asked: Sequence[Ask]) -> str:
    """Counts of values, of first and of second derivatives, and of points off the support."""
    from estimators.base import Ask

    gradients = sum(bool(one & (Ask.GRADIENT | Ask.HESSIAN)) for one in asked)
    hessians, relaxed = (sum(flag in one for one in asked) for flag in (Ask.HESSIAN, Ask.RELAXED))
    counted = [(len(asked), "value"), (gradients, "gradient"), (hessians, "Hessian")]
    words = [f"{n:,} {what}{'s' * (n > 1)}" for n, what in counted if n]
    off = [f"{relaxed:,} of them off the support"] if relaxed else []
    addends = ["as addends"] if any(Ask.PARTS in one for one in asked) else []
    return ", ".join(words + off + addends) or "nothing"


def _pairs(pairs: Mapping[str, tuple[Estimator, Problem]]) -> dict[str, Any]:
    """What it fits, with the defaults of the other side, and where the two have a kernel."""
    from bench.evaluate import prepare
    from bench.kernels import why_no_kernel
    from estimators.base import mismatch

    found = {name: mismatch(*pair) for name, pair in pairs.items()}
    fits = [name for name, why in found.items() if why is None]
    lacks = {name: why_no_kernel(prepare(*pairs[name])) for name in fits}
    return {
        "fits": fits,
        "kernel": [name for name, why in lacks.items() if why is None],
        "for other variables": [name for name in found if _other_variables(*pairs[name])],
        "for other objectives": [name for name in found if _other_objective(*pairs[name])],
        "does not fit": {name: why for name, why in found.items() if why is not None},
        "no kernel": {name: why for name, why in lacks.items() if why is not None},
    }


def _other_variables(estimator: Estimator, problem: Problem) -> bool:
    from estimators.base import takes

    return not takes(estimator, problem.family)


def _other_objective(estimator: Estimator, problem: Problem) -> bool:
    return problem.objective.name not in estimator.claims and not _other_variables(estimator, problem)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def lines(about: Mapping[str, Any]) -> Iterator[str]:
    """The same for people."""
    yield f"{about['kind']} {written(about['name'], about.get('settings', {}))}"
    if about["kind"] == "suite":
        yield from _suite_lines(about["suite"])
        return
    yield from ("", *about["doc"].splitlines(), "")
    for key, value in about.items():
        if key in ("name", "kind", "settings", "doc", "does not fit", "no kernel") or value in ("", []):
            continue
        if key in ("formula", "f"):
            yield from (f"{key}:", *(f"  {line}" for line in value.splitlines()))
            continue
        if key == "points":
            for point, truth in value.items():
                yield f"point {point}: truth: {truth_in_words(truth)}"
        elif isinstance(value, dict):
            yield f"{key}: {', '.join(f'{k} {v}' for k, v in value.items())}"
        elif isinstance(value, bool):
            yield f"{key}: {'yes' if value else 'no'}"
        else:
            yield f"{key}: {', '.join(value) if isinstance(value, list) else value}"
    told = {*about["for other variables"], *about["for other objectives"]}
    for key in ("does not fit", "no kernel"):
        for why in dict.fromkeys(why for name, why in about[key].items() if name not in told):
            yield f"{key}: {why}"


def truth_in_words(truth: Mapping[str, Any]) -> str:
    """`reference, |truth| 12.3, known to 0.004 of it`."""
    norm = "" if truth["gradient_norm"] is None else f", |truth| {truth['gradient_norm']:.4g}"
    error = f", known to {truth['relative_se']:.2g} of it" if "relative_se" in truth else ""
    return f"{truth['truth']}{norm}{error}"


def _suite_lines(suite: Mapping[str, Any]) -> Iterator[str]:
    yield suite["description"]
    yield f"{suite['replicates']:,} replicates a cell, seed {suite['seed']}, {suite['rounds']} rounds of timing"
    for table in suite["cells"]:
        rest = {k: v for k, v in table.items() if k not in ("problems", "estimators") and v is not None}
        yield f"  {', '.join(table['problems'])}"
        yield f"    x {', '.join(table['estimators'])}"
        yield f"    {', '.join(f'{k} {v}' for k, v in rest.items())}"
