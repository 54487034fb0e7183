"""From GPU hours to kilowatt hours to tonnes of CO2 (paper, section 6).

Chapter: notebooks/17_carbon.ipynb
"""

from __future__ import annotations

PUE = 1.1
"""A data centre's power over that of its computers (the paper's value)."""

GRIDS = {"us-average": 0.385, "opt": 0.231, "bloom": 0.057}
"""Kilograms of CO2 equivalent a kWh, as the paper quotes them: the average of
the United States, and the grids where OPT and BLOOM were trained."""

TABLE_15 = {
    "OPT-175B": (809_472, 356, 137), "BLOOM-175B": (1_082_880, 475, 183),
    "LLaMA-7B": (82_432, 36, 14), "LLaMA-13B": (135_168, 59, 23),
    "LLaMA-33B": (530_432, 233, 90), "LLaMA-65B": (1_022_362, 449, 173),
}
"""Model: hours of an A100-80GB at 400 W; MWh and tCO2eq as printed."""


def energy_kwh(
    hours: int | float, watts: int | float, pue: int | float = PUE
) -> float:
    """kWh = hours x watts x PUE / 1000.

    Args:
        hours: GPU hours, or core hours.
        watts: of one GPU, or one core.
        pue: what cooling and supply add; 1 at a desk.

    Source: the paper, section 6, after Wu et al. 2022.
    Chapter: notebooks/17_carbon.ipynb
    """
    return hours * watts * pue / 1000


def tonnes_co2(
    kwh: int | float, kg_per_kwh: float = GRIDS["us-average"]
) -> float:
    """Tonnes of CO2 equivalent of so many kWh from one grid.

    Chapter: notebooks/17_carbon.ipynb
    """
    return kwh * kg_per_kwh / 1000


def grid(name: str) -> float:
    """Kilograms a kWh, of a named grid or a number written out.

    Raises:
        ValueError: listing the known names.
    """
    if name in GRIDS:
        return GRIDS[name]
    try:
        return float(name)
    except ValueError:
        raise ValueError(
            f"grid={name!r} is not known; try one of {list(GRIDS)}, or a "
            "number: kilograms of CO2 equivalent a kWh") from None
