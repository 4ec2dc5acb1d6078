"""The command line through a subprocess: what it prints, its exit codes, its files, and a sentence for every slip."""

from __future__ import annotations

import json
import math
import os
import resource
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from bench.cli import outcome_of
from estimators import ESTIMATORS
from estimators.peers import PEERS
from problems import PROBLEMS

PLUGIN = str(Path(__file__).parent / "misbehaving.py")
ENVIRONMENT = {**os.environ, "COLUMNS": "200", "PYTHONWARNINGS": "error"}
PROMISED = """
run, problem, problem_settings, point, family, dim, params, objective, estimator, estimator_settings, claimed, samples,
replicates, seed, backend, device, dtype, threads, gradient_norm, bias_norm, bias_norm_low, bias_norm_high, bias_p, verdict,
total_variance, total_variance_low, total_variance_high, mse, snr, cosine, kurtosis, f_evals, gradient_evals, ns_per_estimate,
ns_per_estimate_low, ns_per_estimate_high, work_variance, mse_low, mse_high, snr_low, snr_high, cosine_low, cosine_high,
effective_number, tail_index, trusted, tolerance, replicates_needed, cold_s, learn_f_evals, learn_gradient_evals,
learn_seconds, noise_floor, truth_tier, truth_se, peak_bytes, status, reason
"""
ARCHITECTURE_EXAMPLE = """
import torch
from problems import Bernoulli, Problem
from estimators import Estimator

def cubic(dim=5):
    theta = torch.linspace(-1, 1, dim, dtype=torch.float64)
    return Problem(name="cubic", family=Bernoulli, theta=theta, f=lambda x: (x.sum(-1) - 1.3) ** 3)   # truth: enumerated

def draw(theta, noise):                      # noise: uniforms [K, ..., D]
    return (noise < torch.sigmoid(theta)).to(theta)
def combine(theta, x, fx):                   # x [K, ..., D], fx [K, ...] -> [..., D]
    return (fx[..., None] * (x - torch.sigmoid(theta))).mean(0)
def plain(samples=1):
    return Estimator(name="plain", points=samples, draw=draw, combine=combine, family=["bernoulli"])     # claims unbiased

PROBLEMS = {"cubic": cubic}
ESTIMATORS = {"plain": plain}
"""


def bench(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=ENVIRONMENT,
        timeout=120,
    )


def events(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_estimators_are_listed_in_their_groups() -> None:
    listed = bench("list", "estimators").stdout
    assert listed.startswith(f"Estimators ({len(ESTIMATORS) + len(PEERS)})\n score function\n  reinforce ")
    assert listed.index(" coupled\n") < listed.index("  disarm ") < listed.index(" relaxed and straight-through\n")
    assert "Problems" not in listed


def test_list_answers_at_once_and_imports_nothing_heavy():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    listed = bench("list")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert listed.returncode == 0
    assert "rloo" in listed.stdout
    assert "bernoulli_toy" in listed.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5
    code = (
        "import sys\nfrom bench.cli import outcome_of\nassert outcome_of(['list', '--json']) == 0\n"
        "assert not {'torch', 'numba', 'pandas', 'numpy', 'scipy', 'sklearn', 'seaborn', 'rich'} & set(sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT)
    assert found.returncode == 0, found.stderr
    about = json.loads(found.stdout)
    assert {"name": "rloo", "settings": {"samples": 2}}.items() <= {
        entry["name"]: entry for entry in about["estimators"]
    }["rloo"].items()
    assert {"smoke", "standard", "full"} <= set(about["suites"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rnu"], "there is no command 'rnu'; did you mean 'run'?"),
        (["run", "smok"], "there is no suite 'smok'; did you mean 'smoke'? (a file of your own ends in .toml)"),
        (["run", "--replicate", "64"], "'--replicates'"),
        (["run", "-e", "rlo"], "there is no estimator 'rlo'; did you mean 'rloo'?"),
        (["plan", "-p", "bernouli_toy"], "there is no problem 'bernouli_toy'; did you mean 'bernoulli_toy'?"),
        (["run", "-e", "rloo[k=2]"], "'rloo[k=2]': the estimator rloo has no setting 'k'; its settings are samples"),
        (["run", "--cell-timeout", "soon"], "'soon' is no duration; write it like 90s, 10m or 2h"),
        (["run", "--replicates", "1.5"], "'1.5' is no whole number"),
        (["run", "--replicates", "3"], "3 is not between 64 and"),
        (["run", "--device", "tpu"], "--device tpu: a device is cpu, cuda or cuda:0"),
        (["run", "--device", "cuda:99"], "CUDA device"),
        (["run", "--dtype", "float16"], "'float16' is not one of 'float64', 'float32'"),
        (["run", "--plugin", "gone.py"], "gone.py: there is no such file"),
        (
            ["list", "--plugin", "broken.py"],
            "--plugin broken.py cannot be imported: ValueError: no (broken.py, line 1)",
        ),
        (["list", "--plugin", "syntax.py"], "--plugin syntax.py cannot be imported: SyntaxError"),
        (
            ["list", "--plugin", "empty.py"],
            "has a dict PROBLEMS or ESTIMATORS (name -> factory), and this one has neither",
        ),
        (["list", "--plugin", "clash.py"], "the estimator 'rloo' has a name that is taken (built in); give it another"),
        (["list", "--plugin", "text.txt"], "a plug-in is a Python file (.py)"),
        (["list", "--plugin", "vague.py"], "the setting size of vague has no default"),
        (["show", "rlooo"], "there is nothing called 'rlooo'; did you mean 'rloo'?"),
        (["report", "nowhere"], "nowhere is not the folder of a run: there is no such folder"),
        (["compare", ".", "."], ". is not the folder of a run: it has no results.parquet"),
        (["run", "mine.toml"], "mine.toml: cells[0].estimator: there is no such key; did you mean 'estimators'?"),
        (["run", "-p", "bernoulli_toy", "-e", "rloo", "--point", "end"], "bernoulli_toy has no point 'end'"),
        (
            ["run", "-p", "gaussian_cost", "-e", "disarm"],
            "disarm is for bernoulli variables; gaussian_cost's are normal",
        ),
        (["run", "-p", "bernoulli_toy", "-e", "rloo[samples=1]"], "rloo[samples=1]: "),
    ],
)
def test_a_slip_gets_one_sentence(slips, arguments, said, monkeypatch, capsys):
    monkeypatch.chdir(slips)
    assert outcome_of(arguments) == 2
    printed, wrong = capsys.readouterr()
    assert printed == ""
    assert wrong.count("\n") == 1
    assert wrong.startswith("error: ")
    assert said in wrong
    assert not (slips / "results").exists()


def test_a_slip_ends_the_process_with_exit_code_2(slips):
    for arguments in (["rnu"], ["run", "mine.toml"], ["list", "--plugin", "broken.py"]):
        done = bench(*arguments, cwd=slips)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


@pytest.fixture(scope="module")
def slips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slips")
    files = {
        "broken.py": "raise ValueError('no')\n",
        "syntax.py": "def broken(:\n",
        "empty.py": "x = 1\n",
        "clash.py": "ESTIMATORS = {'rloo': lambda: None}\n",
        "text.txt": "hello\n",
        "vague.py": "def vague(size):\n    pass\nESTIMATORS = {'vague': vague}\n",
        "mine.toml": 'name = "mine"\n[[cells]]\nproblems = ["sbn"]\nestimator = ["rloo"]\n',
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def test_an_error_is_json_too_where_json_was_asked_for(capsys):
    assert outcome_of(["run", "-e", "rlo", "--json"]) == 2
    assert json.loads(capsys.readouterr().out) == {"error": "there is no estimator 'rlo'; did you mean 'rloo'?"}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A run into results/, and the same again."""
    folder = tmp_path_factory.mktemp("good")
    (folder / "cubic.py").write_text(ARCHITECTURE_EXAMPLE)
    arguments = ["run", "--plugin", "cubic.py", "-p", "cubic[dim=2,3],*_cost", "-e", "plain[samples=1,4]"]
    arguments += ["--replicates", "4096", "--seed", "5", "--no-report"]
    return folder, bench(*arguments, cwd=folder), bench(*arguments, "--json", cwd=folder)


def test_the_example_of_a_plug_in_runs_as_written(good):
    folder, first, _ = good
    assert first.returncode == 0, first.stderr
    assert "measuring 4/4" in first.stderr
    assert "timing 4/4" in first.stderr
    assert "plain" in first.stdout
    assert "4 of 4 cells measured" in first.stdout
    rows = pd.read_parquet(folder / "results" / "latest" / "results.parquet")
    done = rows[rows["status"] == "done"]
    assert done["verdict"].isin(["unbiased", "undecided"]).all()
    assert list(zip(done["problem_settings"], done["estimator_settings"], strict=True)) == [
        *(("dim=2", "samples=1"), ("dim=2", "samples=4"), ("dim=3", "samples=1"), ("dim=3", "samples=4"))
    ]
    assert (done["seed"] == 5).all()
    assert (done["ns_per_estimate_low"] <= done["ns_per_estimate"]).all()
    skipped = rows[rows["status"] == "skipped"]
    assert set(skipped["problem"]) == {name for name in PROBLEMS if name.endswith("_cost")}
    assert skipped["reason"].str.startswith("plain is for bernoulli variables; ").all()
    assert skipped[["verdict", "bias_norm", "total_variance", "claimed"]].isna().all(axis=None)
    assert skipped[["family", "objective", "dim"]].notna().all(axis=None)


def test_the_files_are_as_promised(good):
    folder, _, _ = good
    run = folder / "results" / "latest"
    assert run.is_symlink()
    columns = pq.read_schema(run / "results.parquet").names
    promised = [name.strip() for name in PROMISED.split(",")]
    assert columns[: len(promised)] == promised
    coordinates = pd.read_parquet(run / "coordinates.parquet")
    assert len(coordinates) == 2 * (2 + 3)
    assert {"coordinate", "mean", "se", "truth", "truth_se", "variance", "kurtosis", "z"} <= set(coordinates)
    assert coordinates["z"].abs().max() < 5
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["run"] == run.resolve().name
    assert manifest["command"].startswith("python -m bench run --plugin cubic.py")
    assert {"versions", "machine", "commit", "dirty", "suite", "seed", "threads", "schema"} <= set(manifest)
    assert manifest["cells"] == {"done": 4, "skipped": len(pd.read_parquet(run / "results.parquet")) - 4}


def test_the_same_again_is_answered_from_the_store(good):
    folder, _, second = good
    assert second.returncode == 0
    *rows, result = events(second)
    assert result["measured"] == 0
    assert sum(row["status"] == "done" for row in rows) == 4
    assert sum(1 for place in (folder / "results").glob("2*")) == 1
    assert all(math.isfinite(row["total_variance"]) for row in rows if row["status"] == "done")


def test_plan_says_what_is_stored_and_what_an_edit_made_stale(good):
    folder, _, _ = good
    arguments = ["plan", "--plugin", "cubic.py", "-p", "cubic[dim=2,3]", "-e", "plain", "-e", "rloo", "--json"]
    options = ["--replicates", "4096", "--seed", "5"]
    found = json.loads(bench(*arguments, *options, cwd=folder).stdout)
    assert [(one["estimator"], one["state"]) for one in found] == [("plain", "stored"), ("rloo", "new")] * 2
    (folder / "cubic.py").write_text(ARCHITECTURE_EXAMPLE + "\n# edited\n")
    try:
        found = json.loads(bench(*arguments, *options, cwd=folder).stdout)
    finally:
        (folder / "cubic.py").write_text(ARCHITECTURE_EXAMPLE)
    assert [(one["state"], one["why"]) for one in found if one["estimator"] == "plain"] == [
        ("stale", "cubic.py changed")
    ] * 2


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    """A run with everything that can go wrong in it, among cells that are well."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "bad.toml").write_text(
        'name = "bad"\nreplicates = 131072\nrounds = 7\n[[cells]]\nproblems = ["bernoulli_toy[dim=3,target=.2]"]\n'
        'points = ["init"]\nestimators = ["honest", "disarm_of[factor=.5,.52]", "raises", "sleeps", "exits", "prints", '
        '"not_a_number", "misshapen"]\n'
    )
    arguments = ["run", "bad.toml", "--plugin", PLUGIN, "--cell-timeout", "4s", "--out", "out", "--no-report", "--json"]
    return folder, bench(*arguments, cwd=folder), bench(*arguments, cwd=folder), arguments


def test_what_goes_wrong_is_a_row_and_a_false_claim_wins(bad):
    folder, done, _, _ = bad
    assert done.returncode == 4, done.stderr
    rows = {(row["estimator"], row["estimator_settings"]): row for row in events(done) if row["event"] == "row"}
    status = {name: row["status"] for (name, _), row in rows.items()}
    assert status == {
        **dict.fromkeys(["honest", "disarm_of", "prints"], "done"),
        **dict.fromkeys(["raises", "exits", "not_a_number", "misshapen"], "failed"),
        "sleeps": "timeout",
    }
    assert rows["disarm_of", "factor=0.52"]["verdict"] == "biased"
    assert rows["disarm_of", "factor=0.5"]["verdict"] in ("unbiased", "undecided")
    assert rows["exits", ""]["reason"] == "its process ended with exit code 3"
    assert rows["not_a_number", ""]["reason"].endswith("of 131,072 gradients were not finite")
    assert all(row["ns_per_estimate"] > 0 for row in rows.values() if row["status"] == "done")
    assert events(done)[-1]["exit_code"] == 4
    assert {"store.sqlite", "results.parquet", "coordinates.parquet", "manifest.json"} <= {
        file.name for file in (folder / "out").iterdir()
    }


def test_failures_are_stored_too_and_measured_again_only_on_demand(bad):
    folder, _, again, arguments = bad
    assert (again.returncode, events(again)[-1]["measured"]) == (4, 0)
    longer = [*arguments[: arguments.index("4s")], "5s", *arguments[arguments.index("4s") + 1 :]]
    assert events(bench(*longer, cwd=folder))[-1]["measured"] == 1


def test_a_failed_cell_makes_exit_code_1(bad):
    folder, _, _, _ = bad
    grid = ["-p", "bernoulli_toy[dim=3,target=.2]", "-e", "raises", "--point", "init", "--replicates", "131072"]
    done = bench("run", *grid, "--plugin", PLUGIN, "--out", "out", "--no-report", cwd=folder)
    assert done.returncode == 1
    assert "0 of 1 cells measured" in done.stdout


def test_a_store_that_cannot_be_used_is_one_sentence(tmp_path):
    (tmp_path / "store.sqlite").write_text("no database")
    done = bench("run", "-p", "bernoulli_toy", "-e", "rloo", "--out", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == (
        f"error: {tmp_path}/store.sqlite is damaged or no store (no SQLite file);"
        " move it away to start a new one (it was left as it is)\n"
    )
    assert (tmp_path / "store.sqlite").read_text() == "no database"


@pytest.mark.parametrize("name", ["rloo[samples=3]", "bernoulli_toy", "smoke"])
def test_show(name, capsys):
    bare = name.partition("[")[0]
    assert outcome_of(["show", name]) == 0
    assert bare in capsys.readouterr().out
    assert outcome_of(["show", name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == bare


def test_show_says_what_an_estimator_is_and_asks(capsys):
    assert outcome_of(["show", "local_expectation"]) == 0
    shown = capsys.readouterr().out
    assert "formula:\n  g_d = 1/K sum_k sum_v q(v | " in shown
    assert "7 values (D = 6)" in shown
    assert "3 values (D = 1, C = 3)" in shown
    assert outcome_of(["show", "rebar"]) == 0
    assert "asks of f: 3 values, 2 gradients, 2 of them off the support\n" in capsys.readouterr().out
    assert outcome_of(["show", "vimco"]) == 0
    assert "mixture[samples=5]" in next(line for line in capsys.readouterr().out.splitlines() if "fits: " in line)


def test_show_says_where_no_quadrature_is_good_enough(capsys):
    assert outcome_of(["show", "linear_gaussian[objective=renyi,alpha=0.9999999,samples=5]"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: linear_gaussian: its gradient is not to be had exactly with these settings: quadr")
    assert said.count("\n") == 1


def test_plan_is_read_by_people_too(good, monkeypatch, capsys):
    folder, _, _ = good
    monkeypatch.chdir(folder)
    grid = ["--plugin", "cubic.py", "-p", "cubic[dim=2]", "-p", "*_cost", "-e", "plain[samples=1]", "-e", "rloo"]
    assert outcome_of(["plan", *grid, "--replicates", "4096", "--seed", "5"]) == 0
    printed = capsys.readouterr().out
    assert "1 stored" in printed
    assert "  rloo[samples=2] on cubic[dim=2] at init" in printed
    assert "skipped: plain is for bernoulli variables; gaussian_cost's are normal" in printed


def test_check_says_in_words_what_failed(capsys):
    where = ["-p", "bernoulli_toy[dim=3]", "--replicates", "4096", "--plugin", PLUGIN]
    assert outcome_of(["check", "honest", *where]) == 0
    assert "0 failed" in capsys.readouterr().out
    assert outcome_of(["check", "raises", *where]) == 1
    assert "raises: runs [bernoulli_toy" in capsys.readouterr().out
    assert outcome_of(["check", "raises", "--json", *where]) == 1
    assert any(one["why"] for one in json.loads(capsys.readouterr().out)["raises"])


def test_compare_of_a_run_with_itself_finds_nothing(good, capsys):
    run = str(good[0] / "results" / "latest")
    assert outcome_of(["compare", run, run]) == 0
    capsys.readouterr()
    assert outcome_of(["compare", run, run, "--json"]) == 0
    assert {row["variance"] for row in json.loads(capsys.readouterr().out)["rows"] if row["status_a"] == "done"} == {
        "same"
    }


def test_a_member_that_cannot_serve_a_command_is_one_sentence(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cubic.py").write_text(ARCHITECTURE_EXAMPLE)
    assert outcome_of(["reference", "cubic", "--plugin", "cubic.py", "--point", "nowhere"]) == 2
    assert "cubic has no point 'nowhere'" in capsys.readouterr().err
    assert outcome_of(["points", "bernoulli_toy[dim=2,3]"]) == 2
    assert "names 2 problems; name one of them" in capsys.readouterr().err
