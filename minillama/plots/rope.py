"""Pictures of RoPE: clock hands, scores by distance, how far a pair turns.

Chapter: notebooks/07_rope.ipynb
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from minillama import rope
from minillama.plots import COLOURS, figure, show, slider

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUERY, KEY = COLOURS[0], COLOURS[1]


def _clock(axes: Any, query: float, key: float, labels: bool = False) -> None:
    """One dial with a query hand and a key hand; angles in radians."""
    turn = torch.linspace(0, 2 * math.pi, 100)
    axes.plot(turn.cos(), turn.sin(), color="0.75", linewidth=1)
    for angle, colour, name, length in (
            (query, QUERY, "query", 0.72), (key, KEY, "key", 0.95)):
        x, y = length * math.cos(angle), length * math.sin(angle)
        axes.annotate("", (x, y), (0, 0), arrowprops={
            "arrowstyle": "-|>", "color": colour, "linewidth": 2,
            "shrinkA": 0, "shrinkB": 0})
        if labels:
            axes.text(1.28 * math.cos(angle), 1.22 * math.sin(angle), name,
                      color=colour, ha="center", va="center", fontsize=10)
    axes.set(xlim=(-1.55, 1.55), ylim=(-1.4, 1.4), aspect="equal")
    axes.axis("off")


def hands(pairs: Sequence[tuple[int, int]], turn: float = 0.45) -> None:
    """Query and key as clock hands, at several pairs of positions.

    Args:
        pairs: at most four, each (position of the query, of the key).
        turn: radians that a hand turns from one position to the next.
    """
    columns = 2
    rows = -(-len(pairs) // columns)
    picture, dials = figure(rows, columns, height=2.3 * rows, squeeze=False)
    for axes in dials.flat:
        axes.axis("off")
    for axes, (m, n) in zip(dials.flat, pairs):
        _clock(axes, 0.3 + m * turn, 1.0 + n * turn, labels=True)
        span = torch.linspace(0.3 + m * turn, 1.0 + n * turn, 40)
        axes.plot(0.4 * span.cos(), 0.4 * span.sin(), color="0.3")
        axes.set_title(f"query at {m}, key at {n}")
    show(picture, f"{len(pairs)} dials, each with a query hand and a key "
         f"hand. The positions are {', '.join(map(str, pairs))}. Both hands "
         "turn with their position; the angle between them depends on the "
         "difference of the positions only.")


def knob(head_dim: int = 128, distances: Sequence[int] = (
        0, 1, 2, 6, 10, 30, 63, 250)) -> None:
    """A slider: two words move apart, every pair of components turns.

    Above, the dials of four of the pairs; below, the dot product of two
    vectors of ones at that distance, divided by its value at distance 0.

    Args:
        head_dim: K, a multiple of 8.
        distances: the positions of the slider, in tokens.
    """
    freqs = rope.frequencies(head_dim)
    away = torch.arange(0, max(distances) + 1, dtype=torch.float64)
    score = torch.outer(away, freqs).cos().mean(dim=1)
    frames = [(f"distance {d}: the dot product is {score[d]:.2f} of its "
               "largest value", _knob_frame(freqs, away, score, d))
              for d in distances]
    slider(frames, "distance in tokens",
           "Four dials whose key hands run ahead of the query hands at "
           "different speeds, over the curve of the dot product.")


def _knob_frame(freqs: Tensor, away: Tensor, score: Tensor, distance: int
                ) -> Figure:
    """Four dials and the curve, at one distance."""
    picture, (dials, curve) = figure(2, 1, height=3.4, gridspec_kw={
        "height_ratios": [1, 1.2]})
    dials.axis("off")
    for column in range(4):
        j = column * len(freqs) // 4
        dial = dials.inset_axes([column / 4, 0, 0.25, 0.86])
        _clock(dial, math.pi / 2, math.pi / 2 + distance * freqs[j].item())
        dial.set_title(f"pair {j}", fontsize=10, pad=1)
    curve.plot(away, score, color="0.45")
    curve.plot([distance], [score[distance]], "o", color=KEY, markersize=9)
    curve.grid(False)
    curve.set(xlabel="distance between query and key (tokens)",
              ylabel="dot product", ylim=(0, 1.1))
    return picture


def heat_map(scores: Tensor) -> None:
    """The dot product of one query and one key at all pairs of positions.

    Args:
        scores: (T, S), query position by key position.
    """
    picture, axes = figure(height=4.0)
    image = axes.imshow(scores, cmap="RdBu_r", origin="upper",
                        vmin=-scores.abs().max(), vmax=scores.abs().max())
    axes.grid(False)
    axes.set(xlabel="position of the key, n",
             ylabel="position of the query, m")
    picture.colorbar(image, ax=axes, label="dot product", shrink=0.85)
    show(picture, "A square of dot products, query position downwards, key "
         "position to the right. Every diagonal from upper left to lower "
         "right has one colour: only the distance counts.")


def turns(freqs: Tensor, context: int) -> None:
    """How many whole turns each pair makes in one context length.

    Args:
        freqs: (K/2,) radians per position.
        context: T, in tokens.
    """
    made = context * freqs / (2 * math.pi)
    picture, axes = figure(height=3.4)
    pair = torch.arange(len(freqs))
    full = made >= 1
    axes.bar(pair[full], made[full], color=QUERY, label="seen all round")
    axes.bar(pair[~full], made[~full], color=KEY,
             label="never finish one turn")
    axes.axhline(1, color="0.2", linewidth=1)
    axes.set(yscale="log", xlabel="pair j of the head",
             ylabel=f"turns in {context:,} tokens")
    axes.legend()
    show(picture, f"Bars on a logarithmic scale: pair 0 makes "
         f"{made[0]:.0f} turns in {context} tokens, the last pair "
         f"{made[-1]:.2f}. {int((~full).sum())} of {len(freqs)} pairs stay "
         "below one whole turn.")
