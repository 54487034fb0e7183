"""Pictures that a phone can show: one style, one slider.

One file per chapter holds its pictures. A figure is five inches wide with
fonts of eleven points, so that its letters stay readable when a phone of 390
pixels shrinks it. matplotlib and IPython are imported inside functions only.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 5.0
"""Inches; the column of a phone at 72 pixels an inch."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's colours, which colour-blind readers can tell apart."""


def style() -> None:
    """Set fonts of at least ten points and colours for every reader."""
    import matplotlib

    matplotlib.rcParams.update({
        "font.size": 11, "axes.titlesize": 11, "axes.labelsize": 11,
        "xtick.labelsize": 10, "ytick.labelsize": 10, "legend.fontsize": 10,
        "figure.titlesize": 12, "figure.figsize": (WIDTH, 3.2),
        "figure.dpi": 100, "savefig.dpi": 130,
        "figure.constrained_layout.use": True,
        "axes.spines.top": False, "axes.spines.right": False,
        "axes.grid": True, "grid.alpha": 0.25, "lines.linewidth": 1.6,
        "axes.prop_cycle": matplotlib.cycler(color=COLOURS),
    })


def figure(rows: int = 1, columns: int = 1, *, height: float = 3.2,
           **options: Any) -> tuple[Figure, Any]:
    """A styled figure and its axes, as `plt.subplots` returns them.

    Args:
        rows: of axes.
        columns: of axes; two side by side are the most a phone can show.
        height: inches.
        **options: for `plt.subplots`, such as `sharey=True`.
    """
    style()
    import matplotlib.pyplot as plt

    return plt.subplots(
        rows, columns, figsize=(WIDTH, height), layout="constrained",
        **options)


def show(picture: Figure, alt: str) -> None:
    """Display a figure as a small PNG with alternative text, and close it.

    Args:
        picture: the figure; it has labelled axes.
        alt: what a reader who cannot see it should know.

    Raises:
        ValueError: if alt is empty.
    """
    from IPython.display import display

    data = _png(picture)
    # The text stands in for the picture where none can be shown.
    display({"image/png": base64.b64encode(data).decode(),
             "text/plain": _described(alt)},
            raw=True, metadata={"image/png": {"alt": alt}})


def slider(frames: Sequence[tuple[str, Figure]], label: str, alt: str) -> None:
    """Display a few figures under one slider that needs no kernel.

    The same in the book, in Colab and on a phone: every frame is in the page,
    and moving the slider shows one of them.

    Args:
        frames: two or more pairs of a caption, such as `position 3`, and a
            figure. All figures have the same size.
        label: what the slider turns.
        alt: what a reader who cannot see the frames should know.

    Raises:
        ValueError: if there are fewer than two frames, or alt is empty.
    """
    from IPython.display import HTML, display

    if len(frames) < 2:
        raise ValueError(f"frames={len(frames)} must be at least 2")
    pictures = [(caption, _png(picture)) for caption, picture in frames]
    display(HTML(_slider_html(pictures, label, _described(alt))))


def _described(alt: str) -> str:
    """The alternative text, which has to be there."""
    if not alt.strip():
        raise ValueError("alt='' must say what the picture shows")
    return alt


def _slider_html(pictures: list[tuple[str, bytes]], label: str,
                 alt: str) -> str:
    """One block of HTML; the script is an attribute, so ids cannot clash."""
    images = "\n".join(
        f'<figure style="margin:0"{" hidden" if number else ""}>'
        f'<img alt="{html.escape(alt)} {html.escape(caption)}" '
        f'style="max-width:100%;height:auto" src="data:image/png;base64,'
        f'{base64.b64encode(data).decode()}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        for number, (caption, data) in enumerate(pictures))
    move = ("this.closest('div').querySelectorAll('figure').forEach("
            "(f, i) => { f.hidden = i != this.value })")
    return (f'<div style="max-width:100%">\n{images}\n'
            f'<label>{html.escape(label)} <input type="range" min="0" '
            f'max="{len(pictures) - 1}" value="0" step="1" '
            f'style="width:100%;max-width:20em" oninput="{move}"></label>\n'
            "</div>")


def _png(picture: Figure) -> bytes:
    """A PNG of at most 128 colours: a third of the size, the same look."""
    import matplotlib.pyplot as plt
    from PIL import Image

    raw = io.BytesIO()
    picture.savefig(raw, format="png", dpi=130, facecolor="white")
    plt.close(picture)
    small = io.BytesIO()
    Image.open(raw).convert("RGB").quantize(128).save(
        small, format="png", optimize=True)
    return small.getvalue()
