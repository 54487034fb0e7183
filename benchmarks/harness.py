"""Timing of rivals that take turns, on a machine that may be busy.

All sides run in one process and take turns, one unit of work each, so that
whatever else the machine does slows all of them alike. A ratio is formed
within each turn and the median taken over the turns: a noisy second spoils
one ratio, not the result. Two clocks run: the wall clock, and the seconds
that the processor spent on this process, which a neighbour's work hardly
touches.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import torch

from minillama.config import TrainConfig

RESULTS = Path(__file__).resolve().parent / "results"

CLOCKS: dict[str, Callable[[], float]] = {
    "wall": time.perf_counter, "cpu": time.process_time}

Times = dict[str, dict[str, list[float]]]
"""Seconds by clock and side, one figure a turn."""


def on_the_plays(preset: str, **overrides: Any) -> TrainConfig:
    """A preset's run on the prepared plays, with single fields overridden."""
    # It needs packages that the benchmarks of one GPU do without.
    from minillama.data.corpus import prepare

    config = TrainConfig.from_preset(preset, **overrides)
    return replace(config, data=prepare(None, config.model.vocab_size))


def take_turns(
    sides: dict[str, Callable[[], Any]],
    *,
    turns: int,
    warm_up: int = 2,
    clocks: dict[str, Callable[[], float]] = CLOCKS,
    wait: Callable[[], Any] | None = None,
) -> Times:
    """Run each side once a turn and note how long it took.

    The order is reversed at every other turn, so that no side is always the
    one that finds the caches warm.

    Args:
        sides: one unit of work each.
        turns: how often each is timed.
        warm_up: untimed runs of each side beforehand.
        clocks: functions that give seconds.
        wait: returns when the work is done; None: for the GPU, if any.
    """
    if wait is None:
        wait = torch.cuda.synchronize if torch.cuda.is_available() else int
    for run in sides.values():
        for _ in range(warm_up):
            run()
    wait()
    times: Times = {c: {name: [] for name in sides} for c in clocks}
    order = list(sides)
    for _ in range(turns):
        for name in order:
            before = {c: clock() for c, clock in clocks.items()}
            sides[name]()
            wait()
            for c, clock in clocks.items():
                times[c][name].append(round(clock() - before[c], 6))
        order.reverse()
    return times


def watched(*words: str) -> tuple[str, dict[str, float]]:
    """What a `minillama` command prints, and what it used.

    A small process starts it and asks the kernel afterwards: the peak that a
    process is said to have begins with that of the one that started it.

    Returns:
        Its standard output; seconds by both clocks, and `peak_bytes`, the
        resident set of its largest process.
    """
    done = subprocess.run(
        [sys.executable, "-c", _WATCH, sys.executable, "-m", "minillama",
         *words], stdout=subprocess.PIPE, encoding="utf-8", check=True)
    said, _, used = done.stdout.rstrip().rpartition("\n")
    return said, json.loads(used)


_WATCH = """
import json, resource, subprocess, sys, time
began = time.perf_counter()
subprocess.run(sys.argv[1:], check=True)
wall = time.perf_counter() - began
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({"wall": wall, "cpu": used.ru_utime + used.ru_stime,
                  "peak_bytes": used.ru_maxrss * 1024}))
"""


def speed_ups(
    times: dict[str, list[float]], side: str, rival: str
) -> list[float]:
    """How many times faster `side` was than `rival`, turn by turn."""
    return [b / a for a, b in zip(times[side], times[rival], strict=True)]


def pooled(
    runs: list[dict[str, Any]], clock: str, side: str, rival: str
) -> dict[str, float]:
    """Median and quartiles of the speed-ups in all turns of all runs."""
    ratios = [r for run in runs
              for r in speed_ups(run["times"][clock], side, rival)]
    low, median, high = (statistics.quantiles(ratios, n=4, method="inclusive")
                         if len(ratios) > 1 else ratios * 3)
    return {"median": median, "low": low, "high": high}


def median_rate(runs: list[dict[str, Any]], side: str) -> float:
    """Units of work per second by the wall clock, in the median turn."""
    return statistics.median(
        run["units_per_turn"] / seconds
        for run in runs for seconds in run["times"]["wall"][side])


def median_time(
    runs: list[dict[str, Any]], clock: str, side: str
) -> float:
    """Seconds of the median turn."""
    return statistics.median(
        seconds for run in runs for seconds in run["times"][clock][side])


def processor() -> str:
    """The name of the processor, without the machine's."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1] if found else platform.machine()


def machine(device: torch.device) -> dict[str, Any]:
    """What a reader needs to know to compare figures; no host names."""
    import transformers

    gpu = (torch.cuda.get_device_name(device)
           if device.type == "cuda" else None)
    return {"processor": processor(), "cores": os.cpu_count(),
            "threads": torch.get_num_threads(), "gpu": gpu,
            "python": platform.python_version(), "torch": torch.__version__,
            "transformers": transformers.__version__}


def store(
    name: str,
    run: dict[str, Any],
    summarise: Callable[[list[dict[str, Any]]], Any],
    device: torch.device,
    folder: Path = RESULTS,
) -> tuple[Path, Any]:
    """Add one run to the file of this benchmark and machine.

    Runs of several occasions stand side by side; `summary` is made anew from
    all of them that had the settings of this one.

    Args:
        name: of the benchmark.
        run: `settings`, and whatever was measured.
        summarise: from runs with equal settings to the rows of a table.
        device: where it was measured.
        folder: where the files lie.

    Returns:
        The file, and the new summary.
    """
    where = machine(device)
    words = re.findall("[a-z0-9]+", (where["gpu"] or where["processor"])
                       .lower())
    label = "-".join([*words, f"{where['threads']}threads"])
    path = folder / f"{name}-{label}.json"
    old = (json.loads(path.read_text(encoding="utf-8"))["runs"]
           if path.is_file() else [])
    command = Path(sys.argv[0]).stem, *sys.argv[1:]
    runs = [*old, {
        "date": date.today().isoformat(),
        "command": "python -m benchmarks." + " ".join(command),
        "machine": where, **run}]
    alike = [r for r in runs if r["settings"] == run["settings"]]
    summary = summarise(alike)
    folder.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(r) for r in runs)
    path.write_text(
        f'{{"summary": {json.dumps(summary, indent=1)},\n'
        f'"runs": [\n{lines}\n]}}\n', encoding="utf-8")
    return path, summary


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Rows of equal columns as text, numbers to three digits."""
    if not rows:
        return ""
    heads = ["", *next(iter(rows.values()))]
    lines = [heads, *([name, *map(_cell, row.values())]
                      for name, row in rows.items())]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    return "\n".join("  ".join(
        text.ljust(width) if i == 0 else text.rjust(width)
        for i, (text, width) in enumerate(zip(line, widths)))
        for line in lines)


def _cell(value: Any) -> str:
    """A number as people read it."""
    if value is None:
        return "-"
    if isinstance(value, dict):
        return "{median:.2f} ({low:.2f} to {high:.2f})".format(**value)
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
    return str(value)
