"""minillama/instructions.py: every answer is right, and none is drawn twice.

The oracle reads instruction and text as a person would and works the answer
out again, kind by kind, without the package. It also sits the examinations in
a model's place: it gets full marks, one that blunders in a known way gets the
marks that were known before.
"""

from __future__ import annotations

from collections import Counter

import pytest

from minillama import instructions
from minillama.evals.evaluate import evaluate, summarise
from minillama.evals.protocol import Completion, Score
from minillama.evals.tasks import TASKS
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


def example_in(prompt: str) -> Example:
    """Instruction and text, read back from a prompt of the template."""
    task, text, rest = prompt.split("\n")
    assert rest == "Answer:"
    return Example(task.removeprefix("Task: "), text.removeprefix("Text: "),
                   "")


class Pupil:
    """Sits in a model's place and answers as the oracle does, or worse."""

    def __init__(self, spoil=lambda answer: answer) -> None:
        self.spoil = spoil

    def generate(self, prompts, sampling):
        """Answers, after the space that a model writes first."""
        assert sampling.stop == ("\n",) and sampling.temperature == 0
        texts = [self.spoil(by_hand(example_in(p))) for p in prompts]
        return [[Completion(f" {text}", 1, True)] for text in texts]

    def score(self, pairs):
        """The letter in front of the right answer is the likeliest."""
        scores = []
        for prompt, letter in pairs:
            task, text, *choices, rest = prompt.split("\n")
            assert rest == "Answer:" and len(choices) == 4
            right = self.spoil(by_hand(Example(task, text, "")))
            line = f"{letter.strip()}. {right}"
            scores.append(Score(-float(line not in choices), True, 1))
        return scores


@pytest.mark.parametrize("kinds", ["TRAINED", "KEPT"])
def test_who_answers_right_gets_full_marks_and_nobody_else(kinds):
    tasks = getattr(instructions, kinds)
    made = instructions.make(tasks, 10 * len(tasks), LETTERS, 3)
    assert instructions.examine(Pupil(), made) == dict.fromkeys(
        tasks, (10, 10))
    talks_on = instructions.examine(Pupil(lambda a: a + " and more"), made)
    assert talks_on == dict.fromkeys(tasks, (0, 10))
    says_nothing = instructions.examine(Pupil(lambda a: ""), made)
    assert says_nothing == dict.fromkeys(tasks, (0, 10))
    late = instructions.examine(
        Pupil(lambda a: a if a.isalpha() else "no"), made)
    for kind, (right, asked) in late.items():
        assert asked == 10
        assert right == sum(e.output.isalpha() for k, e in made if k == kind)


def test_questions_in_mmlus_format():
    """Four different choices, one of them right, its letter anywhere."""
    made = instructions.make(instructions.TRAINED, 280, LETTERS, 3)
    items = instructions.as_mmlu(made, seed=1)
    assert len(items) == len({item.id for item in items}) == 280
    for (kind, example), item in zip(made, items):
        task, text, *lines, rest = item.prompt.split("\n")
        assert (task, text) == (example.instruction, example.input)
        assert item.group == kind and item.choices == tuple("ABCD")
        assert [line[:3] for line in lines] == ["A. ", "B. ", "C. ", "D. "]
        choices = [line[3:] for line in lines]
        assert len(set(choices)) == 4 and rest == "Answer:"
        assert choices[item.gold] == by_hand(example)
    letters = Counter(item.gold for item in items)
    # Of 280 fair draws each letter has 70; five standard deviations are 36.
    assert all(34 < letters[n] < 106 for n in range(4))
    assert items == instructions.as_mmlu(made, seed=1)
    assert items != instructions.as_mmlu(made, seed=2)


def test_questions_are_asked_as_mmlu_is():
    made = instructions.make(instructions.KEPT, 60, LETTERS, 3)
    items = instructions.as_mmlu(made, seed=1)

    def score(spoil) -> float:
        records = evaluate(Pupil(spoil), TASKS["mmlu"], items)
        return summarise(TASKS["mmlu"], records).score

    assert score(lambda answer: answer) == 1.0
    # Who sees no difference takes the first letter every time.
    assert score(lambda answer: "none of these") == pytest.approx(
        sum(item.gold == 0 for item in items) / len(items))


def test_too_few_other_answers_make_no_question():
    made = instructions.make(
        {"add": instructions.TRAINED["add"]}, 3, LETTERS, 1)
    assert instructions.as_mmlu(made, seed=1) == []
