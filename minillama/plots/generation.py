"""Pictures of generation: which token comes next.

Chapter: notebooks/11_generation.ipynb
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from minillama.generate import top_p_filter
from minillama.plots import COLOURS, figure, show, slider

if TYPE_CHECKING:
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
