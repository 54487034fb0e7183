"""Pictures of generation: which token comes next, and where weights lie.

Chapter: notebooks/11_generation.ipynb
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from minillama.config import ModelConfig
from minillama.generate import top_p_filter
from minillama.plots import COLOURS, figure, show, slider
from minillama.weights.hf import to_halves
from minillama.weights.meta import axis_of, meta_name, shard_shapes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def nucleus(
    logits: Float[Tensor, "V"],
    names: Sequence[str],
    *,
    temperature: float = 1.0,
    top_p: float = 0.9,
) -> None:
    """The likeliest next tokens as bars, the tail that top-p cuts in grey.

    Args:
        logits: of the next token.
        names: how each of the V pieces is written.
        temperature: divides the logits.
        top_p: where the tail begins.
    """
    show(_bars(logits, names, temperature, top_p),
         f"Bars for the twelve likeliest next tokens at temperature "
         f"{temperature:g}; the coloured ones survive top-p {top_p:g}, the "
         "grey ones are cut.")


def temperatures(
    logits: Float[Tensor, "V"],
    names: Sequence[str],
    values: Sequence[float],
    *,
    top_p: float = 0.9,
) -> None:
    """The same bars under a slider that turns the temperature."""
    frames = [(f"temperature {t:g}", _bars(logits, names, t, top_p))
              for t in values]
    slider(frames, "temperature",
           "Bars for the twelve likeliest next tokens; low temperatures pile "
           "everything on the first, high ones level the bars. At")


def work(lengths: Sequence[int]) -> None:
    """Tokens that pass through the model to write n, with and without cache.
    """
    picture, axes = figure()
    axes.plot(lengths, [n * (n + 1) / 2 for n in lengths],
              label="without a cache", color=COLOURS[1])
    axes.plot(lengths, list(lengths), label="with a cache",
              color=COLOURS[0])
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("tokens written")
    axes.set_ylabel("tokens through the model")
    axes.legend()
    show(picture, "Tokens that pass through the model against tokens "
         "written, both on logarithmic axes: without a cache a line twice as "
         "steep as with one.")


def _bars(
    logits: Float[Tensor, "V"],
    names: Sequence[str],
    temperature: float,
    top_p: float,
    bars: int = 12,
) -> Figure:
    """One frame: probabilities of the likeliest tokens, cut by top-p."""
    probs = torch.softmax(logits / temperature, dim=-1)
    kept = top_p_filter(probs[None], top_p)[0] > 0
    best = probs.argsort(descending=True)[:bars].tolist()
    picture, axes = figure(height=3.6)
    colours = [COLOURS[0] if kept[i] else "0.75" for i in best]
    axes.barh(range(bars), probs[best], color=colours)
    axes.set_yticks(range(bars), [_name(names[i]) for i in best],
                    family="monospace")
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel(f"probability ({int(kept.sum())} of {len(kept)} pieces "
                    f"survive top-p {top_p:g})")
    axes.set_ylabel("next piece")
    return picture


def _name(piece: str) -> str:
    """A piece as a label: the marker as an open box, newline by name."""
    return {"<0x0A>": "newline"}.get(piece, piece.replace("\u2581", "\u2423"))


def row_orders(head_dim: int = 8) -> None:
    """The rows of one head of wq in both orders, pairs of RoPE in colour.

    Args:
        head_dim: K; at most 12, or there are too few colours.
    """
    there = to_halves("wq.weight", torch.arange(float(head_dim))[:, None],
                      head_dim)[:, 0].int().tolist()
    picture, axes = figure(height=0.42 * head_dim + 1.0)
    for place, row in enumerate(there):
        colour = COLOURS[row // 2]
        axes.plot([1.5, 3.5], [row, place], color=colour, linewidth=1.6)
        for left, where in ((0, row), (3.5, place)):
            _box(axes, left, where - 0.4, 1.5, 0.8, colour)
            axes.text(left + 0.75, where, f"row {row}", color="white",
                      ha="center", va="center", fontsize=12)
    for middle, title in ((0.75, "the release:\nneighbours"),
                          (4.25, "Hugging Face:\nhalves")):
        axes.text(middle, -0.6, title, ha="center", va="bottom", fontsize=12)
    axes.set(xlim=(-0.2, 5.2), ylim=(head_dim - 0.3, -1.8))
    axes.axis("off")
    show(picture, f"Two columns of {head_dim} coloured boxes, the rows of one "
         "head. On the left boxes of one colour, a pair that RoPE turns, are "
         "neighbours; on the right they stand half a column apart. Lines "
         "join each row with itself.")


def shards(sizes: Sequence[tuple[str, int]]) -> None:
    """Where the release cuts each matrix, a frame a size, under a slider.

    Args:
        sizes: a preset and the number of files it was released in.
    """
    slider([(f"{name} in {count} file" + "s" * (count > 1),
             _cuts(ModelConfig.preset(name), count))
            for name, count in sizes], "size",
           "Ten rectangles, one a weight, in as many colours as there are "
           "files. wq, wk, wv, w1, w3 and the output are cut into bands of "
           "rows, the embedding, wo and w2 into bands of columns; a norm is "
           "whole in each file.")


_CUT_ROWS = (
    ("tok_embeddings", "output", "norm"),
    ("layers.0.attention.wq", "layers.0.attention.wk",
     "layers.0.attention.wv", "layers.0.attention.wo"),
    ("layers.0.feed_forward.w_gate", "layers.0.feed_forward.w_up",
     "layers.0.feed_forward.w_down"))


def _cuts(config: ModelConfig, count: int) -> Figure:
    """One frame: every kind of weight, its bands and what one file holds."""
    found = shard_shapes(config, count)
    picture, axes = figure(height=4.6)
    for line, names in enumerate(_CUT_ROWS):
        for place, name in enumerate(names):
            stored = meta_name(f"{name}.weight")
            left, top = 1.3 * place, 1.75 * line
            _bands(axes, left, top, axis_of(f"{name}.weight"), count)
            axes.text(left + 0.5, top - 0.08, stored.split(".")[-2],
                      ha="center", va="bottom", fontsize=11)
            shape = "\u00d7".join(map(str, found[stored]))
            axes.text(left + 0.5, top + 1.06, shape, ha="center", va="top",
                      fontsize=10, color="0.3")
    axes.set(xlim=(-0.15, 5.05), ylim=(4.85, -0.35))
    axes.axis("off")
    return picture


def _bands(axes: Axes, left: float, top: float, axis: int | None,
           count: int) -> None:
    """A unit square in bands of rows (axis 0) or columns; None: whole."""
    if axis is None:
        _box(axes, left, top + 0.35, 1.0, 0.3, "0.75")
        return
    tints = [*COLOURS, "0.35", "0.7"]
    for band in range(count):
        start, size = band / count, 1 / count
        if axis == 0:
            _box(axes, left, top + start, 1.0, size, tints[band])
        else:
            _box(axes, left + start, top, size, 1.0, tints[band])


def _box(axes: Axes, left: float, top: float, width: float, height: float,
         colour: str) -> None:
    """A full rectangle."""
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((left, top), width, height, facecolor=colour,
                             edgecolor="white"))
