"""Does cleaning help? The same model on one web site read in three ways.

`minillama.data.pages` makes the site out of the plays; each arm trains the
small model of the training chapter for the same number of tokens, five seeds
an arm, and is judged on the same clean play. The results go into the package,
where chapter 3 reads them. A run that was killed goes on with what is
missing.

    python -m benchmarks.cleaning
"""

from __future__ import annotations

import json
import platform
import statistics
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.seeds import parser
from minillama import ablations
from minillama.data import corpus, fetch, pages
from minillama.files import replace_bytes
from minillama.tokenizer import Tokenizer

OUT = (Path(__file__).resolve().parent.parent / "minillama" / "samples"
       / "cleaning.json")
SEEDS = 5


def folders(cache: Path | None = None) -> dict[str, Path]:
    """Token shards of each arm, made once; one tokenizer for all."""
    cache = cache or fetch.cache_dir()
    plays = fetch.plays(cache)
    clean = corpus.prepare(None, ablations.SHAPE.vocab_size, cache=cache)
    tokenizer = Tokenizer(clean / "tokenizer.model")
    return {arm: pages.prepare_arm(arm, plays, tokenizer, cache / "cleaning")
            for arm in pages.ARMS}


def summarise(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and spread of each arm; each step of cleaning against the last."""
    bits = {arm: [run["bits_per_byte"] for run in sorted(
        runs, key=lambda run: run["seed"]) if run["arm"] == arm]
        for arm in pages.ARMS}
    pairs = {}
    for before, after in zip(pages.ARMS, pages.ARMS[1:]):
        if len(bits[before]) == len(bits[after]) > 1:
            pairs[f"{after} for {before}"] = {
                name: round(value, 4) for name, value in ablations.compare(
                    bits[before], bits[after]).items()}
    return {"arms": {arm: {"mean": round(statistics.mean(of), 4),
                           "sd": round(statistics.stdev(of), 4)}
                     for arm, of in bits.items() if len(of) > 1},
            "pairs": pairs}


def experiments(out: Path, data: dict[str, Path], seeds: int,
                **changes: Any) -> dict[str, Any]:
    """Train what is missing in `out`, seed after seed; return it all."""
    runs = json.loads(out.read_bytes())["runs"] if out.is_file() else []
    done = {(run["arm"], run["seed"]) for run in runs}
    results: dict[str, Any] = {}
    for arm, seed in tqdm([(arm, seed) for seed in range(1, seeds + 1)
                           for arm in data], unit="run"):
        if (arm, seed) not in done:
            run = ablations.run("llama", seed, data[arm], **changes)
            runs.append({"arm": arm, "seed": seed,
                         "seconds": round(run["seconds"], 1),
                         "bits_per_byte": round(run["bits_per_byte"], 4),
                         "curve": ablations.thinned(run["loss"])})
        results = {"versions": {
            "python": platform.python_version(),
            "torch": torch.__version__, "machine": platform.machine()},
            "summary": summarise(runs), "runs": runs}
        replace_bytes(out, (json.dumps(results, indent=1) + "\n").encode())
    return results


def main() -> None:
    """Read the command line, run, print the summary."""
    args = parser(__doc__, OUT, SEEDS).parse_args()
    torch.set_num_threads(1)
    results = experiments(args.out, folders(), args.seeds)
    print(json.dumps(results["summary"], indent=1))


if __name__ == "__main__":
    main()
