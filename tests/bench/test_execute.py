"""Worker processes: whatever a member does to its process becomes an answer, and the others go on."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from bench.execute import Job, Pool, _next, cpu_count
from bench.outcome import outcome_from_bytes
from bench.plan import Cell
from bench.worker import Task

PLUGIN = str(Path(__file__).parent / "misbehaving.py")
LIMIT = 60.0


def cell(estimator, replicates=256, point="init", seed=0, **settings):
    problem = {"dim": 3, "target": 0.45, "form": "mean"}
    return Cell("bernoulli_toy", problem, point, estimator, settings, "auto", "float64", "cpu", seed, replicates)


def job(estimator, limit=LIMIT, group="", **given):
    return Job(Task([cell(estimator, **given)]), group, limit)


def answers(jobs, size=2, at_once=0):
    with Pool(size, [PLUGIN]) as pool:
        found = dict(pool.run(jobs, at_once))
    return [found[place] for place in range(len(jobs))]


@pytest.fixture(scope="module", autouse=True)
def warm():
    """The server that forks the workers imports torch once, outside of every limit."""
    answers([job("honest")])


def test_what_members_do_wrong_is_their_own_answer_and_the_others_go_on():
    wrong = {
        "raises": ("failed", "RuntimeError: two lines of trouble (misbehaving.py, line"),
        "leaves": ("failed", "SystemExit: 3 (misbehaving.py, line"),
        "sleeps": ("timeout", "ran past its limit of 3 s"),
        "exits": ("failed", "its process ended with exit code 3"),
        "crashes": ("failed", "its process was ended by SIGSEGV"),
        "not_a_number": ("failed", "1 of 256 gradients were not finite"),
        "misshapen": ("failed", "misshapen: combine gave shape"),
        "asks_too_much": ("failed", "asks for 'wishes'; there are: theta"),
    }
    names = [name for pair in zip(wrong, ["honest"] * len(wrong), strict=True) for name in pair]
    found = answers([job(name, 3.0 if name == "sleeps" else LIMIT, seed=i) for i, name in enumerate(names)])
    for name, answer in zip(names, found, strict=True):
        status, reason = wrong.get(name, ("done", ""))
        assert answer.status == status, answer
        assert reason in answer.reason
        assert "\n" not in answer.reason


def test_a_member_that_will_not_end_is_ended():
    started = time.monotonic()
    stuck, honest = answers([job("stubborn", 1.0), job("honest")], size=1)
    assert stuck.status == "timeout"
    assert honest.status == "done"
    assert time.monotonic() - started < 15


def test_the_numbers_do_not_depend_on_who_measures_them():
    jobs = [job("honest", replicates=5000, seed=seed) for seed in range(3)]
    serial, parallel = answers(jobs, size=1), answers(list(reversed(jobs)), size=3)[::-1]
    for one, other in zip(serial, parallel, strict=True):
        a, b = outcome_from_bytes(one.outcome), outcome_from_bytes(other.outcome)
        assert a.sums.s1.tobytes() == b.sums.s1.tobytes()
        assert a.sums.s4.tobytes() == b.sums.s4.tobytes()


def test_cells_are_timed_together():
    (answer,) = answers([Job(Task([cell("honest"), cell("disarm_of", factor=0.5)], rounds=7), "", LIMIT)])
    assert answer.status == "done"
    assert [[len(array) for array in arrays] for arrays in answer.timings] == [[7, 7, 7]] * 2
    (one, two) = answer.timings
    assert one[1] == two[1]  # the same yardstick, in the same rounds


def test_at_once_keeps_the_other_workers_idle():
    jobs = [job("honest", seed=seed) for seed in range(3)]
    with Pool(3, [PLUGIN]) as pool:
        assert {answer.status for _, answer in pool.run(jobs, at_once=1)} == {"done"}
        assert len(pool._workers) == 1


@pytest.mark.parametrize(
    ("own", "taken", "place"),
    [("b", ["a"], 1), ("", ["a"], 1), ("", ["a", "b"], 3), ("gone", ["a", "b", "c"], 0), ("a", ["a"], 0)],
)
def test_a_worker_keeps_to_its_group_else_takes_one_that_nobody_is_at(own, taken, place):
    assert _next(["a", "b", "a", "c"], own, taken) == place


def test_workers_end_with_the_pool():
    with Pool(2, [PLUGIN]) as pool:
        list(pool.run([job("honest"), job("honest", seed=1)]))
        ids = [worker.process.pid for worker in pool._workers]
        assert len(ids) == 2
    for pid in ids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_plug_in_that_cannot_be_loaded_is_an_answer(tmp_path):
    with Pool(1, [str(tmp_path / "gone.py")]) as pool:
        ((_, answer),) = pool.run([job("honest")])
    assert (answer.status, "there is no such file" in answer.reason) == ("failed", True)


def test_cores_that_may_be_used():
    assert 1 <= cpu_count() <= (os.cpu_count() or 1)
