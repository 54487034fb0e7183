"""The same model laid out for writing: fewer, larger steps a token.

Writing one token reads every weight once and multiplies each of them once, so
the time is that of reading memory, plus that of saying what to do. Reading a
prompt is left to the model as it is. For writing, matrices that see the same
input lie in one, with every column in one piece; RoPE's tables are made once
for all positions; queries and keys turn in one go; and nothing stands between
the numbers and PyTorch's functions. The numbers are the plain model's up to
rounding, and so is the text; in 8 bits both are near.

Chapter: notebooks/11_generation.ipynb
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

import torch
from jaxtyping import Float, Int, Int8
from torch import Tensor, nn
from torch.nn import functional as F

from minillama.attention import attend
from minillama.config import ModelConfig
from minillama.model import Block, LayerCache, Transformer
from minillama.norm import RMSNorm


def joined(linears: Sequence[nn.Linear]) -> Float[Tensor, "D O"]:
    """One matrix in place of several that see the same input.

    Each of the several becomes a view of the one: no weight is in memory
    twice, and the model they belong to works as before.

    Returns:
        (in, out), so that one new token, a row x, is answered by x W, which
        reads W in the order in which it lies.
    """
    whole = torch.cat([linear.weight.data.T for linear in linears], dim=1)
    start = 0
    for linear in linears:
        stop = start + linear.out_features
        linear.weight.data = whole[:, start:stop].T
        start = stop
    return whole


Matrix8 = tuple[Int8[Tensor, "O D"], Float[Tensor, "O"]]
"""Whole numbers from -127 to 127, and for each row what to multiply by."""

Keep = Callable[[Tensor], Tensor | Matrix8]
"""How a matrix is held for writing: as it is, or `in_8_bits`."""


def in_8_bits(matrix: Float[Tensor, "D O"]) -> Matrix8:
    """Each column in steps of its largest absolute value / 127."""
    scales = (matrix.abs().amax(dim=0).float() / 127).clamp_min(1e-12)
    whole = (matrix / scales).round().to(torch.int8)
    return whole.T.contiguous(), scales.to(matrix.dtype)


def product(
    x: Float[Tensor, "B D"], matrix: Float[Tensor, "D O"] | Matrix8
) -> Float[Tensor, "B O"]:
    """x times a matrix, which may be `in_8_bits`."""
    if isinstance(matrix, Tensor):
        return x @ matrix
    return torch.ops.aten._weight_int8pack_mm(x, *matrix)


def normed(x: Float[Tensor, "B D"], norm: RMSNorm) -> Float[Tensor, "B D"]:
    """RMSNorm by PyTorch's own function, where it computes the same."""
    if x.dtype.itemsize < 4:  # it would multiply before rounding
        return norm(x)
    return F.rms_norm(x, x.shape[-1:], norm.weight, norm.eps)


class FastBlock(nn.Module):
    """`model.Block` for one new position, on joined matrices.

    Chapter: notebooks/11_generation.ipynb
    """

    def __init__(self, block: Block, config: ModelConfig, keep: Keep) -> None:
        super().__init__()
        a, f = block.attention, block.feed_forward
        self.norms = block.attention_norm, block.ffn_norm
        self.heads, self.groups = config.n_heads, config.kv_heads
        self.head_dim, self.hidden = config.head_dim, f.w_up.out_features
        self.w_qkv = keep(joined([a.wq, a.wk, a.wv]))
        self.wo = keep(joined([a.wo]))
        self.w_gate_up = keep(joined([f.w_gate, f.w_up]))
        self.w_down = keep(joined([f.w_down]))

    def forward(
        self,
        x: Float[Tensor, "B D"],
        turns: Float[Tensor, "seen half two"],
        cache: LayerCache,
    ) -> Float[Tensor, "B D"]:
        """What `Block.forward` does, for one new token a text.

        Args:
            x: one vector a text.
            turns: cosine and sine of the angles of all positions up to the
                new one, whose number they tell.
            cache: keys and values; those of x are written into it.
        """
        (keys, values), end = cache, len(turns)
        heads = product(normed(x, self.norms[0]), self.w_qkv).view(
            len(x), -1, self.head_dim)  # (B, H + 2 G, K)
        turned = _turn(heads[:, :self.heads + self.groups], turns[-1])
        keys.select(2, end - 1).copy_(turned[:, self.heads:])
        values.select(2, end - 1).copy_(heads[:, -self.groups:])
        out = attend(turned[:, :self.heads, None], keys[:, :, :end],
                     values[:, :, :end]).view(x.shape)
        x = x + product(out, self.wo)
        both = product(normed(x, self.norms[1]), self.w_gate_up)
        gate, up = both.split(self.hidden, dim=-1)
        return x + product(F.silu(gate) * up, self.w_down)


def _turn(
    x: Float[Tensor, "B N K"], turn: Float[Tensor, "half two"]
) -> Float[Tensor, "B N K"]:
    """RoPE at one position: each pair of x times cos + i sin."""
    wide = x.to(turn.dtype).unflatten(-1, (-1, 2))
    if torch.compiler.is_compiling():  # fused, but knows no complex numbers
        (a, b), (cos, sin) = wide.unbind(-1), turn.unbind(-1)
        out = torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1)
    else:
        out = torch.view_as_real(
            torch.view_as_complex(wide) * torch.view_as_complex(turn))
    return out.flatten(-2).to(x.dtype)


class FastTransformer(Transformer):
    """A model for `generate`, `stream` and `next_tokens`, and nothing else.

    It shares its weights with the model it is made from, which goes on
    working.

    Args:
        model: in evaluation mode; its matrices are laid out anew in place.
        compile: compile the step that writes one token: once, whatever the
            lengths, for one text, and once more for several. It takes about
            half a minute and needs a C++ compiler on a CPU.
        int8: write with matrices rounded to 8 bits, a quarter to read; the
            model itself, which reads prompts, is put into bf16. CPU only.

    Raises:
        ValueError: for int8 on another device.

    Chapter: notebooks/11_generation.ipynb
    """

    def __init__(
        self, model: Transformer, compile: bool = False, int8: bool = False
    ) -> None:
        nn.Module.__init__(self)
        if int8:  # the product with whole numbers wants 16 bits beside them
            if model.output.weight.device.type != "cpu":
                raise ValueError("int8 is for a CPU only; try device='cpu'")
            model.bfloat16()
        keep: Keep = in_8_bits if int8 else lambda matrix: matrix
        self.config, self.reader = model.config, model
        self.tok_embeddings, self.norm = model.tok_embeddings, model.norm
        self.layers = model.layers  # `empty_cache` asks them for their heads
        self.blocks = nn.ModuleList(
            FastBlock(layer, model.config, keep) for layer in model.layers)
        output = model.output.weight
        # A tied matrix keeps the layout that looking tokens up wants.
        self.w_output = keep(output.data.T if model.config.tie_embeddings
                             else joined([model.output]))
        self.turns = torch.stack(model.rope_tables(
            0, model.config.max_seq_len, output), dim=-1)
        self._write, self._varies = self._step, lambda *_: None
        if compile:
            self._write = torch.compile(self._step, fullgraph=True)
            self._varies = torch._dynamo.mark_dynamic
        self.eval()

    def forward(
        self,
        tokens: Int[Tensor, "B T"],
        start_pos: int = 0,
        cache: list[LayerCache] | None = None,
    ) -> Float[Tensor, "B 1 V"]:
        """Logits of the token after the last position alone.

        Raises:
            ValueError: if there is no cache, or the sequence would outgrow
                max_seq_len.
        """
        if cache is None:
            raise ValueError("cache=None: FastTransformer writes with a cache "
                             "only; score texts with the model it is made of")
        end = start_pos + 1
        # The first and the last place would be compiled as special cases.
        if len(tokens[0]) > 1 or not 1 < end < cache[0][0].shape[2]:
            for kept in chain(*cache):
                self._varies(kept, 2)
            return self.reader(tokens, start_pos, cache)[:, -1:]
        turns = self.turns[:end]
        self._varies(turns, 0)
        x = self.tok_embeddings(tokens[:, 0])
        return self._write(x, turns, cache)[:, None]

    def _step(
        self,
        x: Float[Tensor, "B D"],
        turns: Float[Tensor, "seen half two"],
        cache: list[LayerCache],
    ) -> Float[Tensor, "B V"]:
        """The vector of a token a text in, the logits of the next out."""
        for block, kept in zip(self.blocks, cache):
            x = block(x, turns, kept)
        logits = product(normed(x, self.norm), self.w_output)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))
