"""Memory of one GPU, part by part: training by layout, and serving.

The parts follow what `minillama.parallel` does. Weights, gradients and Adam's
two means stay in fp32, dealt out over shards and tensor-parallel ranks; with
shards, each layer's weights are gathered in 16 bits just before they are
used, and without, autocast makes its copies. What layers keep is
`recompute.kept_bytes`; what is alive for a moment only was read off dry runs,
tensor by tensor, and `tests/test_dry_run.py` holds the two together.

Chapter: notebooks/13_scaling.ipynb
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from minillama.config import ModelConfig
from minillama.layout import Layout
from minillama.planner.count import Sizes
from minillama.recompute import kept_bytes
from minillama.swiglu import ffn_hidden_dim

GIB = 2**30

# Numbers as wide as the residual stream (D a token) among what a layer keeps:
# outputs of wo and w_down, and in `none` what the norms keep.
_STREAM_WIDE = {"full": 0, "by_hand": 1, "linear": 2, "selective": 2,
                "none": 8}
# How many of them tensor parallelism has gathered: inputs of linear layers.
_GATHERED = {"none": 2}


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU at the worst moment of a step."""

    weights: float
    """In fp32, this GPU's part."""
    optimizer: float
    """Adam's two running means."""
    gradients: float
    """Those that exist at that moment, in fp32, this GPU's part."""
    activations: float
    """What layers keep from forward to backward, and have not used yet."""
    logits: float
    """Scores over the vocabulary, and what the loss makes of them."""
    buffers: float
    """Weights and gradients on their way between GPUs or in 16 bits, and
    what one layer's backward pass works with."""

    @property
    def total(self) -> float:
        """All parts."""
        return sum(asdict(self).values())

    def gib(self) -> dict[str, float]:
        """Every part, and the total, in GiB."""
        parts = {**asdict(self), "total": self.total}
        return {name: value / GIB for name, value in parts.items()}


def training(
    config: ModelConfig, sizes: Sizes, layout: Layout, seq_len: int,
    *, accumulate: bool = False,
) -> Memory:
    """Memory of one GPU in a training step in bf16.

    Args:
        config: the shape.
        sizes: of the same (`count.sizes`), counted once for many layouts.
        layout: who holds what.
        seq_len: T.
        accumulate: gradients of an earlier micro-batch are there throughout.

    Chapter: notebooks/13_scaling.ipynb
    """
    part = sizes.local(layout.tensor_parallel) / layout.dp_shard
    return max((
        Memory(4 * part, 8 * part, 4 * part if accumulate else new, *parts)
        for new, *parts in _moments(config, sizes, layout, seq_len)),
        key=lambda memory: memory.total)


def _moments(
    config: ModelConfig, sizes: Sizes, layout: Layout, seq_len: int
) -> Iterator[tuple[float, float, float, float]]:
    """Gradients, activations, logits and buffers when much is alive."""
    t, mode, layers = layout.tensor_parallel, layout.recompute, sizes.layers
    block, ends, local = sizes.block / t, sizes.ends / t, sizes.local(t)
    alone = layout.dp_shard == 1 and (t == 1 or layout.dp_replicate == 1)
    dealt = t > 1 and layout.sequence_parallel
    whole = float(layout.micro_batch_size * seq_len * config.dim)
    x = whole / t if dealt else whole  # numbers of the residual stream
    stream = (4 if alone else 2) * x
    norm = stream + 4 * x + 2 * (whole if dealt else x)
    scores = layout.micro_batch_size * seq_len * config.vocab_size / t
    inner = config.ffn_dim or ffn_hidden_dim(config.dim, config.multiple_of)
    f = layout.micro_batch_size * seq_len * inner / t
    all_of_it = _kept(config, layout, seq_len, "none")
    attention = all_of_it - 2 * norm - 8 * f
    if alone:  # the stream stays in 32 bits
        all_of_it += 4 * x
    kept = (all_of_it if mode == "none"
            else _kept(config, layout, seq_len, mode) + stream)
    # DDP's.
    buckets = 4 * local if alone and layout.dp_replicate > 1 else 0.0
    casts = buckets + (2 * layers * block + ends if alone else 0.0)
    lasting = casts if mode == "none" else buckets

    # The loss, as autocast leaves the forward pass, and backward.
    all_kept = layers * kept + norm
    yield 0.0, all_kept, (12.0 if t > 1 else 8.0) * scores, casts
    yield 0.0, all_kept, (16.0 if t > 1 else 12.0) * scores, lasting

    # One layer backward: as w_down begins, as it ends, as w_gate and w_up
    # end, and in the norm before them.
    weight = 2 * config.dim * inner / t  # the gradient of one, in 16 bits
    own = (0 if mode == "none" else stream) + stream + (
        2 * x if mode in ("selective", "linear") else 0)
    works = [all_of_it + 4 * f + weight,
             norm + attention + 24 * x + 3 * weight]
    if t > 1:
        works.append(2 * norm + attention + 2 * f + 4 * whole + 3 * weight)
    if dealt:
        works.append(all_of_it + 2 * f + weight + 2 * whole)
    for left in {layers, layers - 1, min(2, layers), 1} - {0}:
        done = 4 * (layers - left) * block / layout.dp_shard
        # Scattered from the layer before, gathered now and for the next; the
        # embedding, the output and its gradient wait.
        # Casts of layers that are done are gone.
        still = lasting - 2 * (layers - left) * block * (mode == "none")
        moving = 2 * block + 2 * ends + still if alone else (
            4 * (left < layers) + 2 + 2 * (left > 1)) * block + 3 * ends
        yield done, (left - 1) * kept, 0.0, moving + own + max(works)

    # The end: every gradient is there.
    if alone:
        yield 4 * local, 0.0, 0.0, buckets + stream
    else:
        yield 4 * layers * block / layout.dp_shard, 0.0, 0.0, max(
            8 * ends, 4 * block + 4 * ends)


def _kept(
    config: ModelConfig, layout: Layout, seq_len: int, mode: str
) -> float:
    """Bytes one layer keeps on one GPU of a tensor-parallel group."""
    t, batch = layout.tensor_parallel, layout.micro_batch_size
    alone = kept_bytes(config, mode, batch=batch, length=seq_len)
    if t == 1:
        return float(alone)
    row = 2 * batch * seq_len * config.dim
    wide, gathered = _STREAM_WIDE[mode] * row, _GATHERED.get(mode, 0) * row
    spread = wide - gathered
    tables = 8 * seq_len * config.head_dim if mode == "none" else 0
    return ((alone - wide - tables) / t + gathered + tables
            + spread / (t if layout.sequence_parallel else 1))


def serving(
    config: ModelConfig, parameters: int, *, sequences: int = 1,
    context: int | None = None, tensor_parallel: int = 1,
    bits: int = 16,
) -> dict[str, float]:
    """Bytes on one GPU that writes: weights, and keys and values.

    Args:
        config: the shape.
        parameters: of it.
        sequences: written at once.
        context: tokens of each; None: max_seq_len.
        tensor_parallel: GPUs that share the model.
        bits: of a weight; keys and values take 16.

    Chapter: notebooks/18_budget.ipynb
    """
    numbers = 2 * config.n_layers * config.kv_heads * config.head_dim
    tokens = sequences * (context or config.max_seq_len)
    return {"weights": parameters * bits / 8 / tensor_parallel,
            "cache": 2 * numbers * tokens / tensor_parallel}
