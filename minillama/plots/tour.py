"""Pictures of the tour: the whole line, and a model that learns to write.

Chapter: notebooks/00_tour.ipynb
"""

from __future__ import annotations

import textwrap
from typing import Any

from minillama.plots import COLOURS, figure, show


def pipeline() -> None:
    """The line from raw text to new text, and back through the loss."""
    stages = ["raw text", "tokens", "model", "chances of\nthe next token"]
    centres = [0.45, 1.5, 2.5, 3.85]
    picture, axes = figure(height=2.6)
    axes.set_axis_off()
    axes.set_xlim(0, 4.6)
    axes.set_ylim(-0.1, 2.6)
    boxes = [axes.text(
        x, 1.4, text, ha="center", va="center", fontsize=11, bbox={
            "boxstyle": "round,pad=0.45", "facecolor": "white",
            "edgecolor": "0.3", "linewidth": 1.6})
        for x, text in zip(centres, stages)]
    for left, right in zip(boxes, boxes[1:]):
        _arrow(axes, left, right, "0.3", 0.0)
    _arrow(axes, boxes[3], boxes[2], COLOURS[1], 0.7)
    axes.text(3.15, 2.25, "wrong? change the weights", ha="center",
              fontsize=11, color=COLOURS[1])
    _arrow(axes, boxes[3], boxes[1], COLOURS[2], -0.45)
    axes.text(2.65, 0.38, "draw one, append it, ask again", ha="center",
              fontsize=11, color=COLOURS[2])
    show(picture, "Four boxes from left to right: raw text, tokens, model, "
         "chances of the next token. One arrow leads back to the model: if "
         "the prediction is wrong, the weights change. Another leads back "
         "to the tokens: a drawn token is appended and the model is asked "
         "again.")


def _arrow(axes: Any, start: Any, end: Any, colour: str, bend: float) -> None:
    """An arrow between two boxes; a bent one joins their upper or lower edges.
    """
    side = {0.0: ((1, 0.5), (0, 0.5))}.get(
        bend, ((0.5, 1.0), (0.5, 1.0)) if bend > 0 else (
            (0.5, 0.0), (0.5, 0.0)))
    axes.annotate(
        "", xy=side[1], xycoords=end, xytext=side[0], textcoords=start,
        arrowprops={"arrowstyle": "->", "linewidth": 1.8, "color": colour,
                    "shrinkA": 9, "shrinkB": 9,
                    "connectionstyle": f"arc3,rad={bend}"})


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
         "steps: more and more of the words exist.")


def _excerpts(samples: dict[int, str]) -> str:
    """A few lines of each sample, under its step."""
    blocks = []
    for step, text in samples.items():
        lines = [piece for line in text.splitlines() if line.strip()
                 for piece in textwrap.wrap(line, 52)]
        blocks.append("\n".join([f"step {step}:", *lines[:5]]))
    return "\n\n".join(blocks)
