"""Two measurements of the evaluations.

    python -m benchmarks.evals speed
    python -m benchmarks.evals evolution

`speed` scores multiple-choice questions of three forms with our scorer and
with lm-evaluation-harness's Hugging Face model of the same weights, in turns,
in one process on the CPU, and notes how far the log-likelihoods differ.
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
from minillama.model import Transformer
from minillama.samples import FOLDER, MINI, load_mini
from minillama.train import fit


def questions(count: int) -> dict[str, list[tuple[str, str]]]:
    """Pairs in the form of three benchmarks, from the home-made tasks.

    MMLU's form is as the paper asks it: letters for choices, and the same
    five solved questions before each one.
    """
    ends, lines = (items_of(TASKS[name], SAMPLES, Options(limit=count))
                   for name in ("plays_endings", "plays_lines"))
    letters = [replace(item, choices=tuple("ABCD"), prompt="\n".join([
        item.prompt.removesuffix("\nAnswer:"), *(
            f"{letter}. {line}" for letter, line in zip("ABCD", item.choices)),
        "Answer:"])) for item in lines[:count // 3 + 5]]
    asked = {
        "HellaSwag's form": ends, "ARC's form": lines,
        "MMLU's form, 5 examples": [
            item.after(letters[:5], "\n\n") for item in letters[5:]]}
    return {name: [pair for item in items for pair in item.pairs()]
            for name, items in asked.items()}


def speed(count: int = 120, turns: int = 5) -> dict[str, Any]:
    """Seconds of both for each form, in turns."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    small, tokenizer = load_mini()
    # With room for five examples; RoPE needs no other weights for it.
    model = Transformer(replace(small.config, max_seq_len=2048)).eval()
    model.load_state_dict(small.state_dict())
    ours = LlamaScorer(model, tokenizer)
    rivals = {f"batch {size}": HFLM(
        twin(model).eval(), device="cpu", batch_size=size,
        tokenizer=twin_tokenizer(MINI / "tokenizer.model"),
        add_bos_token=True, max_length=2048) for size in (16, 64)}
    forms, worst = {}, 0.0
    for name, pairs in questions(count).items():
        requests = [Instance("loglikelihood", {}, pair, n)
                    for n, pair in enumerate(pairs)]
        sides = {"ours": lambda p=pairs: ours.score(p)} | {
            rival: lambda lm=lm, r=requests: lm.loglikelihood(
                r, disable_tqdm=True) for rival, lm in rivals.items()}
        mine, theirs = sides["ours"](), sides["batch 16"]()
        worst = max(worst, *(abs(a.log_prob - b[0])
                             for a, b in zip(mine, theirs)))
        forms[name] = {"pairs": len(pairs), "times": harness.take_turns(
            sides, turns=turns, warm_up=1)}
    return {"settings": {"questions": count, "model": "mini",
                         "batch_tokens": ours.batch_tokens},
            "largest_difference_in_nats": worst, "forms": forms}


def summarise(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """A row for each form and rival: pairs per second, and the ratio."""
    rows = {}
    for form in runs[0]["forms"]:
        timed = [{"times": run["forms"][form]["times"],
                  "units_per_turn": run["forms"][form]["pairs"]}
                 for run in runs]
        for rival in timed[0]["times"]["wall"]:
            if rival != "ours":
                rows[f"{form}, its {rival}"] = {
                    "ours_per_s": harness.median_rate(timed, "ours"),
                    "theirs_per_s": harness.median_rate(timed, rival),
                    **{clock: harness.pooled(timed, clock, "ours", rival)
                       for clock in ("wall", "cpu")}}
    return rows


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
