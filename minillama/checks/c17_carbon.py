"""Exercises of chapter 17: tonnes, speeds, odd cells, places, serving.

Chapter: notebooks/17_carbon.ipynb
"""

from __future__ import annotations

from typing import Any

import torch

from minillama.checks import answer, compare, exercise
from minillama.planner.carbon import energy_kwh, tonnes_co2


def _between(
    draw: torch.Generator, low: int | float, high: int | float,
    digits: int = 3,
) -> float:
    share = torch.rand((), generator=draw, dtype=torch.float64).item()
    return round(low + (high - low) * share, digits)


def _run(draw: torch.Generator) -> dict[str, Any]:
    return {"gpus": 8 * int(_between(draw, 4, 200, 0)),
            "days": _between(draw, 3, 40, 1),
            "watts": 10 * _between(draw, 25, 70, 0),
            "pue": _between(draw, 1.1, 1.6, 2),
            "kg_per_kwh": _between(draw, 0.05, 0.8)}


@exercise("17-carbon-1", given=_run)
def tonnes(
    mine: Any, gpus: int, days: float, watts: float, pue: float,
    kg_per_kwh: float
) -> str | None:
    """A function (gpus, days, watts, pue, kg_per_kwh) -> tonnes."""
    got = float(answer(mine, gpus, days, watts, pue, kg_per_kwh))
    want = tonnes_co2(energy_kwh(gpus * days * 24, watts, pue), kg_per_kwh)
    return compare(
        got, want,
        (want / 24, "a day has 24 hours: watts times days are no kWh yet"),
        (want / pue, "the data centre's share is missing: times PUE"),
        (want / pue**2, "the data centre takes more than its computers do: "
         "times PUE, not divided by it"),
        (want * 1000, "these are kilograms; tonnes are asked for"),
        (want * 1e6, "these are grams; a watt is not a kilowatt, and a "
         "kilogram is not a tonne"),
        (want / gpus, "that is one GPU's carbon"),
        (want / kg_per_kwh, "that is the energy in MWh; the grid makes "
         "carbon of it"),
        tolerance=1e-6,
    )


def _speed(draw: torch.Generator) -> dict[str, Any]:
    return {"tokens": _between(draw, 0.3, 2.0, 2) * 1e12,
            "tokens_per_second_and_gpu": _between(draw, 300, 3500, 0),
            "gpus": 8 * int(_between(draw, 4, 200, 0)),
            "watts": 10 * _between(draw, 25, 70, 0),
            "pue": _between(draw, 1.1, 1.6, 2),
            "kg_per_kwh": _between(draw, 0.05, 0.8)}


@exercise("17-carbon-2", given=_speed)
def from_speed(
    mine: Any, tokens: float, tokens_per_second_and_gpu: float, gpus: int,
    watts: float, pue: float, kg_per_kwh: float
) -> str | None:
    """A number: tonnes of a run whose speed is known."""
    hours = tokens / tokens_per_second_and_gpu / 3600
    want = tonnes_co2(energy_kwh(hours, watts, pue), kg_per_kwh)
    return compare(
        float(mine), want,
        (want / gpus, "twice as many GPUs are done in half the time: their "
         "number does not matter to GPU hours, and you divided by it"),
        (want * gpus, "the speed is that of one GPU already, so tokens over "
         "speed are GPU seconds; you counted the GPUs once more"),
        (want * 3600, "tokens over speed are seconds; an hour has 3,600"),
        (want * 60, "tokens over speed are seconds; an hour has 3,600, not "
         "60"),
        (want / pue, "the data centre's share is missing: times PUE"),
        (want * 1000, "these are kilograms; tonnes are asked for"),
        (want / kg_per_kwh, "that is the energy in MWh; the grid makes "
         "carbon of it"),
        tolerance=1e-6,
    )


def _table(draw: torch.Generator) -> dict[str, Any]:
    watts, pue = 10 * _between(draw, 25, 70, 0), _between(draw, 1.1, 1.4, 2)
    order = torch.randperm(6, generator=draw).tolist()
    hours, printed = [], []
    for place in range(6):
        # A remainder of 0.1 to 0.4, or 0.6 to 0.9: never close to a half.
        upper = order.index(place) % 2
        part = _between(draw, 0.1, 0.4) + (0.5 if upper else 0.0)
        whole = int(_between(draw, 30, 900, 0))
        hours.append(round((whole + part) * 1000 / energy_kwh(1, watts, pue)))
        printed.append(whole + upper)
    printed[order[1]] -= 1  # cut off where it should be rounded up
    printed[order[0]] -= 2  # two too low
    return {"hours": hours, "watts": watts, "pue": pue, "printed": printed}


@exercise("17-carbon-3", given=_table)
def odd_cells(
    mine: Any, hours: list[int], watts: float, pue: float, printed: list[int]
) -> str | None:
    """A function (hours, watts, pue, printed) -> places of odd cells."""
    got = list(answer(mine, hours, watts, pue, printed))
    right = [energy_kwh(h, watts, pue) / 1000 for h in hours]

    def odd(rule: Any, energies: list[float] = right) -> list[int]:
        return [i for i, (e, p) in enumerate(zip(energies, printed))
                if rule(e, p)]

    want = odd(lambda e, p: round(e) != p)
    bare = [e / pue for e in right]
    if len(got) == len(hours) > len(want) and set(got) <= {0, 1}:
        return ("these are yes or no for each row; write the places of the "
                "odd ones, counted from 0")
    for wrong, sentence in (
            (odd(lambda e, p: int(e) != p), "int() cuts off; a table is "
             "rounded: round()"),
            (odd(lambda e, p: abs(e - p) > 1), "a whole MWh is too generous: "
             "rounding moves a number by at most a half"),
            (odd(lambda e, p: e != p), "no energy is a whole number: round "
             "it before you compare"),
            (odd(lambda e, p: round(e) != p, bare), "the printed energies "
             "are those of the data centre: times PUE"),
            (odd(lambda e, p: round(e) == p), "these are the rows that are "
             "right"),
            ([i + 1 for i in want], "count the rows from 0")):
        if sorted(got) == wrong != want:
            return sentence
    return compare(sorted(got), want)


def _offers(draw: torch.Generator) -> dict[str, Any]:
    """Four places, each the best in one respect; the last wins in all."""
    kwh = _between(draw, 400, 900, 0)
    plans = [  # share of the hours, watts, PUE, grid
        (_between(draw, 0.5, 0.6), 700.0, 1.25, _between(draw, 0.45, 0.6)),
        (_between(draw, 1.4, 1.6), 400.0, 1.06, _between(draw, 0.35, 0.42)),
        (_between(draw, 3.8, 4.4), 400.0, 1.55, _between(draw, 0.045, 0.05)),
        (_between(draw, 1.0, 1.2), 400.0, 1.2, _between(draw, 0.06, 0.08))]
    order = torch.randperm(4, generator=draw).tolist()
    return {"offers": [
        {"gpu_hours": round(plans[i][0] * kwh * 1000), "watts": plans[i][1],
         "pue": plans[i][2], "kg_per_kwh": plans[i][3]} for i in order]}


@exercise("17-carbon-4", given=_offers)
def where(mine: Any, offers: list[dict[str, Any]]) -> str | None:
    """A number: the place, from 0, of the offer with the least carbon."""

    def least(value: Any) -> int:
        return min(range(len(offers)), key=lambda i: value(offers[i]))

    def energy(offer: dict[str, Any]) -> float:
        return energy_kwh(offer["gpu_hours"], offer["watts"], offer["pue"])

    want = least(lambda o: energy(o) * o["kg_per_kwh"])
    # One too many may be another offer's place.
    near = "; or did you count from 1?" if mine == want + 1 else ""
    return compare(
        int(mine), want,
        (least(energy), "that is the least electricity; its grid is dirty"
         + near),
        (least(lambda o: o["pue"]), "that is the best PUE; it can save a "
         "third at most" + near),
        (least(lambda o: o["kg_per_kwh"]), "that is the cleanest grid; it "
         "burns so many hours there that the carbon is more" + near),
        (least(lambda o: o["gpu_hours"]), "these are the fewest hours, at "
         "more watts and on a worse grid" + near),
    )


def _service(draw: torch.Generator) -> dict[str, Any]:
    return {"parameters": _between(draw, 3, 70, 1) * 1e9,
            "tokens": _between(draw, 0.5, 3.0, 2) * 1e12,
            "price": _between(draw, 2.0, 8.0, 1),
            "tokens_a_day": _between(draw, 2, 40, 1) * 1e9}


@exercise("17-carbon-5", given=_service)
def overtaken(
    mine: Any, parameters: float, tokens: float, price: float,
    tokens_a_day: float
) -> str | None:
    """A number: days until serving has used what training used."""
    want = 3 * tokens / price / tokens_a_day
    return compare(
        float(mine), want,
        (want * price, "an operation of serving takes more energy here: the "
         "days are fewer by the price"),
        (want * price**2, "a dearer operation makes the days fewer, not "
         "more: divide by the price"),
        (want / 3, "training is 6 operations a weight and token, serving 2: "
         "one trained token is worth three served ones"),
        (want / 9, "upside down: a served token costs a third of a trained "
         "one, so it takes three times as many"),
        (want * tokens_a_day, "these are tokens; days are asked for"),
        (want * parameters, "the size is in both bills, and cancels"),
        tolerance=1e-6,
    )
