"""minillama/planner/budget.py: laws, optima and prices.

The fit has to find a law from points made by that law; the optimum has to
beat every neighbour on the line of equal cost; the crossover is where two
bills, added up here, are the same. The published laws are held against what
their authors say of them, and Figure 1 against its printed ends.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from minillama.config import ModelConfig
from minillama.model import count_parameters
from minillama.planner.budget import (
    BESIROGLU, HOFFMANN, Law, cheapest, crossover, figure_1, fit,
    serving_flops, training_flops)

LAWS = {"Hoffmann": HOFFMANN, "Besiroglu": BESIROGLU}
TRUE = Law(1.5, 300.0, 900.0, 0.32, 0.34)


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
@pytest.mark.parametrize("flops", [1e19, 5.5e23])
def test_the_optimum_beats_bigger_and_smaller(law, flops):
    n, d = law.optimum(flops)
    assert training_flops(n, d) == pytest.approx(flops)
    for change in (0.5, 0.9, 0.99, 1.01, 1.1, 2):
        assert law.loss(n, d) < law.loss(n * change, d / change)


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_tokens_for_undoes_loss(law):
    for n, d in ((7e9, 1e12), (1e8, 3e9)):
        assert law.tokens_for(law.loss(n, d), n) == pytest.approx(d)
    assert law.tokens_for(law.E + 0.01, 1e6) == np.inf


def test_what_the_authors_say_of_their_laws():
    """Chinchilla has 70B parameters and 1.4T tokens. The second fit agrees;
    the printed one, applied to the same bill, asks for far more tokens."""
    flops = training_flops(70e9, 1.4e12)
    n, d = BESIROGLU.optimum(flops)
    assert n == pytest.approx(70e9, rel=0.1)
    assert d == pytest.approx(1.4e12, rel=0.1)
    n, d = HOFFMANN.optimum(flops)
    assert n < 40e9 and d > 2.5e12


def test_the_65b_is_chinchillas_choice_and_the_7b_is_not():
    choices = {"7B": 1e12, "65B": 1.4e12}
    ratio = {}
    for name, tokens in choices.items():
        size = count_parameters(ModelConfig.preset(name))
        n, d = BESIROGLU.optimum(training_flops(size, tokens))
        ratio[name] = size / n
    assert ratio["65B"] == pytest.approx(1, abs=0.1)
    assert ratio["7B"] < 0.4


def points(law, sizes=(1e8, 1e9, 1e10), tokens=(2e9, 2e10, 2e11)):
    return [(n, d, law.loss(n, d))
            for n, d in itertools.product(sizes, tokens)]


def test_the_fit_finds_the_law_that_made_the_points():
    law, missed = fit(points(TRUE))
    assert missed < 1e-6
    for name in ("E", "A", "B", "alpha", "beta"):
        assert getattr(law, name) == pytest.approx(getattr(TRUE, name),
                                                   rel=1e-4), name


def test_noise_of_a_hundredth_moves_the_fit_a_little():
    draw = np.random.default_rng(0)
    made = [(n, d, loss + 0.01 * draw.normal())
            for n, d, loss in points(TRUE, tokens=(2e9, 8e9, 2e10, 2e11))]
    law, missed = fit(made)
    assert 0.003 < missed < 0.015
    assert law.alpha == pytest.approx(TRUE.alpha, abs=0.1)


def test_points_of_no_law_are_refused():
    with pytest.raises(ValueError, match="no law with positive"):
        fit([(n, d, 5 - loss) for n, d, loss in points(TRUE)])


def test_figure_1_ends_where_the_paper_says():
    curves = figure_1()
    ends = {name: list(curve.items())[-1] for name, curve in curves.items()}
    assert ends == {"7B": (1000, 1.80), "13B": (1000, 1.73),
                    "33B": (1400, 1.62), "65B": (1400, 1.56)}
    assert sum(map(len, curves.values())) == 56


def test_in_figure_1_larger_and_longer_is_better_everywhere():
    curves = figure_1()
    for curve in curves.values():
        losses = list(curve.values())
        assert all(a > b for a, b in itertools.pairwise(losses))
    for small, large in itertools.pairwise(curves.values()):
        assert all(small[t] > large[t] for t in small)


def test_at_the_crossover_both_bills_are_the_same():
    small, large = (7e9, 1.2e12), (13e9, 0.4e12)
    for price in (1.0, 3.0):
        served = crossover(small, large, price)
        bills = [training_flops(*m) + price * serving_flops(m[0], served)
                 for m in (small, large)]
        assert bills[0] == pytest.approx(bills[1])
    assert crossover(small, large, 3.0) < crossover(small, large, 1.0)
    assert crossover((7e9, 1e11), large) == 0
    with pytest.raises(ValueError, match="the small one comes first"):
        crossover(large, small)


@pytest.mark.parametrize("served", [0, 1e12, 1e14])
def test_the_cheapest_beats_every_other_size(served):
    loss = BESIROGLU.loss(33e9, 1.4e12)
    n, d = cheapest(BESIROGLU, loss, served)
    assert BESIROGLU.loss(n, d) == pytest.approx(loss)

    def bill(size):
        return (training_flops(size, BESIROGLU.tokens_for(loss, size))
                + serving_flops(size, served))

    assert all(bill(n) < bill(n * change) for change in (0.9, 0.98, 1.02, 2))


def test_who_serves_nothing_takes_the_optimum_and_who_serves_much_a_small_one(
):
    n, d = BESIROGLU.optimum(1e23)
    loss = BESIROGLU.loss(n, d)
    assert cheapest(BESIROGLU, loss, 0)[0] == pytest.approx(n, rel=0.01)
    sizes = [cheapest(BESIROGLU, loss, s)[0] for s in (0, 1e11, 1e12, 1e13)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 0.5 * sizes[0]
    with pytest.raises(ValueError, match="out of reach"):
        cheapest(BESIROGLU, 1.8, 1e12)
