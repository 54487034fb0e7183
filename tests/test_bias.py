"""CrowS-Pairs, WinoGender and TruthfulQA: what is counted, and how many.

The counts are those that the paper's own cells imply: 1,508 pairs in nine
categories, 720 sentences, 120 + 120 gotchas. They come from the real files
where a copy is at hand; rules are checked on rows made here. The judges are
held against log-probabilities chosen by hand.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from pathlib import Path

import pytest

from minillama.evals import bias, truthful
from minillama.evals.evaluate import Options, ask, items_of, summarise
from minillama.evals.evaluate import record_of
from minillama.evals.protocol import Answer, Completion, Item, Score
from minillama.evals.tasks import TASKS
from tests.real import real_data


def scores(*pairs: tuple[float, int]) -> Answer:
    """Log-probabilities and numbers of tokens."""
    return Answer(scores=tuple(Score(p, False, n) for p, n in pairs))


def table(path: Path, rows: list[dict], delimiter: str = ",") -> None:
    """Write rows as the authors' tables have them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def test_lower_perplexity_is_counted_not_higher_probability():
    """The longer sentence may be likelier a token and less likely whole."""
    item = Item("1", "", ("longer one", "short"), 0)
    assert bias.stereotype(item, scores((-8.0, 4), (-6.0, 2))) == {
        "stereotype": 1.0, "stereotype_log_prob": 0.0}
    assert bias.stereotype(item, scores((-8.0, 2), (-6.0, 2))) == {
        "stereotype": 0.0, "stereotype_log_prob": 0.0}


def test_pairs_from_file_to_categories(tmp_path):
    table(tmp_path / "crows_pairs" / "crows_pairs_anonymized.csv", [
        {"": str(n), "sent_more": f"Cooks salt soup {n}.",
         "sent_less": f"Poets salt soup {n}.", "stereo_antistereo": "stereo",
         "bias_type": ("age", "gender")[n % 2]} for n in range(30)])
    task = TASKS["crows_pairs"]
    items = items_of(task, tmp_path, Options())
    assert items[1].pairs() == [("", "Cooks salt soup 1."),
                                ("", "Poets salt soup 1.")]
    records = [record_of(task, item, scores((-1.0 - n % 2, 1), (-1.5, 1)))
               for n, item in enumerate(items)]
    report = summarise(task, records)
    assert report.score == 0.5 and report.figures["stereotype/age"] == 1.0
    assert report.figures["stereotype/gender"] == 0.0


def test_the_real_pairs_are_the_papers(tmp_path):
    folder = real_data("evaluation/crows_pairs")
    items = bias.load_crows_pairs(folder, "test", "paper")
    counts = Counter(item.group for item in items)
    assert len(items) == 1508
    assert counts == {
        "gender": 262, "religion": 105, "race-color": 516,
        "sexual-orientation": 84, "age": 87, "nationality": 159,
        "disability": 60, "physical-appearance": 63, "socioeconomic": 172}


def schema(place: Path) -> None:
    """Two occupations in all twelve forms of WinoGender."""
    table(place / "occupations-stats.tsv", [
        {"occupation": "baker", "bls_pct_female": "60"},
        {"occupation": "pilot", "bls_pct_female": "5"}], "\t")
    said = {"female": "She", "male": "He", "neutral": "They"}
    table(place / "all_sentences.tsv", [
        {"sentid": f"{who}.guest.{right}.{gender}.txt", "sentence":
         f"The {who} met the guest. {said[gender]} was first."}
        for who in ("baker", "pilot") for right in (0, 1)
        for gender in said], "\t")


def test_gotchas_by_the_broad_definition(tmp_path):
    """Answer and majority at odds: the occupation's answer with the rare
    pronoun, or the participant's with the common one."""
    schema(tmp_path / "winogender")
    items = items_of(TASKS["winogender"], tmp_path, Options())
    assert len(items) == 12
    groups = {item.id: item.group for item in items}
    assert groups["baker.guest.0.male.txt"] == "his/gotcha"
    assert groups["baker.guest.0.female.txt"] == "her/plain"
    assert groups["baker.guest.1.female.txt"] == "her/gotcha"
    assert groups["pilot.guest.0.female.txt"] == "her/gotcha"
    assert groups["pilot.guest.1.male.txt"] == "his/gotcha"
    assert groups["pilot.guest.1.neutral.txt"] == "their"
    first = next(i for i in items if i.id == "pilot.guest.1.male.txt")
    assert first.prompt == ("The pilot met the guest. He was first. "
                            "‘He’ refers to the")
    assert first.pairs()[1][1] == " guest" and first.gold == 1


def test_the_real_sentences_are_the_papers():
    folder = real_data("evaluation/winogender")
    items = bias.load_winogender(folder, "test", "paper")
    counts = Counter(item.group for item in items)
    assert len(items) == 720
    assert counts == {"her/gotcha": 120, "her/plain": 120,
                      "his/gotcha": 120, "his/plain": 120, "their": 240}


def test_bad_sentences_are_named(tmp_path):
    schema(tmp_path)
    path = tmp_path / "all_sentences.tsv"
    path.write_text("sentid\tsentence\nbaker.guest.0.male.txt\tNobody.\n",
                    "utf-8")
    with pytest.raises(ValueError, match="all_sentences.tsv:2:.*no male"):
        bias.load_winogender(tmp_path, "test", "paper")


# -- TruthfulQA --------------------------------------------------------------

QUESTION = {"Type": "Own", "Category": "Food", "Question": "Is soup wet?",
            "Best Answer": "Yes, soup is wet",
            "Correct Answers": "Soup is a liquid; Yes, soup is wet; Yes",
            "Incorrect Answers": "No, soup is dry; Soup is a stone",
            "Source": "-"}


def questions(place: Path, count: int = 30) -> None:
    """The authors' table, the same question with a number."""
    table(place / "TruthfulQA.csv", [
        {**QUESTION, "Question": f"Is soup {n} wet?"} for n in range(count)])


def test_choices_begin_with_the_best_answer(tmp_path):
    questions(tmp_path / "truthfulqa")
    items = items_of(TASKS["truthfulqa"], tmp_path, Options())
    assert len(items) == 30 and items[0].gold == 0
    assert items[0].choices == (
        "Yes, soup is wet", "Soup is a liquid", "Yes", "No, soup is dry",
        "Soup is a stone")
    assert items[0].prompt.endswith("\n\nQ: Is soup 0 wet?\nA:")
    assert items[0].extra["true"] == 3


def test_mc1_and_mc2_by_hand():
    item = Item("1", "", ("best", "true", "false"), 0, extra={"true": 2})
    figures = truthful.multiple_choice(item, scores(
        (math.log(0.2), 1), (math.log(0.4), 1), (math.log(0.1), 1)))
    assert figures["mc1"] == 1.0, "another true answer may be likelier"
    assert figures["mc2"] == pytest.approx(0.6 / 0.7)
    figures = truthful.multiple_choice(item, scores(
        (math.log(0.2), 1), (math.log(0.1), 1), (math.log(0.3), 1)))
    assert figures == {"mc1": 0.0, "mc2": pytest.approx(0.5)}
    far = truthful.multiple_choice(item, scores(
        (-2000.0, 1), (-2001.0, 1), (-2002.0, 1)))
    assert far["mc1"] == 1.0 and 0.9 < far["mc2"] < 1.0


@pytest.mark.parametrize("text, truthful_, informative", [
    (" Soup is a wet liquid.", 1, 1), (" No, it is dry.", 0, 0),
    (" I have no comment.", 0, 0), (" Yes", 1, 1), ("", 0, 0)])
def test_the_stand_in_for_written_answers(
        text, truthful_, informative, tmp_path):
    questions(tmp_path / "truthfulqa", 1)
    task = TASKS["truthfulqa_written"]
    item, = items_of(task, tmp_path, Options())
    answer = Answer(texts=(Completion(text, 1, True),))
    assert task.judge(item, answer) == {
        "truthful_overlap": truthful_,
        "truthful_informative_overlap": informative}


def test_the_real_questions_all_load():
    folder = real_data("evaluation/truthfulqa/TruthfulQA.csv").parent
    for task in truthful.TASKS:
        items = task.load(folder, "test", "paper")
        assert len(items) == 817 and len({i.group for i in items}) == 38


def test_pairs_are_scored_by_the_shipped_model(tmp_path):
    """End to end: an empty context, and a whole sentence after it."""
    from minillama import samples
    from minillama.evals.scorers import LlamaScorer

    schema(tmp_path / "winogender")
    table(tmp_path / "crows_pairs" / "crows_pairs_anonymized.csv", [
        {"": "0", "sent_more": "The king is dead.",
         "sent_less": "The king is xqzj.", "bias_type": "age"}])
    scorer = LlamaScorer(*samples.load_mini())
    for name in ("crows_pairs", "winogender"):
        task = TASKS[name]
        items = items_of(task, tmp_path, Options())
        answers = ask(scorer, task, items)
        report = summarise(task, [record_of(task, *pair) for pair in
                                  zip(items, answers)])
        assert report.items == len(items) and report.partial
        if name == "crows_pairs":
            assert report.score == 1.0
