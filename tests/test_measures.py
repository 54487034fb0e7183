"""Figures by name: the pick, the match, the vote, pass@k, the interval.

Checked by hand on small numbers, against binomial sums in fractions, against
all subsets for pass@k, and by simulation for what an interval promises.
"""

from __future__ import annotations

import itertools
import math
import random
from fractions import Fraction

import pytest

from minillama.evals.measures import (
    bootstrap_interval,
    choose,
    exact_interval,
    exact_match,
    interval,
    majority,
    normalise_answer,
    pass_at_k,
    perplexity,
    pick,
)
from minillama.evals.protocol import Answer, Completion, Item, Score

ITEM = Item("1", "Q:", ("a", "four", "elephants"), gold=1)


def answer(nats, tokens=(1, 1, 3), base=None) -> Answer:
    def scores(values):
        return tuple(Score(v, False, t) for v, t in zip(values, tokens))
    return Answer(scores(nats), scores(base) if base else ())


def test_each_normalisation_takes_another_choice():
    said = answer((-2.0, -4.8, -9.0), base=(-1.0, -6.0, -8.0))
    # sums -2, -4.8, -9; per character -2, -1.2, -1; per token -2, -4.8, -3;
    # against the unconditional -1, +1.2, -1
    assert [pick(ITEM, said, name) for name in (
        "none", "character", "token", "unconditional")] == [0, 2, 0, 1]
    assert choose(ITEM, said) == {
        "accuracy_none": 0.0, "accuracy_character": 0.0,
        "accuracy_token": 0.0, "accuracy_unconditional": 1.0}


def test_of_equal_choices_the_first_is_taken():
    assert pick(ITEM, answer((-3.0, -3.0, -3.0)), "none") == 0


def test_without_a_baseline_there_is_no_unconditional_figure():
    assert "accuracy_unconditional" not in choose(ITEM, answer((-1.,) * 3))


@pytest.mark.parametrize("text, plain", [
    ("The Beatles!", "beatles"), ("  a  cat,\tan owl ", "cat owl"),
    ("U.S.A.", "usa"), ("Theatre", "theatre"), ("", ""), ("the", "")])
def test_answers_lose_case_articles_punctuation_and_spaces(text, plain):
    assert normalise_answer(text) == plain


def test_exact_match_with_any_answer():
    item = Item("1", "Q:", answers=("Charles Darwin", "Darwin"))

    def said(text):
        return exact_match(item, Answer(texts=(Completion(text, 2, True),)))
    assert said(" the Darwin.") == {"exact_match": 1.0}
    assert said(" Charles R. Darwin") == {"exact_match": 0.0}


def test_majority_takes_the_most_frequent_and_the_first_of_equals():
    assert majority(["3", "4", "4", None, None, None]) == "4"
    assert majority(["3", "4", "4", "3"]) == "3"
    assert majority([None]) is None


@pytest.mark.parametrize("n, c", [(5, 0), (5, 2), (6, 3), (4, 4)])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(n, c):
    for k in range(1, n + 1):
        subsets = list(itertools.combinations(range(n), k))
        share = Fraction(sum(min(s) < c for s in subsets), len(subsets))
        assert pass_at_k(n, c, k) == pytest.approx(float(share), abs=1e-15)


def test_pass_at_k_needs_k_samples():
    for bad in ((3, 1, 4), (3, 4, 1), (3, 1, 0)):
        with pytest.raises(ValueError, match="draw at least"):
            pass_at_k(*bad)


@pytest.mark.parametrize("right, count", [
    (0, 7), (7, 7), (1, 7), (30, 100), (499, 500)])
def test_ends_of_the_exact_interval_leave_a_fortieth_in_each_tail(
        right, count):
    low, high = exact_interval(right, count)

    def tail(p: float, least: int) -> Fraction:
        p = Fraction(p)
        return sum((math.comb(count, k) * p**k * (1 - p)**(count - k)
                    for k in range(least, count + 1)), Fraction(0))
    if right:
        assert float(tail(low, right)) == pytest.approx(0.025, rel=1e-6)
    else:
        assert low == 0.0
    if right < count:
        assert float(1 - tail(high, right + 1)) == pytest.approx(
            0.025, rel=1e-6)
    else:
        assert high == 1.0


def test_large_counts_do_not_overflow():
    low, high = exact_interval(7_000, 10_042)
    p = 7_000 / 10_042
    width = 1.96 * math.sqrt(p * (1 - p) / 10_042)
    assert (low, high) == pytest.approx((p - width, p + width), abs=3e-4)


def test_bootstrap_covers_the_mean_about_as_often_as_it_says():
    draw = random.Random(7)
    hits = 0
    for _ in range(100):
        values = [draw.gauss(3.0, 2.0) for _ in range(60)]
        low, high = bootstrap_interval(values, draws=300)
        hits += low <= 3.0 <= high
    assert hits >= 86  # fewer in one of 100,000 runs at 95 %


def test_bootstrap_comes_again_and_depends_on_the_seed():
    draw = random.Random(1)
    values = [draw.random() for _ in range(50)]
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(values, seed=2) != bootstrap_interval(values)


def test_rights_and_wrongs_get_the_exact_interval():
    assert interval([1.0, 0.0, 1.0]) == exact_interval(2, 3)
    assert interval([0.2, 0.4]) == bootstrap_interval([0.2, 0.4])


def test_perplexity_is_over_tokens_not_texts():
    class Two:
        def score(self, pairs):
            assert [context for context, _ in pairs] == ["", ""]
            return [Score(-math.log(2), False, 1),
                    Score(-3 * math.log(8), False, 3)]

        def generate(self, prompts, sampling):
            raise AssertionError
    assert perplexity(Two(), ["a", "b"]) == pytest.approx(2 ** 2.5)
