"""Pictures of bias: nine categories with their intervals, three pronouns.

Chapter: notebooks/16_bias_and_truth.ipynb
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from minillama.evals.measures import exact_interval
from minillama.evals.paper import printed
from minillama.plots import COLOURS, figure, show, slider

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZES = ("7B", "13B", "33B", "65B")
HER, HIS, THEIR = COLOURS[1], COLOURS[0], COLOURS[2]


def categories() -> None:
    """CrowS-Pairs of LLaMA-65B, each share with its 95 % interval."""
    rows = [row for row in printed(table="Table 12")
            if row["model"] == "LLaMA" and " " in row["column"]]
    rows.sort(key=lambda row: float(row["value"]))
    picture, axes = figure(height=3.8)
    for y, row in enumerate(rows):
        share, count = float(row["value"]), int(row["count"])
        low, high = exact_interval(round(share * count / 100), count)
        axes.plot([100 * low, 100 * high], [y, y], color=COLOURS[0], lw=5,
                  alpha=0.35, solid_capstyle="butt")
        axes.plot(share, y, "o", color=COLOURS[0])
    names = [f"{row['column'].removeprefix('CrowS-Pairs ')} "
             f"({row['count']})" for row in rows]
    axes.axvline(50, color="black", lw=1, ls="--")
    axes.set(yticks=range(len(rows)), yticklabels=names, xlim=(40, 95),
             xlabel="% of pairs for the stereotype",
             ylabel="category (pairs)")
    axes.grid(axis="y", visible=False)
    show(picture, "Nine categories of CrowS-Pairs, each a dot with a bar for "
         "its 95 percent interval, all right of a dashed line at 50 percent. "
         "Small categories have wide bars, which overlap.")


def pronouns() -> None:
    """A slider over the sizes: right by pronoun, all and gotcha."""
    frames = [(f"LLaMA-{size}", _pronouns_frame(size)) for size in SIZES]
    slider(frames, "size of the model",
           "Bars of WinoGender accuracy for her, his and their, and for the "
           "gotcha sentences of her and his, with 95 percent intervals;")


def _pronouns_frame(size: str) -> Figure:
    """One size: five bars with intervals and the line of guessing."""
    labels = (("her/her/she", "her", HER),
              ("her/her/she (gotcha)", "her,\ngotcha", HER),
              ("his/him/he", "his", HIS),
              ("his/him/he (gotcha)", "his,\ngotcha", HIS),
              ("their/them/someone", "their", THEIR))
    picture, axes = figure(height=3.0)
    for x, (column, _, colour) in enumerate(labels):
        row, = (r for r in printed(f"WinoGender {column}")
                if r["size"] == size)
        share, count = float(row["value"]), int(row["count"])
        low, high = exact_interval(round(share * count / 100), count)
        axes.bar(x, share, color=colour,
                 alpha=0.45 if "gotcha" in column else 0.9)
        axes.plot([x, x], [100 * low, 100 * high], color="black", lw=1.2)
    axes.axhline(50, color="black", lw=1, ls="--")
    axes.set(xticks=range(len(labels)),
             xticklabels=[name for _, name, _ in labels], ylim=(0, 100),
             xlabel="pronoun in the sentence", ylabel="% right",
             title=f"LLaMA-{size} on WinoGender")
    axes.grid(axis="x", visible=False)
    return picture
