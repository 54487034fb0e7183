"""Pictures of carbon: Table 15 as areas, its odd cells, what moves a figure.

Chapter: notebooks/17_carbon.ipynb
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minillama.plots import COLOURS, figure, show, slider

Number = int | float


def _side_by_side(axes: Any, mwh: dict[str, Number],
                  grids: Sequence[Number], **options: Any) -> list[float]:
    """One block a model, MWh wide and one grid high; their middles."""
    widths = np.array(list(mwh.values()))
    lefts = np.cumsum(widths) - widths
    axes.bar(lefts, grids, widths, align="edge", edgecolor="black",
             **options)
    return list(lefts + widths / 2)


def _colours(mwh: dict[str, Number]) -> list[str]:
    """LLaMA's models in blue, the others in their own colours."""
    others = iter(COLOURS[1:])
    return [COLOURS[0] if name.startswith("LLaMA") else next(others)
            for name in mwh]


def _names(axes: Any, mwh: dict[str, Number], middles: Sequence[Number]
           ) -> None:
    """The models' names under their blocks, those of thin ones lower."""
    aside = -40
    for (name, width), middle in zip(mwh.items(), middles):
        short = name.removesuffix("-175B")
        if width < 400:
            short = short.removeprefix("LLaMA-")
        thin = width < 200
        axes.annotate(
            short, (middle, 0), annotation_clip=False, ha="center",
            xycoords=axes.get_xaxis_transform(), va="top", fontsize=10,
            xytext=(middle + aside * thin, -0.11 if thin else -0.03),
            textcoords=axes.get_xaxis_transform(), arrowprops={
                "arrowstyle": "-", "lw": 0.5, "shrinkB": 0} if thin else None)
        aside += 80 * thin
    axes.set_xticks([])
    axes.set_xlabel("electricity (each block as wide as its MWh)",
                    labelpad=36)
    axes.grid(False)


def areas(mwh: dict[str, Number], own: dict[str, Number], average: Number
          ) -> None:
    """Models as blocks: electricity wide, carbon of a kWh high.

    Args:
        mwh: model to its energy.
        own: model to kg a kWh where it was trained, if that is known.
        average: kg a kWh of the grid that all are compared on.
    """
    picture, axes = figure(height=3.8)
    grids = [own.get(name, average) for name in mwh]
    middles = _side_by_side(axes, mwh, [average] * len(mwh), color="white",
                            linestyle="--")
    _side_by_side(axes, mwh, grids, color=_colours(mwh))
    for name, middle, grid in zip(mwh, middles, grids):
        if mwh[name] > 200:
            axes.text(middle, average + 0.01, f"{mwh[name] * average:.0f} t",
                      ha="center")
        if name in own:
            axes.text(middle, grid + 0.01, f"{mwh[name] * grid:.0f} t",
                      ha="center")
    _names(axes, mwh, middles)
    axes.set(ylabel="kg of CO2eq a kWh", ylim=(0, average * 1.15))
    show(picture, alt="Six blocks side by side, each as wide as a model's "
         "electricity. Dashed, all are equally high. Filled, "
         + " and ".join(own) + " are lower, and their areas shrink: "
         + ", ".join(f"{name} from {mwh[name] * average:.0f} to "
                     f"{mwh[name] * grid:.0f} t" for name, grid in own.items())
         + ".")


def by_grid(mwh: dict[str, Number], grids: dict[str, Number]) -> None:
    """A slider of grids: the same blocks, higher and lower.

    Args:
        mwh: model to its energy.
        grids: name to kg a kWh, one frame each.
    """
    frames = []
    for name, grid in grids.items():
        picture, axes = figure(height=3.8)
        middles = _side_by_side(axes, mwh, [grid] * len(mwh),
                                color=_colours(mwh))
        for model, middle in zip(mwh, middles):
            if mwh[model] > 200:
                axes.text(middle, grid + 0.012,
                          f"{mwh[model] * grid:.0f} t", ha="center")
        _names(axes, mwh, middles)
        axes.set(ylabel="kg of CO2eq a kWh",
                 ylim=(0, max(grids.values()) * 1.1))
        frames.append((f"{name}: {grid:g} kg a kWh, all six "
                       f"{sum(mwh.values()) * grid:,.0f} t", picture))
    slider(frames, label="grid", alt="Six blocks side by side, as wide as "
           "each model's electricity and all as high as the grid is dirty.")


def gaps(printed: dict[str, Number], worked_out: dict[str, Number]) -> None:
    """Printed minus worked-out energy of each model, in MWh.

    Args:
        printed: model to MWh in the table.
        worked_out: the same by the formula, not rounded.
    """
    picture, axes = figure(height=3.2)
    off = {name: printed[name] - worked_out[name] for name in printed}
    axes.axvspan(-0.5, 0.5, color=COLOURS[2], alpha=0.25, lw=0,
                 label="rounded")
    axes.axvspan(-1, 0, facecolor="none", edgecolor="0.4", hatch="//", lw=0,
                 label="cut off")
    places = range(len(off))
    axes.plot(list(off.values()), places, "o", color="black")
    for place, (name, gap) in zip(places, off.items()):
        axes.annotate(f"{gap:.2f}", (gap, place), xytext=(7, 0),
                      textcoords="offset points", va="center",
                      bbox={"facecolor": "white", "edgecolor": "none",
                            "pad": 1})
    axes.set_yticks(places, list(off))
    axes.set(xlim=(-1.8, 0.8), xlabel="printed minus worked out (MWh)",
             ylim=(len(off) - 0.5, -0.5))
    axes.legend(loc="lower left", ncols=2, bbox_to_anchor=(0, 1))
    axes.grid(False)
    show(picture, alt="Printed minus worked-out energy: " + ", ".join(
        f"{name} {gap:.2f}" for name, gap in off.items())
        + " MWh. A band for rounding covers -0.5 to 0.5, one for cutting off "
        "covers -1 to 0.")


def levers(base: Number, ranges: dict[str, tuple[Number, Number]]) -> None:
    """What one figure becomes when one of its factors takes another value.

    Args:
        base: the figure as printed, in tonnes.
        ranges: lever to the tonnes at its two ends.
    """
    picture, axes = figure(height=3.2)
    order = sorted(ranges, key=lambda k: ranges[k][0] / ranges[k][1])
    for place, name in enumerate(order):
        low, high = ranges[name]
        axes.barh(place, high - low, left=low, height=0.55,
                  color=COLOURS[place == 0])
        axes.annotate(f"{low:.0f}", (low, place), xytext=(-4, 0),
                      textcoords="offset points", ha="right", va="center")
        axes.annotate(f"{high:.0f}", (high, place), xytext=(4, 0),
                      textcoords="offset points", va="center")
    axes.axvline(base, color="black", lw=1.2)
    axes.set_yticks(range(len(order)), order)
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="tonnes of CO2eq", xlim=(2, 1500))
    axes.set_xticks([3, 10, 30, 100, 300, 1000],
                    ["3", "10", "30", "100", "300", "1000"])
    axes.minorticks_off()
    axes.grid(False, axis="y")
    show(picture, alt=f"Bars on a scale of powers around {base:.0f} tonnes: "
         + "; ".join(f"{' '.join(name.split())} from {ranges[name][0]:.0f} "
                     f"to {ranges[name][1]:.0f}" for name in order) + ".")


def overtaking(trained: Number, tokens: Number, prices: Sequence[Number],
               a_day: Number) -> None:
    """Electricity of serving over time, against that of training.

    Args:
        trained: MWh of training.
        tokens: that were trained on.
        prices: energy of an operation in serving over one in training.
        a_day: tokens served.
    """
    picture, axes = figure(height=3.4)
    last = 4 * tokens / a_day
    days = np.linspace(0, last, 50)
    axes.axhline(trained, color="black", label="training")
    for price, colour in zip(prices, COLOURS):
        meet = 3 * tokens / price / a_day
        axes.plot(days, trained * days / meet, color=colour,
                  label=f"serving, x{price:g} an operation")
        axes.plot(meet, trained, "o", color=colour, ms=5)
        # Above the line only where the next curve is far enough.
        axes.annotate(f"{meet:.0f} days", (meet, trained),
                      xytext=(6, 6 if price == max(prices) else -14),
                      textcoords="offset points", color=colour)
    axes.set(xlabel="days of service", ylabel="MWh", xlim=(0, last),
             ylim=(0, 2.2 * trained))
    axes.legend(loc="lower left", ncols=2, bbox_to_anchor=(-0.1, 1))
    show(picture, alt="A level line for training, and lines of serving that "
         "rise from zero and cross it after " + ", ".join(
             f"{3 * tokens / p / a_day:.0f} days at price {p:g}"
             for p in prices) + ".")


def ladder(kilograms: dict[str, Number]) -> None:
    """Footprints that differ by powers of ten, as bars on one scale.

    Args:
        kilograms: what, and how many.
    """
    picture, axes = figure(height=3.4)
    places, values = range(len(kilograms)), list(kilograms.values())
    axes.barh(places, values, height=0.55, left=0, color=[
        COLOURS[0] if "LLaMA" in name else COLOURS[1] for name in kilograms])
    for place, value in zip(places, values):
        axes.annotate(_weight(value), (value, place), xytext=(4, 0),
                      textcoords="offset points", va="center")
    axes.set_yticks(places, list(kilograms))
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="CO2eq",
             xlim=(min(values) / 5, max(values) * 800))
    axes.set_xticks([1e-3, 1, 1e3, 1e6], ["1 g", "1 kg", "1 t", "1000 t"])
    axes.minorticks_off()
    axes.grid(False, axis="y")
    show(picture, alt="Bars on a scale of powers of ten: " + ", ".join(
        f"{' '.join(name.split())} {_weight(value)}"
        for name, value in kilograms.items()) + ".")


def _weight(kilograms: Number) -> str:
    """Grams, kilograms or tonnes, two digits or more."""
    for unit, size in (("t", 1e3), ("kg", 1.0), ("g", 1e-3)):
        if kilograms >= size:
            break
    value = kilograms / size
    return f"{value:,.0f} {unit}" if value >= 10 else f"{value:.2g} {unit}"
