"""What the processes of tests/test_dry_run.py do; see tests/company.py."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tests import company  # noqa: F401  first: it turns the shape checks on

import torch
from torch.distributed.tensor import DTensor

from minillama import parallel, profiling, sharded
from minillama.company import join
from minillama.config import ModelConfig
from minillama.layout import Layout
from minillama.model import Transformer
from minillama.optim import decay_groups
from minillama.train import next_token_loss

MODEL = ModelConfig(dim=32, n_layers=2, n_heads=4, multiple_of=8,
                    vocab_size=64, max_seq_len=16)
WIDE = replace(MODEL, dim=128, n_layers=4, max_seq_len=128, vocab_size=512)


def weights() -> Iterator[torch.Tensor]:
    """Those of `MODEL`."""
    return Transformer(MODEL).parameters()


def real_peak(rank: int, sizes: list[int]) -> dict[str, Any]:
    """Bytes before a step, and the most within it, from the second step on."""
    layout = Layout(*sizes, micro_batch_size=4)
    with join(60.0, "cpu"):
        mesh = parallel.mesh_of(layout, "cpu")
        model = parallel.apply(Transformer(WIDE), mesh, layout)
        optimizer = torch.optim.AdamW(decay_groups(model, 0.1))
        parts = sharded.tensors(model, optimizer).values()
        resting = sum((p.to_local() if isinstance(p, DTensor) else p).nbytes
                      for p in parts)
        tokens = torch.zeros(4, WIDE.max_seq_len + 1, dtype=torch.int64)
        loss_fn = parallel.whole_loss(next_token_loss)

        def step() -> None:
            loss_fn(model, tokens[:, :-1], tokens[:, 1:]).backward()
            parallel.clip_grad_norm(model.parameters(), 1.0)

        # gloo's own thread lets some messages go late, now and then: the
        # least of several steps is what the step itself needs.
        step()
        peaks = []
        for _ in range(10):
            optimizer.zero_grad()
            peaks.append(profiling.memory(step).peak)
        return {"resting": resting, "peak": resting + min(peaks)}
