"""minillama/planner/carbon.py against Table 15 of the paper.

Each row is worked out by its formula and compared with what is printed, to
2 MWh and 1 t; the two energies that the paper misprints are found, and so is
the month too many of its summary.
"""

from __future__ import annotations

import pytest

from minillama.planner import carbon


@pytest.mark.parametrize("model", carbon.TABLE_15)
def test_table_15_within_its_rounding(model):
    hours, mwh, tonnes = carbon.TABLE_15[model]
    kwh = carbon.energy_kwh(hours, 400)
    assert kwh / 1000 == pytest.approx(mwh, abs=2)
    assert carbon.tonnes_co2(kwh) == pytest.approx(tonnes, abs=1)
    assert round(carbon.tonnes_co2(kwh)) == tonnes


def test_two_energies_are_misprinted():
    wrong = {model: round(carbon.energy_kwh(hours, 400) / 1000)
             for model, (hours, mwh, _) in carbon.TABLE_15.items()
             if round(carbon.energy_kwh(hours, 400) / 1000) != mwh}
    assert wrong == {"BLOOM-175B": 476, "LLaMA-65B": 450}


def test_the_whole_project_took_four_months_by_its_energy():
    hours = 2_638_000 / carbon.energy_kwh(1, 400)
    days = hours / 2048 / 24
    assert round(days) == 122
    assert days / 30.4 == pytest.approx(4.0, abs=0.05)
    assert carbon.tonnes_co2(2_638_000) == pytest.approx(1015, abs=1)


def test_the_grids_of_bloom_and_opt():
    """27 and 82 t, as the paper's text has it."""
    for name, tonnes in (("bloom", 27), ("opt", 82)):
        model = f"{name.upper()}-175B"
        kwh = carbon.energy_kwh(carbon.TABLE_15[model][0], 400)
        assert round(carbon.tonnes_co2(kwh, carbon.grid(name))) == tonnes


def test_opts_hours_are_34_days_of_992_gpus():
    assert carbon.TABLE_15["OPT-175B"][0] == 34 * 992 * 24


def test_a_grid_is_a_name_or_a_number():
    assert carbon.grid("us-average") == 0.385
    assert carbon.grid("0.02") == 0.02
    with pytest.raises(ValueError, match="grid='mars' is not known; try one "
                       "of .*'us-average'.* or a number"):
        carbon.grid("mars")
