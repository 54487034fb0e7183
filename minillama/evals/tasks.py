"""Every benchmark by its name on the command line.

Chapter: notebooks/14_evaluation.ipynb
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from minillama.evals import (
    bias, closed_book, code, commonsense, math, mmlu, plays, reading, toxicity,
    truthful)
from minillama.evals.protocol import Task
from minillama.samples import FOLDER

SAMPLES = FOLDER / "evals"
"""A few items of each benchmark, written for this project."""

GROUPS: dict[str, tuple[Task, ...]] = {
    "commonsense": commonsense.TASKS,
    "closed_book": closed_book.TASKS,
    "race": reading.TASKS,
    "mathematics": math.TASKS,
    "code": code.TASKS,
    "mmlu": mmlu.TASKS,
    "toxicity": toxicity.TASKS,
    "bias": bias.TASKS,
    "truth": truthful.TASKS,
    "plays": plays.TASKS,
}
"""A family of the paper to its benchmarks; `all` is every one of them."""

TASKS: dict[str, Task] = {
    task.name: task for family in GROUPS.values() for task in family}
"""A name to its benchmark."""


def choose_tasks(names: Sequence[str]) -> list[Task]:
    """The tasks that these names, groups or `all` stand for, each once.

    Raises:
        ValueError: for an unknown name, with the nearest ones.

    Chapter: notebooks/14_evaluation.ipynb
    """
    chosen: dict[str, Task] = {}
    for name in names:
        if name not in TASKS and name not in GROUPS and name != "all":
            known = [*TASKS, *GROUPS, "all"]
            near = difflib.get_close_matches(name, known, 3, 0.3) or known
            raise ValueError(
                f"task {name!r} is unknown; did you mean "
                f"{' or '.join(near)}?")
        family = (TASKS.values() if name == "all"
                  else GROUPS.get(name) or (TASKS[name],))
        chosen |= {task.name: task for task in family}
    return list(chosen.values())
