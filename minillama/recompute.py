"""What a layer keeps from forward to backward (paper, section 2.4).

The backward pass of a layer needs what its forward pass computed. All of it
can be kept, which costs memory, or computed once more, which costs time. The
paper keeps what is expensive, the outputs of linear layers, and recomputes
the rest: norms, RoPE, SiLU, products. Five modes:

    none       what autograd keeps by itself
    selective  linear outputs and attention's output; torch recomputes
    linear     the seven linear outputs alone; torch recomputes
    by_hand    the backward pass of this file, written out, without autograd
    full       nothing but the layer's input; torch recomputes

`apply` sets a mode from outside: the model knows nothing of it.

Chapter: notebooks/12_efficiency.ipynb
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import (
    CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts)

from minillama import rope
from minillama.attention import attend
from minillama.config import ModelConfig, RecomputeName
from minillama.model import LayerCache, Tables
from minillama.swiglu import ffn_hidden_dim
from minillama.tiled import TILE, backward_tiles, forward_tiles

ATEN = torch.ops.aten
LINEAR = [ATEN.mm.default, ATEN.addmm.default, ATEN.linear.default]
"""What a linear layer becomes below autograd."""
ATTENTION = [
    ATEN._scaled_dot_product_flash_attention_for_cpu.default,
    ATEN._scaled_dot_product_flash_attention.default,
    ATEN._scaled_dot_product_efficient_attention.default,
    ATEN._scaled_dot_product_cudnn_attention.default]
"""What fused attention becomes, by device and kernel."""
SCATTER = torch.ops._c10d_functional.reduce_scatter_tensor.default
"""What adds a dealt-out stream up."""


def apply(model: nn.Module, mode: str) -> nn.Module:
    """Choose what every layer of a model keeps; weights and names stay.

    Only the layers' `forward` is replaced, so a later call sets another mode.
    Apply tensor parallelism before, `fully_shard` after.

    Args:
        model: has `layers`, a list of `Block` (any module of the same call
            will do, but for `by_hand`).
        mode: see the top of this file.

    Returns:
        The model itself.

    Raises:
        ValueError: for an unknown mode.

    Chapter: notebooks/12_efficiency.ipynb
    """
    if mode not in get_args(RecomputeName):
        raise ValueError(f"recompute={mode!r} is unknown; try one of "
                         f"{list(get_args(RecomputeName))}")
    for layer in model.layers:
        _cast_once(layer)
        vars(layer).pop("forward", None)
        if mode != "none":
            layer.forward = functools.partial(_forward, layer, mode)
    return model


def _cast_once(layer: nn.Module) -> None:
    """Cast what several matrices read, which autocast would do for each."""
    for name in ("attention", "feed_forward"):
        half = getattr(layer, name, None)
        if half is not None and not hasattr(half, "casts"):
            # First, so that tensor parallelism gathers 16 bits. Not by
            # `prepend`, which torch.compile of some versions overlooks.
            others = list(half._forward_pre_hooks.items())
            half._forward_pre_hooks.clear()
            half.casts = half.register_forward_pre_hook(_cast)
            half._forward_pre_hooks.update(others)


def _cast(half: nn.Module, inputs: tuple[Any, ...]) -> Any:
    """The first input as products will read it."""
    x, *rest = inputs
    if not torch.is_autocast_enabled(x.device.type):
        return None
    return x.to(torch.get_autocast_dtype(x.device.type)), *rest


def _forward(
    layer: nn.Module,
    mode: RecomputeName,
    x: Float[Tensor, "B T D"],
    tables: Tables,
    start_pos: int = 0,
    cache: LayerCache | None = None,
) -> Float[Tensor, "B T D"]:
    """The forward pass of a layer that recomputes; of writing, as it was."""
    plain = functools.partial(type(layer).forward, layer)
    if cache is not None or not torch.is_grad_enabled():
        return plain(x, tables, start_pos, cache)
    if mode == "by_hand":
        return block_by_hand(layer, x, tables)
    kept = {"selective": LINEAR + ATTENTION, "linear": LINEAR, "full": []}
    # A stream dealt out by positions (minillama.parallel) knows its mesh.
    choose = _kept_of_dealt if hasattr(x, "device_mesh") else list
    # Nothing in the model is random, so no random state has to be restored.
    return checkpoint(
        plain, x, tables, use_reentrant=False, preserve_rng_state=False,
        context_fn=functools.partial(
            create_selective_checkpoint_contexts, choose(kept[mode])))


def _kept_of_dealt(kept: list[Any]) -> Callable[..., CheckpointPolicy]:
    """What is kept where the stream is dealt out by positions.

    The products of wo and w_down are sums not yet added up, as long as the
    whole stream on every process. Kept is what the reduce-scatter made of
    them: a part of the stream, and no message has to be sent again.
    """
    seen = {False: 0, True: 0}

    def policy(
        context: Any, operation: Any, *args: Any, **kwargs: Any
    ) -> CheckpointPolicy:
        keep = operation in kept or (kept and operation == SCATTER)
        if operation in LINEAR:
            seen[context.is_recompute] += 1
            # q, k, v, wo, gate, up, down
            keep = keep and seen[context.is_recompute] not in (4, 7)
        return (CheckpointPolicy.MUST_SAVE if keep
                else CheckpointPolicy.PREFER_RECOMPUTE)

    return policy


def kept_bytes(
    config: ModelConfig,
    mode: RecomputeName,
    *,
    batch: int = 1,
    length: int | None = None,
    dtype: torch.dtype = torch.bfloat16,
) -> int:
    """Bytes that one layer keeps from forward to backward.

    Beyond its input, D numbers a token, which is the output of the layer
    before and stays in every mode. With fused attention, and one type for
    weights and activations; the four modes that recompute keep the same bytes
    under autocast, where `dtype` is that of the products.

    Args:
        config: the shape.
        mode: see the top of this file.
        batch: B, sequences.
        length: T, tokens of each; None: max_seq_len.
        dtype: of the numbers kept.

    Source: counted in section 2.4's terms; `tests/test_recompute.py` measures.
    Chapter: notebooks/12_efficiency.ipynb
    """
    d, kv = config.dim, config.kv_heads * config.head_dim
    f = config.ffn_dim or ffn_hidden_dim(d, config.multiple_of)
    length = config.max_seq_len if length is None else length
    wide = torch.promote_types(dtype, torch.float32).itemsize
    log_sum = wide * config.n_heads
    a_token = {
        "full": 0,
        # q, k, v, wo, gate, up, down
        "linear": dtype.itemsize * (3 * d + 2 * kv + 2 * f),
        # the same, and the output of attention
        "selective": dtype.itemsize * (4 * d + 2 * kv + 2 * f) + log_sum,
        # the same without w_down's output, which no gradient needs
        "by_hand": dtype.itemsize * (3 * d + 2 * kv + 2 * f) + log_sum,
        # two norms: normed, times weight, and one 1/rms a token; turned q, k;
        # v; attention's output; gate, up, SiLU, product
        "none": (dtype.itemsize * (6 * d + 2 * kv + 4 * f) + log_sum
                 + 2 * wide),
    }[mode]
    if mode != "none":
        return batch * length * a_token
    # What the norms read: x is there already, h stays; 16 bits are widened
    # first, and both wide copies stay in their place. RoPE keeps its complex
    # table twice, once for all sequences.
    read = d * wide * (1 if wide == dtype.itemsize else 2)
    tables = 2 * length * config.head_dim * wide
    return batch * length * (a_token + read) + tables


def block_by_hand(
    layer: nn.Module, x: Float[Tensor, "B T D"], tables: Tables
) -> Float[Tensor, "B T D"]:
    """A `Block` whose backward pass is written out.

    Raises:
        ValueError: if a weight is spread over ranks by tensor parallelism,
            whose communication only autograd knows, or if another attention
            has taken the place of the layer's own.

    Chapter: notebooks/12_efficiency.ipynb
    """
    weights = list(layer.parameters())
    if any(hasattr(weight, "device_mesh") for weight in weights):
        raise ValueError(
            "recompute='by_hand' and tensor parallelism do not go together; "
            "try recompute='selective', which keeps nearly the same")
    if layer.attention.attend is not attend:
        raise ValueError(
            "recompute='by_hand' has an attention of its own, and this layer "
            "was given another; try recompute='selective'")
    return BlockByHand.apply(layer, x, *tables, *weights)


class BlockByHand(torch.autograd.Function):
    """One layer forward and backward; autograd is off inside both.

    Kept beyond x and the weights: the outputs of wq, wk, wv, wo, w_gate and
    w_up, attention's output and its log-sum-exp. Computed again: two norms,
    RoPE, SiLU, the product, and the softmax inside the fused kernel.

    Chapter: notebooks/12_efficiency.ipynb
    """

    @staticmethod
    def forward(
        ctx: Any, layer: nn.Module, x: Tensor, cos: Tensor, sin: Tensor,
        *weights: Tensor,
    ) -> Tensor:
        """h = x + wo(attention);  y = h + w_down(silu(gate) * up)."""
        at, ffn = layer.attention, layer.feed_forward
        normed = layer.attention_norm(x)
        q, k, v = at.wq(normed), at.wk(normed), at.wv(normed)
        out, log_sum, ctx.rest = _flash(
            *_turned_heads(q, k, v, at.head_dim, (cos, sin)))
        a = at.wo(out.transpose(1, 2).flatten(-2))
        h = x + a
        normed = layer.ffn_norm(h)
        gate, up = ffn.w_gate(normed), ffn.w_up(normed)
        ctx.layer = layer
        ctx.save_for_backward(
            x, cos, sin, q, k, v, out, log_sum, a, gate, up, *weights)
        return h + ffn.w_down(functional.silu(gate) * up)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x and of the nine weights, in the layer's order."""
        # Autocast would choose types anew; the products keep the forward's.
        with torch.autocast(grad.device.type, enabled=False):
            dh, *ffn = _feed_forward_backward(ctx, grad)
            dx, *attention = _attention_part_backward(ctx, dh)
        return None, dx, None, None, *attention, *ffn


def _feed_forward_backward(ctx: Any, grad: Tensor) -> list[Tensor]:
    """y = h + w_down(silu(gate) up) with gate, up linear in norm(h).

    Returns:
        Gradients of h, ffn_norm, w_gate, w_up and w_down.
    """
    x, a, gate, up = (ctx.saved_tensors[i] for i in (0, 8, 9, 10))
    norm, (w_gate, w_up, w_down) = ctx.layer.ffn_norm, ctx.saved_tensors[-3:]
    h, silu = x + a, functional.silu(gate)
    inner, d_down = _linear(grad, silu * up, w_down, gate.dtype)
    d_up_out, d_gate_out = inner * silu, ATEN.silu_backward(inner * up, gate)
    del inner, silu
    normed = norm(h)
    from_gate, d_gate = _linear(d_gate_out, normed, w_gate, gate.dtype)
    from_up, d_up = _linear(d_up_out, normed, w_up, gate.dtype)
    dh, d_norm = _norm(from_gate + from_up, h, norm)
    return [grad + dh, d_norm, d_gate, d_up, d_down]


def _attention_part_backward(ctx: Any, dh: Tensor) -> list[Tensor]:
    """h = x + wo(attention(q, k, v)) with q, k, v linear in norm(x).

    Returns:
        Gradients of x, attention_norm, wq, wk, wv and wo.
    """
    x, cos, sin, q, k, v, out, log_sum = ctx.saved_tensors[:8]
    norm, (wq, wk, wv, wo) = ctx.layer.attention_norm, ctx.saved_tensors[12:16]
    d_out, d_wo = _linear(dh, out.transpose(1, 2).flatten(-2), wo, q.dtype)
    dq, dk, dv = _attention_backward(
        d_out, q, k, v, out, log_sum, ctx.rest, (cos, sin))
    normed = norm(x)
    parts = [_linear(d, normed, w, q.dtype)
             for d, w in ((dq, wq), (dk, wk), (dv, wv))]
    dx, d_norm = _norm(parts[0][0] + parts[1][0] + parts[2][0], x, norm)
    return [dh + dx, d_norm, *(d_weight for _, d_weight in parts), d_wo]


def _turned_heads(
    q: Tensor, k: Tensor, v: Tensor, head_dim: int, tables: Tables
) -> tuple[Tensor, Tensor, Tensor]:
    """(B, T, D) split into heads, RoPE on q and k, shared heads repeated."""
    q, k, v = (x.unflatten(-1, (-1, head_dim)).transpose(1, 2)
               for x in (q, k, v))
    q, k = rope.rotate(q, *tables), rope.rotate(k, *tables)
    times = q.shape[1] // k.shape[1]
    if times > 1:
        k, v = (x.repeat_interleave(times, dim=1) for x in (k, v))
    return q, k, v


def _attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor,
    log_sum: Tensor, rest: Any, tables: Tables,
) -> tuple[Tensor, Tensor, Tensor]:
    """From (B, T, D) of the output to those of q, k and v before RoPE.

    RoPE turns by an angle; its gradient turns back by the same. Where heads
    were repeated, the gradients of the copies add up.
    """
    grad = grad.unflatten(-1, (-1, out.shape[-1])).transpose(1, 2)
    cos, sin = tables
    times = q.shape[-1] // k.shape[-1]
    grads = _flash_backward(
        grad, *_turned_heads(q, k, v, out.shape[-1], tables), out, log_sum,
        rest)
    dq, dk, dv = (
        g if not i or times == 1 else g.unflatten(1, (-1, times)).sum(2)
        for i, g in enumerate(grads))
    return tuple(x.transpose(1, 2).flatten(-2) for x in (
        rope.rotate(dq, cos, -sin), rope.rotate(dk, cos, -sin), dv))


def _flash(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Any]:
    """Causal attention: output, log-sum-exp, and what CUDA wants back.

    The operators below `F.scaled_dot_product_attention`, which alone hand out
    the log-sum-exp; where there is none, our tiles.
    """
    if _on_cpu(q):
        return *ATEN._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, 0.0, True), ()
    if _on_chip(q):
        out, log_sum, *rest, _ = ATEN._scaled_dot_product_flash_attention(
            q, k, v, 0.0, True)
        return out, log_sum, rest
    out, log_sum = forward_tiles(q, k, v, True, TILE)
    return out.to(q.dtype), log_sum, ()


def _flash_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor,
    log_sum: Tensor, rest: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v; the softmax is computed again inside."""
    if _on_cpu(q):
        return ATEN._scaled_dot_product_flash_attention_for_cpu_backward(
            grad, q, k, v, out, log_sum, 0.0, True)
    if _on_chip(q):
        *sizes, seed, offset = rest
        return ATEN._scaled_dot_product_flash_attention_backward(
            grad, q, k, v, out, log_sum, *sizes, 0.0, True, seed, offset)
    grads = backward_tiles(q, k, v, out, log_sum, grad, True, TILE)
    return tuple(g.to(q.dtype) for g in grads)


def _on_cpu(q: Tensor) -> bool:
    """Whether PyTorch's FlashAttention for CPUs runs here."""
    return q.device.type == "cpu"


def _on_chip(q: Tensor) -> bool:
    """Whether PyTorch's FlashAttention runs here: 16 bits, A100 or later."""
    return (q.is_cuda and q.dtype.itemsize == 2 and q.shape[-1] % 8 == 0
            and torch.cuda.get_device_capability(q.device) >= (8, 0))


def _linear(
    grad: Tensor, x: Tensor, weight: Tensor, kind: torch.dtype
) -> tuple[Tensor, Tensor]:
    """y = x W^T: dx = dy W and dW = dy^T x, products in the type `kind`."""
    grad, rows = grad.to(kind).flatten(0, -2), x.to(kind).flatten(0, -2)
    dx = (grad @ weight.to(kind)).unflatten(0, x.shape[:-1])
    return dx, (grad.T @ rows).to(weight.dtype)


def _norm(grad: Tensor, x: Tensor, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """y = n w, n = x / rms: dx = (g - n mean(g n)) / rms with g = dy w."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + norm.eps)
    normed, grad = wide * scale, grad.to(wide.dtype)
    d_weight = (grad * normed.to(x.dtype)).flatten(0, -2).sum(0)
    grad = grad * norm.weight
    coupling = (grad * normed).mean(-1, keepdim=True)
    return ((scale * (grad - normed * coupling)).to(x.dtype),
            d_weight.to(norm.weight.dtype))
