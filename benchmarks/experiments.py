"""The paper's choices at toy scale, five seeds an arm.

    python -m benchmarks.experiments

trains every arm of `minillama.ablations.ARMS` on the plays and writes
`minillama/samples/experiments.json`, which the training chapter draws. Every
finished run is in the file at once: after an interruption the same command
goes on with what is missing. About a quarter of an hour on one core.
"""

from __future__ import annotations

import hashlib
import json
import platform
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.seeds import parser, save_by_line
from minillama import ablations
from minillama.data.corpus import prepare

OUT = (Path(__file__).resolve().parent.parent
       / "minillama" / "samples" / "experiments.json")
SEEDS = 5


def settings(arm: str, data: Path, changes: dict[str, Any]) -> dict[str, Any]:
    """What decides the outcome of an arm, apart from the seed."""
    config = replace(ablations.settings(arm, 1, data), **changes).to_dict()
    names = ("model", "steps", "batch_size", "max_lr", "warmup_steps",
             "weight_decay", "beta1", "beta2", "grad_clip", "dtype")
    shards = hashlib.sha256()
    for path in sorted((data / "shards").iterdir()):
        shards.update(path.read_bytes())
    return {"kind": ablations.ARMS[arm].kind,
            "init": ablations.ARMS[arm].init,
            "text": shards.hexdigest()[:12],
            **{name: config[name] for name in names}}


def load(out: Path) -> dict[str, Any]:
    """What earlier calls have finished."""
    if out.is_file():
        return json.loads(out.read_text(encoding="utf-8"))
    return {"settings": {}, "runs": []}


def summarise(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and spread of every arm, and the paired comparisons.

    A run that broke down has no held-out figure; its arm then has neither a
    mean nor a comparison, only the count of runs that finished.
    """
    by_arm: dict[str, dict[int, dict[str, Any]]] = {}
    for run in runs:
        by_arm.setdefault(run["arm"], {})[run["seed"]] = run
    bits = {arm: [of[seed]["bits_per_byte"] for seed in sorted(of)]
            for arm, of in by_arm.items()}
    arms = {}
    for arm, values in bits.items():
        whole = None not in values and len(values) > 1
        arms[arm] = {
            "finished": sum(value is not None for value in values),
            "mean": round(statistics.mean(values), 4) if whole else None,
            "sd": round(statistics.stdev(values), 4) if whole else None}
    pairs = {}
    for name, (a, b) in ablations.PAIRS.items():
        if all(arm in arms and arms[arm]["mean"] for arm in (a, b)) and (
                sorted(by_arm[a]) == sorted(by_arm[b])):
            pairs[name] = {k: round(v, 4) for k, v in ablations.compare(
                bits[a], bits[b]).items()}
    return {"arms": arms, "pairs": pairs}


def table(summary: dict[str, Any]) -> str:
    """Bits per byte of the arms and their differences, as text."""
    lines = [f"{'arm':<44}{'bits per byte':>14}{'sd':>8}"]
    for arm, row in summary["arms"].items():
        mean = "-" if row["mean"] is None else f"{row['mean']:.3f}"
        spread = "-" if row["sd"] is None else f"{row['sd']:.3f}"
        lines.append(f"{arm:<44}{mean:>14}{spread:>8}")
    lines += ["", f"{'instead':<44}{'difference':>14}  95 % interval"]
    for name, row in summary["pairs"].items():
        lines.append(f"{name:<44}{row['mean']:>+14.3f}"
                     f"  {row['low']:+.3f} to {row['high']:+.3f}")
    return "\n".join(lines)


def record(run: dict[str, Any]) -> dict[str, Any]:
    """A run as it is kept: the curve thinned, the figures rounded."""
    bits = run["bits_per_byte"]
    kept = {k: v for k, v in run.items() if k != "loss"}
    return {**kept, "seconds": round(run["seconds"], 1),
            "bits_per_byte": None if bits is None else round(bits, 4),
            "curve": ablations.thinned(run["loss"])}


def experiments(
    out: Path, data: Path, arms: list[str], seeds: int, **changes: Any
) -> dict[str, Any]:
    """Train what is missing in `out`, seed after seed; return it all."""
    results = load(out)
    now = {arm: settings(arm, data, changes) for arm in arms}
    # A run made under other settings is no result of this experiment.
    stale = {arm for arm in arms if results["settings"].get(arm) != now[arm]}
    results["runs"] = [r for r in results["runs"] if r["arm"] not in stale]
    results["settings"] |= now
    results["versions"] = {
        "python": platform.python_version(), "torch": torch.__version__,
        "machine": platform.machine(), "threads": torch.get_num_threads()}
    done = {(run["arm"], run["seed"]) for run in results["runs"]}
    todo = [(arm, seed) for seed in range(1, seeds + 1) for arm in arms]
    bar = tqdm(todo, unit="run", file=sys.stderr)
    for arm, seed in bar:
        if (arm, seed) in done:
            continue
        bar.set_postfix_str(f"{arm}, seed {seed}")
        run = ablations.run(arm, seed, data, **changes)
        results["runs"].append(record(run))
        results["summary"] = summarise(results["runs"])
        save_by_line(out, results, ["settings", "runs"])
    return results


def main() -> None:
    """Read the command line, run, print a table."""
    asked = parser(__doc__, OUT, SEEDS)
    asked.add_argument("--arms", nargs="+", default=list(ablations.ARMS),
                       choices=list(ablations.ARMS))
    asked.add_argument("--steps", type=int,
                       help="shorter runs, to try the script")
    args = asked.parse_args()
    torch.set_num_threads(1)
    data = prepare(None, ablations.SHAPE.vocab_size)
    changes = {} if args.steps is None else {
        "steps": args.steps, "warmup_steps": args.steps // 10}
    results = experiments(
        args.out, data, args.arms, args.seeds, **changes)
    print(table(results["summary"]))


if __name__ == "__main__":
    main()
