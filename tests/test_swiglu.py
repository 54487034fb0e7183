"""minillama/swiglu.py against Hugging Face's LlamaMLP and the paper's widths.

Oracles: transformers' `LlamaMLP` with the same weights, outputs and all
gradients; the four feed-forward widths of the release; the plain formula for
the rounding. Properties: at equal width three matrices, and the 2/3 rule
keeps the parameters of the two-matrix layer within the rounding; a closed
gate lets nothing through; no biases.
"""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minillama.config import ModelConfig
from minillama.swiglu import SwiGLU, ffn_hidden_dim


def reference(dim: int, hidden: int):
    """Hugging Face's feed-forward layer, in float64."""
    transformers = pytest.importorskip("transformers")
    from transformers.models.llama.modeling_llama import LlamaMLP

    config = transformers.LlamaConfig(
        hidden_size=dim, intermediate_size=hidden, hidden_act="silu",
        mlp_bias=False, num_attention_heads=1)
    return LlamaMLP(config).double()


PAIRS = [("w_gate", "gate_proj"), ("w_up", "up_proj"),
         ("w_down", "down_proj")]


@pytest.mark.oracle
@pytest.mark.parametrize("dim, hidden", [(8, 12), (16, 10), (32, 96)])
def test_equals_hugging_face(subject, dim, hidden):
    """Output, gradient of the input, gradient of each matrix."""
    mine = subject("SwiGLU")(dim, hidden).double()
    theirs = reference(dim, hidden)
    draw = torch.Generator().manual_seed(dim)
    with torch.no_grad():
        for ours, name in PAIRS:
            weight = getattr(theirs, name).weight
            weight.copy_(torch.randn(
                weight.shape, generator=draw, dtype=torch.float64))
            getattr(mine, ours).weight.copy_(weight)
    x = torch.randn(2, 5, dim, generator=draw, dtype=torch.float64)
    back = torch.randn(2, 5, dim, generator=draw, dtype=torch.float64)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    got, want = mine(a), theirs(b)
    got.backward(back)
    want.backward(back)

    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-10)
    for ours, name in PAIRS:
        torch.testing.assert_close(
            getattr(mine, ours).weight.grad, getattr(theirs, name).weight.grad,
            rtol=1e-10, atol=1e-10)


@pytest.mark.oracle
def test_equals_the_formula_written_out(subject):
    """y = W_down (silu(W_gate x) * W_up x), silu(z) = z / (1 + e^-z)."""
    mine = subject("SwiGLU")(3, 5).double()
    x = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    hidden = []
    for gate_row, up_row in zip(mine.w_gate.weight.tolist(),
                                mine.w_up.weight.tolist()):
        gate = sum(w * v for w, v in zip(gate_row, x.tolist()))
        up = sum(w * v for w, v in zip(up_row, x.tolist()))
        hidden.append(gate / (1 + math.exp(-gate)) * up)
    want = [sum(w * h for w, h in zip(row, hidden))
            for row in mine.w_down.weight.tolist()]
    torch.testing.assert_close(mine(x), torch.tensor(want, dtype=x.dtype))


def test_a_closed_gate_lets_nothing_through():
    """silu(-large) = 0, whatever w_up says; an open one passes w_up on."""
    layer = SwiGLU(4, 6).double()
    x = torch.ones(4, dtype=torch.float64)
    with torch.no_grad():
        layer.w_gate.weight.fill_(-25.0)
        assert layer(x).abs().max() < 1e-35
        layer.w_gate.weight.fill_(25.0)
        want = 100.0 * layer.w_down(layer.w_up(x))
    torch.testing.assert_close(layer(x), want)


# paper/release: dim, width before rounding, width.
WIDTHS = [("7B", 4096, 10922, 11008), ("13B", 5120, 13653, 13824),
          ("33B", 6656, 17749, 17920), ("65B", 8192, 21845, 22016)]


@pytest.mark.parametrize("name, dim, exact, rounded", WIDTHS)
def test_the_widths_of_the_release(name, dim, exact, rounded):
    assert ModelConfig.preset(name).dim == dim
    assert ffn_hidden_dim(dim) == rounded
    assert ffn_hidden_dim(dim, multiple_of=1) == exact


def test_small_models_keep_the_two_thirds():
    """At dim 128 the release's 256 would give 512 = 4 * dim."""
    assert ffn_hidden_dim(128) == 4 * 128
    assert ffn_hidden_dim(128, ModelConfig.preset("toy").multiple_of) == 352


@given(dim=st.integers(1, 20000), multiple_of=st.integers(1, 512))
def test_rounding(dim, multiple_of):
    """The smallest multiple that is at least floor(8/3 dim)."""
    got = ffn_hidden_dim(dim, multiple_of)
    exact = math.floor(Fraction(8, 3) * dim)
    assert got % multiple_of == 0
    assert exact <= got < exact + multiple_of


@given(dim=st.integers(1, 64).map(lambda n: 64 * n))
def test_two_thirds_keep_the_parameters(dim):
    """3 * dim * F equals the ReLU layer's 2 * dim * 4 dim up to rounding."""
    hidden = ffn_hidden_dim(dim, 1)
    assert 0 <= 2 * dim * 4 * dim - 3 * dim * hidden < 3 * dim


def test_three_matrices_and_no_bias():
    layer = SwiGLU(6, 10)
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == {
        "w_gate.weight": (10, 6), "w_up.weight": (10, 6),
        "w_down.weight": (6, 10)}
