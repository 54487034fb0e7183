"""Benchmarks along a training run (paper, Figure 2).

Chapter: notebooks/14_evaluation.ipynb
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from minillama.evals.evaluate import Options, evaluate, items_of, summarise
from minillama.evals.scorers import LlamaScorer
from minillama.evals.tasks import SAMPLES, choose_tasks


def scores_of(
    names: str, data: Path | None = None, limit: int | None = None
) -> Callable[[Any, Any], dict[str, float]]:
    """What `train.fit` calls at each evaluation, with model and tokenizer.

    Args:
        names: tasks or groups with commas between.
        data: DATA; None: the small samples.
        limit: items of each task, always the same; None: all.

    Returns:
        A function to the score of each task, `eval/NAME`.

    Raises:
        ValueError: before the training, if a task or its files are missing.

    Chapter: notebooks/14_evaluation.ipynb
    """
    options = Options(limit=limit)
    asked = [(task, items_of(task, data or SAMPLES, options))
             for task in choose_tasks(names.split(","))]

    def look(model: Any, tokenizer: Any) -> dict[str, float]:
        was_training = model.training
        scorer = LlamaScorer(model.eval(), tokenizer)
        found = {f"eval/{task.name}": summarise(
            task, evaluate(scorer, task, items)).score
            for task, items in asked}
        model.train(was_training)
        return found
    return look
