"""From raw dumps to token shards: read, clean, deduplicate, tokenise, count.

Each step does one item of work at a time, a raw file or a part of all hashes,
and writes its files whole. So a build that is killed goes on where it was,
and ends with the same bytes; and neither the number of workers nor the order
of files decides what is kept.

    read        raw file -> documents; hashes of web pages' lines or spans
    repeats     part of the hashes -> what stands in several documents
    refine      web pages -> without that, judged
    duplicates  part of the keys -> equal documents, candidates for overlap
    overlap     candidates -> texts that overlap too much
    write       documents -> those that stay, and their token ids
    index       ids -> shards, mixture.json, stats.json

Chapter: notebooks/03_mixture.ipynb
"""

from __future__ import annotations

import functools
import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from minillama.data import dedup, engines, results, stores
from minillama.data.document import Document, Ledger
from minillama.data.engines import Cluster, Step
from minillama.data.recipe import Recipe, Unit, module
from minillama.data.seen import Seen
from minillama.files import replace_bytes
from minillama.tokenizer import Tokenizer

HELD_OUT = 500
"""One document in so many is validation text, chosen by its id."""
WEB = ("commoncrawl", "c4")
"""Sources whose documents lose parts that others have too."""


def build(recipe: Recipe, cluster: Cluster = Cluster()) -> bool:
    """Build a folder of documents and shards, or go on with it.

    Args:
        recipe: what from what.
        cluster: on which machines.

    Returns:
        Whether all is done; with Slurm it is only submitted.

    Raises:
        ValueError: for bad input, or a folder that holds something else.

    Chapter: notebooks/03_mixture.ipynb
    """
    Tokenizer(recipe.tokenizer)  # complain early
    out, mark = Path(recipe.out), Path(recipe.out) / "recipe.json"
    old = json.loads(mark.read_bytes()) if mark.is_file() else {}
    if out.is_dir() and any(out.iterdir()) and not old:
        raise ValueError(f"out={str(out)!r} holds something else than a "
                         "build; give an empty folder")
    if old.get("key") != recipe.key:
        for name in ("stats.json", "index.json", "mixture.json"):
            (out / name).unlink(missing_ok=True)
        for name in ("documents", "shards", ".work"):
            shutil.rmtree(out / name, ignore_errors=True)
    elif (out / "stats.json").is_file():
        return True
    replace_bytes(mark, json.dumps({
        "key": recipe.key, "sources": {
            name: str(path) for name, path in recipe.sources.items()},
    }, indent=1).encode())
    for left in out.rglob("*.partial"):
        left.unlink()
    return engines.run(_steps(recipe), recipe.work / "logs", cluster)


def _steps(recipe: Recipe) -> list[Step]:
    """All steps that these sources need."""
    web = tuple(unit for unit in recipe.units if unit.source in WEB)
    parts = tuple(range(recipe.parts))
    return [Step(work.__name__, work, recipe, items) for work, items in (
        (read, recipe.units), (repeats, parts), (refine, web),
        (duplicates, parts), (overlap, (0,)), (write, recipe.units),
        (index, (0,))) if web or work not in (repeats, refine)]


def read(recipe: Recipe, unit: Unit) -> None:
    """Step 1: a raw file becomes documents."""
    if results.done(recipe, "read", unit):
        return
    books = {"read": Ledger()}
    documents = _guarded(unit, books["read"])
    if unit.source == "c4":
        books["rules"] = Ledger()
        documents = _finished(*_web(recipe, "c4"), documents, books["rules"])
    documents = stores.storing(_path(recipe, "read", unit), documents)
    if unit.source in WEB:
        dedup.scatter(recipe.work / "hashes", unit.name, (
            (key, _line(document, unit.name, number))
            for number, document in enumerate(documents)
            for key in _hashes(recipe, document)), recipe.parts)
    else:
        _scatter_keys(recipe, unit, documents)
    results.close(recipe, "read", unit, books)


def repeats(recipe: Recipe, part: int) -> None:
    """Step 2: lines and spans that stand in several documents of a source.

    Of CommonCrawl's lines every copy goes; a span of C4 stays in the first
    document.
    """
    claims: dict[str, list[str]] = {}
    for key, same in dedup.groups(recipe.work / "hashes", part):
        for source in WEB:
            those = [fields for fields in same if fields[0] == source]
            owner = those[0][1] if source == "c4" and those else None
            if len({fields[1] for fields in those}) > 1:
                for _, name, unit, number in those:
                    if name != owner:
                        claims.setdefault(unit, []).append(
                            f"{number}\t{key}\n")
    stores.spread(recipe.work / "claims", part, claims)


def refine(recipe: Recipe, unit: Unit) -> None:
    """Step 3: pages without what stands elsewhere, judged."""
    if results.done(recipe, "refine", unit):
        return
    claims = np.fromiter((  # 16 bytes a line: a file has millions
        (int(number), int(key, 16)) for number, key in
        stores.lines(recipe.work / "claims" / unit.name)), "u8, u8")
    claims = claims[np.lexsort((claims["f1"], claims["f0"]))]
    page_of, keys = (claims[field].copy() for field in ("f0", "f1"))
    books = {"repeats": Ledger()}
    web, judge = _web(recipe, unit.source)

    def pages() -> Iterator[Document | None]:
        for number, page in enumerate(
                stores.stored(_path(recipe, "read", unit))):
            taken = keys[slice(*page_of.searchsorted([number, number + 1]))]
            # Only what this page loses: it belongs to others, all the same.
            seen = Seen(taken, np.zeros(len(taken), np.int64),
                        np.ones(len(taken), bool))
            yield (web.drop_repeated_spans(
                page, 1, seen, judge.sentences, books["repeats"])
                if unit.source == "c4" else
                web.drop_repeated_lines(page, seen, books["repeats"]))

    left: Iterable[Document] = filter(None, pages())
    if unit.source == "commoncrawl":
        for name, one in judge.each().items():
            left = _finished(web, one, left, books.setdefault(name, Ledger()))
    _scatter_keys(recipe, unit, stores.storing(
        _path(recipe, "refine", unit), left))
    results.close(recipe, "refine", unit, books)


def duplicates(recipe: Recipe, part: int) -> None:
    """Step 4: equal documents of a part go; bands give candidates."""
    drops: dict[str, list[str]] = {}
    with stores.whole(recipe.work / "pairs" / f"{part:04d}") as pairs:
        for key, same in dedup.groups(recipe.work / "keys", part):
            if len(key) == dedup.KEY_DIGITS:
                for *_, unit, number in same[1:]:
                    drops.setdefault(unit, []).append(
                        f"{number}\tequal to another document\n")
                continue
            for smaller, larger in dedup.pairs(same):
                pairs.write(f"{chr(9).join(smaller + larger)}\n".encode())
    stores.spread(recipe.work / "drops", part, drops)


def overlap(recipe: Recipe, _: int) -> None:
    """Step 5: candidates are judged by their true overlap."""
    @functools.lru_cache(4096)
    def gone(unit: str) -> set[str]:
        return {number for number, _ in stores.lines(
            recipe.work / "drops" / unit)}

    def share(*texts: list[str]) -> float:
        return dedup.overlap(*(np.fromfile(
            recipe.work / "shingles" / unit / number, "<u8")
            for *_, unit, number in texts))

    candidates = [
        (fields[:5], fields[5:]) for fields in stores.lines(
            recipe.work / "pairs") if fields[4] not in gone(fields[3])
        and fields[9] not in gone(fields[8])]
    drops: dict[str, list[str]] = {}
    for *_, unit, number in dedup.overlapping(
            candidates, share, recipe.overlap):
        drops.setdefault(unit, []).append(
            f"{number}\tover {recipe.overlap:.0%} overlap with another\n")
    gone.cache_clear()
    # After the names of all parts.
    stores.spread(recipe.work / "drops", 9999, drops)


def write(recipe: Recipe, unit: Unit) -> None:
    """Step 6: the documents that stay, and their ids."""
    if results.done(recipe, "write", unit):
        return
    drops = dict(stores.lines(recipe.work / "drops" / unit.name))
    tokenizer, ledger = Tokenizer(recipe.tokenizer), Ledger()
    counts = {name: Counter[str]() for name in (*results.SPLITS, "buckets")}

    def staying() -> Iterator[Document]:
        step = "refine" if unit.source in WEB else "read"
        for number, document in enumerate(
                stores.stored(_path(recipe, step, unit))):
            if reason := drops.get(str(number)):
                ledger.drop(reason)
            else:
                yield ledger.keep(document)

    path = Path(recipe.out) / "documents" / unit.source / (
        f"{unit.number:06d}.jsonl.gz")
    train, validation = (recipe.work / "ids" / f"{unit.name}.{split}"
                         for split in results.SPLITS)
    with stores.whole(train) as train, stores.whole(validation) as held_out:
        for document in stores.storing(path, staying()):
            key = dedup.text_key(f"{document.source}\t{document.id}")
            held = int(key, 16) % HELD_OUT == 0
            ids = tokenizer.encode(document.text, bos=True, eos=True)
            (held_out if held else train).write(
                np.array(ids, results.dtype(tokenizer)).tobytes())
            counts[results.SPLITS[held]].update(
                tokens=len(ids), documents=1,
                bytes=len(document.text.encode()))
            if found := document.metadata.get("bucket"):
                counts["buckets"][found] += 1
    results.close(recipe, "write", unit, {"duplicates": ledger}, counts)


def index(recipe: Recipe, _: int) -> None:
    """Step 7: ids become shards, and all is counted."""
    results.index(recipe)


def _scatter_keys(recipe: Recipe, unit: Unit,
                  documents: Iterable[Document]) -> None:
    """Write what duplicates are found by: keys, bands and shingles."""
    folder = recipe.work / "shingles" / unit.name

    def records() -> Iterator[tuple[str, str]]:
        for number, document in enumerate(documents):
            key = dedup.text_key(document.text)
            line = _line(document, dedup.text_key(  # if ids are the same
                f"{key}{document.metadata}"), unit.name, number)
            yield key, line
            if unit.source in recipe.near:
                runs = dedup.shingles(document.text)
                replace_bytes(folder / str(number), runs.tobytes())
                for key in dedup.band_keys(dedup.signature(runs)):
                    yield key, line

    dedup.scatter(recipe.work / "keys", unit.name, records(), recipe.parts)


def _line(document: Document, *place: object) -> str:
    """A document in a record: what orders it, and where it lies."""
    return "\t".join(map(str, (document.source, document.id, *place)))


def _guarded(unit: Unit, ledger: Ledger) -> Iterator[Document]:
    """A source's documents; what breaks its reader costs only the rest.

    Readers count what they know to be broken. Whatever else happens in one
    file of millions must not end the build; but a missing package must.
    """
    try:
        for document in module(unit.source).read(unit.path, ledger):
            # Records are fields of lines, and text has to fit into UTF-8.
            name = "".join(c if c.isprintable() else "?" for c in document.id)
            if len(name) > 1000:  # each line of a page has it
                name = dedup.text_key(name)
            text = document.text.encode("utf-8", "replace").decode()
            yield Document(document.source, name, text, document.metadata)
    except Exception as error:
        if isinstance(error.__context__ or error, ImportError):
            raise
        ledger.drop(f"file broken ({type(error).__name__})")
        print(f"{unit.path.name}: {error!r}; the rest of it is skipped",
              file=sys.stderr)
    if not ledger.seen:
        ledger.drop("file without a document")


def _path(recipe: Recipe, step: str, unit: Unit) -> Path:
    """The documents of a unit after a step."""
    return recipe.work / step / f"{unit.name}.jsonl.gz"


def _web(recipe: Recipe, source: str) -> tuple[ModuleType, Any]:
    """The module that cleans pages of a source, and what it judges by."""
    return _judges(
        source, recipe.language_model, recipe.bad_words,
        recipe.perplexity_model, recipe.reference_model, recipe.buckets)


@functools.lru_cache(2)
def _judges(source: str, language: Path | None, bad_words: Path | None,
            arpa: Path | None, cited: Path | None, buckets: tuple[str, ...]
            ) -> tuple[ModuleType, Any]:
    """`_web`, loaded once a process."""
    from minillama.data import c4, ccnet
    from minillama.data.arpa import PagePerplexity
    from minillama.data.language import LanguageId
    from minillama.data.references import CitedPages

    judge = language and LanguageId(language)
    if source == "c4":
        return c4, c4.Rules(c4.sentence_splitter(), judge,
                            bad_words and c4.bad_words(bad_words))
    limits = arpa and json.loads(arpa.with_suffix(".json").read_bytes())
    return ccnet, ccnet.Models(
        judge, arpa and PagePerplexity(arpa.with_suffix(".model"), arpa),
        cited and CitedPages.load(cited), keep_buckets=buckets,
        **(limits or {}))


def _hashes(recipe: Recipe, page: Document) -> Iterator[str]:
    """Names of what may stand in other pages too: lines, or spans."""
    web, judge = _web(recipe, page.source)
    hashes = (web.span_hashes(page.text, judge.sentences)
              if page.source == "c4" else web.line_hashes(page.text))
    return (f"{part:016x}" for part in set(hashes.tolist()))


def _finished(web: ModuleType, judge: Any, pages: Iterable[Document],
              ledger: Ledger) -> Iterator[Document]:
    """What the judges of web pages leave."""
    yield from filter(None, (web.finish(p, judge, ledger) for p in pages))
