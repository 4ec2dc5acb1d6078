"""A small language with two things behind every sentence, its topic and its tense, and sentences drawn from it."""

from __future__ import annotations

import numpy as np
import torch

SEED = 1511
END = 0
LONGEST = 8
TOPICS = (  # two subjects and a third object; two verbs, each in the present and the past tense
    ("sailor captain ship", "sees saw", "steers steered"),
    ("cook guest soup", "makes made", "tastes tasted"),
    ("judge thief letter", "hears heard", "finds found"),
)
WORDS = [
    *[".", "the", "a", "old", "young", "now", "then"],
    *(word for topic in TOPICS for group in topic for word in group.split()),
]
ADJECTIVES = ("", "old", "young")
ADVERBS = ("now", "then")


def corpus(sentences: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sentences `[N, 8]` as places in WORDS, and their topic and tense `[N, 2]`, all drawn uniformly from the fixed seed.

    A sentence has 6 to 8 words with its full stop, which is repeated to the end of the row.
    """
    rng = np.random.default_rng(SEED)
    drawn = rng.integers([3, 2, 3, 2, 2, 2, 3, 2], size=(sentences, 8)).tolist()
    rows = [[WORDS.index(word) for word in sentence(*choices)] for choices in drawn]
    padded = [row + [END] * (LONGEST - len(row)) for row in rows]
    return torch.tensor(padded, dtype=torch.float64), torch.tensor([choices[:2] for choices in drawn])


def sentence(
    topic: int, tense: int, adjective: int, subject: int, verb: int, article: int, object_: int, adverb: int
) -> list[str]:
    """the [old | young] SUBJECT VERB the | a OBJECT [now | then] - of the topic, the verb and the adverb in the tense."""
    nouns, *verbs = (group.split() for group in TOPICS[topic])
    about = ["the", ADJECTIVES[adjective], nouns[subject]]
    told = [verbs[verb][tense], ("the", "a")[article], nouns[object_], ADVERBS[tense] if adverb else ""]
    return [word for word in about + told if word]
