"""Pictures of curated sources: what of a raw file is text.

Chapter: notebooks/02_curated_data.ipynb
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int8

from minillama.plots import COLOURS, figure, show, slider

Files = Mapping[str, tuple[str, str]]
"""By source: a raw file and the text that was made of it."""

_COLUMNS = 72
_BLANK, _GONE, _KEPT = 0, 1, 2


def survivors(raw: str, text: str) -> Int8[np.ndarray, "N"]:
    """For each character of a raw file: blank, gone or kept.

    The longest runs of words that both have in the same order are kept;
    what moved is found by looking again among the rest.
    """
    parts = re.findall(r"\w+|\W", raw)
    left = re.findall(r"\w+|\W", text)
    kept = np.zeros(len(parts), dtype=bool)
    for _ in range(4):
        open_parts = np.flatnonzero(~kept)
        found = difflib.SequenceMatcher(
            None, [parts[n] for n in open_parts], left, autojunk=False)
        blocks = [block for block in found.get_matching_blocks()
                  if any(part.isalnum() for part in
                         left[block.b:block.b + block.size])]
        for a, b, size in reversed(blocks):
            kept[open_parts[a:a + size]] = True
            del left[b:b + size]
    return np.array([
        _BLANK if sign.isspace() else _KEPT if stays else _GONE
        for part, stays in zip(parts, kept, strict=True) for sign in part],
        dtype=np.int8)


def share(raw: str, text: str) -> float:
    """The share of a raw file's visible characters that is kept."""
    flags = survivors(raw, text)
    return float((flags == _KEPT).sum() / (flags != _BLANK).sum())


def bars(files: Files) -> None:
    """One bar a source: visible characters kept, and gone."""
    shares = {name: 100 * share(*pair) for name, pair in files.items()}
    picture, axes = figure(height=2.8)
    names = list(shares)[::-1]
    kept = [shares[name] for name in names]
    axes.barh(names, kept, color=COLOURS[0], label="kept")
    axes.barh(names, [100 - value for value in kept], left=kept,
              color=COLOURS[4], label="gone")
    for place, value in enumerate(kept):
        axes.text(max(value / 2, 7), place, f"{value:.0f} %", color="white",
                  ha="center", va="center")
    axes.set(xlabel="% of the characters in the raw file", xlim=(0, 100))
    axes.grid(False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.25), ncols=2)
    show(picture, alt="A bar for each source, split into what is kept and "
         "what is gone: " + ", ".join(
             f"{name} {value:.0f} % kept" for name, value in shares.items())
         + ".")


def mosaic(files: Files) -> None:
    """Every character of a raw file as a square, one source a stop."""
    rows = max(_rows(survivors(*pair)).shape[0] for pair in files.values())
    frames = []
    for name, pair in files.items():
        picture, axes = figure(height=4.6)
        flags = _rows(survivors(*pair), rows)
        axes.imshow(flags, cmap=_colours(), vmin=0, vmax=2, aspect="auto",
                    interpolation="nearest")
        axes.set(xlabel="column", ylabel="line of the raw file")
        axes.grid(False)
        frames.append((f"{name}: {100 * share(*pair):.0f} % of it is text",
                       picture))
    slider(frames, label="source", alt="The raw file as it lies on the "
           "screen, a square a character: blue is kept, orange goes, white "
           "is blank;")


def _rows(
    flags: Int8[np.ndarray, "N"], rows: int = 0
) -> Int8[np.ndarray, "R C"]:
    """Flags as lines of equal length, filled with blanks."""
    rows = max(rows, -(-len(flags) // _COLUMNS))
    out = np.zeros(rows * _COLUMNS, dtype=np.int8)
    out[:len(flags)] = flags
    return out.reshape(rows, _COLUMNS)


def _colours() -> object:
    from matplotlib.colors import ListedColormap

    return ListedColormap(["white", COLOURS[4], COLOURS[0]])


def growth(depths: list[int], limit: int) -> None:
    """How much text n macros write if each uses the next one twice.

    Args:
        depths: n.
        limit: characters after which a paper is refused.
    """
    picture, axes = figure(height=3.2)
    axes.semilogy(depths, [2.0**(n - 1) for n in depths], "o-",
                  label="characters written")
    axes.semilogy(depths, [30.0 * n for n in depths], "s-",
                  label="characters of the paper")
    axes.axhline(limit, color=COLOURS[2], ls="--", label="limit")
    axes.set(xlabel="macros n", ylabel="characters")
    axes.legend()
    show(picture, alt="On a logarithmic axis the text that macros write is a "
         "rising straight line, the paper's own length is nearly flat; the "
         f"limit of {limit:,} characters cuts the line.")
