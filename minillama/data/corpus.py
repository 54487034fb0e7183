"""Text in, a folder of token shards out: what `minillama.batches` reads.

Layout of a prepared folder:

    tokenizer.model   the SentencePiece model of these shards
    index.json        dtype, vocabulary, and per source its shards
    shards/*.bin      little-endian ids; each document is BOS, ids, EOS

Chapter: notebooks/00_tour.ipynb
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from minillama.data import fetch
from minillama.tokenizer import Tokenizer

HELD_OUT_PLAY = "The Tempest"
"""Validation text of the default corpus: one play, never trained on."""

# Written into the cache key: raise it when the same text gives other shards.
_VERSION = 1
# A tenth is held out, and that tenth has to fill one sequence of 256 tokens.
_LEAST_TEXT = 10_000
_SHARD_TOKENS = 2**26
# One long file is cut into documents of about so many characters.
_DOCUMENT_SIZE = 16_384
# So many characters are enough to learn a vocabulary from.
_TOKENIZER_TEXT = 64_000_000
_TEXT_SUFFIXES = {".txt", ".md", ".text"}

Split = dict[str, list[str]]


def prepare(
    source: Path | None,
    vocab_size: int,
    *,
    seed: int = 1,
    tokenizer: Tokenizer | None = None,
    cache: Path | None = None,
) -> Path:
    """Turn text into token shards, once; later calls find them again.

    Without a source the corpus is Shakespeare's plays and the held-out text
    one whole play. Of the reader's own text the last tenth is held out. The
    tokenizer learns from the training text alone.

    Args:
        source: a UTF-8 text file, a folder of them, or a folder that was
            prepared already (it is returned as it is); None: the plays.
        vocab_size: V of the tokenizer to train.
        seed: of the order in which training documents are written.
        tokenizer: use this one and train none; its size must be V.
        cache: folder for prepared corpora; None: the user's cache folder.

    Returns:
        The folder described at the top of this module.

    Raises:
        ValueError: if there is no text, too little, or not text, or if the
            vocabulary does not fit, with what would work.

    Chapter: notebooks/00_tour.ipynb
    """
    if tokenizer is not None and tokenizer.vocab_size != vocab_size:
        raise ValueError(
            f"vocab_size={vocab_size} is not the size of the tokenizer; "
            f"try vocab_size={tokenizer.vocab_size}")
    if source is not None and (Path(source) / "index.json").is_file():
        return _prepared(Path(source), vocab_size)
    name = "plays" if source is None else "own"
    split = split_plays(fetch.plays()) if source is None else split_own(
        read_texts(Path(source)), str(source))
    random.Random(seed).shuffle(split["train"])
    parent = (cache or fetch.cache_dir()) / "prepared"
    done = parent / _key(split, vocab_size, tokenizer)
    if not (done / "index.json").is_file():
        _build(done, name, split, vocab_size, tokenizer)
    return done


def write_split(
    folder: Path, name: str, split: Split, tokenizer: Tokenizer
) -> Path:
    """Write documents as token shards, once, in a folder of their own."""
    if not (folder / "index.json").is_file():
        _build(folder, name, split, tokenizer.vocab_size, tokenizer)
    return folder


def _prepared(folder: Path, vocab_size: int) -> Path:
    """A folder with an index, if its vocabulary is the one asked for."""
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    if index.get("vocab_size") != vocab_size:
        raise ValueError(
            f"vocab_size={vocab_size} does not fit the shards in "
            f"{str(folder)!r}; try vocab_size={index.get('vocab_size')}")
    return folder


def split_plays(plays: dict[str, str]) -> Split:
    """One document per scene; one play is held out whole."""
    return {
        "train": [scene for title, text in plays.items()
                  if title != HELD_OUT_PLAY for scene in fetch.scenes(text)],
        "validation": fetch.scenes(plays[HELD_OUT_PLAY]),
    }


def split_own(texts: Sequence[str], name: str) -> Split:
    """The reader's text as documents, about the last tenth held out.

    Raises:
        ValueError: if there is too little of it.
    """
    total = sum(map(len, texts))
    if total < _LEAST_TEXT:
        raise ValueError(
            f"data={name!r} holds {total:,} characters of text, too little "
            f"to train and validate on; give at least {_LEAST_TEXT:,}")
    size = min(_DOCUMENT_SIZE, total // 20)
    documents = [part for text in texts for part in documents_of(text, size)]
    held_out, first = 0, len(documents)
    while held_out < total / 10:
        first -= 1
        held_out += len(documents[first])
    return {"train": documents[:first], "validation": documents[first:]}


def documents_of(text: str, size: int) -> Iterator[str]:
    """Cut a text into documents of at most 1.5 * `size` characters.

    The cut falls behind an empty line if there is one in the second half of
    a document, else behind a line, else behind a space, else anywhere. The
    parts joined are the text.
    """
    start = 0
    while len(text) - start > 1.5 * size:
        end = start + size
        ends = (text.rfind(mark, start + size // 2, end) + len(mark)
                for mark in ("\n\n", "\n", " "))
        cut = next((cut for cut in ends if cut > start + size // 2), end)
        yield text[start:cut]
        start = cut
    yield text[start:]


def read_texts(source: Path) -> list[str]:
    """The text of a file, or of all text files in a folder, by name.

    Files with a name in .txt, .md or .text must be UTF-8. In a folder, other
    files are read if they are UTF-8 and named on stderr if they are not;
    hidden ones are left out.

    Raises:
        ValueError: if nothing is there, or nothing that can be read.
    """
    if not source.exists():
        raise ValueError(
            f"data={str(source)!r} does not exist; give a text file or a "
            "folder of text files, or leave it out to train on the plays")
    if source.is_file():
        return [_read(source)]
    files = sorted(
        path for path in source.rglob("*") if path.is_file() and not any(
            part.startswith(".") for part in path.relative_to(source).parts))
    texts, skipped = [], []
    for path in tqdm(files, "reading", disable=None, leave=False):
        try:
            texts.append(_read(path))
        except ValueError:
            if path.suffix.lower() in _TEXT_SUFFIXES and (
                    path.stat().st_size):
                raise
            skipped.append(path.name)
    if not texts:
        raise ValueError(
            f"data={str(source)!r} holds no readable text file; put UTF-8 "
            "text in it, such as .txt or .md files")
    if skipped:
        print(f"left out {len(skipped)} files that are empty or not UTF-8 "
              f"text: {', '.join(skipped[:5])}", file=sys.stderr)
    return texts


def _read(path: Path) -> str:
    """One file as text, line ends as \\n, without a byte-order mark."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ValueError(
            f"data={str(path)!r} cannot be read ({error.strerror}); check "
            "its permissions") from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"data={str(path)!r} is not UTF-8 text (byte {error.start:,}); "
            "save it as UTF-8 plain text and try again") from error
    if "\0" in text:
        raise ValueError(
            f"data={str(path)!r} is a binary file (it holds a zero byte); "
            "give plain text, such as a .txt file")
    if not text.strip():
        raise ValueError(
            f"data={str(path)!r} is empty; give a file with at least "
            f"{_LEAST_TEXT:,} characters of text")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _key(split: Split, vocab_size: int, tokenizer: Tokenizer | None) -> str:
    """A name that changes whenever the shards would.

    The documents are hashed in the order in which they will be written, so
    that seed and cutting need no place of their own.
    """
    digest = hashlib.sha256(repr((_VERSION, vocab_size)).encode())
    if tokenizer is not None:
        digest.update(tokenizer.to_bytes())
    for part, documents in split.items():
        digest.update(f"\0{part}".encode())
        for document in documents:
            digest.update(hashlib.sha256(document.encode("utf-8")).digest())
    return digest.hexdigest()[:20]


def _build(
    done: Path,
    name: str,
    split: Split,
    vocab_size: int,
    tokenizer: Tokenizer | None,
) -> None:
    """Write the folder beside its place, then move it there in one step."""
    done.parent.mkdir(parents=True, exist_ok=True)
    _sweep(done.parent)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=done.parent))
    try:
        if tokenizer is None:
            texts = _sample(split["train"])
            tokenizer = Tokenizer.train(
                texts, vocab_size, partial / "tokenizer.model")
        else:
            tokenizer.save(partial / "tokenizer.model")
        index = _write_shards(partial, name, split, tokenizer)
        (partial / "index.json").write_text(
            json.dumps(index, indent=1) + "\n", encoding="utf-8")
        if not (done / "index.json").is_file():
            shutil.rmtree(done, ignore_errors=True)
        try:
            os.replace(partial, done)
        except OSError:
            # Another process was faster and wrote the same bytes.
            if not (done / "index.json").is_file():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove what runs killed more than an hour ago left half done."""
    for left in folder.glob(".partial-*"):
        if time.time() - left.stat().st_mtime > 3600:
            shutil.rmtree(left, ignore_errors=True)


def _sample(documents: Sequence[str]) -> Sequence[str]:
    """Evenly spread documents, enough to learn a vocabulary from."""
    total = sum(map(len, documents))
    return documents[::max(1, total // _TOKENIZER_TEXT)]


def _write_shards(
    folder: Path, name: str, split: Split, tokenizer: Tokenizer
) -> dict[str, Any]:
    """Encode both parts and return the index that describes them."""
    dtype = "uint16" if tokenizer.vocab_size <= 2**16 else "uint32"
    (folder / "shards").mkdir()
    parts: dict[str, Any] = {"weight": 1.0}
    for part, documents in split.items():
        parts[part] = [
            {"file": f"shards/{name}-{part}-{number:05d}.bin", **shard}
            for number, shard in enumerate(_shards(
                folder / "shards" / f"{name}-{part}", documents, tokenizer,
                dtype))]
    return {
        "version": 1, "dtype": dtype, "vocab_size": tokenizer.vocab_size,
        "tokenizer": "tokenizer.model", "sources": {name: parts},
    }


def _shards(
    stem: Path, documents: Sequence[str], tokenizer: Tokenizer, dtype: str
) -> Iterator[dict[str, int]]:
    """Write documents into numbered files and describe each of them."""
    bar = tqdm(total=len(documents), desc=f"encoding {stem.name}",
               unit="doc", disable=None, leave=False)
    number = start = 0
    little_endian = np.dtype(dtype).newbyteorder("<")
    while start < len(documents):
        count = {"tokens": 0, "bytes": 0, "documents": 0}
        path = stem.with_name(f"{stem.name}-{number:05d}.bin")
        with path.open("wb") as file:
            while start < len(documents) and count["tokens"] < _SHARD_TOKENS:
                batch = documents[start:start + 64]
                for ids in tokenizer.encode_batch(batch, bos=True, eos=True):
                    file.write(np.array(ids, little_endian).tobytes())
                    count["tokens"] += len(ids)
                count["bytes"] += sum(len(d.encode("utf-8")) for d in batch)
                count["documents"] += len(batch)
                start += len(batch)
                bar.update(len(batch))
        yield count
        number += 1
    bar.close()
