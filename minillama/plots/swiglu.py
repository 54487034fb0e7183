"""Pictures of the gated layer: areas, a volume knob, widths.

Chapter: notebooks/06_swiglu.ipynb
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from minillama.plots import COLOURS, figure, show, slider
from minillama.swiglu import ffn_hidden_dim

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GATE, UP, DOWN = COLOURS[1], COLOURS[0], COLOURS[2]


def areas() -> None:
    """The matrices of both layers as rectangles of their true proportions."""
    from matplotlib.patches import Rectangle

    picture, axes = figure(height=3.4)
    narrow = 8 / 3
    blocks = [(0.0, 4.0, UP, "$W_1$"), (1.15, 4.0, DOWN, "$W_2$"),
              (3.6, narrow, GATE, "gate"), (4.75, narrow, UP, "up"),
              (5.9, narrow, DOWN, "down")]
    for left, tall, colour, name in blocks:
        axes.add_patch(Rectangle((left, 0), 1, tall, color=colour,
                                 alpha=0.75, linewidth=0))
        axes.text(left + 0.5, tall / 2, name, ha="center", va="center",
                  color="white", fontsize=12, weight="bold")
    axes.text(1.075, 4.15, "ReLU: 2 x 4 = 8", ha="center")
    axes.text(5.25, narrow + 0.15, "SwiGLU: 3 x 8/3 = 8", ha="center")
    axes.set(xlim=(-0.3, 7.2), ylim=(0, 4.7), aspect="equal",
             xlabel="width of the stream, d each",
             ylabel="width inside, in units of d", xticks=[],
             yticks=[0, narrow, 4], yticklabels=["0", "8/3", "4"])
    axes.grid(False)
    show(picture, "Two rectangles, 1 wide and 4 tall, for the ReLU layer; "
         "three rectangles, 1 wide and 8/3 tall, for SwiGLU. Both groups "
         "cover an area of 8.")


def volume(gates: Sequence[float] = (-4, -2, -1, 0, 0.5, 1, 2, 4)) -> None:
    """A slider: one hidden unit, its signal, and the gate as a volume knob.

    Args:
        gates: what the gate's matrix gives, before silu.
    """
    frames = [(f"gate {g:g}: the signal is multiplied by "
               f"{g / (1 + math.exp(-g)):.2f}", _volume_frame(g))
              for g in gates]
    slider(frames, "gate of this unit",
           "A grey wave, the signal of w_up, and the same wave after the "
           "gate, which is silent for a closed gate and large for an open "
           "one.")


def _volume_frame(gate: float) -> Figure:
    """The wave before and after one gate."""
    picture, axes = figure(height=2.8)
    t = torch.linspace(0, 4 * math.pi, 160)
    axes.plot(t, t.sin(), color="0.7", label="signal, from w_up")
    axes.plot(t, F.silu(torch.tensor(float(gate))) * t.sin(), color=GATE,
              label="what goes on to w_down")
    axes.set(xlabel="tokens, one after the other", ylabel="value",
             xticks=[], ylim=(-4.3, 6.8))
    axes.grid(False)
    axes.legend(loc="upper right")
    return picture


def surfaces() -> None:
    """What one hidden unit hands on: ReLU's, and SwiGLU's."""
    picture, axes = figure(1, 2, height=3.7, sharey=True)
    line = torch.linspace(-4, 4, 161)
    gate, up = torch.meshgrid(line, line, indexing="xy")
    for panel, title, values in (
            (axes[0], "max(0, gate)", gate.clamp(min=0)),
            (axes[1], "silu(gate) * up", F.silu(gate) * up)):
        image = panel.contourf(line, line, values, cmap="RdBu_r",
                               levels=torch.linspace(-16, 16, 33).tolist())
        panel.set(title=title, xlabel="gate", aspect="equal")
        panel.grid(False)
    axes[0].set_ylabel("up")
    picture.colorbar(image, ax=axes, ticks=[-16, -8, 0, 8, 16],
                     orientation="horizontal", shrink=0.7, label="handed on")
    show(picture, "Two squares, gate to the right and up upwards. Left, for "
         "ReLU: nothing for a negative gate, then growing to the right, the "
         "same at every height. Right, for SwiGLU: nearly nothing for a "
         "negative gate; for a positive one positive above and negative "
         "below.")


def widths(multiples: Sequence[int] = (32, 256)) -> None:
    """F / d over d: the rounding, and where it eats the two thirds.

    Args:
        multiples: what F is rounded up to, one curve each.
    """
    picture, axes = figure(height=3.6)
    dims = torch.arange(32, 8193, 32).tolist()
    for multiple, colour in zip(multiples, (UP, GATE)):
        axes.plot(dims, [ffn_hidden_dim(d, multiple) / d for d in dims],
                  color=colour, linewidth=1,
                  label=f"multiples of {multiple}")
    marks = {"toy": (128, 32), "toy, if 256": (128, 256), "7B": (4096, 256),
             "65B": (8192, 256)}
    for name, (dim, multiple) in marks.items():
        ratio = ffn_hidden_dim(dim, multiple) / dim
        axes.plot([dim], [ratio], "o", color="0.15", markersize=5, zorder=5)
        axes.annotate(name, (dim, ratio), (0, 8), ha="center",
                      textcoords="offset points", fontsize=10)
    axes.axhline(8 / 3, color="0.4", linewidth=1, linestyle=":")
    axes.text(8192, 8 / 3 - 0.13, "8/3", ha="right", fontsize=10)
    axes.set(xscale="log", ylim=(2.4, 4.6), xlabel="width of the stream, d",
             ylabel="width inside, F / d", xticks=[32, 128, 512, 2048, 8192],
             xticklabels=["32", "128", "512", "2048", "8192"])
    axes.minorticks_off()
    axes.legend()
    show(picture, "Saw-toothed curves of F / d that sink towards 8/3. Rounded "
         "to multiples of 256 the curve is at 4 for a width of 128 and "
         "reaches 8/3 only in the thousands; rounded to 32 it is close to "
         "8/3 from a few hundred on.")
