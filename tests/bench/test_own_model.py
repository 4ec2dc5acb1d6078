"""The page on models of one's own: its code is a plug-in that runs, and its gradients are those of plain autograd."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import distributions, nn

from bench.evaluate import gradients, prepare
from bench.plugins import catalogue
from bench.progress import Lines
from bench.run import Request, run
from bench.suite import Suite, Table
from estimators.importance_weighted import iwae_pathwise
from estimators.noise import MEASURE, addressed
from problems.families.base import Noise

PAGE = Path(__file__).parents[2] / "docs" / "own_model.md"


@pytest.fixture
def file(tmp_path):
    """The page's only block of Python, as a file."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert sum(bool(line.strip()) for line in code.splitlines()) < 30
    path = tmp_path / "my_vae.py"
    path.write_text(code, "utf-8")
    return path


@pytest.mark.parametrize(
    ("problem", "names"), [("my_vae[samples=5]", ["dreg", "stl", "vimco"]), ("my_vae", ["pathwise", "rloo"])]
)
def test_what_the_page_measures_is_measured(file, tmp_path, problem, names):
    suite = Suite("t", [Table([problem], names)], replicates=128, rounds=0)
    done = run(Request(suite, plugins=[str(file)], jobs=1, root=tmp_path / "out", out=True), Lines(lambda line: None))
    assert (done.code, done.measured) == (0, len(names))
    found = pd.read_parquet(done.folder / "results.parquet")
    assert set(found["estimator"]) == set(names)
    assert set(found["status"]) == {"done"}


def test_its_gradient_is_that_of_plain_autograd_through_both_modules(file):
    """The bound of three samples, by backward through modules that were seeded alike, on the same noise."""
    problem = catalogue([str(file)]).problems["my_vae"].build({"samples": 3})
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 4)).double()
    decoder = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 64)).double()
    trial = prepare(iwae_pathwise(), problem)
    eps = addressed(Noise("normal", (3,), (2,)), trial.key, MEASURE, 0, range(1), range(40), torch.float64)[:, 0]
    m, log_s = encoder(problem.data).unflatten(-1, (2, 2)).unbind(-2)
    x = m + log_s.exp() * eps
    log_p = distributions.Bernoulli(logits=decoder(x)).log_prob(problem.data).sum(-1)
    log_ratio = distributions.Normal(0, 1).log_prob(x) - distributions.Normal(m, log_s.exp()).log_prob(x)
    ((log_p + log_ratio.sum(-1)).logsumexp(0) - math.log(3)).sum().backward()
    wanted = torch.cat([p.grad.reshape(-1) for p in [*encoder.parameters(), *decoder.parameters()]])
    torch.testing.assert_close(gradients(trial, range(1))[0], wanted, rtol=1e-9, atol=1e-9)
