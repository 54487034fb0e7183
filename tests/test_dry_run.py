"""minillama/planner/dry_run.py: what paper GPUs report, real ones do.

Messages are counted on paper for two layers and compared call by call and
byte by byte; shards are worked out from the shapes; the peak is held against
PyTorch's profiler, which watches two real processes take the same step. The
paper's 65B on 2,048 GPUs has to be done in seconds.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from minillama.config import ModelConfig
from minillama.layout import Layout
from minillama.planner import count, memory
from minillama.planner import dry_run as room
from minillama.planner.dry_run import DryRun, dry_run
from tests import company, dry_run_jobs

MODEL = dry_run_jobs.MODEL
B, T, D, V = 2, MODEL.max_seq_len, MODEL.dim, MODEL.vocab_size
L = MODEL.n_layers
MATRICES = sum(w.numel() for w in dry_run_jobs.weights() if w.ndim == 2)
NORMS = sum(w.numel() for w in dry_run_jobs.weights() if w.ndim == 1)


def run(*sizes: int, dtype=torch.float32, **settings) -> DryRun:
    return dry_run(MODEL, Layout(*sizes, micro_batch_size=B, **settings),
                   dtype=dtype)


def table(found: DryRun) -> dict[tuple[str, str], tuple[int, int]]:
    return {(t.kind, t.axis): (t.calls, t.bytes) for t in found.traffic}


@pytest.mark.parametrize("sizes, matrices, norms", [
    ((1, 2, 1), 2, 2), ((1, 1, 2), 2, 1), ((1, 2, 2), 4, 2),
    ((3, 2, 2), 4, 2), ((64, 2, 4), 8, 2)])
def test_the_shard_is_what_division_says(sizes, matrices, norms):
    found = run(*sizes)
    assert found.gpus == sizes[0] * sizes[1] * sizes[2]
    assert found.parameters == MATRICES + NORMS
    assert found.shard == MATRICES // matrices + NORMS // norms
    steps = 4 * len(list(dry_run_jobs.weights()))  # AdamW counts them
    assert found.resting_bytes == 12 * found.shard + steps
    assert found.peak_bytes > found.resting_bytes


def test_messages_of_tensor_and_sequence_parallelism():
    """One gather and one scatter about each half of a layer, both ways."""
    stream = 4 * B * T * D
    messages = table(run(1, 1, 2))
    # Forward: gather before 2 L halves and the output; scatter behind the
    # halves. Backward: each turns into the other. The embedding's columns
    # are gathered, and so is the gradient of them.
    ways = (2 * L + 1) + 2 * L
    assert messages["all-gather", "tensor"] == (
        ways + 2, (ways + 2) * stream)
    assert messages["reduce-scatter", "tensor"] == (ways, ways * stream)
    assert "all-to-all" not in {kind for kind, _ in messages}
    calls, size = messages["all-reduce", "tensor"]
    # Three numbers a token of the loss; a gradient of every norm; and the
    # gradient's norm, among all, who are here the same two.
    assert calls == 3 + (2 * L + 1) + 1
    assert size == 4 * (3 * B * T + NORMS + 1)


def test_without_sequence_parallelism_the_messages_change():
    """Nothing but the plan is changed, and the same bytes go otherwise."""
    with_it = table(run(1, 1, 2))
    without = table(run(1, 1, 2, sequence_parallel=False))
    assert ("reduce-scatter", "tensor") not in without
    assert without["all-reduce", "tensor"][0] >= 2 * (2 * L + 1)
    assert with_it["all-reduce", "tensor"][1] < without[
        "all-reduce", "tensor"][1] / 5
    kept = [replace(MODEL, max_seq_len=128, n_layers=6)] * 2
    peaks = [dry_run(config, Layout(
        tensor_parallel=4, micro_batch_size=8, sequence_parallel=on,
        recompute="full")).peak_bytes
        for config, on in zip(kept, (True, False))]
    assert peaks[0] < 0.8 * peaks[1], "it saves memory"


def test_messages_of_shards_and_copies():
    """Weights gathered twice, gradients scattered once, then averaged."""
    whole = 4 * (MATRICES + NORMS)
    messages = table(run(3, 2, 1))
    groups = L + 1  # each layer, and the rest together
    assert messages["all-gather", "shards"] == (2 * groups, 2 * whole)
    assert messages["reduce-scatter", "shards"] == (groups, whole)
    assert messages["all-reduce", "copies"] == (groups, whole // 2)
    halves = table(run(3, 2, 1, dtype=torch.bfloat16))
    assert halves["all-gather", "shards"] == (2 * groups, whole)
    assert halves["reduce-scatter", "shards"] == (groups, whole)


def test_what_a_half_reads_travels_in_16_bits():
    """Cast once, before it is gathered; so does what it puts out, and back:
    all but the embedding and the output."""
    wide, narrow = (table(run(1, 1, 2, dtype=dtype))
                    for dtype in (torch.float32, torch.bfloat16))
    for kind in ("all-gather", "reduce-scatter"):
        calls, size = wide[kind, "tensor"]
        assert narrow[kind, "tensor"] == (
            calls, size - 4 * L * 2 * B * T * D)


def test_nobody_has_the_embeddings_whole_gradient():
    wordy = replace(MODEL, vocab_size=8192)
    found = dry_run(wordy, Layout(tensor_parallel=4), seq_len=4,
                    dtype=torch.float32)
    embedding = 4 * 8192 * D
    extra = found.peak_bytes - found.resting_bytes - 4 * found.shard
    assert extra < embedding / 4


def test_recompute_is_seen():
    none, full = run(1, 2, 2), run(1, 2, 2, recompute="full")
    assert full.peak_bytes < none.peak_bytes
    gathers = ("all-gather", "tensor")
    assert table(full)[gathers][0] > table(none)[gathers][0]


def test_a_ring_passes_on_what_it_should():
    gather = room.Traffic("all-gather", "shards", 4, 1, 100)
    assert gather.received == 75
    assert replace(gather, kind="all-reduce").received == 150


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(1, 2, 1), (1, 1, 2)])
def test_the_peak_is_that_of_a_real_run(sizes):
    """Tensor bytes alive, by the profiler, in two processes; 5 per cent."""
    real = company.start(2, dry_run_jobs.real_peak, list(sizes))
    paper = dry_run(dry_run_jobs.WIDE, Layout(*sizes, micro_batch_size=4),
                    dtype=torch.float32)
    assert real["resting"] == paper.resting_bytes
    assert abs(paper.peak_bytes / real["peak"] - 1) < 0.05


SEVEN = ModelConfig.preset("7B", n_layers=4)


@pytest.mark.slow
@pytest.mark.parametrize("sizes, batch, mode, sequence_parallel", [
    ((1, 8, 1), 1, "selective", True), ((1, 8, 1), 4, "full", True),
    ((1, 64, 1), 4, "none", True), ((1, 8, 8), 1, "selective", True),
    ((1, 256, 8), 4, "linear", True), ((2, 4, 2), 2, "none", True),
    ((1, 8, 4), 2, "selective", False), ((1, 1, 8), 1, "selective", True),
    ((1, 1, 1), 1, "full", True), ((1, 1, 4), 4, "none", False)])
def test_the_planners_formula_is_what_happens(
        sizes, batch, mode, sequence_parallel):
    """Memory worked out in microseconds, within 2 per cent of the run."""
    layout = Layout(*sizes, micro_batch_size=batch, recompute=mode,
                    sequence_parallel=sequence_parallel)
    found = dry_run(SEVEN, layout)
    used = memory.training(SEVEN, count.sizes(SEVEN), layout, 2048)
    assert abs(used.total / found.peak_bytes - 1) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [
    (1, 1, 1), (1, 4, 1), (2, 2, 1), (1, 1, 2), (1, 2, 2)])
@pytest.mark.parametrize("mode", ["none", "full"])
def test_gradients_of_earlier_micro_batches_stay(sizes, mode):
    """In fp32, this GPU's part; the formula agrees, and counts them."""
    config = replace(ModelConfig.preset("15M"), max_seq_len=256)
    layout = Layout(*sizes, micro_batch_size=8, recompute=mode)
    first, later = (dry_run(config, layout, accumulate=on)
                    for on in (False, True))
    used = memory.training(config, count.sizes(config), layout, 256,
                           accumulate=True)
    assert used.total == pytest.approx(later.peak_bytes, rel=0.02)
    assert used.gradients == pytest.approx(4 * first.shard, rel=0.01)
    assert later.peak_bytes > first.peak_bytes + 0.9 * used.gradients
    assert later.traffic == first.traffic  # of one pass


def test_a_dealt_stream_is_kept_dealt_out():
    """Sums not yet added up are as long as the whole stream: not kept."""
    long = replace(MODEL, max_seq_len=256, n_layers=6)
    peaks = [dry_run(long, Layout(
        tensor_parallel=4, micro_batch_size=8, recompute=mode)).peak_bytes
        for mode in ("none", "selective", "full")]
    stream = 4 * 8 * 256 * MODEL.dim  # bytes; autocast leaves it in fp32
    assert peaks == sorted(peaks, reverse=True)
    assert peaks[1] - peaks[2] < 6 * 1.5 * stream


def test_what_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="n_heads=4; try one of .1, 2"):
        run(1, 1, 3)
    with pytest.raises(ValueError, match="alone is DDP.*dp_shard=2"):
        run(4, 1, 1)
    assert not torch.distributed.is_initialized()


SCRIPT = """
import json, resource
from dataclasses import asdict
from minillama.config import ModelConfig
from minillama.layout import Layout
from minillama.planner.dry_run import dry_run
found = dry_run(ModelConfig.preset("65B"),
                Layout(1, 256, 8, recompute="selective"))
used = resource.getrusage(resource.RUSAGE_SELF)
# Not ru_maxrss, which begins with that of the process that started this one.
status = open("/proc/self/status", encoding="utf-8").read()
peak = status.partition("VmHWM:")[2].split()[0]
print(json.dumps({**asdict(found), "mb": int(peak) / 1000,
                  "seconds": used.ru_utime + used.ru_stime}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel")
def test_the_65b_step_of_2048_gpus_takes_seconds():
    done = subprocess.run([sys.executable, "-c", SCRIPT], text=True,
                          capture_output=True, check=True)
    found = json.loads(done.stdout)
    # Rows over 256 shards, rounded up, times columns; eight parts before.
    layer = (3 * 4 * 8192 + 32 * 1024  # wq, wk, wv: 1,024 rows; wo
             + 2 * 11 * 8192 + 32 * 2752  # 2,752 rows are 10.75 each
             + 2 * 32)  # norms
    ends = (125 * 1024  # 1,024 columns of the embedding
            + 16 * 8192 + 32)  # 4,000 pieces of the output are 15.6 each
    assert found["parameters"] == 65_285_660_672
    assert found["shard"] == 80 * layer + ends
    assert found["peak_bytes"] < 80e9, "it fits on an A100"
    assert found["mb"] < 2000 and found["seconds"] < 60
