"""A run that is killed, interrupted or doubled: nothing finished is measured twice, nothing is lost, the numbers are the same."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest

PLUGIN = str(Path(__file__).parent / "misbehaving.py")
SUITE = """
name = "slow"
replicates = 5000
rounds = 0
[[cells]]
problems = ["bernoulli_toy[dim=3]"]
estimators = ["slow[seconds=.15,.151,.152,.153,.154]", "honest"]
points = ["init", "converged"]
"""
CELLS = 12
OF_THIS_RUN = ["run", "cold_s", "learn_seconds", "peak_bytes"]


@pytest.fixture
def command(tmp_path):
    (tmp_path / "slow.toml").write_text(SUITE)

    def arguments(out, *more):
        suite = str(tmp_path / "slow.toml")
        line = ["run", suite, "--plugin", PLUGIN, "--out", str(tmp_path / out), "--jobs", "2", "--no-report", *more]
        return [sys.executable, "-m", "bench", *line]

    return arguments


@pytest.fixture
def started():
    """Starts a run in the background; whatever is left of it is ended after the test."""
    running = []

    def start(arguments):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        running.append(subprocess.Popen(arguments, **pipes, text=True, start_new_session=True))
        return running[-1]

    yield start
    for process in running:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def stored(folder):
    """Key -> when it was written, of the cells in a store."""
    if not (folder / "store.sqlite").exists():
        return {}
    connection = sqlite3.connect(f"{(folder / 'store.sqlite').as_uri()}?mode=ro", uri=True)
    try:
        return dict(connection.execute("select key, created from cells"))
    except sqlite3.OperationalError:
        return {}
    finally:
        connection.close()


def until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


def of_group(group):
    """Living processes of a process group; those that have ended and wait to be collected do not live."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[2]) == group and fields[0] != "Z":
                found.append(int(stat.parent.name))
    return found


def table(folder):
    return pd.read_parquet(folder / "results.parquet").drop(columns=OF_THIS_RUN)


def test_a_killed_run_goes_on_where_it_was(tmp_path, command, started):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    run = started(command("killed"))
    until(lambda: len(stored(killed)) >= 3)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    before = stored(killed)
    assert 3 <= len(before) < CELLS
    assert not (killed / "results.parquet").exists()

    again = subprocess.run(command("killed"), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert f"{CELLS - len(before)} of {CELLS} cells measured" in again.stdout
    after = stored(killed)
    assert len(after) == CELLS
    assert {key: after[key] for key in before} == before

    undisturbed = subprocess.run(command("whole", "--jobs", "1"), capture_output=True, text=True)
    assert undisturbed.returncode == 0, undisturbed.stderr
    pd.testing.assert_frame_equal(table(killed), table(whole), check_exact=True)
    coordinates = [pd.read_parquet(folder / "coordinates.parquet").drop(columns="run") for folder in (killed, whole)]
    pd.testing.assert_frame_equal(*coordinates, check_exact=True)


def test_a_worker_does_not_outlive_a_killed_run(tmp_path, started):
    """Also not one that would never have looked up from its cell."""
    cell = ["-p", "bernoulli_toy[dim=3]", "--point", "init", "-e", f"sleeps[file={tmp_path / 'asleep'}]"]
    run = started([sys.executable, "-m", "bench", "run", *cell, "--plugin", PLUGIN, "--out", str(tmp_path / "out")])
    until((tmp_path / "asleep").exists)
    assert len(of_group(run.pid)) > 1
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    until(lambda: not of_group(run.pid), 10.0)


def test_a_second_run_is_refused_and_an_interrupted_one_says_how_to_resume_it(tmp_path, command, started):
    folder = tmp_path / "out"
    line = command("out")
    (tmp_path / "slow.toml").write_text(SUITE.replace(".15", "1.5"))  # longer than the second run takes to start
    first = started(line)
    until(lambda: len(stored(folder)) >= 1)
    second = subprocess.run(command("out"), capture_output=True, text=True)
    assert second.returncode == 2
    assert second.stderr == (
        f"error: another run is on in {folder} (process {first.pid}); wait for it, or give this one its own folder"
        " with --out\n"
    )
    assert first.poll() is None
    before = stored(folder)

    os.kill(first.pid, signal.SIGTERM)
    _, said = first.communicate(timeout=20)
    assert first.returncode == 130
    assert "Traceback" not in said
    assert f"this resumes it:\n  python -m bench run {tmp_path / 'slow.toml'} --plugin {PLUGIN} --out {folder}" in said
    assert stored(folder).items() >= before.items()
    until(lambda: not of_group(first.pid), 10.0)
