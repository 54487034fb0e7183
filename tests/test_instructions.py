"""minillama/instructions.py: every answer is right, and none is drawn twice.

The oracle reads instruction and text as a person would and works the answer
out again, kind by kind, without the package.
"""

from __future__ import annotations

import pytest

from minillama import instructions
from minillama.finetune import Example

LETTERS = list("abcdefghijklmnop")


def by_hand(example: Example) -> str:
    """The answer, from the words of the instruction alone."""
    words = example.input.replace(",", "").split()
    question = example.instruction.lower()
    if question.startswith(("what has", "what holds")):
        verb, who = question.split()[1], question.split()[2].rstrip("?")
        return next(words[i + 2] for i in range(0, len(words), 3)
                    if words[i] == who and words[i + 1] == verb)
    if "capitals" in question:
        return example.input.upper()
    if "same" in question:
        return example.input
    if "add" in question:
        return str(sum(map(int, words)))
    rules = {"last": lambda: words[-1], "first": lambda: words[0],
             "second": lambda: words[1],
             "larger": lambda: max(words, key=int),
             "smaller": lambda: min(words, key=int)}
    return next(rule() for name, rule in rules.items() if name in question)


@pytest.mark.parametrize("kinds", ["TRAINED", "KEPT"])
def test_every_answer_is_right(kinds):
    tasks = getattr(instructions, kinds)
    made = instructions.make(tasks, 40 * len(tasks), LETTERS, 3)
    assert [kind for kind, _ in made[:len(tasks)]] == list(tasks)
    for kind, example in made:
        assert example.output == by_hand(example), kind


def test_the_seed_decides():
    first, same, other = (
        instructions.make(instructions.TRAINED, 50, LETTERS, seed)
        for seed in (1, 1, 2))
    assert first == same != other


def test_no_instruction_of_the_examination_was_trained_on():
    asked = [{e.instruction.split(" ")[0:4].__str__() for _, e in
              instructions.make(kinds, 60, LETTERS, 1)}
             for kinds in (instructions.TRAINED, instructions.KEPT)]
    assert not asked[0] & asked[1]
