"""Table 9: MMLU, 57 subjects, five examples each from the dev split.

The average is over questions, not over subjects. Anatomy counts as Other,
as in its authors' own list: only so do the paper's aggregates come out.

Chapter: notebooks/14_evaluation.ipynb
"""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path

from minillama.evals.originals import find, made
from minillama.evals.paper import printed
from minillama.evals.protocol import Item, Task, Wording


def subjects() -> dict[str, tuple[str, int]]:
    """File name of each subject to its domain and number of test questions.

    Chapter: notebooks/14_evaluation.ipynb
    """
    return {
        row["column"].removeprefix("MMLU ").lower().replace(" ", "_"):
            (row["group"], int(row["count"]))
        for row in printed(table="Table 16") if row["group"]}


def _question(cells: list[str], id: str, domain: str) -> Item:
    subject = id.split(":")[0]
    question, *choices, answer = cells
    lines = [f"{letter}. {choice}"
             for letter, choice in zip("ABCD", choices, strict=True)]
    return Item(
        id, "\n".join([question.strip(), *lines, "Answer:"]), tuple("ABCD"),
        list("ABCD0123").index(answer) % 4,  # a copy has digits
        group=f"{domain}/{subject}",
        header="The following are multiple choice questions (with answers) "
        f"about {subject.replace('_', ' ')}.\n\n")


def load(place: Path, split: str, wording: Wording) -> list[Item]:
    """All subjects whose files are there, in alphabetical order.

    Chapter: notebooks/14_evaluation.ipynb
    """
    items, known = [], subjects()
    for path in sorted(find(place, split).glob(f"*_{split}.csv")):
        subject = path.stem.removesuffix(f"_{split}")
        if subject not in known:
            raise ValueError(
                f"{path}: {subject!r} is not one of MMLU's 57 subjects")
        domain = known[subject][0]
        with open(path, encoding="utf-8-sig", newline="") as file:
            for n, cells in enumerate(csv.reader(file), 1):
                if cells[:1] == ["question"] and n == 1:
                    continue  # a copy with a header; the original has none
                items.append(made(f"{path}:{n}", partial(
                    _question, cells, f"{subject}:{n}", domain)))
    return items


TASKS = (
    Task("mmlu", "MMLU", load, "test/*_test.csv, dev/*_dev.csv", 14042,
         "MIT", shots=5, shots_split="dev", normalisation="none",
         note="the letter is the continuation, all of one length"),)
"""Table 9."""
