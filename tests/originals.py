"""Made-up items in the original format of each multiple-choice benchmark."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

from minillama.evals.mmlu import subjects
from tests.small import sentences

COUNT = 32


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows),
                    encoding="utf-8")


def labels(path: Path, marks: list[int]) -> None:
    path.write_text("".join(f"{mark}\n" for mark in marks), encoding="utf-8")


def lettered(draw: random.Random, lines: list[str]) -> dict[str, Any]:
    """A question of ARC or OpenBookQA; one in four is numbered."""
    names = "1234" if draw.random() < 0.25 else "ABCD"
    return {"id": f"q{draw.random()}",
            "question": {"stem": draw.choice(lines), "choices": [
                {"text": draw.choice(lines), "label": name}
                for name in names]},
            "answerKey": draw.choice(names)}


def write_all(data: Path, seed: int = 1, count: int = COUNT) -> Path:
    """DATA with `count` items of every multiple-choice task."""
    draw = random.Random(seed)
    lines = [line for line in sentences(200, seed).splitlines()
             if line.isascii()]

    def line() -> str:
        return draw.choice(lines)

    numbers = range(count)
    write_lines(data / "boolq" / "dev.jsonl", [
        {"question": line().lower().rstrip("."), "title": "A title",
         "answer": draw.random() < 0.6, "passage": line() + " " + line()}
        for _ in numbers])
    write_lines(data / "piqa" / "valid.jsonl", [
        {"goal": line(), "sol1": line(), "sol2": line()} for _ in numbers])
    labels(data / "piqa" / "valid-labels.lst",
           [draw.randrange(2) for _ in numbers])
    write_lines(data / "siqa" / "dev.jsonl", [
        {"context": line(), "question": line()[:-1] + "?",
         "answerA": line(), "answerB": line(), "answerC": line()}
        for _ in numbers])
    labels(data / "siqa" / "dev-labels.lst",
           [draw.randrange(1, 4) for _ in numbers])
    write_lines(data / "hellaswag" / "hellaswag_val.jsonl", [
        {"ind": n, "activity_label": "Making a door", "ctx_a": line(),
         "ctx_b": "the  [step] fox", "ctx": line() + " the fox",
         "split": "val", "split_type": "indomain",
         "label": draw.randrange(4),
         "endings": ["[header] A fox [title] " + line() for _ in range(4)],
         "source_id": f"wikihow~{n}"} for n in numbers])
    write_lines(data / "winogrande" / "dev.jsonl", [
        {"qID": f"Q{n}", "sentence": f"{line()[:-1]} because _ {line()}",
         "option1": "the miller", "option2": "my aunt",
         "answer": str(draw.randint(1, 2))} for n in numbers])
    for task, name in (("arc_easy", "Easy"), ("arc_challenge", "Challenge")):
        write_lines(data / task / f"ARC-{name}-Test.jsonl",
                    [lettered(draw, lines) for _ in numbers])
    write_lines(data / "openbookqa" / "test.jsonl",
                [lettered(draw, lines) for _ in numbers])
    for level in ("middle", "high"):
        for n in range(count // 2):  # two questions a text
            write_lines(
                data / f"race_{level}" / "test" / level / f"{n}.txt", [{
                    "id": f"{level}{n}.txt", "article": line() + " " + line(),
                    "questions": [line(), "The fox is  _  ."],
                    "options": [[line() for _ in range(4)] for _ in "ab"],
                    "answers": draw.choices("ABCD", k=2)}])
    return data


def write_mmlu(data: Path, seed: int = 1) -> Path:
    """Test and dev files of all 57 subjects with the paper's counts."""
    draw = random.Random(seed)
    for split in ("test", "dev"):
        (data / "mmlu" / split).mkdir(parents=True)
    for subject, (_, count) in subjects().items():
        for split, rows in (("test", count), ("dev", 5)):
            path = data / "mmlu" / split / f"{subject}_{split}.csv"
            with open(path, "w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows(
                    [f"{subject}, {split} {n}?", "a, b", 'say "c"', "d", "e",
                     draw.choice("ABCD")] for n in range(rows))
    return data
