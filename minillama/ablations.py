"""The roads not taken: what section 2.2 of the paper decided against.

Each alternative is a few lines on top of the model of the book, with as many
parameters, so that two runs differ in one choice alone. `ARMS` names the
experiments of the training chapter, `run` trains one of them once, and
`compare` says how sure one may be of a difference.

Chapter: notebooks/10_training.ipynb
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from minillama import train
from minillama.config import ModelConfig, TrainConfig
from minillama.model import (
    Block, LayerCache, Tables, Transformer, flops_per_token)
from minillama.shards import validation_ids
from minillama.tokenizer import Tokenizer


class PostNormBlock(Block):
    """A layer that normalises after each addition (Vaswani et al. 2017).

    h = norm(x + attention(x));  y = norm(h + feed_forward(h))

    LLaMA normalises the input of each sub-layer instead, so that the residual
    stream runs through all layers untouched.

    Shapes:
        x: (B, T, D) -> (B, T, D).

    Chapter: notebooks/10_training.ipynb
    """

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        tables: Tables,
        start_pos: int = 0,
        cache: LayerCache | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Add, then normalise, twice."""
        h = self.attention_norm(
            x + self.attention(x, tables, start_pos, cache))
        return self.ffn_norm(h + self.feed_forward(h))


class ReLUFeedForward(nn.Module):
    """The feed-forward layer of Vaswani et al. 2017, without biases.

    y = w_down(relu(w_up x))

    Args:
        dim: D, the width of the residual stream.
        hidden_dim: the width inside.

    Shapes:
        x: (..., D) -> (..., D).

    Chapter: notebooks/10_training.ipynb
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.w_up = nn.Linear(dim, hidden_dim, bias=False)
        self.w_down = nn.Linear(hidden_dim, dim, bias=False)

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """Apply the layer to the last axis of x."""
        return self.w_down(F.relu(self.w_up(x)))


class ReLUBlock(Block):
    """A LLaMA layer with ReLU instead of SwiGLU, at equal parameters.

    Two matrices of width 3/2 F hold as much as SwiGLU's three of width F;
    where F is 2/3 of 4 D, that is the classic 4 D.

    Chapter: notebooks/10_training.ipynb
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        hidden = self.feed_forward.w_gate.out_features
        self.feed_forward = ReLUFeedForward(config.dim, 3 * hidden // 2)


class NoPositions(Transformer):
    """A LLaMA whose queries and keys are not turned: order is invisible.

    Only the causal mask still tells early tokens from late ones.

    Chapter: notebooks/10_training.ipynb
    """

    def rope_tables(self, start: int, length: int, like: Tensor) -> Tables:
        """Cosine 1 and sine 0 everywhere: every angle is zero."""
        shape = (length, self.config.head_dim // 2)
        wide = torch.promote_types(like.dtype, torch.float32)
        return (torch.ones(shape, dtype=wide, device=like.device),
                torch.zeros(shape, dtype=wide, device=like.device))


class PositionedEmbedding(nn.Embedding):
    """Token embeddings plus one learned vector per position.

    Chapter: notebooks/10_training.ipynb
    """

    def __init__(self, vocab_size: int, dim: int, max_seq_len: int) -> None:
        super().__init__(vocab_size, dim)
        self.positions = nn.Parameter(torch.empty(max_seq_len, dim))
        self.start = 0

    def forward(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """The sum of what and where."""
        end = self.start + tokens.shape[1]
        return super().forward(tokens) + self.positions[self.start:end]


class LearnedPositions(NoPositions):
    """A LLaMA with learned absolute positions instead of RoPE.

    Position m adds its own vector to the embedding, as in GPT-2.

    Chapter: notebooks/10_training.ipynb
    """

    def __init__(
        self, config: ModelConfig, block: type[nn.Module] = Block
    ) -> None:
        super().__init__(config, block)
        self.tok_embeddings = PositionedEmbedding(
            config.vocab_size, config.dim, config.max_seq_len)
        if config.tie_embeddings:
            self.output.weight = self.tok_embeddings.weight
        self.init_weights()

    def forward(
        self,
        tokens: Int[Tensor, "B T"],
        start_pos: int = 0,
        cache: list[LayerCache] | None = None,
    ) -> Float[Tensor, "B T V"]:
        """Logits of the token after each position."""
        self.tok_embeddings.start = start_pos
        return super().forward(tokens, start_pos, cache)


class LayerNormTransformer(Transformer):
    """A LLaMA with LayerNorm (no bias) where RMSNorm was.

    Chapter: notebooks/10_training.ipynb
    """

    def __init__(
        self, config: ModelConfig, block: type[nn.Module] = Block
    ) -> None:
        super().__init__(config, block)
        for module in [self, *self.layers]:
            for name in ("norm", "attention_norm", "ffn_norm"):
                if hasattr(module, name):
                    setattr(module, name, nn.LayerNorm(
                        config.dim, config.norm_eps, bias=False))


Init = Literal["gpt2", "xavier"]

KINDS: dict[str, tuple[type[Transformer], type[nn.Module]]] = {
    "llama": (Transformer, Block),
    "post-norm": (Transformer, PostNormBlock),
    "relu": (Transformer, ReLUBlock),
    "learned-positions": (LearnedPositions, Block),
    "no-positions": (NoPositions, Block),
    "layer-norm": (LayerNormTransformer, Block),
}
"""Model class and layer class by name."""


def build(
    kind: str, config: ModelConfig, seed: int = 1, init: Init = "gpt2"
) -> Transformer:
    """A LLaMA, or one of its alternatives, with freshly drawn weights.

    Args:
        kind: a name in `KINDS`.
        config: the shape.
        seed: of the weights.
        init: `gpt2` is the book's own scheme; `xavier` gives the matrices of
            the layers variance 2 / (inputs + outputs) (Glorot and Bengio
            2010), as the first transformers had, whatever the depth.

    Raises:
        ValueError: for an unknown kind.

    Chapter: notebooks/10_training.ipynb
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} is unknown; try one of {list(KINDS)}")
    model, block = KINDS[kind]
    built = model(config, block)
    generator = torch.Generator().manual_seed(seed)
    built.init_weights(generator)
    if init == "xavier":
        for weight in built.layers.parameters():
            if weight.ndim == 2:
                nn.init.xavier_uniform_(weight, generator=generator)
    return built


@dataclass(frozen=True)
class Arm:
    """One experiment: a kind of model and how it is trained."""

    kind: str = "llama"
    """A name in `KINDS`."""
    init: Init = "gpt2"
    """How the weights are drawn, see `build`."""
    shape: dict[str, Any] = field(default_factory=dict)
    """Fields of ModelConfig that differ from `SHAPE`."""
    training: dict[str, Any] = field(default_factory=dict)
    """Fields of TrainConfig that differ from `TRAINING`."""


SHAPE = ModelConfig(64, 4, 2, multiple_of=2, vocab_size=512, max_seq_len=128)
"""The model of the experiments: a quarter of a million parameters."""

TRAINING: dict[str, Any] = dict(
    steps=300, batch_size=8, max_lr=1e-2, warmup_steps=30, dtype="fp32",
    device="cpu")
"""How the experiments train, unless an arm says otherwise."""

_DEEP: dict[str, Any] = dict(
    init="xavier", shape={"dim": 32, "n_layers": 12},
    training={"steps": 200, "warmup_steps": 20})
# Position vectors cost parameters; a narrower feed-forward pays for them.
_NARROW = {"ffn_dim": 159}

ARMS: dict[str, Arm] = {
    "llama": Arm(),
    "post-norm": Arm("post-norm"),
    "no-warm-up": Arm(training={"warmup_steps": 0}),
    "deep": Arm(**_DEEP),
    "deep, post-norm": Arm("post-norm", **_DEEP),
    "relu": Arm("relu"),
    "layer-norm": Arm("layer-norm"),
    "learned-positions": Arm("learned-positions", shape=_NARROW),
    "no-positions": Arm("no-positions"),
    "large, trained less": Arm(training={"max_lr": 5e-3}),
    "small, trained longer": Arm(
        shape={"dim": 32, "n_layers": 2},
        training={"max_lr": 5e-3, "steps": 1590, "warmup_steps": 159}),
}
"""The experiments by name; the last two cost the same training operations."""

PAIRS: dict[str, tuple[str, str]] = {
    "post-norm for pre-norm": ("llama", "post-norm"),
    "post-norm for pre-norm, 12 layers, Xavier": ("deep", "deep, post-norm"),
    "no warm-up": ("llama", "no-warm-up"),
    "ReLU for SwiGLU": ("llama", "relu"),
    "LayerNorm for RMSNorm": ("llama", "layer-norm"),
    "learned positions for RoPE": ("llama", "learned-positions"),
    "no positions for RoPE": ("llama", "no-positions"),
    "small, trained longer": (
        "large, trained less", "small, trained longer"),
}
"""What is compared with what: LLaMA's choice first, the other second."""


def settings(arm: str, seed: int, data: Path) -> TrainConfig:
    """The training configuration of one arm and seed.

    Arms of one seed see the same windows of text in the same order.
    """
    chosen = ARMS[arm]
    return TrainConfig(
        model=replace(SHAPE, **chosen.shape), data=Path(data), seed=seed,
        **{**TRAINING, **chosen.training})


def run(
    arm: str,
    seed: int,
    data: Path,
    *,
    until: int | None = None,
    log: Callable[[str], None] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """Train one arm once.

    Args:
        arm: a name in `ARMS`.
        seed: of the weights and the order of the data.
        data: a folder that `data.corpus.prepare` made.
        until: stop after this step of the schedule; None: go to its end.
        log: receives a line now and then.
        **changes: fields of TrainConfig to override.

    Returns:
        What the run cost (`seconds` of processor time) and came to: `loss`
        of every step in nats per token, `bits_per_byte` of the held-out text
        at the end, which is None if the run broke down.

    Chapter: notebooks/10_training.ipynb
    """
    config = replace(settings(arm, seed, data), **changes)
    chosen = ARMS[arm]
    model = build(chosen.kind, config.model, seed, chosen.init)
    state = train.new_state(config, model)
    begin, losses, finite = time.process_time(), [], True
    while state.step < (until or config.steps) and finite:
        state.step += 1
        try:
            record = train.train_step(state, next(state.batches), config)
            losses.append(record["loss"])
        except train.NonFiniteLoss:
            finite = False
        if log and state.step % 50 == 0 and losses:
            log(f"{arm}, seed {seed}: step {state.step} of {config.steps}, "
                f"loss {losses[-1]:.3f}")
    seconds = time.process_time() - begin
    bits = held_out_bits(state.model, config.data) if finite else None
    return {"arm": arm, "seed": seed, "loss": losses, "bits_per_byte": bits,
            "seconds": seconds, **costs(state.model, config)}


def held_out_bits(model: Transformer, data: Path) -> float:
    """Bits per byte on all held-out text of a folder."""
    tokenizer = Tokenizer(Path(data) / "tokenizer.model")
    return train.evaluate_loss(model, tokenizer, validation_ids(data))[1]


def costs(model: nn.Module, config: TrainConfig) -> dict[str, int]:
    """What a run needs: parameters, tokens, and operations of both kinds.

    A forward pass is a third of forward and backward together.
    """
    length = config.model.max_seq_len
    tokens = config.steps * config.batch_size * length
    per_token = flops_per_token(config.model, length)
    return {"parameters": sum(p.numel() for p in model.parameters()),
            "tokens": tokens, "training_flops": tokens * per_token,
            "inference_flops_per_token": per_token // 3}


def results() -> dict[str, Any]:
    """What `python -m benchmarks.experiments` found, shipped as a file.

    Returns:
        `settings` by arm, `runs` (five seeds an arm: `bits_per_byte` of the
        held-out play, costs, and the training loss in `curve`), `summary`
        (`arms`: mean and standard deviation; `pairs`: see `compare`) and
        `versions`.

    Chapter: notebooks/10_training.ipynb
    """
    file = resources.files("minillama.samples") / "experiments.json"
    return json.loads(file.read_text(encoding="utf-8"))


# Two-sided 95 % points of Student's t by degrees of freedom.
_T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447,
         7: 2.365, 8: 2.306, 9: 2.262}


def thinned(losses: Sequence[float], points: int = 40) -> list[float]:
    """Means of `points` stretches of equal length, for drawing."""
    size = max(1, len(losses) // points)
    return [round(statistics.mean(losses[i:i + size]), 3)
            for i in range(0, len(losses) - size + 1, size)]


def compare(
    first: Sequence[float], second: Sequence[float]
) -> dict[str, float]:
    """Paired difference second - first over seeds, with its 95 % interval.

    Pairing removes what two runs of one seed share (the order of the data);
    the interval is Student's, which assumes differences that scatter like a
    normal distribution.

    Args:
        first: results of one arm, seed by seed.
        second: the other arm's, in the same order.

    Returns:
        `mean`, `low` and `high` of the difference.

    Raises:
        ValueError: unless there are 2 to 10 pairs.

    Chapter: notebooks/10_training.ipynb
    """
    if len(first) != len(second) or len(first) - 1 not in _T_95:
        raise ValueError(
            f"{len(first)} and {len(second)} results cannot be paired; give "
            "2 to 10 of each, seed by seed")
    differences = [b - a for a, b in zip(first, second)]
    mean = statistics.mean(differences)
    half = _T_95[len(first) - 1] * statistics.stdev(differences) / math.sqrt(
        len(first))
    return {"mean": mean, "low": mean - half, "high": mean + half}
