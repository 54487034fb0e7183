"""Table 1 of the paper: which share of the training tokens is which text.

Nothing is mixed on disk. Each source keeps shards of its own, and a weight in
`index.json`, by which `minillama.batches` takes turns; a source that runs out
starts its next epoch.

Chapter: notebooks/03_mixture.ipynb
"""

from __future__ import annotations

from collections.abc import Mapping


TABLE_1 = {
    "commoncrawl": (67.0, 1.10, 3.3e12),
    "c4": (15.0, 1.06, 783e9),
    "github": (4.5, 0.64, 328e9),
    "wikipedia": (4.5, 2.45, 83e9),
    "books": (4.5, 2.23, 85e9),
    "arxiv": (2.5, 1.06, 92e9),
    "stackexchange": (2.0, 1.03, 78e9),
}
"""The paper's sources in its order: percent of the training tokens, epochs
when training on 1.4T tokens, bytes on disk."""

OWN_PERCENT = 4.5
"""The weight of the reader's own text: as much as one of the hand-picked
sources of Table 1, unless they say otherwise."""


def percentages(
    names: Mapping[str, object] | list[str],
    changed: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """The weight of each source: Table 1's, `OWN_PERCENT`, or as asked.

    Args:
        names: the sources at hand.
        changed: weights that the reader sets, in percent of the whole.

    Raises:
        ValueError: for a weight below 0 or of a source that is not there.
    """
    changed = dict(changed or {})
    for name, percent in changed.items():
        if name not in names or not percent >= 0:
            raise ValueError(
                f"weight {name}={percent:g} must be at least 0 and for one "
                f"of the sources {', '.join(names)}")
    return {name: float(changed.get(
        name, TABLE_1[name][0] if name in TABLE_1 else OWN_PERCENT))
        for name in names}


def sampled(
    tokens: Mapping[str, int], percents: Mapping[str, float], total: float
) -> dict[str, dict[str, float]]:
    """What a run of `total` tokens takes of each source.

    Args:
        tokens: different tokens of each source.
        percents: weights; only their ratios count.
        total: training tokens.

    Returns:
        By source: `percent` of the run, `tokens` taken, `epochs`.

    Chapter: notebooks/03_mixture.ipynb
    """
    whole = sum(percents[name] for name in tokens if tokens[name])
    result = {}
    for name, count in tokens.items():
        share = percents[name] / whole if count and whole else 0.0
        result[name] = {"percent": 100 * share, "tokens": share * total,
                        "epochs": share * total / count if count else 0.0}
    return result
