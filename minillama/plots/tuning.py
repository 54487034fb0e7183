"""Pictures of instruction tuning: who sees whom, and what was gained.

Chapter: notebooks/15_instruction_tuning.ipynb
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from minillama.evals.measures import exact_interval
from minillama.evals.paper import printed
from minillama.plots import COLOURS, figure, show, slider
from minillama.samples import FOLDER

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BASE, TUNED = COLOURS[0], COLOURS[1]


def results() -> dict[str, Any]:
    """What `python -m benchmarks.tuning` found, shipped as a file.

    Returns:
        `settings`, `versions`, `runs` (five seeds; of the `base` and the
        `tuned` model: right and asked by kind, in MMLU's format, bits per
        byte of the held-out play) and `summary` (means and spreads of the
        `models`; `pairs`: tuned minus base with 95 % intervals).
    """
    return json.loads((FOLDER / "tuning.json").read_text(encoding="utf-8"))


def packed(rows: Sequence[Sequence[int]] = (
        (24,), (14, 10), (9, 8, 7), (8, 6, 5, 5))) -> None:
    """A slider: the mask of a row that holds one to four examples.

    Args:
        rows: lengths of the examples in each frame; they sum to the same.
    """
    frames = [(f"{len(row)} in a row: {sum(n * (n + 1) // 2 for n in row)} "
               "pairs are seen", _packed_frame(row)) for row in rows]
    slider(frames, "examples in the row",
           "A square of queries and keys; each example is a triangle on the "
           "diagonal, and nothing is seen between triangles;")


def _packed_frame(row: Sequence[int]) -> Figure:
    """Triangles on the diagonal, one an example."""
    import numpy as np
    from matplotlib.colors import to_rgb

    size = sum(row)
    image = np.ones((size, size, 3))
    picture, axes = figure(height=3.8)
    start = 0
    for number, length in enumerate(row):
        for t in range(start, start + length):
            image[t, start:t + 1] = to_rgb(COLOURS[number])
        # The first has room above its triangle, the others on their left.
        x, y = (start - 1, start + length / 2) if start else (
            length / 2 + 1.5, length / 4)
        axes.text(x, y, f"example {number + 1}", va="center",
                  ha="right" if start else "left")
        start += length
    axes.imshow(image, interpolation="nearest")
    # White lines between the cells: each is one pair of tokens.
    axes.set_xticks(np.arange(size) - 0.5, minor=True)
    axes.set_yticks(np.arange(size) - 0.5, minor=True)
    axes.grid(False)
    axes.grid(which="minor", color="white", alpha=1, lw=0.8)
    axes.tick_params(which="minor", length=0)
    axes.set(xlabel="key: the token that is seen",
             ylabel="query: the token that sees")
    return picture


def before_and_after() -> None:
    """Every kind: share of right answers after tuning, with intervals."""
    runs = results()["runs"]
    kinds = [(group, kind) for group in ("kept", "trained")
             for kind in reversed(runs[0]["tuned"][group])]
    picture, axes = figure(height=4.6)
    for y, (group, kind) in enumerate(kinds):
        marks = {model: [r[model][group][kind] for r in runs]
                 for model in ("base", "tuned")}
        for model, colour in (("base", BASE), ("tuned", TUNED)):
            right = sum(r for r, _ in marks[model])
            asked = sum(n for _, n in marks[model])
            low, high = exact_interval(right, asked)
            if model == "tuned":
                axes.barh(y, 100 * right / asked, color=colour, alpha=0.35)
            height = y + (0.18 if model == "base" else -0.18)
            axes.plot([100 * low, 100 * high], [height, height],
                      color=colour, lw=4, solid_capstyle="butt",
                      label=model if not y else None)
    axes.axhline(len(runs[0]["tuned"]["kept"]) - 0.5, color="black", lw=1)
    names = [("new: " if group == "kept" else "") + kind
             for group, kind in kinds]
    axes.set(yticks=range(len(kinds)), yticklabels=names, xlim=(-2, 102),
             xlabel="% right, 95 % intervals",
             ylabel="kind of instruction")
    axes.grid(axis="y", visible=False)
    axes.legend(loc="center right", bbox_to_anchor=(1.0, 0.19))
    show(picture, "Horizontal bars for thirteen kinds of instruction. The "
         "base model is at zero in all. After tuning, six of the seven "
         "trained kinds have high shares. Of the six new kinds, those near "
         "to a trained one have some; second word and smaller have none.")


def subjects() -> None:
    """Table 16: what tuning changed in each of MMLU's 57 subjects."""
    before, after = ({row["column"].removeprefix("MMLU "): row
                      for row in printed(table="Table 16")
                      if row["model"] == model and row["size"] == "65B"
                      and row["group"]} for model in ("LLaMA", "LLaMA-I"))
    gains = sorted((float(after[name]["value"]) - float(row["value"]), name)
                   for name, row in before.items())
    picture, axes = figure(height=3.4)
    axes.bar(range(len(gains)), [gain for gain, _ in gains],
             color=[TUNED if gain < 0 else BASE for gain, _ in gains])
    axes.axhline(0, color="black", lw=1)
    for place, (x, across) in {0: (3, "left"), -1: (54, "right")}.items():
        gain, name = gains[place]
        axes.annotate(f"{name} {gain:+.0f}",
                      (place % len(gains), gain), (x, gain),
                      ha=across, va="center")
    axes.set(xlabel="57 subjects, sorted", xticks=[],
             ylabel="LLaMA-I minus LLaMA,\npoints", ylim=(-7, 17))
    axes.grid(axis="x", visible=False)
    show(picture, "Fifty-seven sorted bars: what instruction tuning changed "
         "in each subject of MMLU. Two are below zero, one is zero, and the "
         "others rise to fifteen points.")
