"""The benchmarks of one GPU and of recompute: what they run and count.

Nothing here is timed. The whole path runs at a tiny size on the CPU, where
every model has to begin with the same loss; utilisation is held against the
paper's own speed, and the number of layers that fit against bytes added up by
hand.
"""

from __future__ import annotations

import importlib.util

import pytest
import torch

from benchmarks import gpu, recompute
from minillama.config import ModelConfig
from minillama.model import Transformer
from tests.small import MODEL

TINY = ("--preset mini --device cpu --steps 2 --warm-up 1 --length 16 "
        "--layers 2 --batch-size 2").split()


def test_the_whole_path_runs_and_all_begin_alike():
    runs = list(gpu.measure(gpu.arguments([
        *TINY, "--backends", "sdpa", "xformers", "--modes", "none", "full",
        "by_hand", "--compile", "no"])))
    rows = {run["side"]: run["row"] for run in runs}
    ran = [name for name, row in rows.items() if "skipped" not in row]
    assert ran[:4] == ["minillama, sdpa, none", "minillama, sdpa, full",
                       "minillama, sdpa, by_hand", gpu.RIVAL]
    assert "xformers" in rows["minillama, xformers, none"]["skipped"]
    assert "minillama, xformers, by_hand" not in rows
    for name in ran:
        assert rows[name]["last_loss"] < rows[name]["first_loss"]
        assert rows[name]["mfu_6n"] is None  # the CPU's peak is not known
        assert all(rows[name]["spent"][kind] > 0 for kind in gpu.KINDS)
    assert runs[0]["settings"] == runs[-1]["settings"]
    assert runs[0]["settings"]["layers"] == 2
    assert runs[0]["settings"]["seq_len"] == 16
    assert torch.__version__.startswith(runs[0]["versions"]["torch"])
    table = gpu.summarise(runs)
    assert set(table) == set(ran)
    assert table[gpu.RIVAL]["over_hugging_face"] == 1.0
    for row in table.values():
        assert sum(row[kind] for kind in [*gpu.KINDS, "rest"]) == (
            pytest.approx(1.0))


def test_a_side_that_ran_again_replaces_its_row():
    row = {"steps": 2, "mfu_6n": 0.5, "mfu_6n_no_embedding": 0.4,
           "mfu_with_attention": 0.45, "peak_bytes": 2e9,
           "spent": {"products": 3.0, "rest": 1.0}}
    table = gpu.summarise([
        {"side": side, "row": row | {"tokens_per_s": speed}}
        for side, speed in (("ours", 1.0), (gpu.RIVAL, 2.0), ("ours", 3.0))])
    assert table["ours"]["over_hugging_face"] == 1.5
    assert table["ours"]["products"] == 0.75
    assert table["ours"]["peak_gb"] == 2.0


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_compiled_sides_share_one_graph_for_all_layers(no_shape_checks):
    """And only what PyTorch's kernel computes is compiled."""
    args = gpu.arguments([*TINY, "--backends", "sdpa", "tiled", "--modes",
                          "none", "by_hand"])
    names = [side.name for side in gpu.sides(args, MODEL)]
    assert names[:5] == [
        "minillama, sdpa, none, compiled", "minillama, sdpa, none",
        "minillama, sdpa, by_hand, compiled", "minillama, sdpa, by_hand",
        "minillama, tiled, none"]
    assert names[5:7] == [gpu.RIVAL + ", compiled", gpu.RIVAL]
    seen = []

    def backend(graph, inputs):
        seen.append(graph)
        return graph.forward

    model = Transformer(MODEL)
    assert len(model.layers) > 1
    loss = gpu.ours(model, "sdpa", "none")
    tokens = torch.zeros(1, 8, dtype=torch.int64)
    want = loss(tokens, tokens)
    torch.compiler.reset()
    gpu.compile_layers(model, backend=backend)
    torch.testing.assert_close(loss(tokens, tokens), want)
    assert len(seen) == 1


@pytest.mark.parametrize(("name", "kind"), [
    ("void pytorch_flash::flash_bwd_dq_dk_dv_loop_seqk_parallel_kernel<>",
     "attention"),
    ("fmha_cutlassF_bf16_aligned_64x128_rf_sm80(PyTorchMemEffAttention)",
     "attention"),
    ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7",
     "attention"),
    ("void at::native::multi_tensor_apply_kernel<FusedAdamMathFunctor<>>",
     "optimiser"),
    ("nvjet_tst_192x192_64x4_2x1_v_bz_coopA_NTT", "products"),
    ("void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_relu>",
     "products"),
    ("triton_poi_fused_mul_silu_3", "rest"),
    ("void at::native::vectorized_elementwise_kernel<4, CUDAFunctor_add<>>",
     "rest")])
def test_kernels_of_a_gpu_are_told_apart_by_name(name, kind):
    assert gpu.kind_of(name) == kind


def test_unequal_models_are_not_compared():
    """A rival with other weights begins with another loss."""
    losses = {"minillama, sdpa, none": 6.28, "minillama, eager, none": 6.27}
    gpu.agree(losses)
    with pytest.raises(RuntimeError, match="do not compute the same"):
        gpu.agree({**losses, gpu.RIVAL: 6.35})


def test_utilisation_is_the_papers_at_the_papers_speed():
    """380 tokens a second on an A100: 47.7 % by 6 N, 1 % less without the
    embedding, and the causal half of attention adds 1 %."""
    found = gpu.utilisation(ModelConfig.preset("65B"), 380.0, 312e12)
    assert found["mfu_6n"] == pytest.approx(0.477, abs=5e-4)
    assert found["mfu_6n_no_embedding"] == pytest.approx(0.4753, abs=5e-4)
    assert found["mfu_with_attention"] == pytest.approx(0.4851, abs=1e-3)
    assert set(gpu.utilisation(MODEL, 1.0, None).values()) == {None}


def test_layers_that_fit_are_added_up_by_hand():
    """7B in fp32 on 80 GB: 18 bytes a weight, 202,383,360 weights a layer."""
    config, length = ModelConfig.preset("7B"), 2048
    kept = 2 * 6 * 4096 + 4 * 11_008 + 4 * 32  # selective, a token
    layer = 202_383_360 * 18 + length * (kept + 4 * 4096)
    rest = (2 * 32_000 * 4096 + 4096) * 18 + 12 * length * 32_000
    for free in (30e9, 80e9):
        got = gpu.layers_that_fit(
            config, int(free), batch=1, mode="selective", weights=4)
        assert got == int((0.9 * free - rest) / layer)
    assert gpu.layers_that_fit(
        config, 10**9, batch=1, mode="full", weights=4) == 0


def test_backends_reach_the_layers_and_by_hand_keeps_its_own():
    model = Transformer(MODEL)
    gpu.ours(model, "tiled", "full")
    at = model.layers[0].attention
    assert at.attend.keywords == {"backend": "tiled"}
    model = Transformer(MODEL)
    loss = gpu.ours(model, "tiled", "by_hand")
    tokens = torch.zeros(1, 8, dtype=torch.int64)
    loss(tokens, tokens).backward()  # would refuse another attention


@pytest.mark.skipif(importlib.util.find_spec("litgpt") is None,
                    reason="litgpt is not installed")
def test_litgpts_model_has_our_shape():
    config = ModelConfig.preset("mini")
    theirs = gpu.litgpt(config, torch.device("cpu"))
    ours = Transformer(config)
    assert sum(p.numel() for p in theirs.parameters()) == sum(
        p.numel() for p in ours.parameters())


def test_modes_that_take_turns_compute_the_same(monkeypatch):
    """And a mode that does not is refused before the clock starts."""
    sides = recompute.make_sides(MODEL, 2, torch.device("cpu"))
    found = [run() for run in sides.values()]  # losses and gradients
    assert list(sides) == list(recompute.MODES)
    for one in found:
        assert one == pytest.approx(found[0], rel=1e-5)
    real = recompute.recompute.apply

    def broken(model, mode):
        if mode == "full":
            with torch.no_grad():
                model.layers[0].attention.wq.weight.mul_(50)
        return real(model, mode)

    monkeypatch.setattr(recompute.recompute, "apply", broken)
    with pytest.raises(RuntimeError, match="full computes"):
        recompute.make_sides(MODEL, 2, torch.device("cpu"))


def test_a_row_a_mode_beside_none():
    run = {"peaks": dict.fromkeys(recompute.MODES, 2e6) | {"none": 4e6},
           "times": {clock: dict.fromkeys(recompute.MODES, [3.0, 3.0])
                     | {"none": [2.0, 2.0]} for clock in ("wall", "cpu")}}
    rows = recompute.summarise([run])
    assert rows["full"]["time"] == 1.5 and rows["full"]["peak"] == 0.5
    assert rows["none"]["peak_mb"] == 4.0
