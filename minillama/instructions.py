"""Instructions made by program, some kinds of them never trained on.

Each kind draws its words from a list, writes an instruction with the text it
is about, and knows the answer, so that any number of new ones can be made and
marked without a person. Half of the kinds are kept for the examination.

Chapter: notebooks/15_instruction_tuning.ipynb
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from minillama.finetune import Example

Task = Callable[[random.Random, Sequence[str]], Example]


def _last(draw: random.Random, words: Sequence[str]) -> Example:
    chosen = draw.sample(words, 4)
    return Example("Say the last word.", " ".join(chosen), chosen[-1])


def _first(draw: random.Random, words: Sequence[str]) -> Example:
    chosen = draw.sample(words, 4)
    return Example("Say the first word.", " ".join(chosen), chosen[0])


def _copy(draw: random.Random, words: Sequence[str]) -> Example:
    text = " ".join(draw.sample(words, 2))
    return Example("Say the same.", text, text)


def _shout(draw: random.Random, words: Sequence[str]) -> Example:
    word = draw.choice(words)
    return Example("Write in capitals.", word, word.upper())


def _add(draw: random.Random, words: Sequence[str]) -> Example:
    a, b = draw.randrange(5), draw.randrange(5)
    return Example("Add.", f"{a} {b}", str(a + b))


def _larger(draw: random.Random, words: Sequence[str]) -> Example:
    a, b = draw.sample(range(10), 2)
    return Example("Say the larger.", f"{a} {b}", str(max(a, b)))


def _who_has(draw: random.Random, words: Sequence[str]) -> Example:
    names, things = draw.sample(words, 2), draw.sample(words, 2)
    which = draw.randrange(2)
    facts = ", ".join(f"{n} has {t}" for n, t in zip(names, things))
    return Example(f"What has {names[which]}?", facts, things[which])


def _second(draw: random.Random, words: Sequence[str]) -> Example:
    chosen = draw.sample(words, 4)
    return Example("Say the second word.", " ".join(chosen), chosen[1])


def _copy_one(draw: random.Random, words: Sequence[str]) -> Example:
    word = draw.choice(words)
    return Example("Say the same word.", word, word)


def _smaller(draw: random.Random, words: Sequence[str]) -> Example:
    a, b = draw.sample(range(10), 2)
    return Example("Say the smaller.", f"{a} {b}", str(min(a, b)))


def _last_asked(draw: random.Random, words: Sequence[str]) -> Example:
    chosen = draw.sample(words, 3)
    return Example("What is the last word?", " ".join(chosen), chosen[-1])


def _larger_asked(draw: random.Random, words: Sequence[str]) -> Example:
    a, b = draw.sample(range(10), 2)
    return Example("What is the larger?", f"{a} {b}", str(max(a, b)))


def _who_holds(draw: random.Random, words: Sequence[str]) -> Example:
    names, things = draw.sample(words, 2), draw.sample(words, 2)
    which = draw.randrange(2)
    facts = ", ".join(f"{n} holds {t}" for n, t in zip(names, things))
    return Example(f"What holds {names[which]}?", facts, things[which])


TRAINED: dict[str, Task] = {
    "last word": _last, "first word": _first, "copy": _copy,
    "capitals": _shout, "add": _add, "larger": _larger, "has": _who_has}
"""Kinds that the model is tuned on."""

KEPT: dict[str, Task] = {
    "last, asked otherwise": _last_asked,
    "larger, asked otherwise": _larger_asked, "holds": _who_holds,
    "second word": _second, "smaller": _smaller, "copy one": _copy_one}
"""Kinds that it meets for the first time when it is examined: three in other
words, three that ask for something new."""


def make(
    kinds: dict[str, Task], count: int, words: Sequence[str], seed: int
) -> list[tuple[str, Example]]:
    """`count` examples, the kinds in turn: (kind, example).

    Args:
        kinds: `TRAINED` or `KEPT`.
        count: how many in all.
        words: to draw from.
        seed: another one makes another set.
    """
    draw, names = random.Random(seed), list(kinds)
    return [(name, kinds[name](draw, words))
            for name in (names[i % len(names)] for i in range(count))]
