"""What layers keep: gradients that stay the same, bytes as the formula says.

The hand-written backward pass is held against finite differences
(`gradcheck`) and against autograd through the same block; every mode trains
to the same weights. Bytes are measured by the profiler's memory events and by
the hooks of autograd, and must equal the planner's formula to the byte. Two
processes run every mode under FSDP and tensor parallelism.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import get_args

import pytest
import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel, RowwiseParallel, parallelize_module)

from minillama import attention, profiling, recompute, tiled
from minillama.config import ModelConfig, RecomputeName
from minillama.model import Block, Transformer
from minillama.plots import efficiency
from minillama.train import fit
from tests.small import MODEL, corpus, needs_compiler, run_config

MODES = get_args(RecomputeName)
SHAPES = {
    "all heads": ModelConfig(
        dim=32, n_layers=3, n_heads=4, multiple_of=8, vocab_size=61,
        max_seq_len=24),
    "shared heads": ModelConfig(
        dim=48, n_layers=2, n_heads=6, n_kv_heads=2, ffn_dim=40,
        vocab_size=61, max_seq_len=17, norm_eps=1e-5),
}
ONE_LAYER = replace(SHAPES["all heads"], n_layers=1)


def build(config, dtype=torch.float64, seed=0):
    """A model whose weights, norms too, are far from their first values."""
    torch.manual_seed(seed)
    model = Transformer(config).to(dtype)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return model


def gradients(model, tokens):
    """Loss and all gradients of one pass."""
    model.zero_grad()
    loss = model(tokens).sin().sum()
    loss.backward()
    return [loss.detach(), *(p.grad for p in model.parameters())]


def draw(config, batch=2):
    """Token ids of full length."""
    return torch.randint(
        config.vocab_size, (batch, config.max_seq_len),
        generator=torch.Generator().manual_seed(1))


def one_layer(config, dtype, batch=2):
    """A layer's function and its input, once run so that caches are warm."""
    model = build(config, dtype)
    x = torch.randn(batch, config.max_seq_len, config.dim, dtype=dtype,
                    requires_grad=True)
    tables = model.rope_tables(0, config.max_seq_len, x)
    return model, x, tables


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_mode_has_autograds_gradients(shape, mode):
    """1e-10 in float64, of the loss and of every weight."""
    model, tokens = build(SHAPES[shape]), draw(SHAPES[shape])
    want = gradients(model, tokens)
    want = [x.clone() for x in want]
    got = gradients(recompute.apply(model, mode), tokens)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_hand_written_backward_by_finite_differences(shape):
    """No other derivative involved: x and all nine weights of a block."""
    config = SHAPES[shape]
    small = ModelConfig(
        dim=8, n_layers=1, n_heads=2, ffn_dim=6, vocab_size=5, max_seq_len=3,
        n_kv_heads=config.n_kv_heads and 1)
    layer = build(small).layers[0]
    x = torch.randn(2, 3, 8, dtype=torch.float64, requires_grad=True)
    tables = build(small).rope_tables(0, 3, x)
    assert torch.autograd.gradcheck(
        lambda x, *weights: recompute.BlockByHand.apply(
            layer, x, *tables, *weights), (x, *layer.parameters()))


def test_without_a_fused_kernel_the_tiles_take_over(monkeypatch):
    """As on a device that has none."""
    model, tokens = build(SHAPES["shared heads"]), draw(SHAPES["all heads"])
    tokens = tokens[:, :17]
    want = [x.clone() for x in gradients(model, tokens)]
    monkeypatch.setattr(recompute, "_on_cpu", lambda q: False)
    calls = []

    def spy(*args):
        calls.append(len(args))
        return tiled.backward_tiles(*args)

    monkeypatch.setattr(recompute, "backward_tiles", spy)
    got = gradients(recompute.apply(model, "by_hand"), tokens)
    assert len(calls) == model.config.n_layers
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


def test_autograd_is_off_inside():
    """By hand, nothing below the block is recorded: one node for it all."""
    model, x, tables = one_layer(SHAPES["all heads"], torch.float32)
    seen = []
    layer = model.layers[0]
    for linear in (layer.attention.wq, layer.feed_forward.w_down):
        linear.register_forward_hook(
            lambda m, args, out: seen.append(out.requires_grad))
    y = recompute.block_by_hand(layer, x, tables)
    assert type(y.grad_fn).__name__ == "BlockByHandBackward"
    assert seen == [False, False]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [
    torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_bytes_kept_are_the_formulas(shape, dtype, mode):
    """To the byte: the sum of the profiler's events, less the output."""
    config = SHAPES[shape]
    model, x, tables = one_layer(config, dtype)
    layer = recompute.apply(model, mode).layers[0]
    layer(x, tables)
    kept = profiling.memory(lambda: layer(x, tables)).kept
    assert kept - x.nbytes == recompute.kept_bytes(
        config, mode, batch=2, dtype=dtype)


@pytest.mark.parametrize("mode", ["selective", "linear", "by_hand", "full"])
def test_the_formulas_hold_under_autocast(mode):
    """Stream and weights in fp32, what is kept in bf16."""
    config = SHAPES["all heads"]
    model, x, tables = one_layer(config, torch.float32)
    layer = recompute.apply(model, mode).layers[0]

    def run():
        with torch.autocast("cpu", torch.bfloat16):
            return layer(x, tables)

    run()
    kept = profiling.memory(run).kept
    assert kept - x.nbytes == recompute.kept_bytes(config, mode, batch=2)


def test_what_products_read_is_cast_once():
    model, x, tables = one_layer(SHAPES["all heads"], torch.float32)
    layer = recompute.apply(recompute.apply(model, "full"), "none").layers[0]
    seen = []
    at, ffn = layer.attention, layer.feed_forward
    for linear in (at.wq, at.wk, at.wv, ffn.w_gate, ffn.w_up):
        linear.register_forward_pre_hook(
            lambda _, inputs: seen.append(inputs[0]))
    with torch.autocast("cpu", torch.bfloat16):
        layer(x, tables)
    layer(x, tables)
    assert [x.dtype for x in seen] == 5 * [torch.bfloat16] + (
        5 * [torch.float32])
    assert seen[0] is seen[1] is seen[2] and seen[3] is seen[4]


@pytest.mark.parametrize("autocast", [True, False])
def test_in_16_bits_it_is_as_near_the_truth_as_autograd(autocast):
    """Products in bf16, or all of it: errors against float64, side by side."""
    config = SHAPES["shared heads"]
    exact = build(config)
    truth = [x.clone() for x in gradients(exact, draw(config))]
    model = build(config, torch.float32 if autocast else torch.bfloat16)
    with torch.no_grad():
        for mine, theirs in zip(model.parameters(), exact.parameters()):
            mine.copy_(theirs)
    far = {}
    for mode in ("none", "by_hand"):
        recompute.apply(model, mode)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = model(draw(config)).sin().sum()
        model.zero_grad()
        loss.backward()
        far[mode] = [((p.grad.double() - t).norm() / t.norm()).item()
                     for p, t in zip(model.parameters(), truth[1:])]
    assert max(far["none"]) < 0.5  # the comparison means something
    assert sum(far["by_hand"]) < 1.2 * sum(far["none"])


@pytest.mark.parametrize("mode", ["none", "by_hand"])
def test_autograds_own_hooks_count_the_same(mode):
    """A second measure: storages saved, less weights, input and output."""
    config = SHAPES["all heads"]
    model, x, tables = one_layer(config, torch.float32)
    layer = recompute.apply(model, mode).layers[0]
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    own |= {t.untyped_storage().data_ptr() for t in (x, *tables)}
    saved = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        layer(x, tables)
    total = sum(size for where, size in saved.items() if where not in own)
    assert total == recompute.kept_bytes(
        config, mode, batch=2, dtype=torch.float32)


@pytest.mark.parametrize(("mode", "a_token"), [
    ("linear", 5 * 4096 + 2 * 11008), ("full", 0),
    ("selective", 6 * 4096 + 2 * 11008), ("by_hand", 5 * 4096 + 2 * 11008)])
def test_the_papers_numbers_at_7b(mode, a_token):
    """5D + 2F numbers a token, by the paper's own list."""
    config = ModelConfig.preset("7B")
    log_sum = 4 * 32 if mode in ("selective", "by_hand") else 0
    assert recompute.kept_bytes(config, mode, length=1) == (
        2 * a_token + log_sum)


def eight_blocks(mode):
    """Forward and backward of a deep narrow model, and its peak."""
    config = ModelConfig(dim=64, n_layers=8, n_heads=4, multiple_of=32,
                         vocab_size=61, max_seq_len=128)
    model, x, tables = one_layer(config, torch.float32, batch=1)
    recompute.apply(model, mode)

    def run():
        h = x
        for layer in model.layers:
            h = layer(h, tables)
        h.sum().backward()

    run()  # gradients exist from here on
    return profiling.memory(run).peak, config


def test_by_hand_peaks_below_selective_and_both_below_none():
    """w_down's outputs of eight layers fall away, attention's stays."""
    peaks = {mode: eight_blocks(mode)[0] for mode in MODES}
    assert peaks["full"] < peaks["by_hand"] < peaks["selective"] < (
        peaks["none"])
    config = eight_blocks("full")[1]
    spared = 7 * (recompute.kept_bytes(config, "none", dtype=torch.float32)
                  - recompute.kept_bytes(
                      config, "by_hand", dtype=torch.float32))
    # The last layer is taken apart while all others are still there.
    assert peaks["none"] - peaks["by_hand"] > 0.9 * spared


def test_the_cache_passes_through():
    """Writing text is not slowed, and gives the same."""
    model = build(MODEL, torch.float32).eval()
    tokens = draw(MODEL, 1)[:, :9]
    cache = [tuple(torch.zeros(2, 1, MODEL.n_heads, 16, MODEL.head_dim))
             for _ in range(MODEL.n_layers)]
    want = model(tokens)
    for mode in MODES:
        recompute.apply(model, mode)
        with torch.no_grad():
            torch.testing.assert_close(
                model(tokens, 0, copy.deepcopy(cache)), want.detach())
            torch.testing.assert_close(model(tokens), want.detach())


def test_a_later_call_sets_another_mode_and_names_stay():
    model = build(MODEL)
    names = list(model.state_dict())
    for mode in MODES:
        assert recompute.apply(model, mode) is model
        assert list(model.state_dict()) == names
    assert "forward" in vars(model.layers[0])
    recompute.apply(model, "none")
    assert "forward" not in vars(model.layers[0])


def test_a_copy_of_a_model_has_layers_of_its_own():
    """A replaced forward must not lead back to the first model's weights."""
    model = recompute.apply(build(MODEL), "by_hand")
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for weight in twin.layers.parameters():
            weight.zero_()
    tokens = draw(MODEL)
    assert not torch.allclose(model(tokens), twin(tokens))


@pytest.mark.parametrize("mode", ["selective", "by_hand"])
def test_training_reaches_the_same_losses(mode, tmp_path):
    """`--recompute` through `fit`: losses equal those without."""
    data = corpus(tmp_path / "text")
    plain, ours = (
        [r["loss"] for r in fit(run_config(
            data, tmp_path / name, steps=3, eval_every=0, recompute=name),
            log=None).metrics] for name in ("none", mode))
    assert ours == pytest.approx(plain, rel=1e-5)


def test_bad_input_is_refused_with_the_remedy():
    """An unknown mode; spread weights; an attention that would be ignored."""
    with pytest.raises(ValueError, match=r"recompute='some' is unknown.*sel"):
        recompute.apply(build(MODEL), "some")
    layer = Block(MODEL)
    layer.attention.wq.weight.device_mesh = "a mesh"
    x = torch.randn(1, 4, MODEL.dim)
    tables = build(MODEL).rope_tables(0, 4, x)
    with pytest.raises(ValueError, match="by_hand.*try recompute='selecti"):
        recompute.block_by_hand(layer, x, tables)
    layer = Block(MODEL)
    layer.attention.attend = attention.attend_eager
    with pytest.raises(ValueError, match="given another; try recompute='sel"):
        recompute.block_by_hand(layer, x, tables)


@pytest.mark.slow
@needs_compiler
@pytest.mark.filterwarnings("ignore")
def test_selective_compiles(no_shape_checks):
    """torch.compile accepts the replaced layers and gives the same."""
    model, tokens = build(ONE_LAYER, torch.float32), draw(ONE_LAYER)
    want = [x.clone() for x in gradients(model, tokens)]
    recompute.apply(model, "selective")
    got = gradients(torch.compile(model), tokens)
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [
    torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["1.1B", "7B", "65B"])
def test_the_bars_of_the_chapter_add_up_to_the_formula(name, dtype):
    """Part by part; RoPE's table, shared by all tokens, is not drawn."""
    config = ModelConfig.preset(name)
    for mode in MODES:
        drawn = sum(efficiency.parts(config, mode, dtype=dtype).values())
        tables = (2 * config.head_dim * max(4, dtype.itemsize)
                  if mode == "none" else 0)
        assert drawn + tables == recompute.kept_bytes(
            config, mode, length=1, dtype=dtype)


def on_two_ranks(rank, folder):
    """Every mode under FSDP and under tensor parallelism, beside `none`."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2,
                            store=dist.FileStore(f"{folder}/store", 2))
    mesh, tokens = init_device_mesh("cpu", (2,)), draw(MODEL)
    lines = []
    for how in ("fsdp", "tensor"):
        for mode in MODES:
            model = build(MODEL)
            if how == "tensor":
                for layer in model.layers:
                    parallelize_module(layer, mesh, PLAN)
            recompute.apply(model, mode)
            if how == "fsdp":
                for part in (*model.layers, model):
                    fully_shard(part)
            try:
                found = gradients(model, tokens)
            except ValueError as error:
                lines.append(f"{how} {mode}: {error}")
                continue
            found = [x.full_tensor() if hasattr(x, "full_tensor") else x
                     for x in found]
            if mode == "none":
                want = found
            torch.testing.assert_close(found, want, rtol=1e-10, atol=1e-10)
            lines.append(f"{how} {mode}")
    dist.destroy_process_group()
    if rank == 0:
        with open(f"{folder}/lines", "w", encoding="utf-8") as file:
            file.write("\n".join(lines))


PLAN = {f"{part}.{name}": style()
        for style, names in ((ColwiseParallel, {
            "attention": ("wq", "wk", "wv"),
            "feed_forward": ("w_gate", "w_up")}),
            (RowwiseParallel, {"attention": ("wo",),
                               "feed_forward": ("w_down",)}))
        for part, inside in names.items() for name in inside}


@pytest.mark.slow
def test_modes_go_with_sharding_and_tensor_parallelism(tmp_path):
    """Two processes: every mode but by hand under tensor parallelism."""
    torch.multiprocessing.spawn(on_two_ranks, (str(tmp_path),), nprocs=2)
    lines = (tmp_path / "lines").read_text(encoding="utf-8").splitlines()
    assert lines[:-2] == [f"{how} {mode}" for how in ("fsdp", "tensor")
                          for mode in MODES][:-2]
    by_hand, = (line for line in lines if line.startswith("tensor by_hand"))
    assert "try recompute='selective'" in by_hand
    assert lines[-1] == "tensor full"


def test_a_gpus_flash_kernel_takes_what_it_is_given(monkeypatch):
    """Forward and back, by its own description of shapes and types; what it
    computes, only a GPU can show."""
    monkeypatch.setattr(recompute, "_on_cpu", lambda q: False)
    monkeypatch.setattr(recompute, "_on_chip", lambda q: True)
    with FakeTensorMode():
        q, k, v = (torch.empty(2, 4, 64, 32, dtype=torch.bfloat16,
                               device="cuda") for _ in range(3))
        out, log_sum, rest = recompute._flash(q, k, v)
        grads = recompute._flash_backward(
            torch.empty_like(out), q, k, v, out, log_sum, rest)
    assert out.shape == q.shape and log_sum.shape == q.shape[:3]
    assert log_sum.dtype == torch.float32
    for grad in grads:
        assert grad.shape == q.shape and grad.dtype == q.dtype
        assert grad.device.type == "cuda"
