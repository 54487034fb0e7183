"""The exercises: right answers pass, and each slip is named.

Checked against the answers stored in `tests/wrong_answers/`: for every
exercise one right answer and at least three wrong ones that learners give,
each with a pattern that its message has to match. All are tried on several
variants, and the variants have to differ. The engine itself is tried on two
exercises made here.
"""

from __future__ import annotations

import importlib
import itertools
from types import ModuleType

import pytest
import torch

from minillama import checks
from minillama.checks import WrongAnswer, answer, check, compare, given

VARIANTS = (0, 1, 2, 17)
IDS = checks.ids()


def stored(id: str) -> ModuleType:
    """The file of stored answers that belongs to an exercise."""
    place = checks.EXERCISES[id].judge.__module__.rsplit(".", 1)[1]
    return importlib.import_module(f"tests.wrong_answers.{place}")


def _flat(numbers: dict) -> str:
    """All numbers of a variant as one text, to compare variants."""
    return repr({key: value.tolist() if torch.is_tensor(value) else value
                 for key, value in numbers.items()})


@pytest.mark.parametrize("id", IDS)
def test_the_right_answer_passes(id, capsys):
    for variant in VARIANTS:
        check(id, stored(id).RIGHT[id](given(id, variant)), variant)
    assert capsys.readouterr().out == f"{id}: right.\n" * len(VARIANTS)


@pytest.mark.parametrize("id", IDS)
def test_three_slips_are_named(id):
    slips = stored(id).WRONG[id]
    assert len(slips) >= 3, "store at least three wrong answers"
    for variant, (slip, pattern) in itertools.product(VARIANTS, slips):
        with pytest.raises(WrongAnswer, match=pattern):
            check(id, slip(given(id, variant)), variant)


@pytest.mark.parametrize("id", IDS)
def test_an_empty_answer_fails(id):
    for nothing in (None, ...):
        with pytest.raises(WrongAnswer, match="no answer yet"):
            check(id, nothing)
    # Where a number is wanted, a function may stop in the judge itself.
    with pytest.raises((WrongAnswer, TypeError)):
        check(id, lambda *args, **kwargs: None)


@pytest.mark.parametrize("id", IDS)
def test_a_variant_changes_the_numbers_and_only_it_does(id):
    if checks.EXERCISES[id].given is None:
        pytest.skip("this exercise asks for something without numbers")
    seen = {_flat(given(id, variant)) for variant in range(20)}
    assert len(seen) >= 8, "twenty variants give fewer than eight questions"
    assert _flat(given(id, 3)) == _flat(given(id, 3))


def test_ids_are_well_formed_and_kept_in_their_chapter():
    for id in IDS:
        module = checks.EXERCISES[id].judge.__module__.rsplit(".", 1)[1]
        chapter, topic, number = id.split("-")
        assert module == f"c{chapter}_{topic}", f"{id} lies in {module}"
        assert number.isdigit()


def test_no_stored_answer_is_an_orphan():
    for module in {stored(id) for id in IDS}:
        assert set(module.RIGHT) == set(module.WRONG)
        assert set(module.RIGHT) <= set(IDS)


@pytest.fixture
def double(monkeypatch):
    """An exercise `99-double-1`: a function that doubles a tensor."""
    monkeypatch.setattr(checks, "EXERCISES", dict(checks.EXERCISES))

    @checks.exercise(
        "99-double-1",
        given=lambda draw: {"x": torch.randn(3, generator=draw)})
    def judge(mine, x):
        return compare(answer(mine, x), 2 * x,
                       (x * x, "you squared"), (x.sum(), "one number"))

    return "99-double-1"


def test_engine_right_wrong_and_named(double, capsys):
    check(double, lambda x: x + x, variant=5)
    assert capsys.readouterr().out == "99-double-1: right.\n"
    with pytest.raises(WrongAnswer, match="^99-double-1: you squared$"):
        check(double, lambda x: x**2)
    with pytest.raises(WrongAnswer, match="3 of 3 numbers are off"):
        check(double, lambda x: 3 * x)
    with pytest.raises(WrongAnswer, match=r"should be \(3,\).*\(2,\)"):
        check(double, lambda x: x[:2])
    with pytest.raises(WrongAnswer, match="not a number"):
        check(double, lambda x: x * float("nan"))
    with pytest.raises(WrongAnswer, match="function is wanted"):
        check(double, torch.ones(3))


def test_engine_hands_out_copies(double):
    def spoils_its_argument(x):
        x.zero_()
        return x

    with pytest.raises(WrongAnswer, match="numbers are off"):
        check(double, spoils_its_argument)


def test_engine_keeps_the_readers_own_error(double):
    with pytest.raises(ZeroDivisionError) as caught:
        check(double, lambda x: x / 0 if isinstance(x, int) else 1 / 0)
    assert double in caught.value.__notes__[0]


def test_an_unknown_id_lists_those_of_the_chapter(double):
    with pytest.raises(ValueError, match="99-double-7.*99-double-1"):
        check("99-double-7", 1)


@pytest.mark.parametrize("got, want, right", [
    (3, 3.0, True), (3.1, 3, False), ([1, 2], torch.tensor([1, 2]), True),
    ("a", "a", True), ("A", "a", False), (True, True, True),
    (1, True, False), ({1, 2}, {2, 1}, True), ("many", 3, False),
    (float("nan"), float("nan"), True), (1e-3, 2e-3, False),
])
def test_compare(got, want, right):
    assert (compare(got, want) is None) == right


def test_a_slip_that_hits_the_right_value_is_right():
    assert compare(4, 4, (4, "you added instead of multiplying")) is None
    assert compare(5, 4, (4, "you added"), (5, "one too many")) == (
        "one too many")


def test_notebooks_show_one_line():
    assert WrongAnswer("05-x-1: no.")._render_traceback_() == [
        "Not yet. 05-x-1: no."]
