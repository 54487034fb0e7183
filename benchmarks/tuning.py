"""Instruction tuning of the shipped model, five seeds, before and after.

    python -m benchmarks.tuning

Each seed draws its own instructions, tunes the mini model on seven kinds and
examines base and tuned model on the same new instructions of these kinds and
of six others, on questions in MMLU's format, and on the held-out play. Every
finished seed is in `minillama/samples/tuning.json` at once: after an
interruption the same command goes on with what is missing. Some three minutes
a seed on one core.
"""

from __future__ import annotations

import hashlib
import json
import platform
import statistics
import string
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.seeds import parser, save_by_line
from minillama import ablations, instructions, samples
from minillama.config import TrainConfig
from minillama.data.corpus import prepare
from minillama.evals.evaluate import evaluate, summarise
from minillama.evals.scorers import LlamaScorer
from minillama.evals.tasks import TASKS
from minillama.finetune import finetune, prompt_of

OUT = (Path(__file__).resolve().parent.parent
       / "minillama" / "samples" / "tuning.json")
SEEDS = 5
SETTINGS: dict[str, Any] = {"steps": 300, "batch_size": 4, "max_lr": 2e-3,
                            "examples": 4000, "asked": 210}
"""`asked` instructions of trained kinds, as many of new ones, and as many
questions in MMLU's format, half of each."""
LETTERS = list(string.ascii_lowercase)
MEASURES = ("trained", "kept", "mmlu", "bits_per_byte")


def drawn(seed: int, settings: dict[str, Any]) -> dict[str, list[Any]]:
    """What one seed learns from, and the two halves of its examination."""
    return {
        "learnt": instructions.make(
            instructions.TRAINED, settings["examples"], LETTERS, seed),
        "trained": instructions.make(
            instructions.TRAINED, settings["asked"], LETTERS, 1000 + seed),
        "kept": instructions.make(
            instructions.KEPT, settings["asked"], LETTERS, 2000 + seed)}


def described(settings: dict[str, Any]) -> dict[str, Any]:
    """All that decides the outcome, apart from the seed."""
    made = hashlib.sha256(repr(drawn(1, settings)).encode())
    weights = hashlib.sha256(
        (samples.MINI / "model.safetensors").read_bytes())
    return {**settings, "instructions": made.hexdigest()[:12],
            "model": weights.hexdigest()[:12]}


def examination(
    model: Any, tokenizer: Any, data: Path, made: dict[str, list[Any]],
    seed: int
) -> dict[str, Any]:
    """Everything that is measured of one model."""
    scorer, task = LlamaScorer(model.eval(), tokenizer), TASKS["mmlu"]
    groups = ("trained", "kept")
    items = [item for group in groups for item in instructions.as_mmlu(
        made[group], seed)[:len(made[group]) // 2]]
    report = summarise(task, evaluate(scorer, task, items))
    return {**{group: instructions.examine(scorer, made[group])
               for group in groups},
            "mmlu": [round(report.score * report.items), report.items],
            "bits_per_byte": round(ablations.held_out_bits(model, data), 4)}


def run(seed: int, data: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """One seed: the base model, tuning, the tuned model."""
    begin = time.process_time()
    made = drawn(seed, settings)
    model, tokenizer = samples.load_mini()
    base = examination(model, tokenizer, data, made, seed)
    examples = [example for _, example in made["learnt"]]
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            model=model.config, out=Path(folder) / "run",
            steps=settings["steps"], batch_size=settings["batch_size"],
            max_lr=settings["max_lr"], warmup_steps=settings["steps"] // 10,
            eval_every=0, checkpoint_every=settings["steps"], seed=seed,
            device="cpu", dtype="fp32", sample_prompt=prompt_of(examples[0]))
        result = finetune(model, tokenizer, examples, config, log=None)
    tuned = examination(model, tokenizer, data, made, seed)
    return {"seed": seed, "base": base, "tuned": tuned,
            "loss": ablations.thinned([m["loss"] for m in result.metrics]),
            "seconds": round(time.process_time() - begin, 1)}


def figure(measured: dict[str, Any], name: str) -> float:
    """One measure of one model as a number: a share, or bits per byte."""
    value = measured[name]
    if isinstance(value, dict):  # kind by kind
        return (sum(right for right, _ in value.values())
                / sum(asked for _, asked in value.values()))
    return value[0] / value[1] if isinstance(value, list) else value


def summary_of(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and spread over the seeds, and tuned minus base, seed by seed."""
    columns = {model: {name: [figure(r[model], name) for r in runs]
                       for name in MEASURES} for model in ("base", "tuned")}
    found: dict[str, Any] = {"models": {}, "pairs": {}}
    for model, values in columns.items():
        found["models"][model] = {
            name: round(statistics.mean(v), 4) for name, v in values.items()}
        if len(runs) > 1:
            found["models"][model] |= {
                f"{name}_sd": round(statistics.stdev(v), 4)
                for name, v in values.items()}
    if len(runs) > 1:
        found["pairs"] = {
            name: {k: round(v, 4) for k, v in ablations.compare(
                columns["base"][name], columns["tuned"][name]).items()}
            for name in MEASURES}
    return found


def tuning(
    out: Path, data: Path, seeds: int, settings: dict[str, Any]
) -> dict[str, Any]:
    """Run the seeds that are missing in `out`; return it all.

    Raises:
        ValueError: if `out` was made with other settings.
    """
    results: dict[str, Any] = {"settings": described(settings), "runs": []}
    if out.is_file():
        stored = json.loads(out.read_text(encoding="utf-8"))
        if stored["settings"] != results["settings"]:
            raise ValueError(f"{out} was made with other settings or "
                             "instructions; delete it or choose another --out")
        results = stored
    done = {r["seed"] for r in results["runs"]}
    todo = [seed for seed in range(1, seeds + 1) if seed not in done]
    for seed in tqdm(todo, unit="seed", file=sys.stderr, disable=None):
        results["runs"].append(run(seed, data, settings))
        results |= {
            "versions": {"python": platform.python_version(),
                         "torch": torch.__version__},
            "summary": summary_of(results["runs"])}
        save_by_line(out, results, ["runs"])
    return results


def main() -> None:
    """Run what is missing and print the means."""
    args = parser(__doc__, OUT, SEEDS).parse_args()
    torch.set_num_threads(1)  # another number adds up in another order
    data = prepare(None, 512, tokenizer=samples.load_mini()[1])
    results = tuning(args.out, data, args.seeds, SETTINGS)
    print(json.dumps(results["summary"], indent=1))


if __name__ == "__main__":
    main()
