"""`minillama eval`: the paper's benchmarks on any checkpoint."""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from minillama.cli import open_model
from minillama.config import DTypeName


@dataclass(frozen=True)
class EvalCommand:
    """Ask a model the benchmarks of the paper, and print its rows beside."""

    checkpoint: Path | None = None
    """What `train --out` wrote, or an export; None: the shipped model."""
    tasks: str = "plays"
    """Names or groups with commas between, or `all`."""
    data: Path | None = None
    """DATA, with a task's files in DATA/task; None: the small samples."""
    hub: bool = False
    """Fetch what DATA lacks from the Hugging Face hub, and keep it there."""
    limit: int | None = None
    """Items of each task, drawn with the seed; None: all."""
    shots: int | None = None
    """Examples before each item; None: as many as the paper."""
    protocol: Literal["paper", "harness"] = "paper"
    """Whose prompts: the paper's, or lm-evaluation-harness's."""
    out: Path | None = None
    """Folder that keeps every prompt, score and decision; goes on there."""
    compare: tuple[Path, Path] | None = None
    """Two such folders: list the items they disagree on, and ask nothing."""
    allow_code_execution: bool = False
    """Let HumanEval and MBPP run the programs that the model writes."""
    judges: Path | None = None
    """Services that judge in place of the stand-ins; a JSON file."""
    json: bool = False
    """Print the reports as JSON."""
    seed: int = 1
    """Of the items drawn, the texts and the bootstrap."""
    dtype: DTypeName = "fp32"
    """Of the weights; `auto` is the fastest that the device computes in."""
    device: str = "auto"
    """`cuda`, `mps`, `cpu`, or `auto` for the first of these present."""
    batch_tokens: int | None = None
    """Tokens read at once; None: 2,048 on a CPU, 8,192 elsewhere."""


def command(argv: Sequence[str]) -> Any:
    """The verb."""
    return Annotated[EvalCommand, tyro.conf.subcommand("eval")]


def run(command: EvalCommand) -> int:
    """Load, estimate, ask, print."""
    from minillama.evals import report, sandbox
    from minillama.evals.evaluate import Options, evaluate, summarise

    if command.compare:
        print(report.compare(*command.compare))
        return 0
    if command.batch_tokens is not None and command.batch_tokens < 1:
        raise ValueError("--batch-tokens must be at least 1")
    options = Options(command.protocol, command.shots, command.limit,
                      command.seed)
    names = [name.strip() for name in command.tasks.split(",")]
    asked, missing = _items(command, options, names)
    if not asked:
        raise ValueError("; ".join(missing[:3]))
    scorer, about = _open(command)
    say = (lambda line: None) if command.json else print
    if any(task.runs_code for task, _ in asked):
        print(f"walls around programs: {sandbox.offered()}", file=sys.stderr)
    say("\n".join([*missing, report.describe(asked, scorer.tokenizer),
                   report.estimate(scorer, asked)]))
    reports = []
    for task, items in asked:
        records = evaluate(
            scorer, task, items, about={
                **about, **report.protocol_of(task, options),
                "asked": zlib.crc32(repr(items).encode())},
            out=command.out and command.out / f"{task.name}.jsonl")
        reports.append(summarise(task, records, options.seed))
    print(json.dumps({**about, "not_asked": missing, "reports": [
        {**asdict(r), "partial": r.partial} for r in reports]})
          if command.json
          else report.table(reports, about["parameters"]))
    if command.protocol == "harness":
        say("asked in lm-evaluation-harness's words: not comparable with the "
            "paper's figures")
    return 0


def _items(
    command: EvalCommand, options: Any, names: Sequence[str]
) -> tuple[list[Any], list[str]]:
    """Tasks with their items, and why others are not asked.

    Raises:
        ValueError: if a task that was named cannot be asked.
    """
    from minillama.evals import hub
    from minillama.evals.evaluate import items_of
    from minillama.evals.tasks import SAMPLES, choose_tasks

    if command.hub and not command.data:
        raise ValueError("--hub needs --data, the folder that keeps the files")
    data = command.data or SAMPLES
    asked, missing, tasks = [], [], choose_tasks(names)
    if command.judges:
        from minillama.evals.judges import configure
        tasks = configure(command.judges, tasks)
    for task in tasks:
        try:
            if task.runs_code:
                _check_walls(command)
            if command.hub:
                hub.fetch(task, data, options.of(task).shots)
            asked.append((options.of(task), items_of(task, data, options)))
        except ValueError as error:
            if task.name in names:
                raise ValueError(f"{task.name}: {error}") from error
            missing.append(f"not asked: {task.name} ({error})")
    return asked, missing


def _check_walls(command: EvalCommand) -> None:
    """Refuse to run programs unasked, or without walls."""
    from minillama.evals import sandbox

    if not command.allow_code_execution:
        raise ValueError("runs programs that the model writes; say "
                         "--allow-code-execution")
    if sandbox.offered() is None:
        raise ValueError(
            "this machine has no walls to run programs behind (Landlock and "
            "seccomp, on Linux 5.13 or later)")


def _open(command: EvalCommand) -> tuple[Any, dict[str, Any]]:
    """The model behind its two questions, and what there is to record."""
    import platform
    from importlib.metadata import version

    import torch

    from minillama.devices import choose_device, choose_dtype
    from minillama.evals.scorers import LlamaScorer

    device = choose_device(command.device)
    dtype = choose_dtype(command.dtype, device)
    model, tokenizer = open_model(command.checkpoint)
    about = {
        "checkpoint": str(command.checkpoint or "mini"),
        "parameters": sum(p.numel() for p in model.parameters()),
        "weights": zlib.crc32(b"".join(  # training moves these too
            p.detach().flatten()[:99].float().cpu().numpy().tobytes()
            for p in model.parameters())),
        "dtype": str(dtype).removeprefix("torch."), "device": str(device),
        "minillama": version("minillama"), "torch": torch.__version__,
        "python": platform.python_version()}
    scorer = LlamaScorer(model.to(device, dtype), tokenizer,
                         command.batch_tokens)
    return scorer, {**about, "batch_tokens": scorer.batch_tokens}
