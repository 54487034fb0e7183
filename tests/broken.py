"""Ways to break a file, and to see that reading it costs nothing else."""

from __future__ import annotations

import os
import random
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

from minillama.data.document import Document, Ledger

Read = Callable[[Path, Ledger], Iterator[Document]]


def variants(data: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """A file cut, flipped, filled with what is no UTF-8, and mixed up."""
    draw = random.Random(seed)
    for _ in range(count):
        at, to = sorted(draw.randrange(len(data) + 1) for _ in range(2))
        yield draw.choice([
            lambda: data[:at],
            lambda: data[at:],
            lambda: data[:at] + data[to:],
            lambda: data[:at] + draw.randbytes(4) + data[at + 4:],
            lambda: data[:at] + b"\xff\xfe\x80" + data[at:],
            lambda: data[:at] + data[at:to] * 3 + data[to:],
            lambda: data[to:] + data[:at],
        ])()


def survives(read: Read, path: Path, data: bytes, count: int = 60) -> Ledger:
    """Read broken variants of a file; the books balance each time.

    Raises:
        AssertionError: if more documents come than were counted as kept, or
            a file appears that was not there before.
    """
    total = Ledger()
    for broken in variants(data, count):
        path.write_bytes(broken)
        before = set(os.listdir(path.parent)), set(os.listdir("."))
        ledger = Ledger()
        documents = list(read(path, ledger))
        assert ledger.kept == len(documents)
        ids = [document.id for document in documents]
        assert all(document.text.strip() for document in documents), ids
        assert (set(os.listdir(path.parent)), set(os.listdir("."))) == before
        total += ledger
    return total


def peak(action: Callable[[], object]) -> float:
    """The most memory that Python held during an action, in megabytes."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()
