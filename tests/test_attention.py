"""Attention against PyTorch's own, and what a causal mask promises.

The oracle is `F.scaled_dot_product_attention` in float64 with a mask that
this file writes out position by position, for every backend of the package
and, where the marker says so, for a reader's own `attend`. Properties: no
output depends on a later key (its gradient is exactly zero), weights sum to
one, and the order of keys does not matter without a mask.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from minillama.attention import attend, causal_mask

BACKENDS = ("eager", "tiled", "sdpa", "auto")
SHAPES = {  # (B, H, G, T, S, K)
    "square": (2, 3, 3, 16, 16, 8),
    "odd": (1, 2, 2, 13, 13, 6),
    "one token": (2, 2, 2, 1, 1, 4),
    "one query, a cache": (1, 4, 4, 1, 29, 4),
    "some queries, a cache": (2, 2, 2, 5, 17, 4),
    "shared heads": (2, 6, 2, 9, 9, 4),
    "shared heads, a cache": (1, 6, 3, 4, 11, 4),
    "several tiles": (1, 2, 1, 150, 301, 4),
}


def draw(shape, dtype=torch.float64, seed=0):
    """Random q, k and v of a shape (B, H, G, T, S, K)."""
    b, h, g, t, s, k = shape
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(b, heads, length, k, dtype=dtype, generator=generator)
            for heads, length in ((h, t), (g, s), (g, s))]


def oracle(q, k, v, causal=True):
    """PyTorch's attention with a mask written out cell by cell."""
    queries, keys = q.shape[2], k.shape[2]
    mask = torch.ones(queries, keys, dtype=torch.bool)
    for t, s in itertools.product(range(queries), range(keys)):
        # Query t is the last but queries - 1 - t of all positions.
        mask[t, s] = not causal or s <= keys - queries + t
    groups = [h * k.shape[1] // q.shape[1] for h in range(q.shape[1])]
    return F.scaled_dot_product_attention(
        q, k[:, groups], v[:, groups], attn_mask=mask)


def with_gradients(function, tensors):
    """Output and the gradients of a curved sum of it."""
    leaves = [x.clone().requires_grad_() for x in tensors]
    out = function(*leaves)
    return [out, *torch.autograd.grad(out.sin().sum(), leaves)]


@pytest.mark.oracle
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_result_and_gradients_are_pytorchs(shape, causal, subject):
    """1e-12 in float64, the gradients too."""
    mine, tensors = subject("attend"), draw(SHAPES[shape])
    got = with_gradients(lambda *x: mine(*x, causal=causal), tensors)
    want = with_gradients(lambda *x: oracle(*x, causal), tensors)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.oracle
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_all_backends_are_one(backend, shape, causal):
    """Each backend, in float64, result and gradients."""
    tensors = draw(SHAPES[shape])
    got = with_gradients(
        lambda *x: attend(*x, causal=causal, backend=backend), tensors)
    want = with_gradients(lambda *x: oracle(*x, causal), tensors)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.oracle
@pytest.mark.parametrize("shape", ["odd", "shared heads, a cache"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_sixteen_bits_stay_near(backend, shape):
    """bf16 in, bf16 out, within two roundings (2^-8 each) of the truth."""
    tensors = draw(SHAPES[shape])
    narrow = [x.bfloat16() for x in tensors]
    out = attend(*narrow, backend=backend)
    want = oracle(*(x.double() for x in narrow))
    assert out.dtype == torch.bfloat16
    scale = narrow[2].double().abs().max()
    assert (out.double() - want).abs().max() < 2 * 2**-8 * scale


@pytest.mark.oracle
def test_the_future_has_no_gradient(subject):
    """d out[t] / d k[s] is exactly 0 for s > t, and not for s <= t."""
    q, k, v = draw((1, 1, 1, 7, 7, 4))
    k, v = k.requires_grad_(), v.requires_grad_()
    out = subject("attend")(q, k, v)
    for t in range(7):
        grads = torch.autograd.grad(out[0, 0, t].sin().sum(), (k, v),
                                    retain_graph=True)
        for g in grads:
            assert (g[0, 0, t + 1:] == 0).all()
        assert (grads[1][0, 0, :t + 1].abs().sum(-1) > 1e-6).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_leaks_even_when_the_future_is_wild(backend):
    """Later keys and values of 1e30 do not move earlier outputs at all."""
    q, k, v = draw((1, 2, 2, 20, 20, 4))
    before = attend(q, k, v, backend=backend)
    k[:, :, 12:], v[:, :, 12:] = 1e30, -1e30
    after = attend(q, k, v, backend=backend)
    torch.testing.assert_close(after[:, :, :12], before[:, :, :12],
                               rtol=1e-13, atol=1e-13)


@pytest.mark.oracle
def test_the_first_position_returns_its_own_value(subject):
    """Query 0 sees key 0 alone, so its output is v_0 whatever q and k."""
    q, k, v = draw((2, 3, 3, 6, 6, 4))
    torch.testing.assert_close(subject("attend")(q, k, v)[:, :, 0],
                               v[:, :, 0], rtol=1e-12, atol=1e-12)


@pytest.mark.oracle
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), length=st.integers(1, 12))
def test_without_a_mask_the_order_of_keys_is_nothing(seed, length):
    """Attention is a sum over a set: that is why positions need RoPE."""
    q, k, v = draw((1, 2, 2, 5, length, 4), seed=seed)
    order = torch.randperm(length,
                           generator=torch.Generator().manual_seed(seed))
    for backend in BACKENDS:
        a = attend(q, k, v, causal=False, backend=backend)
        b = attend(q, k[:, :, order], v[:, :, order], causal=False,
                   backend=backend)
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_constant_values_pass_through(backend):
    """Weights sum to one: where all values agree, so does the output."""
    q, k, v = draw((1, 2, 1, 9, 14, 4))
    v = torch.full_like(v, 3.25)
    torch.testing.assert_close(attend(q, k, v, backend=backend),
                               torch.full_like(q, 3.25),
                               rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
def test_large_scores_do_not_overflow(backend):
    """Scores of some 10,000 in float32 stay finite and right."""
    q, k, v = (x.float() for x in draw((1, 2, 2, 9, 9, 4)))
    out = attend(200 * q, 50 * k, v, backend=backend)
    want = oracle((200 * q).double(), (50 * k).double(), v.double())
    torch.testing.assert_close(out.double(), want, rtol=1e-3, atol=1e-3)


def test_the_mask_is_a_staircase_that_ends_at_the_last_key():
    """Written out for 3 queries and 5 keys."""
    want = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])
    assert torch.equal(causal_mask(3, 5), want.bool())


def test_bad_input_is_refused_with_the_remedy():
    """Head counts, lengths and backend are named in the message."""
    q, k, v = draw((1, 6, 4, 3, 3, 4))
    with pytest.raises(ValueError, match=r"n_heads=6.*n_kv_heads=4.*try.*2"):
        attend(q, k, v)
    q, k, v = draw((1, 2, 2, 5, 3, 4))
    with pytest.raises(ValueError, match=r"5 queries but 3 keys.*pass at"):
        attend(q, k, v)
    assert attend(q, k, v, causal=False).shape == q.shape
