"""How fast is the data? MB/s a core, two workers against one, memory.

Each source reads the raw files that are given (real samples); megabytes are
raw bytes. Deduplication is timed on the plays, against datatrove's MinHash
with the same numbers in a signature: both sides in one process, in turns.
datatrove's word tokenizer is replaced by `str.split`, which is faster than
its own, so the comparison is in its favour; it hashes with SHA-1, since its
other hash fails with xxhash 4.

    python -m benchmarks.data --source wikipedia=DIR --source books=DIR
    python -m benchmarks.data --build 20 120   # MB, on a quiet machine

A build of the plays, repeated with changes, is timed with one worker and with
two. Memory is that of the largest process with one worker, which does all the
work itself; each of several workers runs the same code.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import harness
from minillama.ablations import SHAPE
from minillama.data import corpus, dedup, fetch
from minillama.data.document import Ledger
from minillama.data.recipe import module

TURNS = 5


def text_of_plays() -> str:
    """Five megabytes."""
    return "\n".join(fetch.plays().values())


def theirs() -> Callable[[str], Any]:
    """datatrove's signature of one text, 128 numbers in 32 bands."""
    from datatrove.pipeline.dedup import minhash
    from datatrove.utils.hashing import HashConfig

    class Words:
        def word_tokenize(self, text: str) -> list[str]:
            return text.split()

    minhash.load_word_tokenizer = lambda language: Words()
    step = minhash.MinhashDedupSignature(
        tempfile.mkdtemp(), minhash.MinhashConfig(
            n_grams=dedup.WORDS, num_buckets=dedup.BANDS,
            hash_config=HashConfig(hash_fc="sha1"),
            hashes_per_bucket=dedup.HASHES // dedup.BANDS))
    return lambda text: step.get_signature(step.get_shingles(text))


def deduplication(turns: int) -> dict[str, Any]:
    """Seconds of each side a turn, on ten scenes."""
    scenes = fetch.scenes(fetch.plays()["Hamlet"])[:10]
    sides = {
        "shingles": lambda: [dedup.shingles(s) for s in scenes],
        "signature": lambda: [dedup.signature(dedup.shingles(s))
                              for s in scenes],
        "text_key": lambda: [dedup.text_key(s) for s in scenes]}
    try:
        rival = theirs()
        sides["datatrove"] = lambda: [rival(s) for s in scenes]
    except ImportError as error:
        print(f"datatrove's step is left out: {error}", file=sys.stderr)
    return {"megabytes": sum(len(s.encode()) for s in scenes) / 1e6,
            "times": harness.take_turns(sides, turns=turns)}


def reading(name: str, path: Path) -> dict[str, float]:
    """One pass over a source's raw files by one core."""
    ledger, units = Ledger(), module(name).inputs(path)
    size = sum(f.stat().st_size for unit in units for f in (
        [unit] if unit.is_file() else unit.rglob("*")) if f.is_file()) / 1e6
    start = time.process_time()
    text = sum(len(document.text.encode("utf-8", "replace"))
               for unit in units for document in module(name).read(
                   unit, ledger)) / 1e6
    return {"megabytes": size, "text_megabytes": text,
            "seconds": time.process_time() - start, "kept": ledger.kept}


def built(sources: list[str], workers: int) -> dict[str, float]:
    """Wall seconds and peak memory of the largest process of a build."""
    model = corpus.prepare(None, SHAPE.vocab_size) / "tokenizer.model"
    out = Path(tempfile.mkdtemp()) / "out"
    command = [sys.executable, "-m", "minillama", "data", "build", "--source",
               *sources, "--tokenizer", str(model), "--out", str(out),
               "--workers", str(workers)]
    watch = ("import resource, subprocess, sys\n"
             "subprocess.run(sys.argv[1:], check=True, stdout=2)\n"
             "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)")
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", watch, *command],
                          stdout=subprocess.PIPE, check=True)
    seconds = time.perf_counter() - start
    shutil.rmtree(out.parent)
    return {"seconds": seconds, "peak_megabytes": int(done.stdout) / 1024}


def builds(sizes: list[int]) -> dict[str, dict[str, float | None]]:
    """A row for each size: both builds of the same files."""
    rows = {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            many_plays(Path(folder), size, 4)
            one, two = (built([f"own={folder}"], n) for n in (1, 2))
        rows[f"{size} MB"] = {
            "one_worker": one["seconds"], "two_workers": two["seconds"],
            "speed_up": one["seconds"] / two["seconds"],
            "peak_megabytes": one["peak_megabytes"]}
    return rows


def many_plays(folder: Path, megabytes: int, files: int) -> None:
    """The plays again and again, each time with other words in between."""
    text = text_of_plays()
    for number in range(files):
        with (folder / f"{number}.txt").open("w", encoding="utf-8") as file:
            for turn in range(max(1, round(megabytes / files / 5))):
                file.write(text.replace("the ", f"the {number}x{turn} "))


def summarise(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Megabytes a second, of the median turn."""
    rows: dict[str, Any] = {}
    for run in runs:
        if "dedup" in run:
            times = run["dedup"]["times"]["cpu"]
            rows |= {name: {"mb_per_s": run["dedup"]["megabytes"] / sorted(
                of)[len(of) // 2]} for name, of in times.items()}
        for name, row in run.get("sources", {}).items():
            rows[f"source {name}"] = {
                "mb_per_s": row["megabytes"] / row["seconds"]}
    return {"rates": rows}


def main() -> None:
    """Read the command line, measure, store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", action="append", default=[],
                        metavar="NAME=PATH")
    parser.add_argument("--build", type=int, nargs="*", metavar="MB")
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--out", type=Path, default=harness.RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    run: dict[str, Any] = {"settings": {
        "turns": args.turns, "build": args.build}}
    if args.build:
        run["builds"] = builds(args.build)
    else:
        run["dedup"] = deduplication(args.turns)
        run["sources"] = {
            name: reading(name, Path(path)) for name, path in (
                word.split("=", 1) for word in args.source)}
    path, summary = harness.store(
        "build" if args.build else "data", run,
        (lambda runs: runs[-1]["builds"]) if args.build else summarise,
        torch.device("cpu"), args.out)
    print(json.dumps(summary, indent=1))
    print(path)


if __name__ == "__main__":
    main()
