"""Ask a model the items of a task, keep every answer, work out the score.

Chapter: notebooks/14_evaluation.ipynb
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from minillama.evals.measures import choose, interval, pick
from minillama.evals.protocol import Answer, Item, Scorer, Task, Wording
from minillama.files import replace_bytes

CHUNK = 256
"""Texts or questions between two writes of the answers."""


@dataclass(frozen=True)
class Options:
    """What may differ from the task's own protocol."""

    wording: Wording = "paper"
    """Whose prompts."""
    shots: int | None = None
    """Examples before each item; None: as many as the task says."""
    limit: int | None = None
    """Items, drawn with the seed; None: all."""
    seed: int = 1
    """Of the items drawn, the texts and the bootstrap."""

    def of(self, task: Task) -> Task:
        """The task with these shots and this seed in its protocol."""
        sampling = task.sampling and replace(task.sampling, seed=self.seed)
        shots = task.shots if self.shots is None else self.shots
        return replace(task, shots=shots, sampling=sampling)


@dataclass(frozen=True)
class Report:
    """What a task came to."""

    task: str
    """Its name."""
    metric: str
    """The figure that is the score."""
    score: float
    """Its mean over the items."""
    low: float
    """Lower end of the 95 % interval."""
    high: float
    """Upper end."""
    items: int
    """Items scored."""
    of: int
    """Items in the paper's split; fewer scored is a partial result."""
    shots: int
    """Examples before each item."""
    figures: dict[str, float] = field(default_factory=dict)
    """Every figure of the judge, and per group (`metric/group`)."""
    cut: int = 0
    """Items whose prompt did not fit and lost its beginning."""

    @property
    def partial(self) -> bool:
        """Whether this is not the score of the paper's whole split."""
        return self.items != self.of


def metric_of(task: Task) -> str:
    """The name of the score among the judge's figures."""
    return task.metric if task.judge else (
        f"{task.metric}_{task.normalisation}")


def items_of(task: Task, folder: Path, options: Options) -> list[Item]:
    """The items of a task as they will be asked, examples included.

    Examples are the first of their split, of the same group where the task
    has groups, as MMLU's authors do.

    Args:
        task: the benchmark.
        folder: DATA; the task's files lie in DATA/task/.
        options: limit, shots, wording.

    Raises:
        ValueError: if a file is missing or malformed, or has too few
            examples.

    Chapter: notebooks/14_evaluation.ipynb
    """
    place = Path(folder) / (task.folder or task.name)

    def load(split: str) -> list[Item]:
        try:
            return task.load(place, split, options.wording)
        except Exception as error:  # each format breaks in ways of its own
            raise ValueError(
                str(error) if type(error) is ValueError else f"{task.file} "
                f"in {place} cannot be read: {error!r}") from error

    if not (items := load(task.split)):
        raise ValueError(f"{task.file} in {place} is empty")
    if options.limit is not None and options.limit < len(items):
        if options.limit < 1:
            raise ValueError(f"limit={options.limit} must be at least 1")
        kept = random.Random(options.seed).sample(
            range(len(items)), options.limit)
        items = [items[n] for n in sorted(kept)]
    if (shots := options.of(task).shots) < 0:
        raise ValueError(f"shots={shots} must not be negative")
    pool: dict[str, list[Item]] = {}
    examples = load(task.shots_split) if shots else []
    if items[0] in examples:
        raise ValueError("no split to take examples from but the one that "
                         "is scored; use --shots 0")
    for example in examples:
        pool.setdefault(example.group, []).append(example)
    asked = []
    for item in items:
        shown = pool.get(item.group, [])[:shots]
        if len(shown) < shots:
            raise ValueError(
                f"{len(shown)} examples in the split "
                f"{task.shots_split!r} for {item.id}, but shots={shots}; "
                "lower --shots")
        asked.append(item.after(shown, task.separator))
    return asked


def ask(scorer: Scorer, task: Task, items: Sequence[Item]) -> list[Answer]:
    """Put items to a model, all in one call.

    Chapter: notebooks/14_evaluation.ipynb
    """
    if task.sampling is not None:
        texts = scorer.generate([i.prompt for i in items], task.sampling)
        return [Answer(texts=tuple(t)) for t in texts]
    pairs = [pair for item in items for pair in item.pairs()]
    scores = iter(scorer.score(pairs))
    bare: Iterator[Any] = iter(())
    if task.normalisation == "unconditional":
        bare = iter(scorer.score([(task.baseline, p[1]) for p in pairs]))
    answers = []
    for item in items:
        mine = tuple(next(scores) for _ in item.choices)
        base = tuple(s for _, s in zip(item.choices, bare))
        answers.append(Answer(scores=mine, baseline=base))
    return answers


def record_of(task: Task, item: Item, answer: Answer) -> dict[str, Any]:
    """One line of the answers: question, answer, decision, figures."""
    judge = task.judge or choose
    record = {"id": item.id, "group": item.group,
              "figures": judge(item, answer)}
    if item.choices:
        record |= {
            "picked": pick(item, answer, task.normalisation),
            "gold": item.gold, "pairs": item.pairs()}
    else:
        record |= {"prompt": item.prompt, "answers": item.answers}
    return record | {k: v for k, v in asdict(answer).items() if v}


def evaluate(
    scorer: Scorer,
    task: Task,
    items: Sequence[Item],
    *,
    out: Path | None = None,
    about: dict[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Ask all items and keep what was asked, said and decided.

    Items of similar length are asked together, so the order of the answers
    is not the file's. The chunks are the same on every call, so that a run
    which was killed goes on to the same answers.

    Args:
        scorer: the model.
        task: the benchmark.
        items: from `items_of`.
        out: a file of JSON lines to go on from, or to write; None: keep
            nothing.
        about: settings and versions, its first line; a file with another
            first line is refused.

    Returns:
        One record an item (`record_of`).

    Raises:
        ValueError: if `out` was written with other settings.

    Chapter: notebooks/14_evaluation.ipynb
    """
    order = sorted(items, key=lambda i: (  # what has a beginning in common
        i.group, i.prompt[:64], len(i.prompt), i.id))
    each = task.sampling.samples if task.sampling else 1
    width = max(1, CHUNK // each)
    records = _begun(out, about or {}) if out else []
    records = records[:len(records) // width * width]
    if out:  # without half a line or half a chunk
        replace_bytes(out, _lines([about or {}, *records]))
    for start in range(len(records), len(order), width):
        chunk = order[start:start + width]
        new = [record_of(task, *pair)
               for pair in zip(chunk, ask(scorer, task, chunk))]
        records += new
        if out:
            with open(out, "ab") as file:
                file.write(_lines(new))
    return records


def _begun(out: Path, about: dict[str, Any]) -> list[dict[str, Any]]:
    """The whole lines of an earlier run with the same settings."""
    if not out.exists():
        return []
    lines = out.read_text(encoding="utf-8").split("\n")[:-1]
    if not lines:
        return []
    new, old, *records = map(json.loads, [json.dumps(about), *lines])
    if old != new:
        differ = ", ".join(f"{name} was {old.get(name)}" for name in new | old
                           if old.get(name) != new.get(name))
        raise ValueError(
            f"{out} was written with other settings ({differ}); choose "
            "another --out, or delete it")
    return records


def _lines(records: Sequence[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(r) + "\n" for r in records).encode()


def summarise(
    task: Task, records: Sequence[dict[str, Any]], seed: int = 1
) -> Report:
    """Means over all items, an interval for the score, and each group.

    A mean over all items is a micro-average: a group counts by its size.

    Chapter: notebooks/14_evaluation.ipynb
    """
    metric = metric_of(task)
    values = [r["figures"][metric] for r in records]
    figures = {name: fmean(r["figures"][name] for r in records)
               for name in records[0]["figures"]}
    groups: dict[str, list[float]] = {}
    for record, value in zip(records, values):
        parts = record["group"].split("/")
        for n in range(1, len(parts) + 1):
            groups.setdefault("/".join(parts[:n]), []).append(value)
    for group in sorted(groups.keys() - {""}):
        figures[f"{metric}/{group}"] = fmean(groups[group])
    said = [r.get("scores") or r.get("texts") for r in records]
    return Report(
        task.name, metric, fmean(values), *interval(values, seed),
        len(values), task.count, task.shots, figures,
        sum(any(s["cut"] for s in some) for some in said))
