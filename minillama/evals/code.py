"""Table 8: HumanEval and MBPP, judged by running what the model wrote.

Chapter: notebooks/14_evaluation.ipynb
"""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

from minillama.evals import sandbox
from minillama.evals.measures import pass_at_k
from minillama.evals.originals import Row, find, json_lines, made
from minillama.evals.protocol import Answer, Item, Sampling, Task, Wording

KS = (1, 10, 80, 100)
"""pass@k is given for those k that there are samples for."""


def judge(item: Item, answer: Answer) -> dict[str, float]:
    """pass@k by running every program against the item's tests.

    Chapter: notebooks/14_evaluation.ipynb
    """
    extra = item.extra
    programs = [extra["before"] + text.text + "\n" + extra["tests"]
                for text in answer.texts]
    # Greedy samples are often equal: each program is run once.
    passed = {p: sandbox.run(p).passed for p in dict.fromkeys(programs)}
    right = sum(passed[p] for p in programs)
    return {f"pass@{k}": pass_at_k(len(programs), right, k)
            for k in KS if k <= len(programs)}


def load_humaneval(place: Path, split: str, wording: Wording) -> list[Item]:
    """164 functions to complete, from their head and docstring."""
    path = find(place, "HumanEval.jsonl.gz", "HumanEval.jsonl")
    data = path.read_bytes()
    text = gzip.decompress(data) if path.suffix == ".gz" else data
    rows = [json.loads(line) for line in text.decode("utf-8-sig").split("\n")
            if line.strip()]
    return [made(f"{path}:{n}", lambda row=row: Item(
                row["task_id"], row["prompt"],
                answers=(row["canonical_solution"],), delimiter="",
                extra={"before": row["prompt"], "tests":
                       f"{row['test']}\ncheck({row['entry_point']})"}))
            for n, row in enumerate(rows, 1)]


def load_mbpp(place: Path, split: str, wording: Wording) -> list[Item]:
    """Tasks 11 to 510 are the test; 2, 3 and 4 are the examples.

    Source: Austin et al. 2021, whose prompt this is.
    """
    wanted = {"test": range(11, 511), "prompt": (2, 3, 4)}[split]
    rows = json_lines(find(place, "mbpp.jsonl"))
    return [made(where, lambda row=row: _mbpp(row))
            for where, row in rows if row.get("task_id") in wanted]


def _mbpp(row: Row) -> Item:
    tests = "\n".join(row["test_list"])
    prompt = ("You are an expert Python programmer, and here is your task: "
              f"{row['text']} Your code should pass these tests:\n\n{tests}\n"
              "[BEGIN]\n")
    return Item(str(row["task_id"]), prompt, answers=(row["code"],),
                target=f"{row['code']}\n[DONE]", delimiter="",
                extra={"before": row.get("test_setup_code", "") + "\n",
                       "tests": tests})


_HUMANEVAL = Task(
    "humaneval", "HumanEval@1", load_humaneval, "HumanEval.jsonl.gz", 164,
    "MIT", judge=judge, metric="pass@1", runs_code=True,
    sampling=Sampling(
        512, ("\ndef ", "\nclass ", "\nif ", "\nprint", "\n#"), 0.1, 0.95))
_MBPP = Task(
    "mbpp", "MBPP@1", load_mbpp, "mbpp.jsonl", 500, "CC BY 4.0", shots=3,
    shots_split="prompt", separator="\n\n", judge=judge, metric="pass@1",
    runs_code=True, sampling=Sampling(512, ("[DONE]",), 0.1, 0.95))


def _many(task: Task, k: int) -> Task:
    """pass@k from 200 samples at temperature 0.8."""
    assert task.sampling
    return replace(
        task, name=f"{task.name}_{k}", folder=task.name,
        title=f"{task.title[:-2]}@{k}",
        metric=f"pass@{k}",
        sampling=replace(task.sampling, temperature=0.8, samples=200),
        note="the paper does not say how many samples; 200 as in Chen et al.")


TASKS = (_HUMANEVAL, _many(_HUMANEVAL, 100), _MBPP, _many(_MBPP, 80))
"""Table 8; top-p 0.95 is from the Llama 2 paper, this one names none."""
