"""Attention by tiles: the same numbers, less memory, half the tiles.

Results are held against PyTorch's `F.scaled_dot_product_attention`, the
hand-written gradients against finite differences (`gradcheck`) and against
autograd through the formula. What makes it worth having is counted: tiles
visited, bytes kept for the backward pass, and the largest tensor ever made.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from minillama import tiled
from minillama.attention import attend, attend_eager, causal_mask
from minillama.tiled import attend_tiled, tiles


def draw(queries, keys, dtype=torch.float64, heads=2, size=4, seed=0):
    """Random q, k and v."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(1, heads, length, size, dtype=dtype,
                        generator=generator, requires_grad=True)
            for length in (queries, keys, keys)]


@settings(max_examples=60, deadline=None)
@given(data=st.data(), keys=st.integers(1, 40), tile=st.integers(1, 45),
       causal=st.booleans())
def test_any_lengths_and_any_tile_size(data, keys, tile, causal):
    """Forward and backward in float64, tiles that fit and tiles that do not.
    """
    queries = data.draw(st.integers(1, keys if causal else 40))
    tensors = draw(queries, keys)
    mask = causal_mask(queries, keys) if causal else None
    out = attend_tiled(*tensors, causal=causal, tile=tile)
    want = F.scaled_dot_product_attention(*tensors, attn_mask=mask)
    torch.testing.assert_close(out, want, rtol=1e-12, atol=1e-12)
    grad = torch.randn_like(out)
    torch.testing.assert_close(
        torch.autograd.grad(out, tensors, grad),
        torch.autograd.grad(want, tensors, grad), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("queries", "keys", "causal"), [
    (7, 7, True), (3, 8, True), (5, 4, False)])
def test_gradients_by_finite_differences(queries, keys, causal):
    """No other implementation involved."""
    assert torch.autograd.gradcheck(
        lambda q, k, v: attend_tiled(q, k, v, causal=causal, tile=3),
        draw(queries, keys))


@settings(max_examples=80, deadline=None)
@given(data=st.data(), keys=st.integers(1, 30), tile=st.integers(1, 12),
       causal=st.booleans())
def test_tiles_cover_what_is_visible_once(data, keys, tile, causal):
    """Every visible pair lies in one tile, unmasked; no tile is idle."""
    queries = data.draw(st.integers(1, keys))
    seen = torch.zeros(queries, keys, dtype=torch.int64)
    for part in tiles(queries, keys, tile, causal):
        block = torch.ones_like(seen[part.rows, part.columns])
        if part.shift is not None:
            block = block.tril(part.shift)
        assert block.any()
        seen[part.rows, part.columns] += block
    visible = causal_mask(queries, keys) if causal else torch.ones(
        queries, keys, dtype=torch.bool)
    assert torch.equal(seen, visible.long())


@pytest.mark.parametrize("n", [1, 2, 5, 16])
def test_n_by_n_plus_one_over_two_tiles(n):
    """The triangle with its diagonal; n^2 without a mask."""
    assert len(list(tiles(8 * n, 8 * n, 8, True))) == n * (n + 1) // 2
    assert len(list(tiles(8 * n, 8 * n, 8, False))) == n * n


def test_masks_are_made_on_the_diagonal_only():
    """n of the n (n + 1) / 2 tiles need one."""
    masked = [t for t in tiles(40, 40, 8, True) if t.shift is not None]
    assert [(t.rows, t.columns) for t in masked] == [
        (slice(i, i + 8), slice(i, i + 8)) for i in range(0, 40, 8)]


def test_scores_are_computed_for_the_visible_tiles_alone(monkeypatch):
    """Forward and backward each visit the triangle once."""
    visited = []
    whole = tiled.tile_scores

    def spy(q, k, part, wide):
        visited.append(part)
        return whole(q, k, part, wide)

    monkeypatch.setattr(tiled, "tile_scores", spy)
    q, k, v = draw(24, 24)
    out = attend_tiled(q, k, v, causal=True, tile=4)
    assert len(visited) == 21  # 6 * 7 / 2
    out.sum().backward()
    assert len(visited) == 42


class Largest(TorchDispatchMode):
    """Remembers the most numbers in any one tensor that is made."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run the operation and look at what it returns."""
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else (out,):
            if isinstance(x, torch.Tensor):
                self.numbers = max(self.numbers, x.numel())
        return out


@pytest.mark.parametrize(("function", "square"), [
    (lambda *x: attend_tiled(*x, causal=True, tile=16), False),
    (lambda *x: attend_eager(*x, causal=True), True)])
def test_the_big_matrix_is_never_made(function, square):
    """Neither forward nor backward, where the formula makes it."""
    length, tensors = 256, draw(256, 256, heads=1)
    with Largest() as largest:
        function(*tensors).sum().backward()
    assert (largest.numbers >= length * length) == square
    if not square:
        assert largest.numbers <= length * 4  # q itself is the largest


def test_what_is_kept_grows_with_the_length():
    """q, k, v, out and one log-sum-exp a row: 4 T K + T numbers a head."""
    def kept(length):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
                lambda x: sizes.append(x.numel()) or x, lambda x: x):
            attend_tiled(*draw(length, length), causal=True)
        return sum(sizes)
    assert kept(100) == 2 * (4 * 100 * 4 + 100)
    assert kept(200) == 2 * kept(100)


def test_the_dispatch_reaches_the_tiles(monkeypatch):
    """`backend="tiled"` runs this module, with shared heads too."""
    calls = []

    def spy(q, k, v, *, causal, tile=tiled.TILE):
        calls.append(k.shape)
        return attend_tiled(q, k, v, causal=causal, tile=tile)

    monkeypatch.setattr(tiled, "attend_tiled", spy)
    q, k, v = torch.randn(1, 4, 5, 8), *torch.randn(2, 1, 2, 9, 8)
    attend(q, k, v, backend="tiled")
    attend(q, k, v, backend="eager")
    assert calls == [(1, 4, 9, 8)]


def test_autocast_does_not_narrow_the_tiles():
    """float32 tiles under bf16 autocast give float32 results."""
    tensors = draw(50, 50, dtype=torch.float32)
    plain = attend_tiled(*tensors, causal=True, tile=8)
    with torch.autocast("cpu", torch.bfloat16):
        inside = attend_tiled(*tensors, causal=True, tile=8)
    assert torch.equal(plain, inside)


def test_sixteen_bits_in_and_out():
    """Types follow the inputs, the sums inside are wide."""
    wide = draw(60, 60, dtype=torch.float32)
    q, k, v = (x.detach().bfloat16().requires_grad_() for x in wide)
    out = attend_tiled(q, k, v, causal=True, tile=16)
    out.float().square().sum().backward()
    assert out.dtype == q.grad.dtype == torch.bfloat16
    again = [x.detach().double().requires_grad_() for x in (q, k, v)]
    want = attend_eager(*again, causal=True)
    assert (out.double() - want).abs().max() < 2**-7
    # The loss's gradient is rounded to bf16 on its way in.
    want.backward(2 * out.detach().double())
    for x, y in zip((q, k, v), again):
        gap = (x.grad.double() - y.grad).abs().max()
        assert gap < 2**-6 * y.grad.abs().max()


def test_the_sums_inside_are_wide():
    """1,000 equal scores in bf16: their sum would stick at 256 there."""
    q, k, v = torch.zeros(3, 1, 1, 1000, 4, dtype=torch.bfloat16)
    _, log_sum = tiled.forward_tiles(q, k, v, False, 10)
    assert log_sum.dtype == torch.float32
    assert (log_sum - math.log(1000)).abs().max() < 1e-5


def test_a_tile_of_nothing_is_refused():
    """With the usual size as the remedy."""
    with pytest.raises(ValueError, match=r"tile=0 must be at least 1; try"):
        attend_tiled(*draw(3, 3), causal=True, tile=0)
