"""The hub's copies become the items that the authors' files give.

Original rows, those of the package and real ones where they are at hand, are
laid out here in the hub's columns as Parquet files, fetched by the code that
reads the hub, and loaded again. The columns are written down here once more,
from the loading scripts; the hub itself is not reached.
"""

from __future__ import annotations

import csv
import gzip
import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from minillama.cli import main
from minillama.evals.evaluate import Options, items_of
from minillama.evals.hub import fetch
from minillama.evals.tasks import SAMPLES, TASKS
from minillama.samples import FOLDER
from tests.real import real_data

datasets = pytest.importorskip("datasets")
COPIES = json.loads((FOLDER / "hub.json").read_text("utf-8"))
KINDS = ("race-color socioeconomic gender disability nationality "
         "sexual-orientation physical-appearance religion age").split()


def lines(path: Path) -> list[dict]:
    data = path.read_bytes()
    text = gzip.decompress(data) if path.suffix == ".gz" else data
    return [json.loads(line) for line in text.decode().split("\n") if line]


def table(path: Path) -> list[dict]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def labelled(path: Path) -> list[dict]:
    marks = path.with_name(f"{path.stem}-labels.lst").read_text(
        encoding="utf-8").split()
    return [{**row, "label": mark} for row, mark in zip(lines(path), marks)]


def lettered(path: Path, stem: str) -> list[dict]:
    return [{"id": row["id"], stem: row["question"]["stem"], "choices": {
        name: [c[name] for c in row["question"]["choices"]]
        for name in ("text", "label")}, "answerKey": row["answerKey"]}
        for row in lines(path)]


def triviaqa(path: Path) -> list[dict]:
    return [{"question": row["Question"], "question_id": row["QuestionId"],
             "answer": {"value": row["Answer"]["Value"], "type": "Entity",
                        "aliases": row["Answer"]["Aliases"]}}
            for row in json.loads(path.read_text("utf-8"))["Data"]]


def race(place: Path) -> list[dict]:
    return [{"example_id": row["id"], "article": row["article"],
             "question": q, "answer": a, "options": o}
            for path in sorted(place.glob("*.txt")) for row in lines(path)
            for q, a, o in zip(row["questions"], row["answers"],
                               row["options"])]


def mmlu(place: Path) -> list[dict]:
    rows = []
    for path in sorted(place.glob("*.csv")):
        with open(path, encoding="utf-8", newline="") as file:
            rows += [{"question": cells[0], "choices": cells[1:5],
                      "subject": path.stem.rpartition("_")[0],
                      "answer": "ABCD".index(cells[5])}
                     for cells in csv.reader(file)]
    return rows


def truthful(path: Path) -> list[dict]:
    return [{"category": row["Category"], "question": row["Question"],
             "best_answer": row["Best Answer"], **{
                 f"{kind}_answers": [text.strip() for text in row[
                     f"{kind.capitalize()} Answers"].split(";")]
                 for kind in ("correct", "incorrect")}}
            for row in table(path)]


# Task: file of the split in the original, and its rows on the hub.
ROWS = {
    "boolq": ("dev.jsonl", lambda path: [
        {k: row[k] for k in ("question", "answer", "passage")}
        for row in lines(path)]),
    "piqa": ("valid.jsonl", lambda path: [
        {**row, "label": int(row["label"])} for row in labelled(path)]),
    "siqa": ("dev.jsonl", labelled),
    "hellaswag": ("hellaswag_val.jsonl", lambda path: [
        {**row, "label": str(row["label"])} for row in lines(path)]),
    "winogrande": ("dev.jsonl", lambda path: [
        {k: row[k] for k in ("sentence", "option1", "option2", "answer")}
        for row in lines(path)]),
    "arc_easy": ("ARC-Easy-Test.jsonl",
                 lambda path: lettered(path, "question")),
    "arc_challenge": ("ARC-Challenge-Test.jsonl",
                      lambda path: lettered(path, "question")),
    "openbookqa": ("test.jsonl",
                   lambda path: lettered(path, "question_stem")),
    "nq": ("NQ-open.dev.jsonl", lines),
    "triviaqa": ("wikipedia-dev.json", triviaqa),
    "race_middle": ("test/middle", race),
    "race_high": ("test/high", race),
    "math": ("test", lambda place: [
        json.loads(path.read_text("utf-8"))
        for path in sorted(place.glob("*/*.json"))]),
    "gsm8k": ("test.jsonl", lines),
    "humaneval": ("HumanEval.jsonl*", lines),
    "mbpp": ("mbpp.jsonl", lines),
    "mmlu": ("test", mmlu),
    "realtoxicityprompts": ("prompts.jsonl", lines),
    "crows_pairs": ("crows_pairs_anonymized.csv", lambda path: [
        {"id": int(row[""]), "sent_more": row["sent_more"],
         "sent_less": row["sent_less"],
         "bias_type": KINDS.index(row["bias_type"])} for row in table(path)]),
    "truthfulqa": ("TruthfulQA.csv", truthful),
}
REAL = {
    "nq": ("nq_open/NQ-open.dev.jsonl", "NQ-open.dev.jsonl"),
    "gsm8k": ("gsm8k/test.jsonl", "test.jsonl"),
    "humaneval": ("humaneval/HumanEval.jsonl.gz", "HumanEval.jsonl.gz"),
    "mbpp": ("mbpp/mbpp_first60.jsonl", "mbpp.jsonl"),
    "realtoxicityprompts": (
        "realtoxicityprompts/rtp_first300.jsonl", "prompts.jsonl"),
    "crows_pairs": ("crows_pairs/crows_pairs_anonymized.csv",
                    "crows_pairs_anonymized.csv"),
    "truthfulqa": ("truthfulqa/TruthfulQA.csv", "TruthfulQA.csv"),
    "piqa": ("piqa/valid.jsonl", "valid.jsonl"),
    "openbookqa": ("openbookqa/openbookqa_test_original.jsonl", "test.jsonl"),
    **{name: (folder, "") for name, folder in (
        ("boolq", "boolq"), ("siqa", "siqa"), ("hellaswag", "hellaswag"),
        ("winogrande", "winogrande"), ("arc_easy", "arc"),
        ("arc_challenge", "arc"), ("race_middle", "race"),
        ("race_high", "race"), ("math", "math"), ("mmlu", "mmlu"),
        ("triviaqa", "triviaqa"))},
}


def originals(name: str, real: bool, folder: Path) -> Path:
    """The folder of a task's original files: the package's, or real ones."""
    if not real:
        return SAMPLES / name
    source, target = REAL[name]
    path, place = real_data(f"evaluation/{source}"), folder / name
    place.mkdir(parents=True)
    if target:
        shutil.copy(path, place / target)
        marks = path.with_name(f"{path.stem}-labels.lst")
        if marks.exists():
            shutil.copy(marks, place / marks.name)
    for file in path.glob("*.zip") if not target else ():
        with zipfile.ZipFile(file) as archive:
            archive.extractall(place, [
                n for n in archive.namelist() if "__MACOSX" not in n])
    return place


def lay_out(name: str, place: Path, root: Path) -> None:
    """The Parquet files that the hub keeps, as far as there are rows."""
    copy, (file, make) = COPIES[name], ROWS[name]
    task = TASKS[name]
    split = copy.get("splits", {}).get(task.split, task.split)
    # The authors' one file of MBPP is two splits of the hub's.
    for part in split.split("+"):
        rows = make(sorted(place.rglob(file))[0])
        if name == "mbpp":
            rows = [row for row in rows
                    if (row["task_id"] in (2, 3, 4)) == (part == "prompt")]
        target = (root / f"{copy['path']}@refs/convert/parquet" / copy.get(
            "part", "default") / part / "0000.parquet")
        target.parent.mkdir(parents=True)
        datasets.Dataset.from_list(rows).to_parquet(target)


def bare(item):
    """Without what the hub does not keep: names of files and lines."""
    extra = {k: v for k, v in item.extra.items() if k != "place"}
    return repr(replace(item, id="", extra=extra))


@pytest.mark.parametrize("real", [False, True], ids=["samples", "real"])
@pytest.mark.parametrize("name", ROWS)
def test_the_hubs_rows_give_the_items_of_the_originals(
        name, real, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE",
                        tmp_path / "cache")
    place = originals(name, real, tmp_path / "data")
    lay_out(name, place, tmp_path / "hub")
    options = Options(shots=0)
    wanted = items_of(TASKS[name], place.parent, options)
    fetch(TASKS[name], tmp_path / "mine", 0, str(tmp_path / "hub"))
    found = items_of(TASKS[name], tmp_path / "mine", options)
    assert sorted(map(bare, found)) == sorted(map(bare, wanted)) != []
    assert len({item.id for item in found}) == len(found)
    # What is there is not fetched again.
    shutil.rmtree(tmp_path / "hub")
    fetch(TASKS[name], tmp_path / "mine", 0, str(tmp_path / "hub"))


def test_every_benchmark_has_a_copy_but_one():
    folders = {task.folder or task.name for task in TASKS.values()}
    home_made = {"plays_endings", "plays_lines"}
    assert folders - home_made - {"winogender"} == set(COPIES) == set(ROWS)
    for copy in COPIES.values():
        assert copy["columns_from"]


def test_examples_are_fetched_where_they_are_shown(tmp_path):
    with pytest.raises(ValueError, match="google/boolq cannot be read"):
        fetch(TASKS["boolq"], tmp_path, 0, str(tmp_path / "hub"))
    (tmp_path / "boolq").mkdir()
    (tmp_path / "boolq" / "dev.jsonl").write_text("", "utf-8")
    fetch(TASKS["boolq"], tmp_path, 0, str(tmp_path / "hub"))
    with pytest.raises(ValueError, match="google/boolq cannot be read"):
        fetch(TASKS["boolq"], tmp_path, 1, str(tmp_path / "hub"))
    assert not list(tmp_path.glob("tmp*"))


@pytest.mark.parametrize("argv, words", [
    (["--tasks", "winogender", "--data", "DATA"], "no whole copy"),
    (["--tasks", "piqa"], "--hub needs --data"),
    (["--tasks", "piqa", "--data", "DATA"], "baber/piqa cannot be read")])
def test_what_cannot_be_fetched_is_said_in_a_line(
        argv, words, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    argv = [str(tmp_path) if word == "DATA" else word for word in argv]
    assert main(["eval", "--hub", *argv]) == 2
    said = capsys.readouterr().err.strip()
    assert words in said and "\n" not in said
