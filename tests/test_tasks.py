"""Each benchmark's file becomes the right questions.

Checked on made-up files in the original formats: one item of each against
its prompt written out here by hand, the rest for counts and labels; on real
files where a copy is at hand; and every kind of damage a file can have.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from minillama.evals.evaluate import Options, evaluate, items_of, summarise
from minillama.evals.paper import nearest_size, printed
from minillama.evals.scorers import LlamaScorer
from minillama.evals.tasks import GROUPS, SAMPLES, TASKS, choose_tasks
from minillama.samples import load_mini
from tests.originals import COUNT, write_all, write_lines, write_mmlu
from tests.real import real_data
from tools.plays import endings, questions
from tools.shell import ROOT

COMMON_SENSE = [task.name for task in GROUPS["commonsense"]]
LETTERED = [*COMMON_SENSE, "race_middle", "race_high"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("name", LETTERED)
@pytest.mark.parametrize("wording", ["paper", "harness"])
def test_every_row_becomes_an_item(data, name, wording):
    items = items_of(TASKS[name], data, Options(wording))
    last = "race" in name and wording == "harness"
    assert len(items) == (COUNT // 2 if last else COUNT) and COUNT >= 30
    assert len({item.id for item in items}) == len(items)
    for item in items:
        assert 0 <= item.gold < len(item.choices)
        for context, continuation in item.pairs():
            assert context == context.rstrip(" ")
            assert continuation.startswith(" ") and continuation.strip()
    assert len({item.gold for item in items}) > 1


def one(folder: Path, name: str, file: str, row: dict, label: str = "",
        wording: str = "paper"):
    """The only item of a file with one row."""
    place = folder / name
    shutil.rmtree(place, ignore_errors=True)
    write_lines(place / file, [row])
    if label:
        (place / file.replace(".jsonl", "-labels.lst")).write_text(
            label + "\n", encoding="utf-8")
    [item] = items_of(TASKS[name], folder, Options(wording))
    return item.pairs(), item.gold


def test_boolq(tmp_path):
    row = {"question": "is rain wet", "passage": "Rain is water.",
           "answer": True, "title": "Rain"}
    assert one(tmp_path, "boolq", "dev.jsonl", row) == ([
        ("Rain is water.\nquestion: is rain wet?\nanswer:", " no"),
        ("Rain is water.\nquestion: is rain wet?\nanswer:", " yes")], 1)
    [(context, _), _], _ = one(
        tmp_path, "boolq", "dev.jsonl", row, wording="harness")
    assert context == "Rain is water.\nQuestion: is rain wet?\nAnswer:"


def test_piqa(tmp_path):
    row = {"goal": "Dry a hat", "sol1": "Hang it up.", "sol2": "Sink it."}
    assert one(tmp_path, "piqa", "valid.jsonl", row, "0") == ([
        ("Dry a hat", " Hang it up."), ("Dry a hat", " Sink it.")], 0)
    [(context, _), _], _ = one(
        tmp_path, "piqa", "valid.jsonl", row, "0", wording="harness")
    assert context == "Question: Dry a hat\nAnswer:"


def test_siqa(tmp_path):
    row = {"context": "Ann fell.", "question": "What next?",
           "answerA": "sleep", "answerB": "get up", "answerC": "sing"}
    pairs, gold = one(tmp_path, "siqa", "dev.jsonl", row, "2")
    assert pairs[gold] == ("Q: Ann fell. What next?\nA:", " get up")


def test_hellaswag(tmp_path):
    row = {"ind": 7, "activity_label": "Door", "ctx_a": "A man stands.",
           "ctx_b": "the man", "ctx": "A man stands. the man",
           "label": "3", "endings": [
               "[title] a", "b [title] C [step] d", "c", " opens it."]}
    pairs, gold = one(tmp_path, "hellaswag", "hellaswag_val.jsonl", row)
    assert pairs[1] == ("Door: A man stands. the man", " b [title] C [step] d")
    pairs, gold = one(tmp_path, "hellaswag", "hellaswag_val.jsonl", row,
                      wording="harness")
    assert gold == 3
    assert pairs[1] == ("Door: A man stands. The man", " b. C d")
    assert pairs[3][1] == " opens it."


def test_winogrande_scores_the_same_ending_after_each_option(tmp_path):
    row = {"qID": "x", "sentence": "The cup is not in the bag as _ is big.",
           "option1": "the cup", "option2": "the bag", "answer": "1"}
    assert one(tmp_path, "winogrande", "dev.jsonl", row) == ([
        ("The cup is not in the bag as the cup", " is big."),
        ("The cup is not in the bag as the bag", " is big.")], 0)


@pytest.mark.parametrize("name, file, context", [
    ("arc_easy", "ARC-Easy-Test.jsonl", "Question: What is wet?\nAnswer:"),
    ("arc_challenge", "ARC-Challenge-Test.jsonl",
     "Question: What is wet?\nAnswer:"),
    ("openbookqa", "test.jsonl", "What is wet?")])
@pytest.mark.parametrize("names", ["ABC", "123"])
def test_letters_and_numbers_name_the_choices(
        tmp_path, name, file, context, names):
    row = {"id": "M1", "answerKey": names[2], "question": {
        "stem": "What is wet?", "choices": [
            {"text": text, "label": label}
            for text, label in zip(("sand", "wind", "rain"), names)]}}
    pairs, gold = one(tmp_path, name, file, row)
    assert pairs[gold] == (context, " rain") and len(pairs) == 3


RACE = {"id": "high1.txt", "article": "Rain fell.", "answers": ["B", "A"],
        "questions": ["Rain is  _  .", "What fell?"],
        "options": [["dry", "wet", "red", "old"],
                    ["rain", "snow", "ash", "a cup"]]}


def test_race_shows_earlier_questions_with_their_answers(tmp_path):
    write_lines(tmp_path / "race_high" / "test" / "high" / "1.txt", [RACE])
    first, second = items_of(TASKS["race_high"], tmp_path, Options())
    assert first.pairs()[1] == (
        "Article: Rain fell.\n\nQ: Rain is  _  .\n\nA:", " wet")
    assert second.pairs()[0] == (
        "Article: Rain fell.\n\nQ: Rain is  _  .\n\nA: wet\n\n"
        "Q: What fell?\n\nA:", " rain")
    assert (first.gold, second.gold) == (1, 0)
    [last] = items_of(TASKS["race_high"], tmp_path, Options("harness"))
    assert last.prompt == (
        "Article: Rain fell.\n\nRain is wet\nWhat fell?")


@pytest.mark.parametrize("damage", [
    {"answers": ["B", "E"]}, {"options": [["dry"]]}, {"questions": 3}])
def test_a_damaged_text_of_race_is_named(tmp_path, damage):
    write_lines(tmp_path / "race_high" / "test" / "high" / "1.txt",
                [RACE | damage])
    with pytest.raises(ValueError, match="1.txt"):
        items_of(TASKS["race_high"], tmp_path, Options())


@pytest.fixture(scope="module")
def mmlu(tmp_path_factory):
    data = write_mmlu(tmp_path_factory.mktemp("mmlu"))
    return items_of(TASKS["mmlu"], data, Options())


def test_mmlu_has_the_papers_questions_in_every_group(mmlu):
    """14,042 = 4,705 + 3,018 + 3,077 + 3,242 over 57 subjects."""
    items = mmlu
    assert len(items) == 14042 == TASKS["mmlu"].count
    assert Counter(item.group.split("/")[0] for item in items) == {
        "Humanities": 4705, "STEM": 3018, "Social Science": 3077,
        "Other": 3242}
    assert len({item.group for item in items}) == 57
    assert sum(item.group == "Other/anatomy" for item in items) == 135


def test_mmlu_shows_five_examples_of_the_subject(mmlu):
    item = next(i for i in mmlu if i.id == "virology:7")
    head, *shown, asked = item.prompt.split("\n\n")
    assert head == ("The following are multiple choice questions (with "
                    "answers) about virology.")
    assert [text.split("?")[0] for text in shown] == [
        f"virology, dev {n}" for n in range(5)]
    assert all(text[-8:-1] == "Answer:"[1:] + " " for text in shown)
    assert asked == ('virology, test 6?\nA. a, b\nB. say "c"\nC. d\nD. e\n'
                     "Answer:")
    assert [pair[1] for pair in item.pairs()] == [" A", " B", " C", " D"]


def test_a_subject_that_mmlu_does_not_have_is_refused(tmp_path):
    path = tmp_path / "mmlu" / "test" / "cooking_test.csv"
    path.parent.mkdir(parents=True)
    path.write_text("q,a,b,c,d,A\n", encoding="utf-8")
    with pytest.raises(ValueError, match="cooking"):
        items_of(TASKS["mmlu"], tmp_path, Options(shots=0))


@pytest.mark.parametrize("row", ["q,a,b,c,d,E", "q,a,b,c,d,", "q,a,b,A"])
def test_a_damaged_row_of_mmlu_is_named(tmp_path, row):
    path = tmp_path / "mmlu" / "test" / "virology_test.csv"
    path.parent.mkdir(parents=True)
    path.write_text("q,a,b,c,d,B\n" + row + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match="virology_test.csv:2"):
        items_of(TASKS["mmlu"], tmp_path, Options(shots=0))


def test_the_real_dev_files_of_mmlu(tmp_path):
    """A copy with a header and digits instead of letters."""
    place = real_data("evaluation/mmlu/dev")
    shutil.copytree(place, tmp_path / "mmlu" / "dev")
    task = replace(TASKS["mmlu"], split="dev")
    items = items_of(task, tmp_path, Options(shots=0))
    assert len(items) == 57 * 5
    assert len({item.group for item in items}) == 57
    assert set(Counter(item.gold for item in items)) == {0, 1, 2, 3}


@pytest.mark.parametrize("name", list(TASKS))
def test_the_samples_of_the_package_can_be_asked(name):
    least = 2 if TASKS[name].runs_code else 4
    assert len(items_of(TASKS[name], SAMPLES, Options())) >= least


def test_the_papers_tables_are_whole():
    """Averages that the cells imply come out of them."""
    rows = [r for r in printed(table="Table 16") if r["model"] == "LLaMA"
            and r["size"] == "65B"]
    cells = [r for r in rows if r["group"]]
    assert len(cells) == 57
    right = sum(float(r["value"]) * int(r["count"]) for r in cells)
    [average] = [r for r in rows if r["column"] == "MMLU"]
    assert right / 14042 == pytest.approx(float(average["value"]), abs=0.06)
    assert len(printed("BoolQ", "Table 3")) == 10
    assert [nearest_size(n) for n in (10**6, 9 * 10**9, 10**10, 10**12)] == [
        "7B", "7B", "13B", "65B"]


def test_endings_and_lines_are_made_from_the_text():
    text = "".join(f"SPEAKER:\nOne word of number {n} follows another "
                   f"word,\nand so the {n} speech goes on to its end at "
                   f"place {n * n} of the little play\nfor all.\n\n"
                   for n in range(40))
    rows = endings(text, 30)
    assert len(rows) == 30 and rows == endings(text, 30)
    for row in rows:
        right = row["endings"][row["label"]]
        assert f"{row['ctx']} {right}" in text and len(row["endings"]) == 4
    for row in questions(text, 30):
        choices = {c["label"]: c["text"] for c in row["question"]["choices"]}
        right = choices[row["answerKey"]]
        assert right in text.split("\n")
        assert {tuple(sorted(c.split())) for c in choices.values()} == {
            tuple(sorted(right.split()))}
        assert len(set(choices.values())) == 4


@pytest.mark.parametrize("name", ["plays_endings", "plays_lines"])
def test_the_shipped_model_is_above_chance(name):
    """The lower end of the 95 % interval, at four choices each."""
    task = TASKS[name]
    items = items_of(task, SAMPLES, Options(limit=100))
    report = summarise(
        task, evaluate(LlamaScorer(*load_mini()), task, items))
    assert report.low > 0.25


def test_an_archive_may_be_unpacked_as_it_is(data, tmp_path):
    deep = tmp_path / "winogrande" / "winogrande_1.1"
    shutil.copytree(data / "winogrande", deep)
    assert len(items_of(TASKS["winogrande"], tmp_path, Options())) == COUNT


# What a file can have wrong, and a word of the message.
DAMAGE = [
    (lambda row: "{" + row, "is not JSON"),
    (lambda row: "[1]", "not a JSON object"),
    (lambda row: row.replace('"answer":', '"anser":'), "KeyError"),
    (lambda row: json.dumps({**json.loads(row), "answer": "3"}),
     "out of range"),
    (lambda row: json.dumps({**json.loads(row), "answer": ""}),
     "original format"),
    (lambda row: row.replace("_", "it"), "original format"),
]


@pytest.mark.parametrize("damage, words", DAMAGE)
def test_a_damaged_row_is_named(data, tmp_path, damage, words):
    shutil.copytree(data / "winogrande", tmp_path / "winogrande")
    path = tmp_path / "winogrande" / "dev.jsonl"
    rows = path.read_text("utf-8").splitlines()
    rows[4] = damage(rows[4])
    path.write_text("\n".join(rows), encoding="utf-8")
    with pytest.raises(ValueError, match=words) as error:
        items_of(TASKS["winogrande"], tmp_path, Options())
    assert "dev.jsonl:5" in str(error.value)


def test_labels_must_be_as_many_as_rows(data, tmp_path):
    shutil.copytree(data / "piqa", tmp_path / "piqa")
    (tmp_path / "piqa" / "valid-labels.lst").write_text("0\n1\n", "utf-8")
    with pytest.raises(ValueError, match=f"2 labels for {COUNT} rows"):
        items_of(TASKS["piqa"], tmp_path, Options())


def test_a_missing_file_is_named_with_its_place(tmp_path):
    with pytest.raises(ValueError, match="ARC-Easy-Test.jsonl is not in"):
        items_of(TASKS["arc_easy"], tmp_path, Options())


def test_unknown_tasks_get_the_nearest_names():
    with pytest.raises(ValueError, match="arc_easy"):
        choose_tasks(["arc-easy"])
    with pytest.raises(ValueError, match="hellaswag"):
        choose_tasks(["boolq", "helaswag"])


def test_the_manifest_of_the_page_is_that_of_the_tasks():
    page = (ROOT / "book" / "evaluation_protocol.md").read_text("utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")]
            for line in page.partition("## The files")[2].splitlines()
            if line.startswith("|")]
    stated = {row[0]: row for row in rows if len(row) == 6}
    for task in TASKS.values():
        if task.title and not task.folder:
            name = task.title.split(" ")[0].split("@")[0]
            _, files, _, count, licence, _ = stated.pop(name)
            assert (count.replace(",", ""), licence) == (
                str(task.count), task.licence), name
            assert task.file.split(",")[0].split("/")[-1] in files
    assert set(stated) == {"benchmark", "---", ""}


def test_groups_and_all_stand_for_their_tasks_once():
    names = [task.name for task in choose_tasks(["piqa", "commonsense"])]
    assert sorted(names) == sorted(COMMON_SENSE) and names[0] == "piqa"
    assert [t.name for t in choose_tasks(["all"])] == list(TASKS)


REAL = {
    "piqa": ("piqa", 1838), "openbookqa": ("openbookqa", 500),
}


@pytest.mark.parametrize("name", REAL)
def test_real_files_have_the_papers_count(name, tmp_path):
    folder, count = REAL[name]
    place = real_data(f"evaluation/{folder}")
    (tmp_path / name).mkdir()
    for path in place.glob("*.*"):
        shutil.copy(path, tmp_path / name / path.name.replace(
            "openbookqa_test_original", "test"))
    items = items_of(TASKS[name], tmp_path, Options())
    assert len(items) == count == TASKS[name].count
    # No choice is right more than 60 % of the time.
    assert max(Counter(i.gold for i in items).values()) < 0.6 * count


ZIPS = {"boolq": "boolq", "siqa": "siqa", "hellaswag": "hellaswag",
        "winogrande": "winogrande", "arc_easy": "arc",
        "arc_challenge": "arc", "openbookqa": "openbookqa", "piqa": "piqa",
        "race_middle": "race", "race_high": "race", "mmlu": "mmlu"}


@pytest.mark.parametrize("name", ZIPS)
def test_rows_in_the_original_layout_are_read(name, tmp_path):
    for path in real_data(f"evaluation/{ZIPS[name]}").glob("*.zip"):
        with zipfile.ZipFile(path) as archive:
            archive.extractall(tmp_path / name, [
                    n for n in archive.namelist() if "__MACOSX" not in n])
    assert items_of(TASKS[name], tmp_path, Options())
