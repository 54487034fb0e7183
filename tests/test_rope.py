"""minillama/rope.py against three other ways to write RoPE, and as a law.

Oracles: multiplication by e^(i m theta_j) written in plain Python; Hugging
Face's `apply_rotary_pos_emb`, which pairs halves, under the permutation
between the two layouts (and a proof that it is needed); transformers'
`ROPE_INIT_FUNCTIONS` for plain, linear and llama3 frequencies. Properties:
scores depend on the distance alone, lengths are kept, position 0 is the
identity, float64 stays float64, all else is computed in float32.
"""

from __future__ import annotations

import cmath

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from minillama import rope
from minillama.config import ModelConfig, RopeScaling
from minillama.model import Transformer


def randn(*shape: int, dtype: torch.dtype = torch.float64,
          seed: int = 0) -> Tensor:
    """Reproducible normal numbers."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype)


def to_halves(x: Tensor) -> Tensor:
    """Component 2j to j, component 2j + 1 to j + K/2."""
    return torch.cat((x[..., 0::2], x[..., 1::2]), dim=-1)


@pytest.mark.oracle
@pytest.mark.parametrize("head_dim, theta", [(2, 10000.0), (8, 10000.0),
                                             (128, 10000.0), (64, 500000.0)])
def test_equals_complex_numbers(subject, head_dim, theta):
    """Pair j at position m is multiplied by exp(i m theta^(-2j/K))."""
    x = randn(5, head_dim)
    got = subject("rope")(x, rope.angles(head_dim, 5, theta))
    for m, row in enumerate(x.tolist()):
        for j in range(head_dim // 2):
            turned = complex(row[2 * j], row[2 * j + 1]) * cmath.exp(
                1j * m * theta ** (-2 * j / head_dim))
            assert abs(turned - complex(*got[m, 2 * j:2 * j + 2])) < 1e-12


def hugging_face(q: Tensor, k: Tensor, theta: float) -> tuple:
    """Queries and keys (B, H, T, K) turned by transformers, in float64."""
    transformers = pytest.importorskip("transformers")
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    head_dim = q.shape[-1]
    config = transformers.LlamaConfig(
        hidden_size=head_dim, num_attention_heads=1,
        rope_parameters={"rope_type": "default", "rope_theta": theta})
    assert config.rope_parameters["rope_theta"] == theta
    # transformers makes its tables in float32; here in the input's type.
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
    halves = torch.arange(q.shape[2])[:, None] * theta ** -exponent
    table = torch.cat((halves, halves), dim=-1)[None]
    return apply_rotary_pos_emb(q, k, table.cos(), table.sin())


@pytest.mark.oracle
@pytest.mark.parametrize("theta", [10000.0, 500000.0])
def test_equals_hugging_face_with_the_permutation(subject, theta):
    apply = subject("rope")
    q, k = randn(2, 3, 17, 16), randn(2, 3, 17, 16, seed=1)
    angles = rope.angles(16, 17, theta)
    theirs = hugging_face(to_halves(q), to_halves(k), theta)
    for mine, want in zip((apply(q, angles), apply(k, angles)), theirs):
        torch.testing.assert_close(
            to_halves(mine), want, rtol=1e-12, atol=1e-12)
    scores = apply(q, angles) @ apply(k, angles).mT
    torch.testing.assert_close(
        scores, theirs[0] @ theirs[1].mT, rtol=1e-12, atol=1e-12)


def test_without_the_permutation_the_scores_differ():
    """The silent bug: right at distance 0, wrong everywhere else."""
    q, k = randn(1, 1, 9, 16), randn(1, 1, 9, 16, seed=1)
    angles = rope.angles(16, 9)
    ours = rope.apply(q, angles) @ rope.apply(k, angles).mT
    wrong = torch.matmul(*(x if i == 0 else x.mT for i, x in enumerate(
        hugging_face(q, k, 10000.0))))
    same = torch.isclose(ours, wrong, rtol=1e-6, atol=1e-6)[0, 0]
    assert same.diagonal().all()
    assert not (same & ~torch.eye(9, dtype=torch.bool)).any()


SCALINGS = [
    None,
    RopeScaling("linear", factor=4.0, original_max_seq_len=2048),
    RopeScaling("llama3", 8.0, 1.0, 4.0, 8192),
    RopeScaling("llama3", 32.0, 1.0, 4.0, 8192),
    RopeScaling("llama3", 4.0, 2.0, 8.0, 1024),
]


@pytest.mark.oracle
@pytest.mark.parametrize("scaling", SCALINGS, ids=lambda s: (
    "plain" if s is None else f"{s.kind}-{s.factor:g}"))
@pytest.mark.parametrize("head_dim, theta", [(64, 10000.0), (128, 500000.0)])
def test_frequencies_equal_transformers(scaling, head_dim, theta):
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    parameters = {"rope_type": "default", "rope_theta": theta}
    if scaling is not None:
        parameters |= {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling is not None and scaling.kind == "llama3":
        parameters |= {
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_max_seq_len}
    config = transformers.LlamaConfig(
        hidden_size=4 * head_dim, num_attention_heads=4,
        max_position_embeddings=131072, rope_parameters=parameters)
    if scaling is None:
        want = LlamaRotaryEmbedding(config).inv_freq
    else:
        want, factor = ROPE_INIT_FUNCTIONS[scaling.kind](config, "cpu")
        assert factor == 1.0
    got = rope.frequencies(head_dim, theta, scaling)
    assert got.dtype == torch.float64
    torch.testing.assert_close(got.float(), want.float(), rtol=2e-6, atol=0)


@pytest.mark.oracle
@pytest.mark.parametrize("shift", [1, 100, 1000000])
def test_scores_depend_on_the_distance_alone(subject, shift):
    apply = subject("rope")
    q, k = randn(12, 32), randn(12, 32, seed=1)
    here, there = rope.angles(32, 12), rope.angles(32, 12, start=shift)
    torch.testing.assert_close(
        apply(q, here) @ apply(k, here).T,
        apply(q, there) @ apply(k, there).T, rtol=1e-8, atol=1e-8)


@settings(max_examples=50, deadline=None)
@given(m=st.integers(0, 5000), n=st.integers(0, 5000),
       half=st.integers(1, 40), seed=st.integers(0, 99))
def test_relative_and_length_keeping_anywhere(m, n, half, seed):
    """(R_m q) . (R_n k) = q . R_(n - m) k, also for n before m."""
    q, k = randn(2, 1, 2 * half, seed=seed)

    def at(x: Tensor, position: int) -> Tensor:
        return rope.apply(x, rope.angles(2 * half, 1, start=position))

    score = (at(q, m) * at(k, n)).sum()
    torch.testing.assert_close(score, (q * at(k, n - m)).sum(),
                               rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(at(q, m).norm(), q.norm())
    torch.testing.assert_close(at(at(q, m), n), at(q, m + n),
                               rtol=1e-9, atol=1e-9)


@pytest.mark.oracle
def test_position_zero_is_the_identity(subject):
    x = randn(2, 3, 1, 16)
    assert torch.equal(subject("rope")(x, rope.angles(16, 1)), x)


def test_start_continues_the_table():
    """Angles from position 7 on are rows 7.. of the table from 0."""
    torch.testing.assert_close(
        rope.angles(16, 5, start=7), rope.angles(16, 12)[7:], rtol=0, atol=0)


@pytest.mark.oracle
def test_float64_stays_float64(subject):
    """A trip through float32 would cost nine digits."""
    x, angles = randn(3000, 8), rope.angles(8, 3000)
    back = subject("rope")(subject("rope")(x, angles), -angles)
    assert back.dtype == torch.float64
    torch.testing.assert_close(back, x, rtol=1e-13, atol=1e-13)


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_turned_in_float32(subject, dtype):
    """Rounded once, at the end: positions past 256 do not fit bf16."""
    x = randn(2, 2048, 64, dtype=dtype)
    angles = rope.angles(64, 2048)
    got = subject("rope")(x, angles)
    assert got.dtype == dtype
    exact = rope.apply(x.double(), angles)
    rounding = torch.finfo(dtype).eps / 2
    error = (got.double() - exact).abs()
    assert (error <= 1.01 * rounding * exact.abs() + 1e-6).all()


def test_gradient_turns_back():
    """R is orthogonal: the gradient is the incoming one, turned by -a."""
    x = randn(4, 8).requires_grad_()
    angles, g = rope.angles(8, 4), randn(4, 8, seed=1)
    rope.apply(x, angles).backward(g)
    torch.testing.assert_close(x.grad, rope.apply(g, -angles))


def test_tables_are_those_of_apply():
    """The model calls rotate with tables; apply is the same thing."""
    x = randn(2, 6, 8, dtype=torch.float32)
    angles = rope.angles(8, 6)
    cos, sin = rope.tables(angles, x)
    assert cos.dtype == sin.dtype == torch.float32
    assert torch.equal(rope.rotate(x, cos, sin), rope.apply(x, angles))


@pytest.mark.oracle
@pytest.mark.parametrize("layout", ["transposed", "odd start", "odd rows"])
def test_any_layout_in_memory(subject, layout):
    """Slices and transposes, whose pairs do not lie as complex numbers do."""
    x, angles = randn(5, 8, dtype=torch.float32), rope.angles(8, 5)
    odd = torch.zeros(1)
    view = {"transposed": x.T.contiguous().T,
            "odd start": torch.cat((odd, x.flatten()))[1:].view(5, 8),
            "odd rows": torch.cat((x, odd.expand(5, 1)), dim=1)[:, :8],
            }[layout]
    assert torch.equal(view, x)
    torch.testing.assert_close(
        subject("rope")(view, angles), subject("rope")(x, angles))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_the_branch_for_compile_is_the_same(monkeypatch, dtype):
    x, angles = randn(2, 6, 8, dtype=dtype), rope.angles(8, 6)
    want = rope.apply(x, angles)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(rope.apply(x, angles), want)


def test_the_model_survives_a_cast_to_bf16():
    """No table is stored, so `model.bfloat16()` can round none."""
    model = Transformer(ModelConfig.preset("mini"))
    assert not dict(model.named_buffers())
    cos, sin = model.bfloat16().rope_tables(
        1999, 1, torch.zeros(1, dtype=torch.bfloat16))
    exact = rope.angles(32, 1, start=1999)
    torch.testing.assert_close(cos, exact.cos().float())
    torch.testing.assert_close(sin, exact.sin().float())


@pytest.mark.parametrize("head_dim", [-2, 0, 1, 7])
def test_an_odd_head_is_refused(head_dim):
    with pytest.raises(ValueError, match=rf"head_dim={head_dim} .*try \d"):
        rope.frequencies(head_dim)
