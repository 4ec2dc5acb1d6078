"""IBM model 1: sum-product against the enumeration of whole alignments, in torch and in plain Python."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from problems.alignment import alignment, corpus
from problems.truth import true_gradient


def test_sum_product_is_enumeration() -> None:
    problem = alignment()
    own, enumerated = true_gradient(problem), true_gradient(replace(problem, exact=None))
    assert own is not None
    assert enumerated is not None
    assert (own.tier, enumerated.tier) == ("closed form", "enumeration")
    torch.testing.assert_close(own.gradient, enumerated.gradient, rtol=1e-10, atol=1e-12)


def test_truth_is_of_the_data_that_are_there() -> None:
    problem = alignment()
    assert problem.data is not None
    two = replace(problem, data=problem.data[1:3])
    own, enumerated = true_gradient(two), true_gradient(replace(two, exact=None))
    assert own is not None
    assert enumerated is not None
    torch.testing.assert_close(own.gradient, enumerated.gradient, rtol=1e-10, atol=1e-12)


def test_truth_is_the_sum_over_alignments_of_whole_sentences(differences: Callable[..., Tensor]) -> None:
    words, V, sentences = 3, 3, 2
    problem = alignment(words=words, vocabulary=V, sentences=sentences)
    assert problem.data is not None
    assert problem.model is not None
    rows = [[int(word) for word in row] for row in problem.data.tolist()]

    def softmax(values: list[float]) -> list[float]:
        return [math.exp(v) / sum(math.exp(u) for u in values) for v in values]

    def L(weights: list[float]) -> float:
        s, t = weights[: V * V], weights[V * V :]
        total = 0.0
        for row in rows:
            x, y = row[:words], row[words:]
            q = [softmax([s[x[j] * V + y[i]] for i in range(words)]) for j in range(words)]
            for a in itertools.product(range(words), repeat=words):
                log_p = sum(math.log(softmax(t[y[i] * V : y[i] * V + V])[x[j]] / words) for j, i in enumerate(a))
                log_q = sum(math.log(q[j][i]) for j, i in enumerate(a))
                total += math.exp(log_q) * (log_p - log_q)
        return total

    truth = true_gradient(problem)
    assert truth is not None
    wanted = differences(L, torch.cat([problem.theta, problem.model]).tolist())
    torch.testing.assert_close(truth.gradient, wanted, rtol=0, atol=1e-8)


def test_corpus_follows_its_dictionary() -> None:
    """Of 2,000 sentences about 0.8 of the target words, plus chance, translate a word of the source."""
    rows, dictionary = corpus(4, 50, 2000)
    assert sorted(dictionary.tolist()) == list(range(50))
    x, y = rows[:, :4].long(), rows[:, 4:].long()
    found = (x[:, :, None] == dictionary[y][:, None, :]).any(-1).double()
    by_chance = 1 - (1 - 1 / 50) ** 4
    wanted = 0.8 + 0.2 * by_chance
    assert abs(float(found.mean()) - wanted) < 5 * math.sqrt(wanted * (1 - wanted) / found.numel())


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"words": 0}, r"alignment\[words=0\]: words must be at least 1"),
        ({"vocabulary": 1}, r"alignment\[vocabulary=1\]: vocabulary must be at least 2"),
        ({"sentences": 0}, r"alignment\[sentences=0\]: sentences must be at least 1"),
    ],
)
def test_settings_it_cannot_take(settings: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        alignment(**settings)
