"""Pictures of chapter 1: what is thrown away from the web, and by whom.

Chapter: notebooks/01_web_data.ipynb
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from minillama.plots import COLOURS, figure, show, slider

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PASSED, GONE, NEVER = "#bfe3d5", "#f3c3a5", "#eeeeee"


def two_ways() -> None:
    """One crawl, two ways to clean it: by models and by rules."""
    ways = {
        "CCNet": ["main text", "lines that\nothers have", "language",
                  "n-gram\nmodel", "cited by\nWikipedia?"],
        "C4": ["all text", "language", "lines that\nend well",
               "words,\nbrackets", "repeated\nspans"],
    }
    picture, axes = figure(height=3.4)
    axes.axis("off")
    axes.set(xlim=(0, 2), ylim=(-5.6, 1.1))
    axes.text(1, 0.75, "the same crawl: WARC", ha="center", va="center",
              fontsize=11, bbox={"boxstyle": "round", "fc": "white"})
    for column, (name, steps) in enumerate(ways.items()):
        x = 0.5 + column
        axes.text(x, 0.05, f"{name}: {'models' if not column else 'rules'}",
                  ha="center", va="center", fontsize=12, fontweight="bold",
                  color=COLOURS[column])
        for row, step in enumerate(steps):
            width = 0.92 - 0.12 * row  # Less and less is left.
            axes.barh(-1 - row, width, left=x - width / 2, height=0.86,
                      color=COLOURS[column], alpha=0.25)
            axes.text(x, -1 - row, step, ha="center", va="center",
                      fontsize=10)
    show(picture, "Two funnels below one box, the crawl. Left, CCNet: "
         + ", ".join(ways["CCNet"]).replace("\n", " ") + ". Right, C4: "
         + ", ".join(ways["C4"]).replace("\n", " ")
         + ". Each step is narrower than the one above.")


def journey(
    fates: Mapping[str, str | None], steps: Sequence[str], title: str
) -> None:
    """How far each page came, one row a page.

    Args:
        fates: name of a page to the step that dropped it, None if it stayed.
        steps: in order.
        title: which pipeline.
    """
    picture, axes = figure(height=0.31 * len(fates) + 1.1)
    for y, (name, last) in enumerate(fates.items()):
        stop = steps.index(last) if last else len(steps)
        for x in range(len(steps)):
            colour = PASSED if x < stop else GONE if x == stop else NEVER
            axes.barh(-y, 0.94, left=x + 0.03, height=0.84, color=colour)
            if x == stop:
                axes.text(x + 0.5, -y, "gone", ha="center", va="center",
                          fontsize=10)
    axes.set_yticks([-y for y in range(len(fates))], list(fates))
    axes.set_xticks([x + 0.5 for x in range(len(steps))], steps)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set(xlim=(0, len(steps)), title=title)
    show(picture, f"{title}. A grid of pages and steps. " + "; ".join(
        f"{name}: {f'gone at {last}' if last else 'stays'}"
        for name, last in fates.items()) + ".")


def reasons(counts: Mapping[str, Mapping[str, int]], label: str) -> None:
    """Bars of what was removed, by reason, on a logarithmic scale.

    Args:
        counts: a pipeline to its reasons and counts.
        label: what is counted.
    """
    rows = [(way, reason, count) for way, found in counts.items()
            for reason, count in sorted(found.items(), key=lambda r: -r[1])]
    picture, axes = figure(height=0.34 * len(rows) + 0.9)
    ways = list(counts)
    for y, (way, _, count) in enumerate(rows):
        axes.barh(-y, count, color=COLOURS[ways.index(way)], alpha=0.75,
                  label=way if way not in [r[0] for r in rows[:y]] else None)
        axes.text(count * 1.15, -y, f"{count:,}", va="center", fontsize=10)
    axes.set_yticks([-y for y in range(len(rows))], [r[1] for r in rows])
    axes.set(xscale="log", xlabel=label, xlim=(
        0.7, 12 * max(row[2] for row in rows)))
    axes.legend(loc="lower right")
    show(picture, f"Bars: {label}. " + "; ".join(
        f"{way}, {reason}: {count:,}" for way, reason, count in rows) + ".")


def perplexities(
    groups: Mapping[str, Sequence[float]], cuts: tuple[float, float]
) -> None:
    """Histograms of perplexity, with head, middle and tail shaded.

    Args:
        groups: a kind of page to its perplexities.
        cuts: where the head and where the middle end.
    """
    picture, rows = figure(len(groups), height=1.25 * len(groups) + 0.6,
                           sharex=True)
    low = min(min(values) for values in groups.values()) * 0.9
    high = max(max(values) for values in groups.values()) * 1.1
    bins = np.geomspace(low, high, 42)
    for axes, (name, values), colour in zip(rows, groups.items(), COLOURS):
        axes.hist(values, bins, color=colour)
        axes.axvspan(low, cuts[0], color=COLOURS[2], alpha=0.16, linewidth=0)
        axes.axvspan(cuts[1], high, color="black", alpha=0.10, linewidth=0)
        axes.text(0.98, 0.8, name, transform=axes.transAxes, ha="right",
                  va="center", color=colour, fontsize=12)
        axes.set(ylabel="pages")
    for x, name, side in ((cuts[0] * 0.98, "head", "right"),
                          (cuts[1] * 1.02, "tail", "left")):
        rows[0].text(x, 1.04, name, ha=side, fontsize=10,
                     transform=rows[0].get_xaxis_transform())
    rows[-1].set(xscale="log", xlim=(low, high), xlabel="perplexity")
    ticks = [t for t in (50, 70, 100, 200, 400, 800) if low < t < high]
    rows[-1].set_xticks(ticks, [str(t) for t in ticks])
    rows[-1].minorticks_off()
    show(picture, "Histograms of perplexity on one logarithmic scale: "
         + "; ".join(f"{name}, {len(v)} pages around {np.median(v):.0f}"
                     for name, v in groups.items())
         + f". Head below {cuts[0]:.0f}, middle below {cuts[1]:.0f}, the "
         "rest is tail.")


def threshold(
    cited: Sequence[float], others: Sequence[float],
    stops: Sequence[float] = (0.1, 0.25, 0.5, 0.75, 0.9),
) -> None:
    """A slider over the threshold: who stays of both kinds of page.

    Args:
        cited: scores of held-out cited pages.
        others: scores of held-out random pages.
        stops: thresholds to stop at.
    """
    frames = []
    for stop in stops:
        shares = [100 * float(np.mean(np.array(scores) >= stop))
                  for scores in (cited, others)]
        frames.append((f"threshold {stop}: {shares[0]:.0f} % of the cited "
                       f"pages stay, and {shares[1]:.0f} % of the others",
                       _scores(cited, others, stop)))
    slider(frames, "threshold", "Histograms of the classifier's score for "
           "cited pages and for others, with a line at the threshold.")


def _scores(
    cited: Sequence[float], others: Sequence[float], stop: float
) -> Figure:
    """Two histograms, cited pages up and others down."""
    picture, axes = figure(height=3.2)
    bins = np.linspace(0, 1, 26)
    for scores, sign, colour, name in (
            (cited, 1, COLOURS[0], "cited"), (others, -1, COLOURS[1],
                                              "random pages")):
        counts = np.histogram(scores, bins)[0]
        axes.bar(bins[:-1] + 0.02, sign * counts, 0.037, color=[
            colour if edge >= stop - 1e-9 else "0.8" for edge in bins[:-1]],
            edgecolor=colour, linewidth=0.7)
        axes.text(0.98, 0.5 + 0.44 * sign, name, color=colour, ha="right",
                  va="center", fontsize=11, transform=axes.transAxes)
    axes.axvline(stop, color="black", linewidth=1.2)
    axes.axhline(0, color="0.4", linewidth=0.8)
    ticks = axes.get_yticks()
    axes.set_yticks(ticks, [f"{abs(t):.0f}" for t in ticks])
    axes.set(xlabel="score: probability of being cited", ylabel="pages",
             xlim=(0, 1))
    return picture
