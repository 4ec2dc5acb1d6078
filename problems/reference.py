"""Stored references: the mean of a very long run of an unbiased estimator, with its standard error, kept as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from problems.base import Problem
from problems.settings import place_text
from problems.truth import Truth

FOLDER = Path(__file__).parent / "references"


def fingerprint(problem: Problem) -> str:
    """Hash of where the gradient is taken: name, settings but for batch, objective, theta and the model, rounded to 12 digits."""
    import hashlib

    digest = hashlib.sha256()
    o = problem.objective
    digest.update(json.dumps([problem.name, place_text(problem.settings), o.name, o.samples], sort_keys=True).encode())
    for tensor in (problem.theta, problem.model):
        if tensor is not None:
            digest.update(",".join(f"{v:.12g}" for v in tensor.detach().reshape(-1).tolist()).encode())
    return digest.hexdigest()[:16]


def stored_reference(problem: Problem) -> Truth | None:
    """The reference stored for exactly these parameters; None where there is none."""
    entries = read_references(problem.name)
    found = entries.get(fingerprint(problem))
    if found is None:
        return None
    gradient = torch.tensor(found["gradient"], dtype=torch.float64)
    return Truth(gradient, torch.tensor(found["se"], dtype=torch.float64), "reference")


def read_references(name: str) -> dict[str, dict[str, Any]]:
    """Every stored reference of a problem, by fingerprint: gradient, se, estimator, replicates, seed, command, versions, date."""
    path = FOLDER / f"{name}.json"
    if not path.exists():
        return {}
    entries: dict[str, dict[str, Any]] = json.loads(path.read_text("utf-8"))
    return entries
