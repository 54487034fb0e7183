"""Instructions made by program, some kinds of them never trained on.

Each kind draws its words from a list, writes an instruction with the text it
is about, and knows the answer, so that any number of new ones can be made and
marked without a person. Half of the kinds are kept for the examination.

Chapter: notebooks/15_instruction_tuning.ipynb
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from minillama.evals.protocol import Item, Sampling, Scorer
from minillama.finetune import Example, prompt_of

Task = Callable[[random.Random, Sequence[str]], Example]


def _word(question: str, place: int, count: int = 4) -> Task:
    """One of a few words, by its place."""
    def task(draw: random.Random, words: Sequence[str]) -> Example:
        chosen = draw.sample(words, count)
        return Example(question, " ".join(chosen), chosen[place])
    return task


def _same(question: str, count: int) -> Task:
    """The words again."""
    def task(draw: random.Random, words: Sequence[str]) -> Example:
        text = " ".join(draw.sample(words, count))
        return Example(question, text, text)
    return task


def _digit(question: str, best: Callable[[int, int], int]) -> Task:
    """One of two digits."""
    def task(draw: random.Random, words: Sequence[str]) -> Example:
        a, b = draw.sample(range(10), 2)
        return Example(question, f"{a} {b}", str(best(a, b)))
    return task


def _look_up(verb: str) -> Task:
    """What one of two is said to have."""
    def task(draw: random.Random, words: Sequence[str]) -> Example:
        names, things = draw.sample(words, 2), draw.sample(words, 2)
        which = draw.randrange(2)
        facts = ", ".join(f"{n} {verb} {t}" for n, t in zip(names, things))
        return Example(f"What {verb} {names[which]}?", facts, things[which])
    return task


def _shout(draw: random.Random, words: Sequence[str]) -> Example:
    word = draw.choice(words)
    return Example("Write in capitals.", word, word.upper())


def _add(draw: random.Random, words: Sequence[str]) -> Example:
    a, b = draw.randrange(5), draw.randrange(5)
    return Example("Add.", f"{a} {b}", str(a + b))


TRAINED: dict[str, Task] = {
    "last word": _word("Say the last word.", -1),
    "first word": _word("Say the first word.", 0),
    "copy": _same("Say the same.", 2),
    "capitals": _shout, "add": _add,
    "larger": _digit("Say the larger.", max), "has": _look_up("has")}
"""Kinds that the model is tuned on."""

KEPT: dict[str, Task] = {
    "last, asked otherwise": _word("What is the last word?", -1, 3),
    "larger, asked otherwise": _digit("What is the larger?", max),
    "holds": _look_up("holds"),
    "second word": _word("Say the second word.", 1),
    "smaller": _digit("Say the smaller.", min),
    "copy one": _same("Say the same word.", 1)}
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


def examine(
    scorer: Scorer, made: Sequence[tuple[str, Example]]
) -> dict[str, tuple[int, int]]:
    """Let a model answer; kind to (right, asked).

    It writes greedily up to a line break, and must write the answer alone.
    """
    texts = scorer.generate([prompt_of(e) for _, e in made],
                            Sampling(max_tokens=12, stop=("\n",)))
    found: dict[str, tuple[int, int]] = {}
    for (kind, example), [said] in zip(made, texts):
        right, asked = found.get(kind, (0, 0))
        right += said.text.strip() == example.output
        found[kind] = right, asked + 1
    return found


def as_mmlu(made: Sequence[tuple[str, Example]], seed: int) -> list[Item]:
    """The same as questions in MMLU's format: four choices, say the letter.

    The wrong choices are other answers of the same kind. What has fewer than
    three of these is left out. To be asked with `evals.evaluate.evaluate`.
    """
    draw, items = random.Random(seed), []
    for number, (kind, example) in enumerate(made):
        others = sorted({e.output for k, e in made if k == kind}
                        - {example.output})
        if len(others) < 3:
            continue
        choices = draw.sample(others, 3)
        gold = draw.randrange(4)
        choices.insert(gold, example.output)
        lines = [example.instruction, example.input, *(
            f"{letter}. {text}" for letter, text in zip("ABCD", choices))]
        items.append(Item(f"{kind}:{number}", "\n".join([*lines, "Answer:"]),
                          tuple("ABCD"), gold, group=kind))
    return items
