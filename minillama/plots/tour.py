"""Pictures of the tour: the whole line, and a model that learns to write.

Chapter: notebooks/00_tour.ipynb
"""

from __future__ import annotations

import textwrap
from typing import Any

from minillama.plots import COLOURS, figure, show


def pipeline() -> None:
    """The line from raw text to new text, and back through the loss."""
    stages = ["raw text\n38 plays", "tokens\nBPE, 1,024 pieces",
              "model\n4 blocks", "probabilities\nof the next token"]
    picture, axes = figure(height=2.9)
    axes.set_axis_off()
    axes.set_xlim(0, 4)
    axes.set_ylim(0, 2.6)
    for i, text in enumerate(stages):
        axes.text(i + 0.5, 1.9, text, ha="center", va="center", fontsize=10,
                  linespacing=1.4, bbox={
                      "boxstyle": "round,pad=0.35", "facecolor": "white",
                      "edgecolor": COLOURS[i], "linewidth": 2})
    arrow = {"arrowstyle": "->", "linewidth": 1.6, "color": "0.3"}
    axes.annotate("", (2.5, 1.45), (3.4, 0.75), arrowprops={
        **arrow, "color": COLOURS[1],
        "connectionstyle": "arc3,rad=-0.25"})
    axes.text(3.45, 0.5, "wrong?\nchange the\nweights", ha="center",
              va="center", fontsize=10, color=COLOURS[1])
    axes.annotate("", (1.0, 1.45), (3.0, 0.5), arrowprops={
        **arrow, "color": COLOURS[2],
        "connectionstyle": "arc3,rad=-0.35"})
    axes.text(1.15, 0.5, "draw one, append it,\nask again: new text",
              ha="center", va="center", fontsize=10, color=COLOURS[2])
    show(picture, "Four boxes from left to right: raw text, tokens, model, "
         "probabilities of the next token. One arrow leads back to the "
         "model: if the prediction is wrong, the weights change. Another "
         "leads back to the tokens: a drawn token is appended and the model "
         "is asked again.")


def learning(
    records: list[dict[str, Any]],
    samples: dict[int, str],
    bits_of_bigram: float,
) -> None:
    """Bits per byte over the steps, with what the model wrote on the way.

    Args:
        records: lines of metrics.jsonl.
        samples: step -> text drawn at that step.
        bits_of_bigram: the mark to beat.
    """
    picture, (axes, words) = figure(2, 1, height=6.4)
    points = [(r["step"], r["bits_per_byte"]) for r in records
              if "bits_per_byte" in r]
    axes.plot(*zip(*points), marker="o")
    axes.axhline(bits_of_bigram, linestyle="--", color=COLOURS[1])
    axes.text(points[-1][0], bits_of_bigram, "counting pairs of letters",
              ha="right", va="bottom", color=COLOURS[1], fontsize=10)
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("bits per byte, held-out play")
    words.set_axis_off()
    words.text(0, 1, _excerpts(samples), family="monospace", fontsize=10,
               va="top", transform=words.transAxes)
    show(picture, "Above, bits per byte on the held-out play fall with the "
         "optimiser steps, below the dashed line of a model that counts "
         "pairs of letters. Below, what the model wrote at three of the "
         "steps: from letters to words to lines of a play.")


def _excerpts(samples: dict[int, str]) -> str:
    """A few lines of each sample, under its step."""
    blocks = []
    for step, text in samples.items():
        lines = [piece for line in text.splitlines() if line.strip()
                 for piece in textwrap.wrap(line, 46)]
        blocks.append("\n".join([f"step {step}:", *lines[:5]]))
    return "\n\n".join(blocks)
