"""The catalogue of problems, and the records to write one's own. Importing this package imports nothing heavy."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from problems.registry import Registry

if TYPE_CHECKING:
    from problems.base import Point, Problem
    from problems.families.base import Noise, Size
    from problems.families.bernoulli import Bernoulli
    from problems.families.beta import Beta
    from problems.families.binomial import Binomial
    from problems.families.categorical import Categorical
    from problems.families.chain import Chain
    from problems.families.dirichlet import Dirichlet
    from problems.families.gamma import Gamma
    from problems.families.geometric import Geometric
    from problems.families.minibatch import Minibatch
    from problems.families.normal import Normal
    from problems.families.poisson import Poisson
    from problems.families.subset import Subset
    from problems.families.von_mises import VonMises
    from problems.families.weibull import Weibull
    from problems.objectives import (
        Elbo,
        Expectation,
        ImportanceWeighted,
        InclusiveKL,
        LogMarginal,
        Objective,
        Renyi,
        Thermodynamic,
    )
    from problems.truth import Truth, true_gradient

PROBLEMS = Registry.grouped(
    {
        "Toys of papers": {
            "bernoulli_toy": "problems.bernoulli_toy:bernoulli_toy",
            "shared_logit_toy": "problems.shared_logit_toy:shared_logit_toy",
            "quadratic": "problems.quadratic:quadratic",
            "polynomial": "problems.polynomial:polynomial",
            "categorical_distance": "problems.categorical_distance:categorical_distance",
            "subset": "problems.subset:subset",
            "sorting_smooth": "problems.sorting_smooth:sorting_smooth",
            "shortest_path_smooth": "problems.shortest_path_smooth:shortest_path_smooth",
        },
        "Costs of one family": {
            "gaussian_cost": "problems.gaussian_cost:gaussian_cost",
            "gamma_cost": "problems.gamma_cost:gamma_cost",
            "weibull_cost": "problems.weibull_cost:weibull_cost",
            "beta_cost": "problems.beta_cost:beta_cost",
            "dirichlet_cost": "problems.dirichlet_cost:dirichlet_cost",
            "von_mises_cost": "problems.von_mises_cost:von_mises_cost",
            "poisson_cost": "problems.poisson_cost:poisson_cost",
            "geometric_cost": "problems.geometric_cost:geometric_cost",
            "binomial_cost": "problems.binomial_cost:binomial_cost",
        },
        "Walks and policies": {
            "bandit": "problems.bandit:bandit",
            "corridor": "problems.corridor:corridor",
            "gridworld": "problems.gridworld:gridworld",
            "random_walk": "problems.random_walk:random_walk",
        },
        "Latent-variable models": {
            "noisy_cone": "problems.noisy_cone:noisy_cone",
            "mixture": "problems.mixture:mixture",
            "gmm_inference": "problems.gmm_inference:gmm_inference",
            "hmm": "problems.hmm:hmm",
            "alignment": "problems.alignment:alignment",
            "rationale": "problems.rationale:rationale",
            "rationale_large": "problems.rationale_large:rationale_large",
            "linear_gaussian": "problems.linear_gaussian:linear_gaussian",
            "tiny_sbn": "problems.tiny_sbn:tiny_sbn",
            "lda": "problems.lda:lda",
        },
        "Weights as latent variables, and minibatches": {
            "linear_regression_minibatch": "problems.linear_regression_minibatch:linear_regression_minibatch",
            "bayes_logreg": "problems.bayes_logreg:bayes_logreg",
            "bnn": "problems.bnn:bnn",
            "dropout_bnn": "problems.dropout_bnn:dropout_bnn",
        },
        "Networks": {
            "sbn": "problems.sbn:sbn",
            "stochastic_mlp": "problems.stochastic_mlp:stochastic_mlp",
            "gaussian_vae": "problems.gaussian_vae:gaussian_vae",
            "categorical_vae": "problems.categorical_vae:categorical_vae",
            "semi_supervised": "problems.semi_supervised:semi_supervised",
            "memory_vae": "problems.memory_vae:memory_vae",
            "latent_lm": "problems.latent_lm:latent_lm",
        },
    }
)

_HOMES = {
    "problems.base": ["Point", "Problem"],
    "problems.families.base": ["Noise", "Size"],
    "problems.families.bernoulli": ["Bernoulli"],
    "problems.families.beta": ["Beta"],
    "problems.families.binomial": ["Binomial"],
    "problems.families.categorical": ["Categorical"],
    "problems.families.chain": ["Chain"],
    "problems.families.dirichlet": ["Dirichlet"],
    "problems.families.gamma": ["Gamma"],
    "problems.families.geometric": ["Geometric"],
    "problems.families.minibatch": ["Minibatch"],
    "problems.families.normal": ["Normal"],
    "problems.families.poisson": ["Poisson"],
    "problems.families.subset": ["Subset"],
    "problems.families.von_mises": ["VonMises"],
    "problems.families.weibull": ["Weibull"],
    "problems.objectives": [
        "Elbo",
        "Expectation",
        "ImportanceWeighted",
        "InclusiveKL",
        "LogMarginal",
        "Objective",
        "Renyi",
        "Thermodynamic",
    ],
    "problems.truth": ["Truth", "true_gradient"],
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "PROBLEMS",
    "Bernoulli",
    "Beta",
    "Binomial",
    "Categorical",
    "Chain",
    "Dirichlet",
    "Elbo",
    "Expectation",
    "Gamma",
    "Geometric",
    "ImportanceWeighted",
    "InclusiveKL",
    "LogMarginal",
    "Minibatch",
    "Noise",
    "Normal",
    "Objective",
    "Point",
    "Poisson",
    "Problem",
    "Renyi",
    "Size",
    "Subset",
    "Thermodynamic",
    "Truth",
    "VonMises",
    "Weibull",
    "true_gradient",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'problems' has no attribute {name!r}")
