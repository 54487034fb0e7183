"""Table 6: RACE, questions on texts from English examinations in China.

The set-up is GPT-3's: earlier questions on the same text stand before each
one with their right answers. lm-evaluation-harness asks only the last
question of each text.

Chapter: notebooks/14_evaluation.ipynb
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from minillama.evals.originals import Row, find, made
from minillama.evals.protocol import Item, Loader, Task, Wording

BLANK = "  _  ."
"""How RACE writes the gap at the end of a sentence to be filled."""


def _question(row: Row, n: int, wording: Wording) -> Item:
    def right(i: int) -> str:
        return row["options"][i][list("ABCD").index(row["answers"][i])]

    text = f"Article: {row['article']}\n\n"
    for i, question in enumerate(row["questions"][:n]):
        if wording == "paper":
            text += f"Q: {question}\n\nA: {right(i)}\n\n"
        elif question.endswith(BLANK):
            text += question[:-5] + right(i) + "\n"
        else:
            text += f"Question: {question}\nAnswer: {right(i)}\n"
    last = row["questions"][n]
    text += f"Q: {last}\n\nA:" if wording == "paper" else last
    return Item(f"{row['id']}:{n}", text, tuple(row["options"][n]),
                list("ABCD").index(row["answers"][n]))


def _race(level: str) -> Loader:
    def load(place: Path, split: str, wording: Wording) -> list[Item]:
        items = []
        for path in sorted(find(place, f"{split}/{level}").glob("*.txt")):
            try:
                row = json.loads(path.read_text(encoding="utf-8"))
                count = len(row["questions"])
            except (ValueError, KeyError, TypeError) as e:
                raise ValueError(f"{path} is not a text of RACE: {e}") from e
            items += [made(str(path), partial(_question, row, n, wording))
                      for n in range(count)
                      if wording == "paper" or n == count - 1]
        return items
    return load


TASKS = tuple(
    Task(f"race_{level}", f"RACE-{level}", _race(level),
         f"test/{level}/*.txt", count, "non-commercial research only",
         normalisation="unconditional",
         note="that RACE is normalised by 'Answer:' follows from GPT-3's "
         "set-up, not from the paper's list")
    for level, count in (("middle", 1436), ("high", 3498)))
"""Table 6, in its order."""
