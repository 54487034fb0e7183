"""Which kernel computes attention, and what happens where there is none.

What ran is read from PyTorch's profiler. xformers has kernels for NVIDIA GPUs
alone, so here a stand-in with its shapes and names checks how it is called;
the real operator is held against float64 wherever a GPU runs these tests. A
length whose score matrix does not fit is run under a limit of memory that the
operating system keeps.
"""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys
import types

import pytest
import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from minillama import kernels, profiling
from minillama.attention import attend
from minillama.plots import efficiency
from tests.test_attention import oracle

FUSED = "_scaled_dot_product_flash_attention_for_cpu"


def draw(heads=4, groups=4, queries=9, keys=9, dtype=torch.float32):
    """Random q, k and v."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, h, t, 8, generator=generator).to(dtype)
            for h, t in ((heads, queries), (groups, keys), (groups, keys))]


class FakeGPU(torch.Tensor):
    """A tensor that says it lies on a GPU."""

    is_cuda = True


@pytest.fixture
def stand_in(monkeypatch):
    """A package with xformers' names, whose operator is written out here."""
    calls = []

    def operator(q, k, v, attn_bias=None):
        calls.append((tuple(q.shape), type(attn_bias).__name__))
        queries, keys = q.shape[1], k.shape[1]
        mask = torch.ones(queries, keys, dtype=torch.bool)
        if attn_bias is not None:
            last = type(attn_bias).__name__.endswith("RightMask")
            mask = mask.tril(keys - queries if last else 0)
        out = F.scaled_dot_product_attention(
            *(x.transpose(1, 2) for x in (q, k, v)), attn_mask=mask)
        return out.transpose(1, 2)

    ops, package = types.ModuleType("xformers.ops"), types.ModuleType("xf")
    triangle = type("LowerTriangularMask", (), {})
    last = type("LowerTriangularFromBottomRightMask", (), {})
    ops.LowerTriangularMask = triangle
    ops.fmha = types.SimpleNamespace(
        memory_efficient_attention=operator,
        attn_bias=types.SimpleNamespace(
            LowerTriangularFromBottomRightMask=last))
    monkeypatch.setitem(sys.modules, "xformers", package)
    monkeypatch.setitem(sys.modules, "xformers.ops", ops)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: package)
    return types.SimpleNamespace(calls=calls, ops=ops)


@pytest.mark.parametrize(("queries", "keys", "causal", "mask"), [
    (9, 9, True, "LowerTriangularMask"),
    (5, 9, True, "LowerTriangularFromBottomRightMask"),
    (1, 9, True, "NoneType"), (9, 9, False, "NoneType")])
def test_xformers_is_called_with_its_shapes_and_masks(
        stand_in, queries, keys, causal, mask):
    """(B, T, H, K), a triangle that ends at the last key, heads repeated."""
    q, k, v = draw(4, 2, queries, keys)
    out = attend(q.as_subclass(FakeGPU), k, v, causal=causal,
                 backend="xformers")
    assert stand_in.calls == [((1, queries, 4, 8), mask)]
    torch.testing.assert_close(
        out.as_subclass(torch.Tensor), oracle(q, k, v, causal))


def test_a_gpu_without_a_kernel_is_a_clear_message(stand_in):
    def refuse(*args, **kwargs):
        raise NotImplementedError("No operator found for\n  this GPU")

    stand_in.ops.fmha.memory_efficient_attention = refuse
    q, k, v = draw()
    with pytest.raises(ValueError, match=r"no kernel here \(No operator found "
                       r"for this GPU\); try backend='auto'"):
        attend(q.as_subclass(FakeGPU), k, v, backend="xformers")


def test_xformers_on_a_cpu_or_absent_is_a_clear_message(monkeypatch):
    """And `auto` never needs it."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="not installed; try backend=\"auto"):
        attend(*draw(), backend="xformers")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "there")
    with pytest.raises(ValueError, match="no kernel for device='cpu'.*auto"):
        attend(*draw(), backend="xformers")
    assert "xformers" not in sys.modules
    assert profiling.kernels(lambda: attend(*draw())) == [FUSED]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="xformers' kernels "
                    "run on NVIDIA GPUs alone")
def test_xformers_on_a_gpu_is_the_formula():
    pytest.importorskip("xformers")
    rows = [row for row in efficiency.deviations("cuda")
            if row.backend == "xformers"]
    assert rows and max(max(row.output, row.gradient) for row in rows) < 0.02


@pytest.mark.parametrize(("backend", "name"), [
    ("eager", "softmax"), ("tiled", "TiledAttention"), ("sdpa", FUSED),
    ("auto", FUSED)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_what_ran_is_read_from_a_profile(backend, name, dtype):
    q, k, v = (x.to(dtype) for x in draw())
    q.requires_grad_()
    run = lambda: attend(q, k, v, backend=backend).sum().backward()  # noqa
    assert profiling.kernels(run) == [name]


def test_a_fall_back_to_the_formula_shows():
    """As on a GPU that has no fused kernel for a case."""
    with sdpa_kernel(SDPBackend.MATH):
        ran = profiling.kernels(lambda: attend(*draw(), backend="sdpa"))
    assert ran == ["softmax"]


def repeated(monkeypatch, q, k, v):
    """How many key heads reach PyTorch's call, and what comes of it."""
    seen, want = [], oracle(q, k, v)
    real = F.scaled_dot_product_attention

    def spy(q, k, v, **options):
        seen.append(k.shape[1])
        return real(q, k, v, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    out = attend(q, k, v, backend="sdpa")
    torch.testing.assert_close(out, want)
    return seen


def test_shared_heads_go_to_a_kernel_that_takes_them(monkeypatch):
    """The CPU's does: keys are not repeated, and the fused kernel runs."""
    q, k, v = draw(6, 2)
    assert kernels.takes_shared_heads(q, k, v, causal=True)
    assert profiling.kernels(
        lambda: attend(q, k, v, backend="sdpa")) == [FUSED]
    assert repeated(monkeypatch, q, k, v) == [2]


def test_where_only_the_formula_takes_them_keys_are_repeated(monkeypatch):
    """As on a T4: with keys repeated a fused kernel runs all the same."""
    q, k, v = draw(6, 2)
    monkeypatch.setattr(torch, "_fused_sdp_choice",
                        lambda *args, **kwargs: SDPBackend.MATH.value)
    assert not kernels.takes_shared_heads(q, k, v, causal=True)
    assert repeated(monkeypatch, q, k, v) == [6]


def test_a_cache_and_fake_tensors_repeat_the_keys(monkeypatch):
    q, k, v = draw(6, 2, queries=4)
    assert repeated(monkeypatch, q, k, v) == [6]
    fake = q.as_subclass(FakeGPU)
    assert not kernels.takes_shared_heads(fake, k, v, causal=True)


def test_the_table_of_all_backends_stands_within_rounding():
    """Every backend, case and type: a few roundings of its type, no more."""
    rows = efficiency.deviations()
    assert len(rows) == 4 * 2 * len(efficiency.CASES)
    for row in rows:
        if row.backend == "xformers":
            assert row.output is None and "xformers" in row.note
            continue
        unit = {"float32": 2**-23, "bfloat16": 2**-8}[row.dtype]
        assert 0 < row.output < 8 * unit, row
        assert 0 < row.gradient < 16 * unit, row
        assert row.note


def test_the_table_sees_a_wrong_backend(monkeypatch):
    """A mask from the wrong corner moves the rows with a cache."""
    import minillama.attention as module

    monkeypatch.setattr(
        module, "attend_sdpa", lambda q, k, v, causal:
        F.scaled_dot_product_attention(q, k, v, is_causal=causal,
                                       enable_gqa=True))
    worst = {row.case: row.output for row in efficiency.deviations()
             if row.backend == "sdpa"}
    assert worst["a cache"] > 0.1 > worst["odd"]


LIMITED = """
import resource, sys, torch
torch.set_num_threads(1)
from minillama.attention import attend_eager
from minillama.tiled import attend_tiled

length = {length}
q, k, v = (torch.randn(1, 1, length, 4, requires_grad=True)
           for _ in range(3))
attend_tiled(q[:, :, :9], k[:, :, :9], v[:, :, :9], causal=True).sum(
    ).backward()
with open("/proc/self/statm") as file:
    now = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + {room}, now + {room}))
try:
    attend_eager(q, k, v, causal=True)
    sys.exit("the formula fitted")
except RuntimeError as error:
    assert "allocate" in str(error), error
out = attend_tiled(q, k, v, causal=True, tile=512)
out.sum().backward()
print(out.shape[2], bool(q.grad.isfinite().all()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_a_length_whose_matrix_does_not_fit():
    """12,288 squared in fp32 is 604 MB; 256 MB are free."""
    length, room = 12_288, 2**28
    assert 4 * length**2 > 2 * room
    done = subprocess.run(
        [sys.executable, "-c", LIMITED.format(length=length, room=room)],
        capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.stdout.split() == [str(length), "True"], done.stderr[-500:]


def test_peak_memory_is_linear_by_tiles_and_square_by_the_formula():
    """Twice the length: twice the bytes, and four times."""
    def peak(backend, length):
        q, k, v = (x.requires_grad_() for x in draw(1, 1, length, length))
        return profiling.memory(lambda: attend(
            q, k, v, backend=backend).sum().backward()).peak

    growth = {backend: peak(backend, 2048) / peak(backend, 1024)
              for backend in ("eager", "tiled", "sdpa")}
    assert math.isclose(growth["eager"], 4, rel_tol=0.02)
    assert growth["tiled"] < 2.05 and growth["sdpa"] < 2.05
