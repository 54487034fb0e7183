"""Figures by name: which choice, which text, how often, how sure.

Chapter: notebooks/14_evaluation.ipynb
"""

from __future__ import annotations

import math
import random
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import fmean

import numpy as np

from minillama.evals.protocol import Answer, Item, Scorer

NORMALISATIONS: dict[str, Callable[[Item, Answer], list[float]]] = {
    "none": lambda item, answer: [s.log_prob for s in answer.scores],
    "character": lambda item, answer: [
        s.log_prob / len(choice)
        for s, choice in zip(answer.scores, item.choices)],
    "token": lambda item, answer: [
        s.log_prob / s.tokens for s in answer.scores],
    "unconditional": lambda item, answer: [
        s.log_prob - b.log_prob
        for s, b in zip(answer.scores, answer.baseline)],
}
"""What is compared, one number a choice; the largest is taken.

`none`: log P(choice | prompt). `character`: that over the characters of the
choice, its space not counted. `token`: over its tokens. `unconditional`: less
log P(choice | "Answer:"), Brown et al. 2020.
"""


def pick(item: Item, answer: Answer, normalisation: str) -> int:
    """Index of the choice taken; of equal ones the first.

    Chapter: notebooks/14_evaluation.ipynb
    """
    values = NORMALISATIONS[normalisation](item, answer)
    return values.index(max(values))


def choose(item: Item, answer: Answer) -> dict[str, float]:
    """Whether the right choice is taken, under each normalisation at hand.

    Chapter: notebooks/14_evaluation.ipynb
    """
    at_hand = [name for name in NORMALISATIONS
               if name != "unconditional" or answer.baseline]
    return {f"accuracy_{name}": float(pick(item, answer, name) == item.gold)
            for name in at_hand}


def normalise_answer(text: str) -> str:
    """Lower case; no articles, punctuation or double spaces (appendix A).

    Chapter: notebooks/14_evaluation.ipynb
    """
    text = text.lower().translate(str.maketrans("", "", string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact_match(item: Item, answer: Answer) -> dict[str, float]:
    """Whether the first text equals one of the answers, both normalised.

    Chapter: notebooks/14_evaluation.ipynb
    """
    said = normalise_answer(answer.texts[0].text)
    right = {normalise_answer(text) for text in item.answers}
    return {"exact_match": float(said in right)}


def majority(results: Sequence[str | None]) -> str | None:
    """The most frequent result, the first of equals; None does not vote.

    maj1@k: one answer out of k samples (Wang et al. 2022).

    Chapter: notebooks/14_evaluation.ipynb
    """
    votes = Counter(result for result in results if result is not None)
    return max(votes, key=lambda v: votes[v]) if votes else None


def pass_at_k(samples: int, right: int, k: int) -> float:
    """1 - C(n - c, k) / C(n, k): the chance that one of k samples is right.

    Args:
        samples: n, how many were drawn.
        right: c, how many of them pass.
        k: how many one may hand in.

    Raises:
        ValueError: unless 0 <= right <= samples and 1 <= k <= samples.

    Source: Chen et al. 2021, equation 1.
    Chapter: notebooks/14_evaluation.ipynb
    """
    if not (0 <= right <= samples and 1 <= k <= samples):
        raise ValueError(
            f"pass@{k} of {right} right among {samples} samples does not "
            f"exist; draw at least k={k} samples")
    return 1.0 - math.comb(samples - right, k) / math.comb(samples, k)


def perplexity(scorer: Scorer, texts: Sequence[str]) -> float:
    """exp of the mean nats per token, every token predicted once.

    A text longer than the context is read in windows (`scorers.windows`).

    Chapter: notebooks/14_evaluation.ipynb
    """
    scores = scorer.score([("", text) for text in texts])
    return math.exp(-sum(s.log_prob for s in scores)
                    / sum(s.tokens for s in scores))


def exact_interval(
    right: int, count: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Clopper and Pearson's interval of a proportion.

    The lower bound is the p at which `right` or more out of `count` has
    probability (1 - confidence) / 2; the upper bound likewise. So it covers
    the truth at least as often as it says, however small the sample.

    Source: Clopper and Pearson 1934.
    Chapter: notebooks/14_evaluation.ipynb
    """
    def solve(least: int, level: float) -> float:
        """The p at which `least` or more are right so often."""
        k = np.arange(least, count + 1)
        ways = np.array([-math.lgamma(i + 1) - math.lgamma(count - i + 1)
                         for i in k]) + math.lgamma(count + 1)
        low, high = 0.0, 1.0
        for _ in range(40):
            p = (low + high) / 2
            tail = np.exp(ways + k * math.log(p)
                          + (count - k) * math.log1p(-p)).sum()
            low, high = (p, high) if tail < level else (low, p)
        return (low + high) / 2

    level = (1 - confidence) / 2
    return (solve(right, level) if right else 0.0,
            solve(right + 1, 1 - level) if right < count else 1.0)


def bootstrap_interval(
    values: Sequence[float], confidence: float = 0.95, *,
    draws: int = 1000, seed: int = 1,
) -> tuple[float, float]:
    """Percentiles of the means of samples drawn with replacement.

    Source: Efron 1979.
    Chapter: notebooks/14_evaluation.ipynb
    """
    rng = random.Random(seed)
    means = sorted(fmean(rng.choices(values, k=len(values)))
                   for _ in range(draws))
    cut = int((1 - confidence) / 2 * draws)
    return means[cut], means[-1 - cut]


def interval(values: Sequence[float], seed: int = 1) -> tuple[float, float]:
    """95 % interval of a mean: exact for rights and wrongs, else bootstrap.

    Chapter: notebooks/14_evaluation.ipynb
    """
    if set(values) <= {0.0, 1.0}:
        return exact_interval(round(sum(values)), len(values))
    return bootstrap_interval(values, seed=seed)

