"""Table 7: MATH and GSM8K, with and without a majority vote.

As in Minerva (Lewkowycz et al. 2022): greedy for one answer; temperature
0.6, top-p 0.95 and k samples for maj1@k. Minerva's own examples are not
printed in the paper; here they are the first of the training split.

Chapter: notebooks/14_evaluation.ipynb
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

from minillama.evals.measures import majority
from minillama.evals.originals import Row, find, lines_loader, made
from minillama.evals.protocol import Answer, Item, Sampling, Task, Wording


def boxed(text: str) -> str | None:
    """What the last \\boxed{...} of a solution holds, braces balanced."""
    start = text.rfind("\\boxed{")
    depth = 0
    for at in range(start + 6, len(text)) if start >= 0 else ():
        depth += (text[at] == "{") - (text[at] == "}")
        if not depth:
            return text[start + 7:at]
    return None


def plain_answer(text: str | None) -> str | None:
    """A result without what does not change it: spaces, units, sizes.

    Source: the idea of Lewkowycz et al. 2022, appendix D; rules of our own.
    """
    if text is None:
        return None
    text = re.sub(r"\\(text|mbox|mathrm|textbf)\{(.*?)\}", r"\2", text)
    text = re.sub(r"\\(left|right|!|,|;| |\$|%)|[\s$]|\^\\circ|\^\{\\circ\}",
                  "", text)
    text = re.sub(r"\\[td]frac", r"\\frac", text)
    text = re.sub(r"\\frac(\w)(\w)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\sqrt(\w)", r"\\sqrt{\1}", text)
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text.rstrip(".%"))
    return re.sub(r"^(\w|\w+=)=", "", re.sub(r"\.0+$", "", text)) or None


def last_number(text: str) -> str | None:
    """The number after `####`, or the last number of the text."""
    text = text.rpartition("####")[2].replace(",", "").replace("$", "")
    found = re.findall(r"-?\d+(?:\.\d+)?", text)
    return re.sub(r"\.0+$", "", found[-1]) if found else None


def judge_math(item: Item, answer: Answer) -> dict[str, float]:
    """Whether the first result is right, and whether the majority's is."""
    return _judge(item, [plain_answer(boxed(t.text)) for t in answer.texts])


def judge_gsm8k(item: Item, answer: Answer) -> dict[str, float]:
    """The same for numbers."""
    return _judge(item, [last_number(t.text) for t in answer.texts])


def _judge(item: Item, said: list[str | None]) -> dict[str, float]:
    right = item.answers[0]
    return {"accuracy": float(said[0] == right),
            "maj1": float(majority(said) == right)}


def load_math(place: Path, split: str, wording: Wording) -> list[Item]:
    """One JSON file a problem, in a folder a subject."""
    files = sorted(find(place, split).glob("*/*.json"))
    if not files:
        raise ValueError(f"{place} has no problems in {split}/*/*.json")
    return [made(str(path), lambda path=path: _problem(path))
            for path in files]


def _problem(path: Path) -> Item:
    row = json.loads(path.read_text(encoding="utf-8"))
    right = plain_answer(boxed(row["solution"]))
    if right is None:
        raise ValueError("the solution has no \\boxed{}")
    return Item(f"{path.parent.name}.{path.stem}",
                f"Problem:\n{row['problem']}\n\nSolution:", answers=(right,),
                target=f" {row['solution']}",
                extra={"subject": row["type"], "level": row["level"]})


def _word_problem(row: Row, wording: Wording) -> Item:
    solution = re.sub(r"<<.*?>>", "", row["answer"])
    right = last_number(solution)
    if "####" not in solution or right is None:
        raise ValueError("the answer has no number after ####")
    return Item("", f"Question: {row['question']}\nAnswer:", answers=(right,),
                target=f" {solution}")


_MATH = Task(
    "math", "MATH", load_math, "MATH/test/*/*.json", 5000, "MIT", shots=4,
    judge=judge_math, metric="accuracy",
    sampling=Sampling(max_tokens=512, stop=("\nProblem:",)),
    note="examples are the first of train, not Minerva's")
_GSM8K = Task(
    "gsm8k", "GSM8k", lines_loader(_word_problem, {
        "test": ("test.jsonl",), "train": ("train.jsonl",)}),
    "test.jsonl", 1319, "MIT", shots=8, judge=judge_gsm8k, metric="accuracy",
    sampling=Sampling(max_tokens=512, stop=("\nQuestion:",)),
    note="examples are the first of train, not those of Wei et al. 2022")


def _voted(task: Task, k: int) -> Task:
    """The same task by majority of k samples."""
    assert task.sampling
    return replace(
        task, name=f"{task.name}_maj", folder=task.name,
        title=f"{task.title} maj1@k",
        metric="maj1", sampling=replace(
            task.sampling, temperature=0.6, top_p=0.95, samples=k))


TASKS = (_MATH, _voted(_MATH, 256), _GSM8K, _voted(_GSM8K, 100))
"""Table 7; the votes read the files of the plain task."""
