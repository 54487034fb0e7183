"""From token shards to training batches, in an order that can be resumed.

Each source is one endless stream of documents, cut into windows of T tokens;
an epoch visits every window once, in an order drawn from the seed. Which
source comes next follows Table 1's proportions. Nothing is random at run
time: sample number i is a function of i, so resuming needs only counts.

Chapter: notebooks/10_training.ipynb
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from minillama.shards import mixture, open_streams


@dataclass(frozen=True)
class Batch:
    """Inputs, the same tokens one step later, and where they came from."""

    inputs: Int[Tensor, "B T"]
    targets: Int[Tensor, "B T"]
    first_sample: int
    """Number of the first sample of the global batch, counted from 0."""


def permuted(position: int, size: int, key: str) -> int:
    """Where a shuffle named `key` of range(size) puts `position`.

    A Feistel network (Luby and Rackoff 1988) on the smallest even number of
    bits that holds `size`, walked until the result is below `size`: a
    shuffle of a trillion windows that needs no memory.

    Chapter: notebooks/10_training.ipynb
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = position >> half, position & mask
        for turn in range(4):
            word = f"{key}/{turn}/{right}".encode()
            digest = hashlib.blake2b(word, digest_size=8).digest()
            left, right = right, left ^ (
                int.from_bytes(digest, "little") & mask)
        position = left << half | right
        if position < size:
            return position


class Batches:
    """An endless iterator over the training batches of one rank.

    Sources take turns so that after any number of samples each source's
    count is within one sequence of its share (see `_next_source`).

    Args:
        folder: token shards with their index.
        seq_len: T, tokens a window.
        batch_size: B, sequences per step over all ranks.
        seed: of the order.
        rank: this process, from 0.
        world_size: number of processes; each gets batch_size / world_size.

    Raises:
        ValueError: if there is no text, a source is shorter than one window,
            a weight is negative, or the batch does not divide among the
            ranks.

    Chapter: notebooks/10_training.ipynb
    """

    def __init__(
        self,
        folder: Path,
        *,
        seq_len: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size % world_size:
            raise ValueError(
                f"batch_size={batch_size} does not divide among {world_size} "
                f"processes; try {-(-batch_size // world_size) * world_size}")
        self.streams = open_streams(folder, "train")
        self.shares = mixture(folder, self.streams)
        for name, stream in self.streams.items():
            if len(stream) <= seq_len:
                raise ValueError(
                    f"source {name!r} has {len(stream)} training tokens, one "
                    f"sequence takes {seq_len + 1}; add text, or lower "
                    "max_seq_len")
        self.seq_len, self.batch_size, self.seed = seq_len, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.counts = dict.fromkeys(self.streams, 0)

    @property
    def samples(self) -> int:
        """Sequences drawn so far, over all ranks."""
        return sum(self.counts.values())

    def epochs(self) -> dict[str, float]:
        """How often each source has been read through."""
        return {name: count / (len(self.streams[name]) // self.seq_len)
                for name, count in self.counts.items()}

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Batch:
        """The next batch: this rank's rows of it."""
        first, rows = self.samples, []
        for row in range(self.batch_size):
            name = self._next_source()
            if row % self.world_size == self.rank:
                rows.append(self._window(name, self.counts[name]))
            self.counts[name] += 1
        tokens = torch.from_numpy(np.stack(rows))
        return Batch(tokens[:, :-1], tokens[:, 1:], first)

    def _next_source(self) -> str:
        """The source whose turn it is (Tijdeman 1980).

        Of the sources that may go, the one that would first be a whole
        sequence behind. Taking the largest deficit instead lets a rare
        source fall further behind than that.
        """
        n, k = self.samples + 1, len(self.shares)
        deficit = {s: share * n - self.counts[s]
                   for s, share in self.shares.items()}
        # One at least may go: the deficits sum to 1. The margin is for
        # rounding.
        least = 1 / (2 * max(1, k - 1)) - 1e-6
        return min((s for s in deficit if deficit[s] >= least),
                   key=lambda s: (1 - deficit[s]) / self.shares[s])

    def _window(self, name: str, count: int) -> np.ndarray:
        """T + 1 tokens: window number `count` of a source, epoch on epoch."""
        stream = self.streams[name]
        windows = len(stream) // self.seq_len
        epoch, position = divmod(count, windows)
        key = f"{self.seed}/{name}/{epoch}"
        # Each epoch cuts the stream at another place.
        offset = permuted(0, self.seq_len, key)
        start = offset + self.seq_len * permuted(position, windows, key)
        return stream.read(start, self.seq_len + 1)

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on: the counts."""
        return {"counts": dict(self.counts), "seed": self.seed,
                "seq_len": self.seq_len,
                "tokens": {n: len(s) for n, s in self.streams.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken, with any number of ranks.

        Raises:
            ValueError: if the order of the samples would be another one.
        """
        mine = self.state_dict()
        for name in ("seed", "seq_len", "tokens"):
            if state[name] != mine[name]:
                raise ValueError(
                    f"the checkpoint was trained with {name}={state[name]}, "
                    f"this run has {mine[name]}; use the same data and "
                    "settings to resume")
        self.counts = dict(state["counts"])
