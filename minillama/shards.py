"""The folders of token shards that `minillama.data` writes.

`index.json` lists the shards of each source and split; a shard is a flat file
of little-endian token ids, mapped into memory, never loaded.

Chapter: notebooks/10_training.ipynb
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int

Split = Literal["train", "validation"]


class Stream:
    """The tokens of one source and split, across its shard files.

    Args:
        folder: where `index.json` lies.
        shards: their entries in it.
        dtype: of the ids, little-endian on every machine.
        vocab_size: V; an id that is not below it is refused when read.

    Raises:
        ValueError: if a shard is missing or not as long as its index says.

    Chapter: notebooks/10_training.ipynb
    """

    def __init__(
        self,
        folder: Path,
        shards: list[dict[str, Any]],
        dtype: str,
        vocab_size: int,
    ) -> None:
        little_endian = np.dtype(dtype).newbyteorder("<")
        self.vocab_size, self.files, self.parts = vocab_size, [], []
        for shard in shards:
            path, tokens = Path(folder) / shard["file"], shard["tokens"]
            size = path.stat().st_size if path.is_file() else "no"
            if size != tokens * little_endian.itemsize:
                raise ValueError(
                    f"shard {path} has {size} bytes, its index says {tokens} "
                    f"tokens of {little_endian.itemsize}; prepare the data "
                    "again")
            if tokens:  # an empty file cannot be mapped into memory
                self.files.append(path)
                self.parts.append(np.memmap(path, little_endian, mode="r"))
        self.ends = np.cumsum([len(part) for part in self.parts])

    def __len__(self) -> int:
        """Tokens in all shards together."""
        return int(self.ends[-1]) if self.parts else 0

    def read(self, start: int, length: int) -> Int[np.ndarray, "N"]:
        """`length` tokens from position `start`, going round at the end."""
        pieces, size = [], len(self)
        while length > 0:
            start %= size
            which = int(np.searchsorted(self.ends, start, side="right"))
            part = self.parts[which]
            offset = start - (int(self.ends[which]) - len(part))
            piece = np.asarray(part[offset:offset + length], dtype=np.int64)
            if piece.max() >= self.vocab_size:
                raise ValueError(
                    f"shard {self.files[which]} holds token id {piece.max()} "
                    f"near position {offset}, the vocabulary ends at "
                    f"{self.vocab_size - 1}; prepare the data again")
            pieces.append(piece)
            start, length = start + len(piece), length - len(piece)
        return np.concatenate(pieces)


def read_index(folder: Path) -> dict[str, Any]:
    """The `index.json` of a folder of shards.

    Raises:
        ValueError: if the folder holds none, a damaged one, or another
            version's.
    """
    path = Path(folder) / "index.json"
    if not path.is_file():
        raise ValueError(
            f"data={folder} is not a folder of token shards (no index.json); "
            "make one with minillama.data.corpus.prepare or `minillama train "
            "--data TEXT`")
    try:
        index = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}); prepare the data again"
        ) from error
    version = index.get("version") if isinstance(index, dict) else None
    if version != 1:
        raise ValueError(
            f"{path} has version {version!r}, this package reads version 1; "
            "prepare the data again")
    return index


def open_streams(folder: Path, split: Split) -> dict[str, Stream]:
    """One stream a source; those without tokens in the split are left out.

    Chapter: notebooks/10_training.ipynb
    """
    index = read_index(folder)
    streams = {
        name: Stream(Path(folder), source[split], index["dtype"],
                     index["vocab_size"])
        for name, source in index["sources"].items()}
    return {name: s for name, s in streams.items() if len(s)}


def mixture(folder: Path, names: Iterable[str]) -> dict[str, float]:
    """The share of each source in the samples: its weight over their sum.

    Raises:
        ValueError: if no source has text, a weight is negative, or all are
            0.
    """
    sources = read_index(folder)["sources"]
    weights = {name: float(sources[name]["weight"]) for name in names}
    total = sum(weights.values())
    if not weights:
        raise ValueError(f"data={folder} holds no training text; add some")
    if not total > 0 or min(weights.values()) < 0:
        raise ValueError(
            f"data={folder} has sources with weights {weights}; each must "
            "be at least 0, and one above it")
    return {name: weight / total for name, weight in weights.items()}


def validation_ids(folder: Path) -> Int[np.ndarray, "N"]:
    """All held-out tokens of a folder, source after source."""
    streams = open_streams(folder, "validation").values()
    parts = [stream.read(0, len(stream)) for stream in streams]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
