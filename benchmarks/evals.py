"""Two measurements of the evaluations.

    python -m benchmarks.evals speed
    python -m benchmarks.evals evolution

`speed` scores the same multiple-choice questions with our scorer and with
lm-evaluation-harness's Hugging Face model of the same weights, in turns, in
one process on the CPU, and checks that both give the same log-likelihoods.
`evolution` trains a small LLaMA on the plays and asks it two benchmarks every
40 steps; chapter 14 draws what it writes.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import harness
from benchmarks.hugging_face import twin, twin_tokenizer
from minillama.evals.evaluate import Options, items_of
from minillama.evals.scorers import LlamaScorer
from minillama.evals.tasks import SAMPLES, TASKS
from minillama.evals.training import scores_of
from minillama.metrics import read_metrics
from minillama.samples import FOLDER, MINI, load_mini
from minillama.train import fit


def questions(count: int) -> list[tuple[str, str]]:
    """Pairs of the home-made tasks and of the samples of RACE and BoolQ."""
    pairs = []
    for name in ("plays_endings", "plays_lines", "hellaswag", "arc_easy",
                 "race_middle"):
        items = items_of(TASKS[name], SAMPLES, Options(limit=count))
        pairs += [pair for item in items for pair in item.pairs()]
    return pairs


def speed() -> dict[str, Any]:
    """Pairs per second of both, median over the turns."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model, tokenizer = load_mini()
    # Each side at the batch that suits it: a small one stays in the caches.
    ours = LlamaScorer(model, tokenizer, batch_tokens=1024)
    pairs = questions(30)
    requests = [Instance("loglikelihood", {}, pair, n)
                for n, pair in enumerate(pairs)]
    rivals = {}
    for size in (16, 64):
        rivals[f"harness, batch {size}"] = HFLM(
            twin(model).eval(), device="cpu", batch_size=size,
            tokenizer=twin_tokenizer(MINI / "tokenizer.model"),
            add_bos_token=True, max_length=256)
    mine = ours.score(pairs)
    theirs = rivals["harness, batch 16"].loglikelihood(
        requests, disable_tqdm=True)
    worst = max(abs(a.log_prob - b[0]) for a, b in zip(mine, theirs))
    sides = {"ours": lambda: ours.score(pairs)} | {
        name: lambda lm=lm: lm.loglikelihood(requests, disable_tqdm=True)
        for name, lm in rivals.items()}
    return {"settings": {"pairs": len(pairs), "model": "mini",
                         "batch_tokens": ours.batch_tokens},
            "units_per_turn": len(pairs),
            "largest_difference_in_nats": worst,
            "times": harness.take_turns(sides, turns=5, warm_up=1)}


def summarise(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """A row for each rival: pairs per second, and how much faster ours is."""
    return {rival: {
        "ours_per_s": harness.median_rate(runs, "ours"),
        "theirs_per_s": harness.median_rate(runs, rival),
        "wall": harness.pooled(runs, "wall", "ours", rival),
        "cpu": harness.pooled(runs, "cpu", "ours", rival)}
        for rival in runs[0]["times"]["wall"] if rival != "ours"}


def evolution() -> dict[str, Any]:
    """Loss and scores of a small model along its training."""
    config = harness.on_the_plays("mini", seed=1)
    config = replace(config, steps=480, batch_size=8, warmup_steps=40,
                     eval_every=40, eval_tokens=16384, checkpoint_every=10**6,
                     dtype="fp32", device="cpu", log_every=120)
    with tempfile.TemporaryDirectory() as folder:
        config = replace(config, out=Path(folder) / "run")
        fit(config, evaluate=scores_of("plays"))
        records = read_metrics(config.out / "metrics.jsonl")
    tokens = config.batch_size * config.model.max_seq_len
    return {"tokens_per_step": tokens, "points": [
        {name: round(value, 4) for name, value in record.items()
         if name == "step" or name == "val_loss" or "/" in name}
        for record in records if "val_loss" in record]}


def main(what: str) -> int:
    """Measure and write the file."""
    torch.set_num_threads(1)
    if what == "evolution":
        path = FOLDER / "evolution.json"
        path.write_text(json.dumps(evolution(), indent=1) + "\n", "utf-8")
        print(path)
        return 0
    path, rows = harness.store(
        "evals", speed(), summarise, torch.device("cpu"))
    print(harness.table(rows), path, sep="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
