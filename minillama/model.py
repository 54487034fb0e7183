"""LLaMA: embedding, blocks, norm, output (paper, section 2.2).

Knows nothing of devices, ranks or optimisers.

Chapter: notebooks/09_model.ipynb
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from minillama import rope
from minillama.attention import attend
from minillama.config import ModelConfig
from minillama.norm import RMSNorm
from minillama.swiglu import SwiGLU, ffn_hidden_dim

Tables = tuple[Float[Tensor, "T half"], Float[Tensor, "T half"]]
"""Cosines and sines of RoPE for the positions of one forward pass."""

LayerCache = tuple[Float[Tensor, "B G S K"], Float[Tensor, "B G S K"]]
"""Keys and values of one layer, with room for S positions."""


class Attention(nn.Module):
    """Multi-head causal self-attention with RoPE and without biases.

    With `n_kv_heads` below `n_heads` several query heads share one key and
    value head (grouped-query attention, Ainslie et al. 2023); the four models
    of the paper do not.

    Shapes:
        x: (B, T, D) -> (B, T, D).

    Chapter: notebooks/08_attention.ipynb
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_dim, self.kv_heads = config.head_dim, config.kv_heads
        kv_dim = config.kv_heads * config.head_dim
        self.wq = nn.Linear(config.dim, config.dim, bias=False)
        self.wk = nn.Linear(config.dim, kv_dim, bias=False)
        self.wv = nn.Linear(config.dim, kv_dim, bias=False)
        self.wo = nn.Linear(config.dim, config.dim, bias=False)
        self.attend = attend  # another of this signature may take its place

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        tables: Tables,
        start_pos: int = 0,
        cache: LayerCache | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Attend from x to x, and to what the cache holds before it."""
        split = (-1, self.head_dim)
        q = self.wq(x).unflatten(-1, split).transpose(1, 2)  # (B, H, T, K)
        k = self.wk(x).unflatten(-1, split).transpose(1, 2)  # (B, G, T, K)
        v = self.wv(x).unflatten(-1, split).transpose(1, 2)
        q, k = rope.rotate(q, *tables), rope.rotate(k, *tables)
        if cache is not None:
            end = start_pos + x.shape[1]
            cache[0][:, :, start_pos:end] = k
            cache[1][:, :, start_pos:end] = v
            k, v = cache[0][:, :, :end], cache[1][:, :, :end]
        out = self.attend(q, k, v)  # (B, H, T, K)
        return self.wo(out.transpose(1, 2).flatten(-2))


class Block(nn.Module):
    """One transformer layer with pre-normalisation.

    h = x + attention(norm(x));  y = h + feed_forward(norm(h))

    Shapes:
        x: (B, T, D) -> (B, T, D).

    Chapter: notebooks/09_model.ipynb
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden = config.ffn_dim or ffn_hidden_dim(
            config.dim, config.multiple_of)
        self.attention_norm = RMSNorm(config.dim, config.norm_eps)
        self.attention = Attention(config)
        self.ffn_norm = RMSNorm(config.dim, config.norm_eps)
        self.feed_forward = SwiGLU(config.dim, hidden)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        tables: Tables,
        start_pos: int = 0,
        cache: LayerCache | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Add what attention, then the feed-forward layer, have to say."""
        h = x + self.attention(
            self.attention_norm(x), tables, start_pos, cache)
        return h + self.feed_forward(self.ffn_norm(h))


class Transformer(nn.Module):
    """The whole LLaMA: token ids in, logits of the next token out.

    Args:
        config: the shape.
        block: the class of one layer; another one makes an ablation.

    Shapes:
        tokens: (B, T) -> logits (B, T, V), in at least float32.

    Chapter: notebooks/09_model.ipynb
    """

    def __init__(
        self, config: ModelConfig, block: type[nn.Module] = Block
    ) -> None:
        super().__init__()
        self.config = config
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.dim)
        self.layers = nn.ModuleList(
            block(config) for _ in range(config.n_layers))
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.output = nn.Linear(config.dim, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.output.weight = self.tok_embeddings.weight
        self.init_weights()

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights anew.

        The paper is silent; this is GPT-2's scheme: N(0, 0.02), and
        0.02 / sqrt(2 L) for the two matrices that write into the residual
        stream, so that its size does not grow with depth. Norm weights are 1.
        """
        residual = 0.02 / math.sqrt(2 * self.config.n_layers)
        for name, weight in self.named_parameters():
            if weight.ndim == 1:
                weight.fill_(1.0)
            else:
                writes = name.endswith(("wo.weight", "w_down.weight"))
                weight.normal_(
                    0.0, residual if writes else 0.02, generator=generator)

    def forward(
        self,
        tokens: Int[Tensor, "B T"],
        start_pos: int = 0,
        cache: list[LayerCache] | None = None,
    ) -> Float[Tensor, "B T V"]:
        """Logits of the token after each position.

        Args:
            tokens: ids below vocab_size.
            start_pos: position of the first of them in the sequence.
            cache: one (keys, values) pair a layer, filled up to start_pos;
                the new positions are written into it.

        Raises:
            ValueError: if the sequence would outgrow max_seq_len.
        """
        if (length := start_pos + tokens.shape[1]) > self.config.max_seq_len:
            raise ValueError(
                f"{length} tokens do not fit max_seq_len="
                f"{self.config.max_seq_len}; shorten the text, or build the "
                "model with a larger max_seq_len")
        x = self.tok_embeddings(tokens)
        tables = self.rope_tables(start_pos, tokens.shape[1], x)
        for i, layer in enumerate(self.layers):
            x = layer(x, tables, start_pos, cache[i] if cache else None)
        logits = self.output(self.norm(x))
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    @torch.compiler.disable  # fused, each layer would work them out again
    def rope_tables(self, start: int, length: int, like: Tensor) -> Tables:
        """RoPE's cosines and sines, made once for all layers.

        They are computed, not stored: a stored table would be rounded by
        `model.bfloat16()` and lost on the meta device.
        """
        c = self.config
        angles = rope.angles(
            c.head_dim, length, c.rope_theta, c.rope_scaling, start=start)
        return rope.tables(angles, like)


def count_parameters(config: ModelConfig) -> int:
    """Parameters of the real model, built on the meta device (no memory).

    Chapter: notebooks/09_model.ipynb
    """
    with torch.device("meta"):
        return sum(p.numel() for p in Transformer(config).parameters())


def flops_per_token(config: ModelConfig, seq_len: int) -> int:
    """Floating-point operations to train on one token, forward and backward.

    6 for every weight that multiplies (all but the input embedding, which is
    a lookup) plus 6 L D T for the two products with the lower triangle of the
    attention matrix. A multiplication and an addition count as two.

    Source: Kaplan et al. 2020, section 2.1, with causal attention halved.
    Chapter: notebooks/09_model.ipynb
    """
    weights = count_parameters(config)
    if not config.tie_embeddings:
        weights -= config.vocab_size * config.dim
    attention = 6 * config.n_layers * config.dim * seq_len
    return 6 * weights + attention
