"""`minillama data`: from raw dumps, or any text, to token shards."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from minillama.data.engines import Cluster
from minillama.data.recipe import Recipe


@dataclass(frozen=True)
class DataFetch:
    """Download real raw files once, check and keep them in the cache."""

    name: Annotated[Literal[
        "plays", "wikipedia", "commoncrawl", "language-model", "tokenizer",
    ], tyro.conf.Positional] = "plays"
    """What they are; prints where they lie."""


@dataclass(frozen=True)
class DataPrepare:
    """Turn text into token shards, as `train` does by itself."""

    source: Annotated[Path | None, tyro.conf.Positional] = None
    """A UTF-8 text file or a folder of them; None: the plays."""
    vocab_size: int = 1024
    """V of the tokenizer to train."""


@dataclass(frozen=True)
class DataJudges:
    """Train the n-gram model and the classifier that judge CommonCrawl."""

    wikipedia_dump: Path
    """pages-articles of Wikipedia: good text, and what it cites."""
    crawl: Path
    """WARC or WET files: pages like those that will be judged."""
    out: Path
    """The folder for lm.arpa, lm.model, lm.json and cited.npz."""
    language_model: Path | None = None
    """`lid.176.ftz`: only pages in English count."""
    vocab_size: int = 65536
    """Pieces of the n-gram model at most."""
    order: int = 5
    """Pieces in its longest n-gram."""
    sample: int = 20000
    """Articles, and pages of each kind, at most."""


@dataclass(frozen=True)
class DataBuild(Cluster):
    """Clean, deduplicate and tokenise raw dumps; the same again goes on."""

    source: tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]] = ()
    """NAME=PATH, as often as there are sources: commoncrawl, c4, github,
    wikipedia, books, arxiv, stackexchange, or own (txt, jsonl, parquet)."""
    out: Path = Path("data")
    """The folder to write; `minillama train --data` takes it."""
    tokenizer: Path | None = None
    """A SentencePiece model, such as `data fetch tokenizer` gets."""
    language_model: Path | None = None
    """`lid.176.ftz`, from `data fetch language-model`."""
    perplexity_model: Path | None = None
    """CCNet's n-gram model of good text, the lm.arpa of `data judges`."""
    reference_model: Path | None = None
    """The classifier of pages that Wikipedia cites, its cited.npz."""
    buckets: tuple[str, ...] = ("head", "middle")
    """Which perplexities stay, of head, middle and tail."""
    bad_words: Path | None = None
    """C4's list of bad words, one a line."""
    overlap: float = 0.9
    """Books that share more than this with another one are dropped."""
    near: tuple[str, ...] = ("books",)
    """Sources in which near copies are looked for."""
    weight: tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]] = ()
    """NAME=PERCENT, where it shall not be Table 1's."""


@dataclass(frozen=True)
class DataStats:
    """What came in, was kept and dropped, and why; tokens and epochs."""

    folder: Annotated[Path, tyro.conf.Positional]
    """What `data build --out` wrote."""
    tokens: float | None = None
    """Of a training run, for the epochs; None: as many as there are."""
    json: bool = False
    """Print all as JSON."""


@dataclass(frozen=True)
class DataCommand:
    """Get text and turn it into token shards."""

    action: (
        Annotated[DataFetch, tyro.conf.subcommand("fetch")]
        | Annotated[DataPrepare, tyro.conf.subcommand("prepare")]
        | Annotated[DataJudges, tyro.conf.subcommand("judges")]
        | Annotated[DataBuild, tyro.conf.subcommand("build")]
        | Annotated[DataStats, tyro.conf.subcommand("stats")])


def command(argv: Sequence[str]) -> Any:
    """The verb."""
    return Annotated[DataCommand, tyro.conf.subcommand("data")]


def run(command: DataCommand) -> int:
    """Download, prepare, build, or tell what was built."""
    from minillama.data import corpus, fetch, results

    action = command.action
    if isinstance(action, DataBuild):
        _build(action)
    elif isinstance(action, DataJudges):
        from minillama.data import judges
        print(json.dumps(judges.train(**vars(action)), indent=1))
    elif isinstance(action, DataStats):
        stats = results.read(action.folder, action.tokens)
        print(json.dumps(stats) if action.json else results.table(stats))
    elif isinstance(action, DataPrepare):
        print(corpus.prepare(action.source, action.vocab_size))
    elif action.name == "plays":
        texts = fetch.plays()
        size = sum(len(text.encode("utf-8")) for text in texts.values())
        print(f"{len(texts)} plays, {size:,} bytes, in {fetch.cache_dir()}")
    else:
        print("\n".join(map(str, fetch.sample(action.name))))
    return 0


def _build(action: DataBuild) -> None:
    """Build, and print the books."""
    from minillama.data import build, results

    if action.tokenizer is None:
        raise ValueError(
            "tokenizer: give --tokenizer FILE, a SentencePiece model; "
            "`minillama data fetch tokenizer` gets one of 32,000 pieces")
    given = {field.name: getattr(action, field.name)
             for field in fields(action)}
    recipe = Recipe(
        sources=dict(_pairs("source", given.pop("source"), Path)),
        weights=dict(_pairs("weight", given.pop("weight"), float)),
        **{name: given.pop(name) for name in list(given)
           if name in {field.name for field in fields(Recipe)}})
    if build.build(recipe, Cluster(**given)):
        print(results.table(results.read(action.out)))
    else:
        print("submitted; when the jobs are through, look at\n"
              f"minillama data stats {action.out}")


def _pairs(
    field: str, given: Sequence[Sequence[str]], kind: Callable[[str], Any]
) -> list[tuple[str, Any]]:
    """NAME=VALUE, cut in two.

    Raises:
        ValueError: if a word is something else, or a name comes twice.
    """
    words = [word for group in given for word in group]
    pairs = [word.partition("=")[::2] for word in words]
    try:
        if len(dict(pairs)) < len(pairs) or not all(v for _, v in pairs):
            raise ValueError
        return [(name, kind(value)) for name, value in pairs]
    except ValueError:
        raise ValueError(
            f"{field}={' '.join(words)!r}: write NAME=VALUE, each name "
            "once") from None
