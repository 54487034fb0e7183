"""minillama/norm.py against PyTorch's own RMSNorm, and as mathematics.

Oracles: `F.rms_norm` in float64, float32 and bf16, values and gradients (of
the input and of the weight), and `nn.LayerNorm` of the same input without its
mean. Properties: the scale of the input does not matter, the output has root
mean square 1, the statistics are taken in at least float32, the weight is
applied after the cast.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from minillama.norm import RMSNorm

EPS = 1e-6
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-2}


def inputs(*shape: int, dtype: torch.dtype = torch.float64,
           seed: int = 0) -> torch.Tensor:
    """Random numbers with a mean well away from 0."""
    draw = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(*shape, generator=draw, dtype=torch.float64)
            + 0.7).to(dtype)


def made(norm, dim: int, dtype: torch.dtype, eps: float = EPS):
    """The module under test with random weights, and the weights alone."""
    module = norm(dim, eps).to(dtype)
    weight = inputs(dim, dtype=dtype, seed=1)
    with torch.no_grad():
        module.weight.copy_(weight)
    return module, weight.clone().requires_grad_()


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", [(8,), (3, 16), (2, 3, 5, 64)])
def test_equals_torch(subject, dtype, shape):
    """Output, gradient of the input, gradient of the weight."""
    module, weight = made(subject("RMSNorm"), shape[-1], dtype)
    mine = inputs(*shape, dtype=dtype).requires_grad_()
    theirs = mine.detach().clone().requires_grad_()
    back = inputs(*shape, dtype=dtype, seed=2)

    got = module(mine)
    want = F.rms_norm(theirs, shape[-1:], weight, EPS)
    got.backward(back)
    want.backward(back)

    tol = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    assert got.dtype == dtype
    torch.testing.assert_close(got, want, **tol)
    torch.testing.assert_close(mine.grad, theirs.grad, **tol)
    # A weight's gradient sums over all vectors: bf16 rounds each addend.
    tol = {key: value * 5 for key, value in tol.items()}
    torch.testing.assert_close(module.weight.grad, weight.grad, **tol)


@pytest.mark.oracle
@pytest.mark.parametrize("eps", [1e-6, 1e-5, 0.5])
def test_is_layer_norm_once_the_mean_is_gone(subject, eps):
    """LayerNorm(x) = RMSNorm(x - mean), the same epsilon in the same place."""
    module = subject("RMSNorm")(32, eps).double()
    x = inputs(5, 32) * 0.01
    got = module(x - x.mean(dim=-1, keepdim=True))
    torch.testing.assert_close(got, F.layer_norm(x, (32,), eps=eps),
                               rtol=1e-12, atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(scale=st.floats(1e-2, 1e6), dim=st.integers(1, 40),
       seed=st.integers(0, 1000))
def test_scale_does_not_matter_and_the_size_is_one(scale, dim, seed):
    module = RMSNorm(dim, 1e-20).double()
    x = inputs(dim, seed=seed)
    y = module(x)
    torch.testing.assert_close(module(scale * x), y, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(module(-x), -y, rtol=0, atol=0)
    assert y.square().mean().item() == pytest.approx(1.0, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(rms=st.floats(1e-5, 1.0), eps=st.sampled_from([1e-6, 1e-5]))
def test_epsilon_is_added_to_the_mean_square(rms, eps):
    """A constant vector of size r comes out as r / sqrt(r^2 + eps)."""
    y = RMSNorm(7, eps).double()(torch.full((7,), rms, dtype=torch.float64))
    torch.testing.assert_close(
        y, torch.full_like(y, rms / (rms * rms + eps) ** 0.5))


def test_zero_stays_zero_and_its_gradient_is_finite():
    x = torch.zeros(3, 8, requires_grad=True)
    y = RMSNorm(8)(x)
    y.sum().backward()
    assert torch.equal(y, torch.zeros(3, 8))
    assert x.grad.isfinite().all()


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_squares_are_taken_in_float32(subject, dtype):
    """300^2 overflows fp16; bf16 would round each square to 8 bits."""
    x = (inputs(4, 64) * 300).to(dtype)
    module = subject("RMSNorm")(64, EPS).to(dtype)
    want = F.rms_norm(x.double(), (64,), eps=EPS)
    # Rounded once: at most half of the last place, 2^-9 in bf16.
    torch.testing.assert_close(
        module(x).double(), want, rtol=2.0**-8, atol=1e-6)


def test_the_weight_is_applied_after_the_cast():
    """As in the released code: round first, then multiply in bf16."""
    module, weight = made(RMSNorm, 256, torch.bfloat16)
    x = inputs(20, 256, dtype=torch.bfloat16)
    plain = F.rms_norm(x.float(), (256,), eps=EPS)
    after = plain.to(torch.bfloat16) * weight
    before = (plain * weight.float()).to(torch.bfloat16)
    got = module(x)
    assert (after != before).float().mean() > 0.05  # the two do differ
    # A float32 sum in another order may move a last digit here and there.
    assert (got != after).float().mean() < 0.005


def test_a_fresh_norm_has_weights_of_one_and_nothing_else():
    module = RMSNorm(12)
    assert {name: tuple(p.shape) for name, p in module.named_parameters()
            } == {"weight": (12,)}
    assert torch.equal(module.weight, torch.ones(12))
    assert module.eps == 1e-6
