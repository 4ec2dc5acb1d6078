"""Estimators of other libraries, written as a competent user of that library writes them, and measured like any other.

None shares the noise of ours: their cells repeat and resume, and are not paired. `PEERS` is no part of ESTIMATORS, which is the
same everywhere; `LIBRARY` says which module a member needs (the extra `peers` brings them all).
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

from problems.registry import Registry

PEERS = Registry.grouped(
    {
        "other libraries": {
            "torch_rsample": "estimators.peers.torch_distributions:torch_rsample",
            "pyro_trace_elbo": "estimators.peers.pyro_elbo:pyro_trace_elbo",
            "pyro_tracegraph_elbo": "estimators.peers.pyro_elbo:pyro_tracegraph_elbo",
            "pyro_renyi_elbo": "estimators.peers.pyro_elbo:pyro_renyi_elbo",
            "pyro_reweighted_wake_sleep": "estimators.peers.pyro_elbo:pyro_reweighted_wake_sleep",
            "numpyro_trace_elbo": "estimators.peers.numpyro_elbo:numpyro_trace_elbo",
            "numpyro_tracegraph_elbo": "estimators.peers.numpyro_elbo:numpyro_tracegraph_elbo",
            "tfp_pathwise": "estimators.peers.tfp_monte_carlo:tfp_pathwise",
            "tfp_score_function": "estimators.peers.tfp_monte_carlo:tfp_score_function",
            "optax_score_function": "estimators.peers.optax_monte_carlo:optax_score_function",
            "optax_pathwise": "estimators.peers.optax_monte_carlo:optax_pathwise",
            "optax_measure_valued": "estimators.peers.optax_monte_carlo:optax_measure_valued",
        }
    }
)
LIBRARY = {"torch": "torch", "pyro": "pyro", "numpyro": "numpyro", "tfp": "tensorflow_probability", "optax": "optax"}


def library(name: str) -> str:
    """The module that a member needs, by how its name begins."""
    return LIBRARY[name.partition("_")[0]]


def imported(*modules: str) -> Any:
    """The first of these modules, with the others imported beside it; their own deprecation warnings stay within."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first, *_ = [import_module(name) for name in modules]
    return first
