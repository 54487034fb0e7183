"""Pictures of chapter 4: text cut into pieces.

Chapter: notebooks/04_tokenizer.ipynb
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from minillama.plots import COLOURS, figure, show, slider
from minillama.tokenizer import Tokenizer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WORDS = ("#cfe3f3", "#e3eef7")
BYTES = "#f7d3b5"
_COLUMNS = 42
"""Characters in a row; at five inches a phone can still read them."""


def ladder(rows: Sequence[tuple[str, Sequence[str]]]) -> None:
    """The same text in ever fewer pieces, one row a step.

    Args:
        rows: a label and the pieces, from many to few.
    """
    picture, axes = figure(height=0.45 * len(rows) + 0.3)
    axes.axis("off")
    axes.set(xlim=(0, _COLUMNS), ylim=(-len(rows) + 0.4, 0.6))
    start = max(len(label) for label, _ in rows) * 0.85 + 1
    for y, (label, pieces) in enumerate(rows):
        axes.text(0, -y, label, va="center", fontsize=11)
        _boxes(axes, pieces, start, -y)
    steps = "; ".join(f"{label}: {' | '.join(pieces)}"
                      for label, pieces in rows)
    show(picture, f"Boxes of letters that grow together row by row. {steps}.")


def _boxes(axes: Axes, pieces: Sequence[str], x: float, y: float) -> float:
    """Draw pieces side by side; return where the last one ends."""
    for number, piece in enumerate(pieces):
        is_byte = piece.startswith("<0x")
        text = piece[3:5] if is_byte else piece
        width = len(text) + 0.7
        axes.text(
            x + width / 2, y, text, ha="center", va="center", fontsize=11,
            family="monospace")
        axes.barh(y, width - 0.12, left=x + 0.06, height=0.8,
                  color=BYTES if is_byte else WORDS[number % 2],
                  edgecolor=COLOURS[1 if is_byte else 0], linewidth=0.8)
        x += width
    return x


def knob(tokenizers: Sequence[Tokenizer], text: str) -> None:
    """A slider over vocabularies: the same text in fewer and fewer boxes.

    Args:
        tokenizers: from the smallest vocabulary to the largest.
        text: a line or two.
    """
    frames = []
    for tokenizer in tokenizers:
        pieces = [tokenizer.piece(i) for i in tokenizer.encode(text)]
        frames.append((f"{tokenizer.vocab_size:,} pieces in the vocabulary: "
                       f"{len(pieces)} tokens", _wrapped(pieces)))
    slider(frames, "size of the vocabulary",
           "One sentence as boxes, one box a token. With a larger "
           "vocabulary the boxes are fewer and longer.")


def _wrapped(pieces: Sequence[str]) -> Figure:
    """Boxes in several rows, as text is set."""
    rows: list[list[str]] = [[]]
    used = 0.0
    for piece in pieces:
        width = (2 if piece.startswith("<0x") else len(piece)) + 0.7
        if used + width > _COLUMNS:
            rows.append([])
            used = 0.0
        rows[-1].append(piece)
        used += width
    # All frames have the height of the longest, so that nothing jumps.
    picture, axes = figure(height=2.2)
    axes.axis("off")
    axes.set(xlim=(0, _COLUMNS), ylim=(-4.6, 0.6))
    for y, row in enumerate(rows):
        _boxes(axes, row, 0, -y)
    return picture


def compression(
    sizes: Sequence[int], curves: dict[str, Sequence[float]]
) -> None:
    """Bytes of text in one token, by size of the vocabulary.

    Args:
        sizes: vocabularies, smallest first.
        curves: a kind of text and its bytes per token for each size.
    """
    picture, axes = figure(height=3.6)
    # Different lines and marks, because two of the curves lie on each other.
    for (label, values), mark in zip(curves.items(), ("o-", "s-", "D-", "^:")):
        axes.plot(sizes, values, mark, label=label)
    axes.axhline(1, color="0.3", linewidth=1, linestyle=":")
    top = max(max(values) for values in curves.values())
    axes.set(xscale="log", xlabel="pieces in the vocabulary",
             ylabel="bytes per token", ylim=(0, 1.35 * top))
    axes.set_xticks(sizes, [f"{s:,}" for s in sizes], rotation=45)
    axes.minorticks_off()
    axes.legend(ncols=2, loc="upper left")
    ends = ", ".join(f"{label} from {v[0]:.1f} to {v[-1]:.1f}"
                     for label, v in curves.items())
    show(picture, "Curves of bytes per token over the size of the "
         f"vocabulary on a logarithmic scale: {ends}.")
