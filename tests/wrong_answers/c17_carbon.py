"""What learners answer in chapter 17, and the sentence they should get."""

from __future__ import annotations


def _fixed(function):
    """The same function for every variant."""
    return lambda given: function


def _tonnes(gpus, days, watts, pue, kg_per_kwh):
    return gpus * days * 24 * watts / 1000 * pue * kg_per_kwh / 1000


def _from_speed(given, gpus=1, seconds=3600, pue=True):
    hours = given["tokens"] / given["tokens_per_second_and_gpu"] / seconds
    kwh = hours * gpus * given["watts"] / 1000
    return kwh * (given["pue"] if pue else 1) * given["kg_per_kwh"] / 1000


def _odd(hours, watts, pue, printed, rule=lambda e, p: round(e) != p):
    energies = [h * watts * pue / 1e6 for h in hours]
    return [i for i in range(len(hours)) if rule(energies[i], printed[i])]


def _least(given, value):
    offers = given["offers"]
    return min(range(len(offers)), key=lambda i: value(offers[i]))


def _carbon(offer):
    return (offer["gpu_hours"] * offer["watts"] * offer["pue"]
            * offer["kg_per_kwh"])


def _days(given, price=True, trained=6, served=2):
    ratio = trained / served / (given["price"] if price else 1)
    return ratio * given["tokens"] / given["tokens_a_day"]


RIGHT = {
    "17-carbon-1": _fixed(_tonnes),
    "17-carbon-2": _from_speed,
    "17-carbon-3": _fixed(_odd),
    "17-carbon-4": lambda given: _least(given, _carbon),
    "17-carbon-5": _days,
}

WRONG = {
    "17-carbon-1": [
        (_fixed(lambda *a: _tonnes(*a) / 24), "24 hours"),
        (_fixed(lambda n, d, w, pue, g: _tonnes(n, d, w, 1, g)),
         "share is missing"),
        (_fixed(lambda n, d, w, pue, g: _tonnes(n, d, w, 1 / pue, g)),
         "not divided"),
        (_fixed(lambda *a: _tonnes(*a) * 1000), "kilograms; tonnes"),
        (_fixed(lambda *a: _tonnes(*a) * 1e6), "grams"),
        (_fixed(lambda n, d, w, pue, g: _tonnes(1, d, w, pue, g)),
         "one GPU's"),
        (_fixed(lambda n, d, w, pue, g: _tonnes(n, d, w, pue, 1)),
         "energy in MWh"),
    ],
    "17-carbon-2": [
        (lambda given: _from_speed(given, gpus=1 / given["gpus"]),
         "divided by it"),
        (lambda given: _from_speed(given, gpus=given["gpus"]), "once more"),
        (lambda given: _from_speed(given, seconds=1), "an hour has 3,600"),
        (lambda given: _from_speed(given, seconds=60), "not 60"),
        (lambda given: _from_speed(given, pue=False), "share is missing"),
        (lambda given: _from_speed(given) * 1000, "kilograms"),
    ],
    "17-carbon-3": [
        (_fixed(lambda *a: _odd(*a, rule=lambda e, p: int(e) != p)),
         "cuts off"),
        (_fixed(lambda *a: _odd(*a, rule=lambda e, p: abs(e - p) > 1)),
         "too generous"),
        (_fixed(lambda *a: _odd(*a, rule=lambda e, p: e != p)),
         "round it before"),
        (_fixed(lambda h, w, pue, p: _odd(h, w, 1, p)), "times PUE|round it"),
        (_fixed(lambda *a: [i + 1 for i in _odd(*a)]), "from 0"),
        (_fixed(lambda h, *a: [int(i in _odd(h, *a))
                               for i in range(len(h))]), "yes or no"),
    ],
    "17-carbon-4": [
        (lambda given: _least(given, lambda o: o["pue"]), "best PUE"),
        (lambda given: _least(given, lambda o: o["kg_per_kwh"]),
         "cleanest grid"),
        (lambda given: _least(given, lambda o: o["gpu_hours"]),
         "least electricity|fewest hours"),
    ],
    "17-carbon-5": [
        (lambda given: _days(given, price=False), "fewer by the price"),
        (lambda given: _days(given, price=False) * given["price"],
         "divide by the price"),
        (lambda given: _days(given, trained=2), "three served"),
        (lambda given: _days(given, trained=2, served=6), "upside down"),
        (lambda given: _days(given) * given["tokens_a_day"], "days are"),
    ],
}
