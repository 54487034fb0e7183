"""Scores beside the paper's, what was asked, and where two runs disagree.

Chapter: notebooks/14_evaluation.ipynb
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from minillama.evals.evaluate import Options, Report, ask, metric_of
from minillama.evals.paper import nearest_size, printed
from minillama.evals.protocol import Item, Scorer, Task

Asked = Sequence[tuple[Task, Sequence[Item]]]
"""Tasks, each with its items."""


def lay_out(rows: Sequence[Sequence[str]]) -> str:
    """Columns under each other, the first to the left.

    Chapter: notebooks/14_evaluation.ipynb
    """
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(
        cell.ljust(width) if n == 0 else cell.rjust(width)
        for n, (cell, width) in enumerate(zip(row, widths))).rstrip()
        for row in rows)


def protocol_of(task: Task, options: Options) -> dict[str, Any]:
    """Everything that decides a score, for the first line of its answers.

    Chapter: notebooks/14_evaluation.ipynb
    """
    return {**asdict(options), "task": task.name, "metric": metric_of(task),
            **{name: getattr(task, name) for name in (
                "split", "shots", "baseline", "runs_code", "note")},
            "sampling": task.sampling and asdict(task.sampling)}


def describe(asked: Asked, tokenizer: Any) -> str:
    """Items, mean tokens of a prompt, and how often each label is right.

    Chapter: notebooks/14_evaluation.ipynb
    """
    rows = [["task", "items", "shots", "tokens", "right answers by position"]]
    for task, items in asked:
        prompts = [(i.prompts or (i.prompt,))[0] for i in items]
        tokens = fmean(len(tokenizer.encode(p, bos=True)) for p in prompts)
        gold = Counter(i.gold for i in items if i.gold is not None)
        rows.append([
            task.name, str(len(items)), str(task.shots), f"{tokens:.0f}",
            " ".join(f"{gold[n] / len(items):.0%}"
                     for n in range(max(gold, default=-1) + 1))])
    return lay_out(rows)


def estimate(scorer: Scorer, asked: Asked) -> str:
    """How many minutes it will take, from four items of each task.

    Chapter: notebooks/14_evaluation.ipynb
    """
    seconds = 0.0
    for task, items in asked:
        few = sorted(items, key=lambda i: len(i.prompt))
        few = few[::max(1, len(few) // 4)][:4]
        each = task.sampling.samples if task.sampling else 1
        probe = replace(task, sampling=task.sampling and replace(
            task.sampling, samples=1))
        ask(scorer, probe, few[:1])  # the first call is slower
        begun = time.perf_counter()
        ask(scorer, probe, few)
        seconds += (time.perf_counter() - begun) * (
            each * len(items) / len(few))
    return ("less than a minute" if seconds < 60
            else f"about {seconds / 60:.0f} minutes")


def table(reports: Sequence[Report], parameters: int) -> str:
    """The scores with their intervals, the paper's rows beside them.

    Chapter: notebooks/14_evaluation.ipynb
    """
    from minillama.evals.tasks import TASKS

    size = nearest_size(parameters)
    rows = [["task", "metric", "ours", "95 % interval", "items",
             f"LLaMA-{size}"]]
    notes = []
    for r in reports:
        paper = paper_rows(TASKS[r.task], r.shots)
        rows.append([
            r.task + ("*" if r.partial else ""), r.metric,
            f"{100 * r.score:.1f}", f"{100 * r.low:.1f}-{100 * r.high:.1f}",
            f"{r.items}/{r.of}", paper.pop(f"LLaMA-{size}", "-")])
        if paper:
            notes.append(f"{r.task} in the paper: " + ", ".join(
                f"{model} {value}" for model, value in paper.items()))
        if r.cut:
            notes.append(f"{r.task}: {r.cut} of {r.items} prompts were too "
                         "long and lost their beginning")
        task = TASKS[r.task]
        if task.note and r.metric == metric_of(task):  # not a stand-in's
            notes.append(f"{r.task}: {task.note}")
    if any(r.partial for r in reports):
        notes.insert(0, "* partial: not all items of the paper's split; "
                     "not comparable with its figures")
    return "\n".join([lay_out(rows), *notes])


def paper_rows(task: Task, shots: int) -> dict[str, str]:
    """Model and size to the figure that the paper prints for a task.

    Chapter: notebooks/14_evaluation.ipynb
    """
    rows = [row for row in printed() if task.title and row["table"] in {
        f"Table {n}" for n in (*range(3, 10), *range(11, 15))}
        and row["column"] in (task.title, f"{task.title} {shots}-shot")]
    return {f"{row['model']}-{row['size']}": row["value"] for row in rows}


def compare(one: Path, other: Path) -> str:
    """The items of which one run is right and the other wrong.

    Args:
        one: a folder that `eval --out` wrote.
        other: another.

    Raises:
        ValueError: if they have no task in common.

    Chapter: notebooks/14_evaluation.ipynb
    """
    lines = []
    shared = sorted({p.name for p in Path(one).glob("*.jsonl")}
                    & {p.name for p in Path(other).glob("*.jsonl")})
    if not shared:
        raise ValueError(f"{one} and {other} have no task in common; give "
                         "two folders that `minillama eval --out` wrote")
    for name in shared:
        (about, a), (its, b) = (_answers(Path(f) / name) for f in (one, other))
        if (metric := about["metric"]) != its["metric"]:
            raise ValueError(f"{name}: {metric} here, {its['metric']} there")
        both = sorted(a.keys() & b.keys())
        differ = [i for i in both if a[i]["figures"].get(metric)
                  != b[i]["figures"].get(metric)]
        lines.append(f"{about['task']}: {len(differ)} of {len(both)} items "
                     f"differ in {metric}")
        lines += [f"  {i}: {a[i]['figures'].get(metric):g} and "
                  f"{b[i]['figures'].get(metric):g}" for i in differ]
    return "\n".join(lines)


def _answers(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The first line of a file of answers, and the others by id."""
    try:
        about, *records = map(
            json.loads, path.read_text(encoding="utf-8").splitlines())
        return about, {record["id"]: record for record in records}
    except (LookupError, TypeError, ValueError) as e:
        raise ValueError(f"{path} is no whole file of answers: {e}") from e
