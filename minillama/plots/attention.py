"""Pictures of attention: the staircase, the tiles, the heads.

Chapter: notebooks/08_attention.ipynb
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from minillama import rope
from minillama.attention import causal_mask
from minillama.plots import COLOURS, figure, show, slider
from minillama.tiled import tiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from minillama.model import Transformer
    from minillama.tokenizer import Tokenizer


def staircase(words: Sequence[str], tile: int) -> None:
    """Who may look at whom, and which tiles of it are computed.

    Args:
        words: one a position.
        tile: rows and columns of a tile.
    """
    n = len(words)
    picture, axes = figure(height=4.6)
    axes.imshow(causal_mask(n, n), cmap=_two_colours(), vmin=0, vmax=1)
    for number, part in enumerate(tiles(n, n, tile, True), start=1):
        top, left = part.rows.start, part.columns.start
        height, width = part.rows.stop - top, part.columns.stop - left
        axes.add_patch(_frame(left, top, width, height))
        axes.text(left + width / 2 - 0.5, top + height / 2 - 0.5,
                  str(number), ha="center", va="center", fontsize=14)
    axes.set_xticks(range(n), words, rotation=90)
    axes.set_yticks(range(n), words)
    axes.set(xlabel="key: is looked at", ylabel="query: looks")
    axes.grid(False)
    count = sum(1 for _ in tiles(n, n, tile, True))
    show(picture, alt=f"A square of {n} by {n} cells. Those on and below the "
         f"diagonal are coloured: a query sees no later key. {count} numbered "
         "frames cover the coloured cells; frames wholly above the diagonal "
         "are missing.")


def _two_colours() -> object:
    from matplotlib.colors import ListedColormap

    return ListedColormap(["white", "#a6cee3"])


def _frame(left: float, top: float, width: float, height: float) -> object:
    from matplotlib.patches import Rectangle

    return Rectangle((left - 0.5, top - 0.5), width, height, fill=False,
                     lw=2, ec=COLOURS[1])


def online(scores: Sequence[float], values: Sequence[float],
           tile: int) -> None:
    """One row of attention, tile by tile, under a slider.

    Args:
        scores: of one query with every key.
        values: one number a key.
        tile: keys a tile.
    """
    largest, total, out = -math.inf, 0.0, 0.0
    frames = [_online_frame(scores, values, 0, 0, "nothing read yet")]
    for left in range(0, len(scores), tile):
        part = list(scores[left:left + tile])
        now = max(largest, *part)
        shrink = math.exp(largest - now)
        weights = [math.exp(c - now) for c in part]
        total = shrink * total + sum(weights)
        out = shrink * out + sum(
            w * v for w, v in zip(weights, values[left:left + tile]))
        largest = now
        state = (f"m = {largest:.1f}, s = {total:.2f}, o = {out:.2f}, "
                 f"o / s = {out / total:.2f}")
        frames.append(_online_frame(
            scores, values, left, min(left + tile, len(scores)), state))
    slider(frames, label="tiles read", alt="Bars for the scores of one row; "
           "those already read are coloured, a line marks the largest.")


def _online_frame(scores: Sequence[float], values: Sequence[float],
                  first: int, last: int, state: str) -> tuple[str, object]:
    """One caption and one figure: scores above, values below."""
    picture, (above, below) = figure(2, 1, height=4.0, sharex=True)
    colours = [COLOURS[1] if first <= i < last else
               COLOURS[0] if i < first else "0.85"
               for i in range(len(scores))]
    above.bar(range(len(scores)), scores, color=colours)
    below.bar(range(len(scores)), values, color=colours)
    if last:
        above.axhline(max(scores[:last]), color="black", lw=1, ls="--")
    above.set(ylabel="score", ylim=(min(0, *scores), max(scores) * 1.1))
    below.set(ylabel="value", xlabel="key")
    return state, picture


def memory(lengths: Sequence[int], heads: int, head_dim: int) -> None:
    """Bytes that one layer keeps for the backward pass, in 16 bits.

    Args:
        lengths: T, the sequence lengths to draw.
        heads: H.
        head_dim: K.
    """
    picture, axes = figure(height=3.4)
    matrix = [2 * heads * t * t / 1e9 for t in lengths]
    ours = [heads * t * (2 * head_dim + 4) / 1e9 for t in lengths]
    axes.loglog(lengths, matrix, "o-", label="the T x T matrix")
    axes.loglog(lengths, ours, "s-", label="output and log-sum-exp")
    axes.set_xticks(lengths, [f"{t // 1024}k" for t in lengths])
    axes.minorticks_off()
    axes.set(xlabel="sequence length T (tokens)", ylabel="gigabytes a layer")
    axes.legend()
    show(picture, alt="Two straight lines on logarithmic axes: the matrix "
         "grows with the square of the length, what the tiles keep with the "
         "length itself.")


@torch.no_grad()
def weights(
    model: Transformer, ids: Sequence[int]
) -> Float[Tensor, "L H T T"]:
    """The attention weights of every layer and head on one text.

    Fused kernels do not store them, so they are computed here once more.
    """
    tokens = torch.tensor([list(ids)])
    x = model.tok_embeddings(tokens)
    tables = model.rope_tables(0, tokens.shape[1], x)
    visible, found = causal_mask(tokens.shape[1], tokens.shape[1]), []
    for layer in model.layers:
        at, h = layer.attention, layer.attention_norm(x)
        q, k = (rope.rotate(w(h).unflatten(-1, (-1, at.head_dim)).transpose(
            1, 2), *tables)[0] for w in (at.wq, at.wk))
        k = k.repeat_interleave(len(q) // len(k), dim=0)
        scores = q @ k.transpose(-2, -1) / math.sqrt(at.head_dim)
        found.append(
            scores.masked_fill(~visible, -math.inf).softmax(dim=-1))
        x = layer(x, tables)
    return torch.stack(found)


def habits(
    found: Float[Tensor, "L H T T"], ids: Sequence[int], line_end: int
) -> dict[str, Float[Tensor, "L H"]]:
    """How much weight each head puts where, averaged over positions.

    Args:
        found: from `weights`.
        ids: the text.
        line_end: the id of the piece that ends a line.

    Returns:
        Per habit the mean share of a row. The first positions have little
        choice, so rows count from the ninth on.
    """
    tokens, size = torch.tensor(list(ids)), found.shape[-1]
    back = torch.arange(size)[:, None] - torch.arange(size)  # t - s
    masks = {
        "the piece before": back == 1,
        "the ends of lines": (tokens == line_end) & (back >= 0),
        "two to eight back": (back >= 2) & (back <= 8),
        "itself": back == 0,
    }
    return {name: (found * mask).sum(-1)[..., 8:].mean(-1)
            for name, mask in masks.items()}


def head_map(share: Float[Tensor, "L H"], habit: str) -> None:
    """One square a head, darker the more weight it puts on one habit."""
    picture, axes = figure(height=3.8)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for layer, head in torch.cartesian_prod(
            torch.arange(share.shape[0]), torch.arange(share.shape[1])):
        value = share[layer, head].item()
        axes.text(head, layer, f"{value:.2f}", ha="center", va="center",
                  color="white" if value > 0.6 else "black")
    axes.set_xticks(range(share.shape[1]))
    axes.set_yticks(range(share.shape[0]))
    axes.set(xlabel="head", ylabel="layer")
    axes.grid(False)
    picture.colorbar(image, ax=axes, label=f"share on {habit}")
    best = divmod(int(share.argmax()), share.shape[1])
    show(picture, alt=f"A grid of layers by heads with the share of weight "
         f"on {habit}; the largest is {share.max():.2f} in layer {best[0]}, "
         f"head {best[1]}.")


def champions(found: Float[Tensor, "L H T T"],
              shares: dict[str, Float[Tensor, "L H"]],
              pieces: Sequence[str], last: int = 16) -> None:
    """The strongest head of each habit, its rows under a slider.

    Args:
        found: from `weights`.
        shares: from `habits`.
        pieces: one a position.
        last: how many positions, from the end of the text, are drawn.
    """
    frames = []
    for habit, share in shares.items():
        layer, head = divmod(int(share.argmax()), share.shape[1])
        picture, axes = figure(height=4.6)
        _rows(axes, found[layer, head, -last:, -last:], pieces[-last:])
        frames.append((f"layer {layer}, head {head}: "
                       f"{100 * share.max():.0f} % on {habit}", picture))
    slider(frames, label="habit", alt="Rows of attention on a real text, one "
           "square a pair of pieces, darker for more weight;")


def _rows(axes: Axes, square: Tensor, pieces: Sequence[str]) -> None:
    axes.imshow(square, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(pieces)), pieces, rotation=90)
    axes.set_yticks(range(len(pieces)), pieces)
    axes.set(xlabel="key: is looked at", ylabel="query: looks")
    axes.grid(False)


def spelled(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """Pieces as labels: a low line for a space, an arrow for a line's end."""
    names = [tokenizer.piece(i) for i in ids]
    return [{"<0x0A>": "\u21b5"}.get(name, name.replace("\u2581", "_"))
            for name in names]
