"""Pictures of the mixture: three levels of dedup, the S-curve, Table 1.

Chapter: notebooks/03_mixture.ipynb
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minillama.plots import COLOURS, figure, show, slider

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FATES = {"kept": "#a6cee3", "line": COLOURS[4], "span": COLOURS[2],
          "document": COLOURS[3]}
_WORDS = {"kept": "stays", "line": "line on several pages",
          "span": "span that another page keeps",
          "document": "copy of another page"}


def levels(pages: Mapping[str, Sequence[str]]) -> None:
    """Pages as columns of lines, coloured by what happens to each line.

    Args:
        pages: by name, the fate of each line: kept, line, span or document.
    """
    from matplotlib.patches import Patch, Rectangle

    picture, axes = figure(height=3.6)
    tallest = max(map(len, pages.values()))
    for column, fates in enumerate(pages.values()):
        for row, fate in enumerate(fates):
            axes.add_patch(Rectangle(
                (column + 0.08, tallest - row - 0.9), 0.84, 0.8,
                color=_FATES[fate]))
    axes.set(xlim=(0, len(pages)), ylim=(0, tallest), xlabel="page",
             ylabel="line, first on top")
    axes.set_xticks([n + 0.5 for n in range(len(pages))], list(pages))
    axes.set_yticks([])
    axes.grid(False)
    picture.legend(
        handles=[Patch(color=_FATES[f], label=_WORDS[f]) for f in _FATES],
        loc="outside upper center", ncols=2)
    show(picture, alt=f"{len(pages)} pages drawn as columns of lines. Most "
         "lines stay. The same menu lines go from every page, a passage of "
         "three lines goes from all pages but one, and one page goes whole.")


def s_curves(bands: Sequence[int], hashes: int, similarity: float) -> None:
    """How a pair becomes a candidate, for some numbers of bands.

    Args:
        bands: into how many parts the signature is cut, a frame each.
        hashes: numbers in the signature.
        similarity: what should be found; a dashed line.
    """
    frames = [(f"{count} bands of {hashes // count}: a pair at "
               f"{similarity:.2f} is missed once in "
               f"{_once(similarity, count, hashes // count)}",
               _s_curve(count, hashes // count, similarity))
              for count in bands]
    slider(frames, "bands", alt="A curve that rises from 0 to 1 with the "
           "similarity; more bands move the rise to the left.")


def _once(similarity: float, bands: int, rows: int) -> str:
    """1 over the probability to miss a pair, in words of two digits."""
    missed = (1 - similarity**rows)**bands
    return "a million or more" if missed < 1e-6 else f"{1 / missed:,.1f}"


def _s_curve(bands: int, rows: int, similarity: float) -> Figure:
    """One frame: probability to be a candidate against similarity."""
    picture, axes = figure(height=3.0)
    s = np.linspace(0, 1, 200)
    axes.plot(s, 1 - (1 - s**rows)**bands)
    axes.axvline(similarity, ls="--", color=COLOURS[1])
    axes.set(xlabel="similarity of two texts",
             ylabel="probability: candidate", xlim=(0, 1), ylim=(0, 1.03),
             title=f"{bands} bands of {rows}")
    return picture


def sampled(target: Mapping[str, float], taken: Mapping[str, float]) -> None:
    """Table 1 beside what the batches really held.

    Args:
        target: percent of each source.
        taken: likewise.
    """
    picture, axes = figure(height=3.4)
    at = np.arange(len(target))
    axes.barh(at - 0.2, list(target.values()), 0.38, label="Table 1")
    axes.barh(at + 0.2, [taken[name] for name in target], 0.38,
              label="the batches")
    axes.set_yticks(at, list(target))
    axes.invert_yaxis()
    axes.set(xlabel="percent of the training tokens", xscale="log",
             xlim=(1, 100))
    axes.set_xticks([1, 2, 5, 10, 20, 50, 100],
                    ["1", "2", "5", "10", "20", "50", "100"])
    axes.minorticks_off()
    axes.legend()
    worst = max(abs(taken[name] - target[name]) for name in target)
    show(picture, alt="Pairs of bars for seven sources, from CommonCrawl with "
         f"67 percent to Stack Exchange with 2. No pair differs by more than "
         f"{worst:.2f} percentage points.")


def cleaning(results: Mapping[str, Any]) -> None:
    """Bits per byte of every seed, one row an arm, with the mean.

    Args:
        results: `runs` with arm, seed and bits_per_byte, and `summary`.
    """
    picture, axes = figure(height=2.6)
    arms = list(results["summary"]["arms"])
    for row, arm in enumerate(arms):
        bits = [run["bits_per_byte"] for run in results["runs"]
                if run["arm"] == arm]
        axes.plot(bits, [row] * len(bits), "o", alpha=0.6,
                  color=COLOURS[row])
        axes.plot([results["summary"]["arms"][arm]["mean"]] * 2,
                  [row - 0.28, row + 0.28], color=COLOURS[row], lw=3)
    axes.set_yticks(range(len(arms)), arms)
    axes.set(xlabel="bits per byte of a clean play (less is better)",
             ylim=(len(arms) - 0.5, -0.5))
    means = ", ".join(f"{arm} {results['summary']['arms'][arm]['mean']:.2f}"
                      for arm in arms)
    show(picture, alt="Five dots and a mean for each of three ways to read "
         f"the same site, in bits per byte: {means}.")
