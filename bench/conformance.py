"""The conformance suite: what any estimator must pass, whoever wrote it. `check` says in words what failed.

Each check takes the estimator on one problem at one point and gives a sentence where it fails, None where it passes. No member is
known by name; a check that does not apply to a member sees that from its record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from bench.evaluate import Count, MemberError, State, Trial, gradients, learn, prepare
from bench.measure import chunk_of, observe, pinned
from bench.measurement import LEVEL, bias_test
from bench.outcome import Outcome
from estimators.base import Estimator, asks, claim_of, mismatch, size_of, target_of
from problems.base import Problem
from problems.calling import UnknownName

Examine = Callable[[Trial, State | None, torch.Tensor], str | None]
REPLICATES = 32_768
EXTREME = (30.0, 800.0)  # logits; at the second, probabilities are 0 and 1
CLAIM = "unbiased as claimed"


@dataclass(frozen=True)
class Finding:
    """One check of one pair: `why` is None where it passed. p: p-value of a statistical check, NaN otherwise."""

    check: str
    problem: str
    point: str
    why: str | None
    p: float = float("nan")


def check(
    estimator: Estimator,
    problems: Iterable[Problem],
    *,
    seed: int = 0,
    replicates: int | None = None,
    level: float = LEVEL,
) -> list[Finding]:
    """Every check on every point of every problem that the estimator fits; those that it does not fit are passed over.

    level: chance that an unbiased estimator is called biased anywhere in this call (Holm over the pairs).
    """
    with pinned(1):
        pairs = [(p.at(name), name) for p in problems if mismatch(estimator, p) is None for name in p.point_names()]
        exact = [_exact_checks(estimator, problem, point, seed) for problem, point in pairs]
        broken = {(f.problem, f.point) for found in exact for f in found if f.check == "runs" and f.why}
        running = [(p, name) for p, name in pairs if (_title(p), name) not in broken]
        outcomes = [_outcome(estimator, p, name, seed, replicates) for p, name in running]
    claims = _claims(estimator, running, outcomes, level)
    return [f for found in exact for f in found] + claims


def failures(findings: Sequence[Finding]) -> list[str]:
    """The sentences of what failed."""
    return [f"{f.check} [{f.problem} at {f.point}]: {f.why}" for f in findings if f.why]


def replicates_for(trial: Trial) -> int:
    """Replicates that keep a check to about a second: fewer where one gradient is large."""
    chunk = chunk_of(trial)
    return int(min(REPLICATES, max(16 * chunk, 2048)))


def _title(problem: Problem) -> str:
    settings = ",".join(f"{k}={v}" for k, v in problem.settings.items())
    return f"{problem.name}[{settings}]" if settings else problem.name


def _outcome(estimator: Estimator, problem: Problem, point: str, seed: int, replicates: int | None) -> Outcome:
    n = replicates or replicates_for(prepare(estimator, problem, seed, point))
    return observe(estimator, problem, point=point, replicates=n, seed=seed, backend="torch", subsampling=False)


def _claims(
    estimator: Estimator, pairs: Sequence[tuple[Problem, str]], outcomes: Sequence[Outcome], level: float
) -> list[Finding]:
    """What is claimed unbiased, for the objective or for another target, must not be found biased."""
    from bench.statistics import holm

    tested = [
        (pair, *claimed)
        for pair, outcome in zip(pairs, outcomes, strict=True)
        if (claimed := _claimed(estimator, pair[0], outcome)) is not None
    ]
    p = np.array([bias_test(outcome) for _, outcome, _ in tested])
    rejected = holm(p, level).rejected
    found = []
    for ((problem, point), outcome, of), p_k, reject in zip(tested, p, rejected, strict=True):
        why = _bias_sentence(outcome, of, float(p_k)) if reject else None
        found.append(Finding(CLAIM, _title(problem), point, why, float(p_k)))
    return found


def _claimed(estimator: Estimator, problem: Problem, outcome: Outcome) -> tuple[Outcome, str] | None:
    """The outcome against what its mean is claimed to be, and in words what that is the gradient of; None where nothing is."""
    if claim_of(estimator, problem) == "unbiased":
        return (outcome, "") if outcome.has_truth else None
    claimed = target_of(estimator, problem)
    if claimed is None:
        return None
    target, of = claimed
    truth = target.detach().double().reshape(-1).numpy()
    return replace(outcome, truth=truth, truth_se=np.zeros_like(truth), truth_tier="claim"), f" for {of}"


def _bias_sentence(outcome: Outcome, of: str, p: float) -> str:
    from bench.statistics import mean, z_scores

    gap = mean(outcome.sums) - outcome.truth
    j = int(np.argmax(np.abs(z_scores(outcome.sums, outcome.truth, outcome.truth_se)[: len(gap)])))
    n = int(outcome.sums.n.sum())
    return (
        f"it claims to be unbiased{of}, but over {n:,} replicates its mean is off by {gap[j]:.3g} in coordinate {j} "
        f"(true value {outcome.truth[j]:.3g}; p = {p:.1e})"
    )


def _exact_checks(estimator: Estimator, problem: Problem, point: str, seed: int) -> list[Finding]:
    title = _title(problem)
    try:
        trial = prepare(estimator, problem, seed, point)
        state, _ = learn(trial)
        g = gradients(trial, range(chunk_of(trial)), state)
    except (MemberError, UnknownName) as error:
        return [Finding("runs", title, point, str(error))]
    except Exception as error:
        return [Finding("runs", title, point, f"it raised {type(error).__name__}: {error}")]
    found = [Finding("runs", title, point, None)]
    for name, examine in _EXACT.items():
        found.append(Finding(name, title, point, _guarded(examine, trial, state, g)))
    return found


def _guarded(examine: Examine, trial: Trial, state: State | None, g: torch.Tensor) -> str | None:
    try:
        return examine(trial, state, g)
    except Exception as error:
        return f"it raised {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def _finite(trial: Trial, state: State | None, g: torch.Tensor) -> str | None:
    bad = int((~g.isfinite().all(1)).sum())
    return f"{bad} of {len(g)} gradients are not finite" if bad else None


def _repeats(trial: Trial, state: State | None, g: torch.Tensor) -> str | None:
    again = gradients(trial, range(len(g)), state)
    return (
        None
        if _same(again, g)
        else "the same call gave other numbers: randomness that is not addressed noise, or hidden state"
    )


def _independent(trial: Trial, state: State | None, g: torch.Tensor) -> str | None:
    """Replicate r of combine = combine of replicate r: the second half alone gives the second half."""
    if trial.estimator.gradients is not None:
        return None
    half = len(g) // 2
    alone = gradients(trial, range(half, 2 * half), state)
    gap = float((alone - g[half:]).abs().nan_to_num().max())
    allowed = 1e-9 * max(float(g.abs().nan_to_num().max()), 1e-300)
    return None if gap <= allowed else f"a replicate's gradient depends on the others in its block (by up to {gap:.2g})"


def _leaves_inputs(trial: Trial, state: State | None, g: torch.Tensor) -> str | None:
    before = [t.clone() for t in _inputs(trial, state)]
    gradients(trial, range(min(len(g), 64)), state)
    same = all(torch.equal(a, b) for a, b in zip(before, _inputs(trial, state), strict=True))
    return None if same else "it changes theta, the model, the data or its learned state in place"


def _inputs(trial: Trial, state: State | None) -> list[torch.Tensor]:
    problem = trial.problem
    return [t for t in (problem.theta, problem.model, problem.data, *(state or {}).values()) if t is not None]


def _counts(trial: Trial, state: State | None, g: torch.Tensor) -> str | None:
    """No more evaluations of f than declared; fewer only where points are NaN."""
    if trial.estimator.gradients is not None:
        return None
    count = Count()
    replicates = min(len(g), 64)
    gradients(trial, range(replicates), state, count=count)
    rows = max(trial.problem.batch or trial.problem.rows, 1)
    declared = len(asks(trial.estimator.points, size_of(trial.problem)))
    each = count.f / replicates / rows
    return None if each <= declared else f"{each:g} evaluations of f for {declared} declared points"


def _float32(trial: Trial, state: State | None, g: torch.Tensor) -> str | None:
    """In float32 it runs, stays in float32, and agrees on nearly every replicate (a discrete draw may tip over)."""
    problem = trial.problem
    small = prepare(trial.estimator, problem, 0, "", "float32")
    small = replace(small, key=trial.key)
    state32 = None if state is None else {n: t.float() for n, t in state.items()}
    try:
        h = gradients(small, range(len(g)), state32)
    except (RuntimeError, MemberError) as error:
        return f"in float32 it fails: {str(error).splitlines()[0]}"
    if h.dtype != torch.float32:
        return f"asked for float32 it gives {h.dtype}".replace("torch.", "")
    if trial.estimator.gradients is not None:
        return None
    scale = g.norm(dim=1).square().mean().sqrt().clamp(min=1e-30)
    off = (h.double() - g).norm(dim=1) > 0.01 * scale + 0.01 * g.norm(dim=1)
    tipped = int(off.sum())
    return (
        None
        if tipped <= max(1, 0.02 * len(g))
        else f"in float32 {tipped / len(g):.0%} of the gradients differ by more than 1%"
    )


def _extreme(trial: Trial, state: State | None, g: torch.Tensor) -> str | None:
    """Logits that leave nearly, and exactly, nothing to chance: no NaN."""
    problem = trial.problem
    if problem.encode is not None or problem.family_name not in ("bernoulli", "categorical"):
        return None
    for size in (sign * logit for logit in EXTREME for sign in (1.0, -1.0)):
        theta = torch.where(problem.theta >= 0, size, -size).to(problem.theta)
        far = replace(trial, problem=replace(problem, theta=theta))
        found = gradients(far, range(min(len(g), 256)), state)
        if bad := int((~found.isfinite().all(1)).sum()):
            return f"with logits of {size:g} and {-size:g}, {bad} of {len(found)} gradients are not finite"
    return None


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(a.nan_to_num(1.5e300), b.nan_to_num(1.5e300))


_EXACT: dict[str, Examine] = {
    "gradients are finite": _finite,
    "repeats bit for bit": _repeats,
    "replicates are independent": _independent,
    "leaves its inputs alone": _leaves_inputs,
    "evaluations as declared": _counts,
    "float32": _float32,
    "extreme logits": _extreme,
}
