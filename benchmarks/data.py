"""How fast is the data? MB/s a core, two workers against one, memory.

Each source reads the raw files that are given (real samples); megabytes are
raw bytes. Steps that datatrove has too (MinHash, the rules of C4, its spans)
are timed on the plays: both sides in one process, in turns. datatrove's
tokenizers are replaced by `str.split` and by a split of sentences that both
sides share, faster than its own, so the comparison is in its favour; it hashes
with SHA-1, since its other hash fails with xxhash 4.

    python -m benchmarks.data --source wikipedia=DIR --source books=DIR
    python -m benchmarks.data --source books=DIR --reading 100
    python -m benchmarks.data --source books=DIR --build 100
    python -m benchmarks.data --source books=DIR --memory 1000

These three take megabytes, and make so much raw input out of the samples,
repeated with other words and other ids, in the format of the source. Reading
and cleaning is timed in one process and in two that do the same at the same
time, in turns; a build of eight files with one worker and with two, step by
step.
Memory is that of the largest process with one worker, which does all the work
itself, for a quarter of the size and for all of it, in one file where the
format is a stream; each of several workers runs the same code.
"""

from __future__ import annotations

import argparse
import functools
import io
import itertools
import json
import multiprocessing
import re
import shutil
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks import harness
from minillama.ablations import SHAPE
from minillama.data import archives, c4, corpus, dedup, fetch
from minillama.data.document import Document, Ledger
from minillama.data.recipe import module

TURNS = 5


def split(text: str) -> list[str]:
    """Sentences, for both sides alike."""
    return re.split(r"(?<=[.!?]) ", text)


def theirs() -> dict[str, Callable[[str], Any]]:
    """datatrove's steps on one text.

    MinHash has 128 numbers in 32 bands; the rules of C4 its numbers; spans
    have three sentences.
    """
    from datatrove.data import Document as Page
    from datatrove.pipeline.dedup import minhash, sentence_dedup
    from datatrove.pipeline.filters import c4_filters
    from datatrove.utils.hashing import HashConfig

    class Words:
        def word_tokenize(self, text: str) -> list[str]:
            return text.split()

        def sent_tokenize(self, text: str) -> list[str]:
            return split(text)

    for place in (minhash, sentence_dedup):
        place.load_word_tokenizer = lambda language: Words()
    c4_filters.split_into_sentences = lambda text, language: split(text)
    sha1 = HashConfig(hash_fc="sha1")
    step = minhash.MinhashDedupSignature(
        tempfile.mkdtemp(), minhash.MinhashConfig(
            n_grams=dedup.WORDS, num_buckets=dedup.BANDS, hash_config=sha1,
            hashes_per_bucket=dedup.HASHES // dedup.BANDS))
    rules = c4_filters.C4QualityFilter(
        min_num_sentences=c4.MIN_SENTENCES, min_words_per_line=c4.MIN_WORDS)
    spans = sentence_dedup.SentenceDedupSignature(
        tempfile.mkdtemp(), config=sentence_dedup.SentDedupConfig(
            hash_config=sha1, only_dedup_in_index=False))
    return {
        "signature": lambda text: step.get_signature(step.get_shingles(text)),
        "C4 rules": lambda text: rules.filter(Page(text, "")),
        "C4 spans": lambda text: spans.get_hashes(Page(text, ""), 0)}


def ours() -> dict[str, Callable[[str], Any]]:
    """Our steps on one text; those that datatrove has too by its names."""
    rules = c4.Rules(split)
    return {
        "shingles": dedup.shingles,
        "signature": lambda text: dedup.signature(dedup.shingles(text)),
        "text_key": dedup.text_key,
        "C4 rules": lambda text: c4.finish(
            Document("c4", "", text), rules, Ledger()),
        "C4 spans": lambda text: c4.span_hashes(text, split)}


def steps(turns: int) -> dict[str, Any]:
    """Seconds of each side a turn, on ten scenes."""
    scenes = fetch.scenes(fetch.plays()["Hamlet"])[:10]
    each = ours()
    try:
        each |= {f"{name}, datatrove": step for name, step in theirs().items()}
    except ImportError as error:
        print(f"datatrove's steps are left out: {error}", file=sys.stderr)
    sides = {name: functools.partial(lambda step: [*map(step, scenes)], step)
             for name, step in each.items()}
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


STREAMS = {"commoncrawl": "all.warc", "c4": "all.warc", "wikipedia": "all.xml",
           "stackexchange": "Posts.xml", "github": "all.jsonl"}
"""What is read as a stream becomes few files; a book or paper stays one."""


def edited(name: str, data: bytes, copy: int) -> bytes:
    """Raw bytes of the same length with another word for `the`, and ids that
    no other copy has. In books, where near copies are looked for and each
    pair of them is compared, nearly all words get other vowels too.
    """
    word = bytes(97 + copy // 26**place % 26 for place in range(3))
    data = data.replace(b" the ", b" %b " % word)
    if name == "books":
        turned = [*itertools.permutations(b"aeiou")][copy % 120]
        return data.translate(bytes.maketrans(b"aeiou", bytes(turned)))
    data = re.sub(rb"(urn:uuid:).{4}", rb"\g<1>%04x" % copy, data)
    return re.sub(rb'\b((?:Parent)?Id=")(\d+)', lambda found: (
        b"%b%d" % (found[1], int(found[2]) + copy * 10**8)), data)


def samples(name: str, path: Path) -> Iterator[tuple[str, bytes]]:
    """Raw files of a source, unpacked; files of code as rows of an export."""
    if name == "github":
        for file in sorted(path.rglob("*.py")):
            yield "", json.dumps({
                "repo_name": path.name, "path": str(file.relative_to(path)),
                "license": "mit", "content": file.read_text("utf-8")}
            ).encode() + b"\n"
        return
    for unit in module(name).inputs(path):
        if unit.is_file():
            with unit.open("rb") as file:
                yield unit.name, archives.unpacked(file).read()
        else:
            packed = io.BytesIO()
            with tarfile.open(fileobj=packed, mode="w") as archive:
                archive.add(unit, ".")
            yield unit.name, packed.getvalue()


def larger(name: str, path: Path, folder: Path, megabytes: float,
           files: int = 1) -> float:
    """Fill a folder with a source's samples again and again.

    Returns:
        The megabytes written.
    """
    each, size = list(samples(name, path)), 0
    for copy in itertools.count():
        for label, data in each:
            if size >= megabytes * 1e6:
                return size / 1e6
            end = ".tar" if name == "arxiv" else ""
            place = folder / (f"{copy % files}-{STREAMS[name]}"
                              if name in STREAMS else
                              f"{copy:04d}-{label}{end}")
            with place.open("ab") as file:
                size += file.write(edited(name, data, copy))


def built(source: str, workers: int) -> dict[str, Any]:
    """Wall seconds of a build and its steps, and the peak memory of its
    largest process."""
    model = corpus.prepare(None, SHAPE.vocab_size) / "tokenizer.model"
    out = Path(tempfile.mkdtemp()) / "out"
    said, used = harness.watched(
        "data", "build", "--source", source, "--tokenizer", str(model),
        "--out", str(out), "--workers", str(workers))
    print(said, file=sys.stderr)
    # datatrove writes one file when a step begins, and one when it ends.
    steps = {end.parent.name: end.stat().st_mtime - end.with_name(
        "executor.json").stat().st_mtime
        for end in out.glob(".work/*/logs/*/stats.json")}
    shutil.rmtree(out.parent)
    return {"seconds": used["wall"], "steps": steps,
            "peak_megabytes": used["peak_bytes"] / 2**20}


def scaling(name: str, path: Path, megabytes: float) -> dict[str, Any]:
    """Builds of the same eight files with one worker and with two."""
    with tempfile.TemporaryDirectory() as folder:
        size = larger(name, path, Path(folder), megabytes, 8)
        one, two = (built(f"{name}={folder}", n) for n in (1, 2))
    return {"megabytes": size, "one": one["seconds"], "two": two["seconds"],
            "speed_up": one["seconds"] / two["seconds"],
            "steps": [one["steps"], two["steps"]]}


def clean(name: str, units: list[Path]) -> float:
    """Seconds for reading and cleaning files."""
    start = time.perf_counter()
    for unit in units:
        for _ in module(name).read(unit, Ledger()):
            pass
    return time.perf_counter() - start


def cleaning(
    name: str, path: Path, megabytes: float, turns: int = 5
) -> dict[str, Any]:
    """Megabytes a second of one process, and of two that do the same."""
    ratios, alone = [], []
    with tempfile.TemporaryDirectory() as folder, (
            multiprocessing.get_context("fork").Pool(2)) as pool:
        size = larger(name, path, Path(folder), megabytes, 8)
        job = (name, module(name).inputs(Path(folder)))
        for _ in range(turns):
            one, = pool.starmap(clean, [job])
            ratios.append(sum(one / seconds for seconds in pool.starmap(
                clean, [job, job], chunksize=1)))
            alone.append(one)
    ratio, one = statistics.median(ratios), size / statistics.median(alone)
    return {"megabytes": size, "one": one, "two": ratio * one,
            "speed_up": ratio, "low": min(ratios), "high": max(ratios)}


def memory(name: str, path: Path, megabytes: float) -> dict[str, Any]:
    """Peaks of a build of a quarter of the size, and of all of it."""
    row: dict[str, Any] = {}
    for part, size in (("quarter", megabytes / 4), ("whole", megabytes)):
        with tempfile.TemporaryDirectory() as folder:
            row["megabytes"] = larger(name, path, Path(folder), size)
            row[part] = built(f"{name}={folder}", 1)["peak_megabytes"]
    return row


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


def joined(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The last row of each source."""
    return {name: row for run in runs for name, row in run["rows"].items()}


def main() -> None:
    """Read the command line, measure, store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", action="append", default=[],
                        metavar="NAME=PATH")
    parser.add_argument("--build", type=float, metavar="MB")
    parser.add_argument("--reading", type=float, metavar="MB")
    parser.add_argument("--memory", type=float, metavar="MB")
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--out", type=Path, default=harness.RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    sources = {name: Path(path) for name, path in (
        word.split("=", 1) for word in args.source)}
    for verb, measure, size in (("build", scaling, args.build),
                                ("reading", cleaning, args.reading),
                                ("memory", memory, args.memory)):
        if size:
            name, run, rows = verb, {"settings": {}, "rows": {
                source: measure(source, path, size)
                for source, path in sources.items()}}, joined
            break
    else:
        name, rows, run = "data", summarise, {
            "settings": {"turns": args.turns},
            "dedup": steps(args.turns), "sources": {
                source: reading(source, path)
                for source, path in sources.items()}}
    path, summary = harness.store(
        name, run, rows, torch.device("cpu"), args.out)
    print(json.dumps(summary, indent=1))
    print(path)


if __name__ == "__main__":
    main()
