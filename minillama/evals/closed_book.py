"""Tables 4 and 5: questions answered from memory alone.

The prompt is the paper's (appendix A). The answer is what stands before the
first line break; a final dot or comma falls to the normalisation.

Chapter: notebooks/14_evaluation.ipynb
"""

from __future__ import annotations

import json
from pathlib import Path

from minillama.evals.measures import exact_match
from minillama.evals.originals import Row, find, lines_loader, made
from minillama.evals.protocol import Item, Sampling, Task, Wording

SHORT = Sampling(max_tokens=48, stop=("\n",))
"""Greedy, up to the first line break."""


def _asked(id: str, question: str, answers: list[str] | str) -> Item:
    if not (answers := [answers] if isinstance(answers, str) else answers):
        raise ValueError("there is no answer")
    question = question[:1].upper() + question[1:].rstrip("?").rstrip() + "?"
    return Item(id, f"Q: {question}\nA:", answers=tuple(answers),
                header="Answer these questions:\n")


def _natural_question(row: Row, wording: Wording) -> Item:
    return _asked("", row["question"], row["answer"])


def load_triviaqa(place: Path, split: str, wording: Wording) -> list[Item]:
    """The filtered set with its evidence left out: every alias is right.

    Chapter: notebooks/14_evaluation.ipynb
    """
    path = find(place, *{"dev": ("wikipedia-dev.json", "web-dev.json"),
                         "train": ("wikipedia-train.json",)}[split])
    rows = json.loads(path.read_text(encoding="utf-8-sig"))["Data"]
    return [made(f"{path}:{n}", lambda row=row: _asked(
                row["QuestionId"], row["Question"],
                [row["Answer"]["Value"], *row["Answer"]["Aliases"]]))
            for n, row in enumerate(rows, 1)]


TASKS = (
    Task("nq", "NaturalQuestions", lines_loader(_natural_question, {
        "test": ("NQ-open.dev.jsonl",), "train": ("NQ-open.train.jsonl",)}),
        "NQ-open.dev.jsonl", 3610, "CC BY-SA 3.0", separator="\n",
        judge=exact_match, metric="exact_match", sampling=SHORT,
        note="the paper prints 0, 1, 5 and 64 shots: --shots"),
    Task("triviaqa", "TriviaQA", load_triviaqa, "qa/wikipedia-dev.json",
         7993, "not stated", "dev", separator="\n", judge=exact_match,
         metric="exact_match", sampling=SHORT,
         note="the paper prints 0, 1, 5 and 64 shots: --shots; which of the "
              "filtered development files it took it does not say"),
)
"""Tables 4 and 5."""
