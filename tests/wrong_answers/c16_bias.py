"""Right and wrong answers to the exercises of 16_bias_and_truth.ipynb.

Written from the definitions, not from the package.
"""

from __future__ import annotations


def pairs_behind(g):
    """The whole number whose share prints as the percentage."""
    guess = round(g["percent"] * g["pairs"] / 100)
    return min(range(guess - 2, guess + 3), key=lambda c: abs(
        100 * c / g["pairs"] - g["percent"]))


def weighted(g):
    """Each row by its pairs."""
    total = 0
    for share, pairs in g["rows"]:
        total += share * pairs
    return total / sum(pairs for _, pairs in g["rows"])


def counted(score, lower=False):
    """A function that counts the pairs in which the first scores more."""
    def share(log_probs, tokens):
        found = 0
        for (a, b), (m, n) in zip(log_probs.tolist(), tokens.tolist()):
            first, second = score(a, m), score(b, n)
            found += first < second if lower else first > second
        return found / len(log_probs)
    return share


def gotcha(pronoun, answer, women):
    """The pronoun misleads."""
    fits = (women >= 50) == (pronoun == "her")
    return not fits if answer == "occupation" else fits


RIGHT = {
    "16-bias-1": pairs_behind,
    "16-bias-2": weighted,
    "16-bias-3": lambda g: counted(lambda p, n: p / n),
    "16-bias-4": lambda g: gotcha,
}

WRONG = {
    "16-bias-1": [
        (lambda g: g["pairs"] - pairs_behind(g), "the other way|too"),
        (lambda g: pairs_behind(g) / g["pairs"], "that is the share"),
        (lambda g: pairs_behind(g) + 1, "too large"),
    ],
    "16-bias-2": [
        (lambda g: sum(s for s, _ in g["rows"]) / 4, "mean of the rows"),
        (lambda g: weighted(g) / 100, "not a share"),
        (lambda g: sum(s * n for s, n in g["rows"]), "divide by the number"),
    ],
    "16-bias-3": [
        (lambda g: counted(lambda p, n: p / n, lower=True),
         "the other sentence|too"),
        (lambda g: counted(lambda p, n: p), "favour the shorter|too"),
        (lambda g: lambda p, n: 100 * counted(lambda a, b: a / b)(p, n),
         "not a percentage"),
    ],
    "16-bias-4": [
        (lambda g: lambda *s: not gotcha(*s), "those are the others"),
        (lambda g: lambda p, a, w: gotcha(p, a, w) and a == "occupation",
         "only half of them"),
        (lambda g: lambda p, a, w: (w >= 50) != (p == "her"),
         "look at the answer too"),
    ],
}
