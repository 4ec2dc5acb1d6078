"""The registry of estimators, and the records to write one's own. Importing this package imports nothing heavy."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from problems.registry import Registry

if TYPE_CHECKING:
    from estimators.adapters import from_gradients, from_surrogate
    from estimators.base import Ask, Claim, Estimator, Learning, mismatch
    from problems.families.base import Noise, Size

ESTIMATORS = Registry.grouped(
    {
        "score function": {
            "reinforce": "estimators.score_function:reinforce",
            "rloo": "estimators.score_function:rloo",
            "moving_average_baseline": "estimators.moving_average:moving_average_baseline",
            "optimal_baseline": "estimators.optimal_baseline:optimal_baseline",
            "reinforce_plus": "estimators.reinforce_plus:reinforce_plus",
            "exact_mean_baseline": "estimators.exact_mean_baseline:exact_mean_baseline",
            "group_advantage": "estimators.group_advantage:group_advantage",
            "off_policy": "estimators.off_policy:off_policy",
            "nvil": "estimators.nvil:nvil",
            "control_variate_regression": "estimators.control_variate_regression:control_variate_regression",
            "local_signals": "estimators.local_signals:local_signals",
            "actor_critic": "estimators.actor_critic:actor_critic",
        },
        "control variates that use f": {
            "delta_method": "estimators.delta_method:delta_method",
            "delta_pathwise": "estimators.delta_method:delta_pathwise",
            "muprop": "estimators.muprop:muprop",
            "rebar": "estimators.rebar:rebar",
            "relax": "estimators.relax:relax",
            "lax": "estimators.lax:lax",
            "dlax": "estimators.lax:dlax",
            "double_cv": "estimators.double_cv:double_cv",
            "rodeo": "estimators.rodeo:rodeo",
        },
        "coupled": {
            "ar": "estimators.arm:ar",
            "arm": "estimators.arm:arm",
            "disarm": "estimators.disarm:disarm",
            "disarm_categorical": "estimators.disarm_categorical:disarm_categorical",
            "disarm_layers": "estimators.disarm_layers:disarm_layers",
            "arms": "estimators.arms:arms",
            "ars": "estimators.arsm:ars",
            "arsm": "estimators.arsm:arsm",
            "bitflip": "estimators.bitflip:bitflip",
            "ugc": "estimators.bitflip:ugc",
        },
        "summed and without replacement": {
            "exact": "estimators.exact:exact",
            "local_expectation": "estimators.local_expectation:local_expectation",
            "indecater": "estimators.indecater:indecater",
            "ram": "estimators.ram:ram",
            "unordered_set": "estimators.unordered_set:unordered_set",
            "sum_and_sample": "estimators.sum_and_sample:sum_and_sample",
            "score_without_replacement": "estimators.score_without_replacement:score_without_replacement",
            "stratified": "estimators.stratified:stratified",
        },
        "relaxed and straight-through": {
            "gumbel_softmax": "estimators.gumbel_softmax:gumbel_softmax",
            "gumbel_straight_through": "estimators.gumbel_softmax:gumbel_straight_through",
            "gumbel_entmax": "estimators.gumbel_entmax:gumbel_entmax",
            "hard_concrete": "estimators.hard_concrete:hard_concrete",
            "generalised_gumbel_softmax": "estimators.generalised_gumbel_softmax:generalised_gumbel_softmax",
            "gumbel_rao": "estimators.gumbel_rao:gumbel_rao",
            "straight_through": "estimators.straight_through:straight_through",
            "decoupled_straight_through": "estimators.straight_through:decoupled_straight_through",
            "gapped_straight_through": "estimators.gapped_straight_through:gapped_straight_through",
            "simple": "estimators.straight_through:simple",
            "reinmax": "estimators.reinmax:reinmax",
            "psa": "estimators.psa:psa",
            "imle": "estimators.perturb_and_map:imle",
            "blackbox_differentiation": "estimators.perturb_and_map:blackbox_differentiation",
            "perturbed_optimizer": "estimators.perturbed_optimizer:perturbed_optimizer",
        },
        "pathwise": {
            "pathwise": "estimators.pathwise:pathwise",
            "pathwise_total": "estimators.pathwise:pathwise_total",
            "flipout": "estimators.flipout:flipout",
            "antithetic_normal": "estimators.antithetic:antithetic_normal",
            "bonnet_price": "estimators.bonnet_price:bonnet_price",
            "generalised_reparameterisation": "estimators.generalised_reparameterisation:generalised_reparameterisation",
            "rejection_reparameterisation": "estimators.rejection_reparameterisation:rejection_reparameterisation",
            "go": "estimators.go:go",
            "randomised_quasi_monte_carlo": "estimators.randomised_quasi_monte_carlo:randomised_quasi_monte_carlo",
            "antithetic": "estimators.antithetic:antithetic",
            "quadrature_expectation": "estimators.quadrature_expectation:quadrature_expectation",
            "pathwise_analytic_entropy": "estimators.pathwise_analytic_entropy:pathwise_analytic_entropy",
        },
        "measure-valued": {
            "measure_valued_normal": "estimators.measure_valued:measure_valued_normal",
            "measure_valued_bernoulli": "estimators.measure_valued:measure_valued_bernoulli",
            "measure_valued_categorical": "estimators.measure_valued:measure_valued_categorical",
            "measure_valued_poisson": "estimators.measure_valued:measure_valued_poisson",
            "measure_valued_geometric": "estimators.measure_valued:measure_valued_geometric",
            "measure_valued_binomial": "estimators.measure_valued:measure_valued_binomial",
            "measure_valued_gamma": "estimators.measure_valued:measure_valued_gamma",
            "measure_valued_weibull": "estimators.measure_valued:measure_valued_weibull",
        },
        "rows of a minibatch": {
            "minibatch": "estimators.minibatch:minibatch",
            "importance_minibatch": "estimators.minibatch:importance_minibatch",
            "svrg": "estimators.svrg:svrg",
        },
        "finite differences": {
            "finite_difference": "estimators.finite_difference:finite_difference",
            "spsa": "estimators.spsa:spsa",
            "evolution_strategies": "estimators.evolution_strategies:evolution_strategies",
        },
        "stochastic programs": {
            "stochastic_ad": "estimators.stochastic_ad:stochastic_ad",
        },
        "multi-sample bounds": {
            "iwae_pathwise": "estimators.importance_weighted:iwae_pathwise",
            "iwae_score": "estimators.importance_weighted:iwae_score",
            "dreg": "estimators.importance_weighted:dreg",
            "stl": "estimators.importance_weighted:stl",
            "vimco": "estimators.importance_weighted:vimco",
            "vimco_disarm": "estimators.vimco_disarm:vimco_disarm",
            "ovis": "estimators.ovis:ovis",
            "ovis_mc": "estimators.ovis:ovis_mc",
            "wake_phi": "estimators.importance_weighted:wake_phi",
            "rws_dreg": "estimators.importance_weighted:rws_dreg",
            "tvo": "estimators.thermodynamic:tvo",
            "miwae": "estimators.combined_bounds:miwae",
            "piwae": "estimators.combined_bounds:piwae",
            "ciwae": "estimators.combined_bounds:ciwae",
            "jvi": "estimators.combined_bounds:jvi",
            "tail_adaptive": "estimators.tail_adaptive:tail_adaptive",
            "sumo": "estimators.log_evidence:sumo",
            "mlmc_log_evidence": "estimators.log_evidence:mlmc_log_evidence",
        },
    }
)

_HOMES = {
    "estimators.adapters": ["from_gradients", "from_surrogate"],
    "estimators.base": ["Ask", "Claim", "Estimator", "Learning", "mismatch"],
    "problems.families.base": ["Noise", "Size"],
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "ESTIMATORS",
    "Ask",
    "Claim",
    "Estimator",
    "Learning",
    "Noise",
    "Size",
    "from_gradients",
    "from_surrogate",
    "mismatch",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'estimators' has no attribute {name!r}")
