"""What a build leaves behind: shards, the mixture, and the books.

    documents/NAME/*.jsonl.gz  `text`, `id`, `source`, `metadata`
    shards/, index.json        what `minillama.batches` trains from
    mixture.json               Table 1's proportions for these sources
    stats.json                 in, kept and dropped by reason, by source

Chapter: notebooks/03_mixture.ipynb
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from minillama.data.document import Ledger
from minillama.data.mixture import TABLE_1, percentages, sampled
from minillama.data.recipe import Recipe, Unit
from minillama.data.stores import whole
from minillama.files import replace_bytes
from minillama.tokenizer import Tokenizer

SPLITS = ("train", "validation")
SHARD_BYTES = 2**27
"""A shard is closed when it has so many."""

_STEPS = ("read", "refine", "write")


def dtype(tokenizer: Tokenizer) -> np.dtype:
    """The smallest little-endian whole number that holds every id."""
    return np.dtype("<u2" if tokenizer.vocab_size <= 2**16 else "<u4")


def _books_path(recipe: Recipe, step: str, unit: Unit) -> Path:
    """Written last: where it is, a unit is through with a step."""
    return recipe.work / "books" / step / f"{unit.name}.json"


def done(recipe: Recipe, step: str, unit: Unit) -> bool:
    """Whether a unit is through with a step."""
    return _books_path(recipe, step, unit).is_file()


def close(recipe: Recipe, step: str, unit: Unit, ledgers: dict[str, Ledger],
          counts: dict[str, dict[str, int]] | None = None) -> None:
    """Write the books of a unit's step: now it is through with it.

    Args:
        recipe: of the build.
        step: its name.
        unit: what was worked on.
        ledgers: by name, in their order: what one keeps the next one sees.
        counts: tokens, bytes and documents by split, of the last step.
    """
    replace_bytes(_books_path(recipe, step, unit), json.dumps({
        "ledgers": {name: vars(of) for name, of in ledgers.items()},
        "counts": counts}).encode())


def _books_of(recipe: Recipe, source: str) -> dict[str, Any]:
    """All ledgers of a source as one account, and what was written."""
    zero = Counter[str](tokens=0, bytes=0, documents=0)
    count = {name: Counter[str]() for name in ("dropped", "lines", "buckets")}
    count |= {split: zero.copy() for split in SPLITS}
    steps: dict[str, Counter[str]] = {}
    for unit in (unit for unit in recipe.units if unit.source == source):
        books = [json.loads(_books_path(recipe, step, unit).read_bytes())
                 for step in _STEPS if done(recipe, step, unit)]
        chain = {name: ledger for book in books
                 for name, ledger in book["ledgers"].items()}
        for name, ledger in chain.items():
            steps.setdefault(name, Counter()).update({
                "in": ledger["kept"] + sum(ledger["dropped"].values()),
                "kept": ledger["kept"]})
        for entry in (*chain.values(), books[-1]["counts"]):
            for name in count.keys() & entry.keys():
                count[name].update(entry[name])
    each = [*steps.values()]
    seen, kept = each[0]["in"], each[-1]["kept"]
    assert seen == kept + count["dropped"].total(), source
    return {"in": seen, "kept": kept, **{
        name: dict(sorted(those.items())) for name, those in count.items()},
        "steps": {name: dict(step) for name, step in steps.items()}}


def index(recipe: Recipe) -> None:
    """Put ids into shards, count all, and clear what was in between."""
    out, tokenizer = Path(recipe.out), Tokenizer(recipe.tokenizer)
    shutil.rmtree(out / "shards", ignore_errors=True)
    percents = percentages(list(recipe.sources), recipe.weights)
    books = {name: _books_of(recipe, name) for name in recipe.sources}
    tokenizer.save(out / "tokenizer.model")
    _save(out / "mixture.json", {name: {
        "percent": percents[name], "tokens": book["train"]["tokens"],
        "paper_epochs": TABLE_1[name][1] if name in TABLE_1 else None,
    } for name, book in books.items()})
    _save(out / "index.json", {
        "version": 1, "dtype": dtype(tokenizer).name,
        "vocab_size": tokenizer.vocab_size, "tokenizer": "tokenizer.model",
        "sources": {name: {"weight": percents[name], **{
            split: _shards(recipe, name, split) for split in SPLITS}}
            for name in recipe.sources}})
    _save(out / "stats.json", {
        "rules_off": recipe.rules_off(), "sources": books})
    for left in recipe.work.iterdir():
        if left.name != "logs":  # marks of finished tasks stay
            shutil.rmtree(left)


def _shards(recipe: Recipe, source: str, split: str) -> list[dict[str, Any]]:
    """Put the ids of all units of a source end to end, in large files."""
    entries: list[dict[str, Any]] = []
    units = [unit for unit in recipe.units if unit.source == source]
    while units:
        file = f"shards/{source}-{split}-{len(entries):05d}.bin"
        count = Counter[str](tokens=0, bytes=0, documents=0)
        with whole(Path(recipe.out) / file) as shard:
            while units and shard.tell() < SHARD_BYTES:
                unit = units.pop(0)
                path = recipe.work / "ids" / f"{unit.name}.{split}"
                with path.open("rb") as waiting:
                    shutil.copyfileobj(waiting, shard)
                count.update(json.loads(_books_path(
                    recipe, "write", unit).read_bytes())["counts"][split])
        entries.append({"file": file, **count})
    return entries


def _save(path: Path, value: Any) -> None:
    """JSON for people and programs."""
    replace_bytes(path, (json.dumps(value, indent=1) + "\n").encode())


def read(folder: Path, tokens: float | None = None) -> dict[str, Any]:
    """The books of a build, and what a run would take of it.

    Args:
        folder: of a build.
        tokens: of a training run; None: as many as there are.

    Returns:
        stats.json, with `run` in each source: percent, tokens and epochs.

    Raises:
        ValueError: if it is not finished, or none.
    """
    if not (Path(folder) / "stats.json").is_file():
        raise ValueError(
            f"{str(folder)!r} holds no finished build (no stats.json); run "
            "the same `minillama data build` again to go on with it")
    stats, mixture = (json.loads((Path(folder) / name).read_bytes())
                      for name in ("stats.json", "mixture.json"))
    have = {name: row["tokens"] for name, row in mixture.items()}
    run = sampled(
        have, {name: row["percent"] for name, row in mixture.items()},
        tokens or float(sum(have.values())))
    for name, book in stats["sources"].items():
        book["run"] = run[name]
    return stats


def table(stats: dict[str, Any]) -> str:
    """Sources, tokens, epochs and reasons as text, from `read`."""
    rows = [f"{'source':<14}{'in':>9}{'kept':>9}{'tokens':>13}"
            f"{'percent':>9}{'epochs':>8}"]
    notes = [f"rule off: {rule}" for rule in stats["rules_off"]]
    for name, book in stats["sources"].items():
        run, have = book["run"], book["train"]["tokens"]
        rows.append(f"{name:<14}{book['in']:>9,}{book['kept']:>9,}{have:>13,}"
                    f"{run['percent']:>9.2f}{run['epochs']:>8.2f}")
        notes += [f"{name}: {step['kept']:,} of {step['in']:,} left by {by}"
                  for by, step in book["steps"].items()
                  if len(book["steps"]) > 2]  # else the reasons say it all
        notes += [f"{name}: {count:,} {what}: {reason}"
                  for what, kind in (("dropped", "dropped"), ("cut", "lines"),
                                     ("kept", "buckets"))
                  for reason, count in book[kind].items()]
        if run["epochs"] > 1:
            notes.append(f"{name} runs out and starts epoch "
                         f"{int(run['epochs']) + 1}")
    total = sum(book["run"]["tokens"] for book in stats["sources"].values())
    return "\n".join([*rows, f"(percent and epochs of a run of {total:,.0f} "
                      "tokens)", *notes])
