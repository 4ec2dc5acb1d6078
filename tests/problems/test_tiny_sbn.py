"""The small belief network: every hidden state summed in plain Python."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from problems.tiny_sbn import tiny_sbn
from problems.truth import terms, true_gradient

V = 16


def affine(weights: Sequence[float], h: Sequence[float], outputs: int) -> list[float]:
    bias = weights[len(h) * outputs :]
    return [bias[o] + sum(h[i] * weights[i * outputs + o] for i in range(len(h))) for o in range(outputs)]


def log_bernoulli(bits: Sequence[float], logits: Sequence[float]) -> float:
    return sum(-math.log1p(math.exp(-t if b else t)) for b, t in zip(bits, logits, strict=True))


@pytest.mark.parametrize(("layers", "K"), [(1, 1), (1, 2), (2, 1)])
def test_truth_is_the_sum_over_hidden_states(layers: int, K: int, differences: Callable[..., Tensor]) -> None:
    H = 2
    problem = tiny_sbn(hidden=H, data=2, layers=layers, samples=K)
    assert problem.data is not None
    assert problem.model is not None
    rows, P = problem.data.tolist(), len(problem.theta)
    first, second = (V + 1) * H, (H + 1) * V

    def L(weights: list[float]) -> float:
        theta, model = weights[:P], weights[P:]
        total = 0.0
        for pixels in rows:
            states = []
            for z in itertools.product([0.0, 1.0], repeat=H * layers):
                below, above = z[:H], z[H:]
                log_q = log_bernoulli(below, affine(theta[:first], pixels, H))
                log_p = log_bernoulli(pixels, affine(model[:second], below, V))
                if layers == 2:
                    log_q += log_bernoulli(above, affine(theta[first:], below, H))
                    log_p += log_bernoulli(below, affine(model[second:-H], above, H))
                    log_p += log_bernoulli(above, model[-H:])
                else:
                    log_p += log_bernoulli(below, model[-H:])
                states.append((math.exp(log_q), math.exp(log_p - log_q)))
            for draw in itertools.product(states, repeat=K):
                total += math.prod(q for q, _ in draw) * math.log(sum(w for _, w in draw) / K)
        return total

    truth = true_gradient(problem)
    assert truth is not None
    assert truth.tier == "enumeration"
    wanted = differences(L, torch.cat([problem.theta, problem.model]).tolist())
    torch.testing.assert_close(truth.gradient, wanted, rtol=0, atol=1e-8)


def test_the_largest_is_still_summed() -> None:
    assert terms(tiny_sbn(hidden=12, data=1)) == 4096
    assert terms(tiny_sbn(hidden=6, layers=2, data=1)) == 4096
    assert terms(tiny_sbn(hidden=6, samples=3)) == 64**3


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"layers": 3}, r"tiny_sbn\[layers=3\]: layers is 1 or 2"),
        ({"hidden": 0}, r"tiny_sbn\[hidden=0\]: hidden must be at least 1"),
        ({"data": 0}, r"tiny_sbn\[data=0\]: data must be at least 1"),
        ({"samples": 0}, r"tiny_sbn\[samples=0\]: samples must be at least 1"),
        (
            {"hidden": 7, "layers": 2},
            r"tiny_sbn\[hidden=7,layers=2\]: the truth sums over every hidden state, .* 12 bits .*",
        ),
    ],
)
def test_settings_it_cannot_take(settings: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        tiny_sbn(**settings)
