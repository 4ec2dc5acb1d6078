"""SVRG and SAGA: the gradient of each row less what it was at an anchor, whose full gradient is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from estimators.base import Ask, Estimator, Learning, Noise
from estimators.minibatch import EXPECTATION, beside, check_rows, distinct, every_row
from problems.settings import at_least

if TYPE_CHECKING:
    from torch import Tensor

    from estimators.base import Size
    from problems.families.minibatch import MinibatchFamily


def svrg(samples: int = 4, distance: float = 0.1, replacement: bool = True, table: bool = False) -> Estimator:
    """SVRG: each row's gradient less that at an anchor, plus the full gradient there, learned once; with a table, SAGA.

    Assumes f((i, w)) = N f_i(w) differentiable in w. The anchor stands for the parameters of an earlier step: at `distance` from
    theta, in a direction drawn at random. Where the gradients are smooth the variance falls with the square of that distance, to
    none at 0. table: the gradients at the anchors are kept, one for each row, each of an earlier step of its own, as SAGA keeps
    them; a gradient less to ask, N P numbers more to keep. replacement=False: the K rows are distinct. Unbiased for Expectation
    whatever the anchor; 2 K evaluations and gradients of f (table: K), and N once. A control variate of the rows as of any sample:
    about their mean (Wang et al.), or a fixed mode (Baker et al.).
    Johnson & Zhang 2013, NeurIPS; Defazio, Bach & Lacoste-Julien 2014, arXiv:1407.0202 (SAGA); Wang, Chen, Smola & Xing 2013,
    NeurIPS; Baker, Fearnhead, Fox & Nemeth 2019, arXiv:1706.05439.
    """
    at_least("svrg", 1, samples=samples)
    at_least("svrg", 0, distance=distance)

    def points(size: Size) -> list[Ask]:
        if not replacement:
            check_rows("svrg", samples, size)
        return [Ask.SAMPLE | Ask.GRADIENT] * samples + [Ask.GRADIENT] * samples * (not table)

    def noise(size: Size) -> list[Noise]:
        return [Noise("uniform", (samples,), (1,)) if replacement else Noise("uniform", (), (size.family.rows,))]

    def init(theta: Tensor, size: Size, generator: torch.Generator) -> dict[str, Tensor]:
        N = size.family.rows
        state = {"anchor": beside(theta, generator, distance, N if table else 1), "full": torch.zeros_like(theta)}
        return state | {"table": theta.new_zeros(N, *theta.shape)} if table else state

    def at_every_row(q: MinibatchFamily, state: Mapping[str, Tensor]) -> Tensor:
        """(i, w0) for i = 0 ... N - 1, or (i, w0_i); x: [N, 1, 1 + P]."""
        return q.at(state["anchor"][:, None]).place(torch.arange(q.rows, device=q.theta.device)[:, None])

    def learn(state: Mapping[str, Tensor], q: MinibatchFamily, x: Tensor, dfx: Tensor) -> dict[str, Tensor]:
        """The full gradient sum_i grad f_i(w0_i); and of the table its addends, N grad f_i(w0_i)."""
        known = {"anchor": state["anchor"], "full": q.path(x, dfx / len(dfx))[0]}
        return known | {"table": dfx[:, 0, 1:]} if table else known

    def draw(q: MinibatchFamily, noise: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """x_k = (i_k, theta), and (i_k, w0) where there is no table; x: [K or 2 K, ..., 1 + P]."""
        x = q.sample(noise) if replacement else q.place(distinct(noise, samples))
        return x if table else torch.cat([x, q.at(state["anchor"][0]).place(x[..., 0])])

    def combine(q: MinibatchFamily, x: Tensor, dfx: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """g = 1/K sum_k N [grad f_{i_k}(theta) - grad f_{i_k}(w0)] + sum_i grad f_i(w0)."""
        x, here = x[:samples], dfx[:samples]
        there = state["table"][x[..., 0].long()] if table else dfx[samples:, ..., 1:]
        return (here[..., 1:] - there).mean(0) + state["full"]

    return Estimator(
        "svrg",
        points,
        draw,
        combine,
        ["minibatch"],
        EXPECTATION,
        noise,
        learning=Learning(init, learn, 1, points=every_row, noise=[], draw=at_every_row),
        settings={"samples": samples, "distance": distance, "replacement": replacement, "table": table},
        source="Johnson & Zhang 2013",
    )
