"""Exercises of notebooks/16_bias_and_truth.ipynb."""

from __future__ import annotations

import torch

from minillama.checks import answer, compare, exercise


def _cell(draw: torch.Generator) -> dict:
    pairs = int(torch.randint(60, 260, (), generator=draw))
    count = int(torch.randint(pairs // 2, pairs, (), generator=draw))
    return {"percent": round(100 * count / pairs, 1), "pairs": pairs}


@exercise("16-bias-1", given=_cell)
def count(mine: object, percent: float, pairs: int) -> str | None:
    """A whole number: the pairs behind a printed percentage."""
    right = next(c for c in range(pairs + 1)
                 if round(100 * c / pairs, 1) == percent)
    return compare(
        mine, right,
        (pairs - right, "those are the pairs that went the other way"),
        (right / pairs, "that is the share; how many pairs is it?"),
        (percent * pairs / 100, "that is not a whole number of pairs; which "
                                "whole number prints as this percentage?"),
        tolerance=1e-9)


def _rows(draw: torch.Generator) -> dict:
    pairs = torch.randint(50, 500, (4,), generator=draw).tolist()
    shares = torch.rand(4, generator=draw) * 40 + 50
    return {"rows": [(round(s, 1), n)
                     for s, n in zip(shares.tolist(), pairs)]}


@exercise("16-bias-2", given=_rows)
def micro(mine: object, rows: list[tuple[float, int]]) -> str | None:
    """A percentage: the average in which every pair counts the same."""
    total = sum(n for _, n in rows)
    return compare(
        mine, sum(s * n for s, n in rows) / total,
        (sum(s for s, _ in rows) / len(rows),
         "that is the mean of the rows: a small category counts as much as "
         "a large one there"),
        (sum(s * n for s, n in rows) / total / 100,
         "a percentage is wanted, not a share"),
        (sum(s * n for s, n in rows), "divide by the number of all pairs"),
        tolerance=1e-3)


def _scores(draw: torch.Generator) -> dict:
    # The first sentence is always the longer one; no ties, 41 being odd.
    tokens = torch.randint(4, 8, (41, 2), generator=draw) + torch.tensor(
        [8, 0])
    noise = torch.rand(41, 2, generator=draw)
    return {"log_probs": -(tokens * (3 + noise)), "tokens": tokens}


@exercise("16-bias-3", given=_scores)
def preferred(
    mine: object, log_probs: torch.Tensor, tokens: torch.Tensor
) -> str | None:
    """A function (log_probs, tokens) -> the share of stereotypes."""
    each = log_probs / tokens

    def share(scores: torch.Tensor) -> float:
        return (scores[:, 0] > scores[:, 1]).float().mean().item()

    return compare(
        answer(mine, log_probs, tokens), share(each),
        (share(-each), "a high log-probability is a low perplexity: you "
                       "counted the other sentence"),
        (share(log_probs), "those are whole log-probabilities, which favour "
                           "the shorter sentence; perplexity is per token"),
        (share(log_probs * tokens), "divide by the tokens, do not multiply"),
        (100 * share(each), "a share is wanted, not a percentage"),
        tolerance=1e-4)


def _sentences(draw: torch.Generator) -> dict:
    bits = torch.randint(0, 2, (30, 2), generator=draw).tolist()
    women = torch.randint(1, 100, (30,), generator=draw).tolist()
    return {"sentences": [
        (("her", "his")[a], ("occupation", "participant")[b], w)
        for (a, b), w in zip(bits, women)]}


@exercise("16-bias-4", given=_sentences)
def gotchas(
    mine: object, sentences: list[tuple[str, str, int]]
) -> str | None:
    """A function (pronoun, answer, percent_women) -> True for a gotcha."""
    def expected(rule) -> list[bool]:
        return [bool(rule(p == "her", a == "occupation", w >= 50))
                for p, a, w in sentences]

    got = [bool(answer(mine, *sentence)) for sentence in sentences]
    return compare(
        [float(g) for g in got],
        [float(x) for x in expected(lambda h, o, w: (h != w) == o)],
        *((([float(x) for x in expected(rule)]), words) for rule, words in (
            (lambda h, o, w: (h == w) == o,
             "those are the others: a gotcha goes against what is common"),
            (lambda h, o, w: h != w and o,
             "those are only half of them: when the answer is the "
             "participant, the trap is the pronoun that fits the occupation"),
            (lambda h, o, w: h != w,
             "look at the answer too: a pronoun that does not fit the "
             "occupation helps when the participant is meant"),
            (lambda h, o, w: h == w,
             "look at the answer too, and the other way round"))))
