"""The two home-made benchmarks of `minillama/evals/plays.py`, by program.

Rows in the formats of HellaSwag and ARC from a play that was held out.
"""

from __future__ import annotations

import random
import re
from typing import Any


def speeches(text: str) -> list[str]:
    """The speeches of a play in prose or verse, without stage directions."""
    found = re.findall(r"^([A-Z]+:\n[^\n\[]+(?:\n[^\n\[]+)+)$", text, re.M)
    return [speech for speech in found if len(speech) > 120]


def endings(text: str, count: int, seed: int = 1) -> list[dict[str, Any]]:
    """Rows of HellaSwag: a speech up to a word, four ways to go on.

    The wrong ones are the ends of other speeches of the same text.

    Args:
        text: a play, as `data.fetch.plays` gives it.
        count: rows, at most one a speech.
        seed: of the speeches, the cuts and the places.
    """
    draw = random.Random(seed)
    cut = []
    for speech in speeches(text):
        spaces = [m.start() for m in re.finditer(" ", speech)]
        at = draw.choice([s for s in spaces if 60 <= s < len(speech) - 12]
                         or spaces[-1:])
        cut.append((speech[:at], speech[at + 1:][:draw.randint(30, 120)]))
    rows = []
    for ind in draw.sample(range(len(cut)), min(count, len(cut))):
        others = draw.sample([c[1] for c in cut if c != cut[ind]], 3)
        label = draw.randrange(4)
        others.insert(label, cut[ind][1])
        speaker, said = cut[ind][0].split(":\n", 1)
        said = said[said.find(" ", max(0, len(said) - 160)) + 1:]
        rows.append({"ind": ind, "activity_label": speaker, "ctx": said,
                     "ctx_a": said, "ctx_b": "", "endings": others,
                     "label": label, "split": "val"})
    return rows


def questions(text: str, count: int, seed: int = 1) -> list[dict[str, Any]]:
    """Rows of ARC: one line of the text, and its words in three other orders.
    """
    draw = random.Random(seed)
    lines = sorted({line for speech in speeches(text)
                    for line in speech.split("\n")[1:]
                    if 5 <= len(line.split()) <= 9})
    rows = []
    for n, line in enumerate(draw.sample(lines, min(count, len(lines)))):
        words, orders = line.split(), {line}
        while len(orders) < 4:
            orders.add(" ".join(draw.sample(words, len(words))))
        choices = sorted(orders, key=lambda order: draw.random())
        rows.append({
            "id": f"line-{n}", "answerKey": "ABCD"[choices.index(line)],
            "question": {
                "stem": "Which line stands in the play?",
                "choices": [{"text": choice, "label": label}
                            for choice, label in zip(choices, "ABCD")]}})
    return rows
