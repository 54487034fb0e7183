"""Memory of one GPU, part by part: training by layout, and serving.

The parts follow what `minillama.parallel` does: weights, gradients and Adam's
two means stay in fp32, dealt out over shards and tensor-parallel ranks; each
layer's weights are gathered in 16 bits just before they are used. What a
layer keeps for its backward pass is `recompute.kept_bytes`.

Chapter: notebooks/13_scaling.ipynb
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from minillama.config import ModelConfig
from minillama.layout import Layout
from minillama.planner.count import Sizes
from minillama.recompute import kept_bytes

GIB = 2**30

# Numbers as wide as the residual stream (D a token) among what a layer keeps:
# outputs of wo and w_down, and in `none` the norms' (see kept_bytes).
_STREAM_WIDE = {"full": 0, "by_hand": 1, "linear": 2, "selective": 2,
                "none": 9}
# How many of them tensor parallelism has gathered: inputs of linear layers.
_GATHERED = {"none": 2}


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU at the worst moment of a step."""

    weights: float
    """In fp32, this GPU's part."""
    gradients: float
    """The same in number."""
    optimizer: float
    """Adam's two running means."""
    activations: float
    """What all layers keep from forward to backward."""
    logits: float
    """Scores over the vocabulary, and their gradient."""
    buffers: float
    """Weights gathered in 16 bits, gradients about to be dealt out, and one
    layer's recomputed activations."""

    @property
    def total(self) -> float:
        """All parts; logits are gone before the first layer's backward."""
        return (self.weights + self.gradients + self.optimizer
                + self.activations + max(self.logits, self.buffers))

    def gib(self) -> dict[str, float]:
        """Every part, and the total, in GiB."""
        parts = {**asdict(self), "total": self.total}
        return {name: value / GIB for name, value in parts.items()}


def training(
    config: ModelConfig, sizes: Sizes, layout: Layout, seq_len: int
) -> Memory:
    """Memory of one GPU in a training step in bf16.

    Args:
        config: the shape.
        sizes: of the same (`count.sizes`), counted once for many layouts.
        layout: who holds what.
        seq_len: T.

    Chapter: notebooks/13_scaling.ipynb
    """
    t = layout.tensor_parallel
    tokens = layout.micro_batch_size * seq_len
    local = sizes.local(t)
    part = local / layout.dp_shard
    stream = 2 * tokens * config.dim / (t if layout.sequence_parallel else 1)
    kept = _kept(config, layout, seq_len, layout.recompute)
    working = _kept(config, layout, seq_len, "none") - kept
    vocab = tokens * config.vocab_size / t
    return Memory(
        weights=4 * part, gradients=4 * part, optimizer=8 * part,
        activations=sizes.layers * (kept + stream) + stream,
        logits=10 * vocab, buffers=_gathered(sizes, layout) + working)


def _gathered(sizes: Sizes, layout: Layout) -> float:
    """16-bit weights in use and gradients on their way."""
    t = layout.tensor_parallel
    block, ends = sizes.block / t, sizes.ends / t
    if layout.dp_shard * t == 1 or layout.data_parallel == 1:
        # No shards: one 16-bit copy of every matrix, and DDP's buckets.
        copies = 4 * sizes.local(t) if layout.dp_replicate > 1 else 0
        return 2 * sizes.layers * block + ends + copies
    # Two layers' weights, one layer's gradient in 16 and in 32 bits; the
    # embedding and the output stay, and the output's gradient waits.
    return 2 * 2 * block + 6 * block + 2 * ends + ends


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
    return ((alone - wide) / t + gathered
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
