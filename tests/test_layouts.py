"""minillama/planner/layouts.py against brute force.

Twelve small jobs, some of them too large for their GPUs: every combination
of whole numbers is tried here, with the rules written out once more, and the
search has to find the same fastest layout and refuse the same ones. What a
refused layout lacks is given to it, and then it fits. Traffic is counted on
paper for a model small enough for that.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from minillama.config import ModelConfig
from minillama.layout import Layout
from minillama.model import Transformer, flops_per_token
from minillama.planner import gpus, layouts
from minillama.planner.count import sizes
from minillama.planner.layouts import Job

SMALL = ModelConfig(dim=256, n_layers=3, n_heads=4, multiple_of=64,
                    vocab_size=512, max_seq_len=128)
SHARED = replace(SMALL, n_kv_heads=2)
ODD = ModelConfig(dim=192, n_layers=2, n_heads=6, ffn_dim=384,
                  vocab_size=300, max_seq_len=96)
GPU = gpus.Gpu("paper", 1.0, 1e12, 100.0, 10.0, 1.0, per_machine=4)
CASES = [
    # model, GPUs, sequences a step, memory beyond the reserve in MiB
    (SMALL, 1, 8, 1000), (SMALL, 1, 8, 60), (SMALL, 2, 8, 60),
    (SMALL, 4, 8, 40), (SMALL, 4, 8, 4), (SMALL, 8, 16, 30),
    (SHARED, 4, 12, 40), (SHARED, 6, 12, 50), (SHARED, 8, 16, 25),
    (ODD, 3, 6, 40), (ODD, 6, 6, 15), (ODD, 12, 12, 1000),
]


def job(model, number, batch, mib):
    gpu = replace(GPU, memory_gib=1 + mib / 1024)
    return Job(model, gpu, number, batch, model.max_seq_len, 0.5, 1.0)


@pytest.mark.parametrize("batch, passes", [(8, 1), (16, 2), (32, 4)])
def test_several_micro_batches_need_room_for_their_gradients(batch, passes):
    """By hand: four bytes a weight of this GPU, while layers keep theirs."""
    layout = Layout(dp_shard=4, micro_batch_size=2)
    task = job(SMALL, 4, batch, 1000)
    assert layouts.passes(task, layout) == passes
    plan, = (p for p in layouts.search(task) if p.layout == layout)
    whole = sum(p.numel() for p in Transformer(SMALL).parameters())
    part = 4 * whole / 4
    assert plan.used.weights == part
    assert (plan.used.gradients == part) == (passes > 1)


def brute_force(task):
    """Every combination of whole numbers that the rules allow."""
    model, seq_len = task.config, task.seq_len
    found = []
    ffn = model.ffn_dim or 704  # 2/3 * 4 * 256 = 682, up to 64s
    for r, s, t, micro in itertools.product(
            range(1, task.gpus + 1), range(1, task.gpus + 1),
            range(1, task.gpus + 1), range(1, task.batch_size + 1)):
        fits = r * s * t == task.gpus and task.batch_size % (r * s) == 0
        fits = fits and (task.batch_size // (r * s)) % micro == 0
        fits = fits and all(size % t == 0 for size in (
            model.n_heads, model.kv_heads, ffn, model.vocab_size, seq_len))
        for mode in ("none", "selective", "by_hand", "linear", "full"):
            if fits and not (mode == "by_hand" and task.gpus > 1):
                found.append(Layout(r, s, t, True, micro, mode))
    counted, work = sizes(model), flops_per_token(model, seq_len)
    return [layouts.evaluate(task, layout, counted, work)
            for layout in found]


@pytest.mark.parametrize("case", CASES, ids=range(12))
def test_the_search_is_brute_force(case):
    task = job(*case)
    plans, every = layouts.search(task), brute_force(task)
    assert {p.layout for p in plans} == {p.layout for p in every}
    assert len(plans) == len(every) > 0
    room = {p.layout for p in every if p.used.total <= case[3] * 2**20}
    assert {p.layout for p in plans if p.fits} == room
    if room:
        fastest = min(p.seconds for p in every if p.layout in room)
        assert plans[0].layout in room
        assert plans[0].seconds == pytest.approx(fastest, rel=1e-3)
    else:
        least = min(p.excess_gib for p in every)
        assert plans[0].excess_gib == least > 0


def test_the_cases_have_all_three_outcomes():
    outcomes = set()
    for case in CASES:
        fits = {plan.fits for plan in layouts.search(job(*case))}
        outcomes.add(frozenset(fits))
    assert outcomes == {frozenset({True}), frozenset({False}),
                        frozenset({True, False})}


def test_a_refused_layout_fits_once_it_has_what_it_lacks():
    task = job(SMALL, 4, 8, 25)
    refused = [plan for plan in layouts.search(task) if not plan.fits]
    assert refused
    for plan in refused:
        more = replace(task, gpu=replace(
            task.gpu, memory_gib=task.gpu.memory_gib + plan.excess_gib))
        again = layouts.evaluate(more, plan.layout, sizes(SMALL), 1)
        assert again.excess_gib == pytest.approx(0, abs=1e-12)


def plan_of(task, layout):
    return {p.layout: p for p in layouts.search(task)}[layout]


def test_traffic_counted_on_paper():
    """4 copies x shards of 1,000 parameters; two micro-batches a step."""
    model = ModelConfig(dim=8, n_layers=1, n_heads=2, ffn_dim=8,
                        vocab_size=16, max_seq_len=4)
    assert sizes(model).local(1) == 2 * 128 + 4 * 64 + 3 * 64 + 3 * 8 == 728
    task = Job(model, GPU, 4, 8, 4, 0.5, 0.1)
    sent = plan_of(task, Layout(2, 2, 1, True, 1)).received
    # Half of 728 weights is missing: 2 bytes, twice, in 2 micro-batches.
    assert sent["gather weights"] == 2 * 2 * 2 * 364
    assert sent["scatter gradients"] == 2 * 4 * 364
    # An all-reduce of the half at home, over two copies.
    assert sent["average copies"] == 2 * 2 * 4 * 364 / 2
    assert sent["tensor"] == 0
    sent = plan_of(task, Layout(1, 2, 2, True, 2)).received
    # 8 times half of 2 sequences of 4 x 8 numbers of 2 bytes.
    assert sent["tensor"] == 2 * 8 * (2 * 4 * 8 * 2) / 2
    alone = Job(model, GPU, 1, 8, 4, 0.5, 0.1)
    assert set(plan_of(alone, Layout()).received.values()) == {0}


def test_what_hides_and_what_does_not():
    """Time is compute, plus tensor traffic, plus data traffic beyond it."""
    task = job(SMALL, 4, 8, 1000)
    work = 8 * 128 * flops_per_token(SMALL, 128) / (4 * 1e12 * 0.5)
    free = replace(task, gpu=replace(GPU, link_gb_s=1e9))
    for plan in layouts.search(free):
        if plan.layout.recompute == "none":
            assert plan.seconds == pytest.approx(work, rel=1e-3)
        if plan.layout.recompute == "full":
            assert plan.seconds == pytest.approx(work * 4 / 3, rel=1e-3)
    tensor = plan_of(task, Layout(1, 1, 4, True, 8))
    assert tensor.seconds == pytest.approx(
        work + tensor.received["tensor"] / 10e9)
    data = plan_of(task, Layout(1, 4, 1, True, 1))
    assert data.seconds == pytest.approx(
        max(work, sum(data.received.values()) / 10e9))


def test_beyond_a_machine_the_slow_wire_counts():
    task = job(SMALL, 8, 8, 1000)
    fast = replace(task, gpu=replace(task.gpu, per_machine=8))
    layout = Layout(1, 8, 1, True, 1)
    slow, quick = plan_of(task, layout), plan_of(fast, layout)
    assert slow.received == quick.received and slow.seconds > quick.seconds


def test_the_nearest_is_one_small_step_away():
    task = job(SMALL, 4, 8, 40)
    plans = layouts.search(task)
    wanted = Layout(4, 1, 1, True, 2)
    assert not plan_of(task, wanted).fits
    near = layouts.nearest(plans, wanted)
    assert near.fits
    assert sum(getattr(near.layout, name) != getattr(wanted, name)
               for name in ("dp_replicate", "dp_shard", "tensor_parallel",
                            "micro_batch_size", "recompute")) <= 2
    assert layouts.nearest(layouts.search(job(SMALL, 4, 8, 4)), wanted) is None


def test_gpus_and_batches_that_share_no_divisor_are_refused():
    with pytest.raises(ValueError, match="no layout of gpus=5 divides"):
        layouts.search(job(SMALL, 5, 8, 40))


@pytest.mark.parametrize("name", gpus.known())
def test_every_gpu_of_the_table_is_complete(name):
    found = gpus.find(name.lower())
    assert found.name == name
    sold = float(name.rsplit("-", 1)[1].removesuffix("GB"))
    # What a program finds lies a little below what is on the box.
    assert 0.9 * sold < found.memory_gib < sold
    assert found.peak_flops >= 65e12 and found.watts >= 70


def test_an_unknown_gpu_lists_the_known_ones():
    with pytest.raises(ValueError, match="'a100-80gb'.* --memory-gib, --peak"):
        gpus.find("abacus")
