"""minillama/optim.py against PyTorch's optimiser, clipping and arithmetic.

Oracles: `torch.optim.AdamW` (plain and fused) and
`torch.nn.utils.clip_grad_norm_` in float64; for the schedule, learning rates
of the 7B model worked out by hand from section 2.3 of the paper. Properties:
the schedule climbs, then falls, never jumps, and ends at a tenth.
"""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from minillama.model import Transformer
from minillama.optim import AdamW, clip_grad_norm, cosine_lr, decay_groups
from tests.small import MODEL


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()


def _gradients(model: nn.Module, step: int) -> None:
    draw = torch.Generator().manual_seed(step)
    for p in model.parameters():
        # From 1e-12, where eps matters, to 1e3.
        size = 10.0 ** torch.randint(-12, 4, (), generator=draw)
        p.grad = torch.randn(p.shape, generator=draw, dtype=p.dtype) * size


@pytest.mark.oracle
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("settings", [
    {},
    {"betas": (0.8, 0.999), "eps": 1e-4, "weight_decay": 0.3},
    {"weight_decay": 0.0},
])
def test_adamw_is_torchs(fused: bool, settings: dict) -> None:
    """Thirty steps, learning rate changing, equal to 1e-12."""
    ours, theirs = _network(), _network()
    a = AdamW(ours.parameters(), lr=1e-2, **settings)
    b = torch.optim.AdamW(theirs.parameters(), lr=1e-2, fused=fused, **{
        "betas": (0.9, 0.95), "weight_decay": 0.1, **settings})
    for step in range(30):
        for optimizer in (a, b):
            optimizer.param_groups[0]["lr"] = 1e-2 / (1 + step)
        _gradients(ours, step)
        _gradients(theirs, step)
        a.step()
        b.step()
        for p, q in zip(ours.parameters(), theirs.parameters()):
            torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)


@pytest.mark.oracle
@pytest.mark.parametrize("fused", [False, True])
def test_adamw_with_decay_groups_is_torchs(fused: bool) -> None:
    """Each group keeps its own decay; weights without gradient stay."""
    ours = Transformer(MODEL).double()
    theirs = copy.deepcopy(ours)
    frozen = ours.layers[0].attention.wq.weight.clone()
    a = AdamW(decay_groups(ours, 0.5), lr=3e-3)
    b = torch.optim.AdamW(decay_groups(theirs, 0.5), lr=3e-3,
                          betas=(0.9, 0.95), fused=fused)
    for step in range(5):
        for model, optimizer in ((ours, a), (theirs, b)):
            _gradients(model, step)
            model.layers[0].attention.wq.weight.grad = None
            optimizer.step()
    for p, q in zip(ours.parameters(), theirs.parameters()):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)
    assert torch.equal(ours.layers[0].attention.wq.weight, frozen)


def test_adamw_goes_on_from_its_state_dict() -> None:
    """Saved after three steps and loaded elsewhere, it takes the same path."""
    whole, first = _network(), _network()
    a, b = (AdamW(m.parameters(), lr=1e-2) for m in (whole, first))
    for step in range(3):
        for model, optimizer in ((whole, a), (first, b)):
            _gradients(model, step)
            optimizer.step()
    second = copy.deepcopy(first)
    c = AdamW(second.parameters(), lr=1e-2)
    c.load_state_dict(b.state_dict())
    for step in range(3, 6):
        for model, optimizer in ((whole, a), (second, c)):
            _gradients(model, step)
            optimizer.step()
    for p, q in zip(whole.parameters(), second.parameters()):
        assert torch.equal(p, q)


@pytest.mark.parametrize("tied", [False, True])
def test_matrices_decay_and_norms_do_not(tied: bool) -> None:
    """By name: exactly the norm weights are spared; each weight once."""
    config = type(MODEL)(**{**MODEL.__dict__, "tie_embeddings": tied})
    model = Transformer(config)
    decayed, spared = decay_groups(model, 0.1)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    names = {id(p): name for name, p in model.named_parameters()}
    kept = [names[id(p)] for p in spared["params"]]
    assert sorted(kept) == sorted(n for n in names.values() if "norm" in n)
    together = decayed["params"] + spared["params"]
    assert sorted(map(id, together)) == sorted(names)


@pytest.mark.parametrize("step, expected", [
    (62_500, 2.623e-4), (125_000, 1.667e-4), (187_500, 7.015e-5),
    (250_000, 3.0e-5), (1_000, 1.5e-4), (2_000, 3.0e-4), (300_000, 3.0e-5),
])
def test_schedule_of_the_7b_model(step: int, expected: float) -> None:
    """Learning rates of 250,000 steps of 4M tokens (section 2.3)."""
    lr = cosine_lr(step, max_lr=3e-4, warmup_steps=2000, total_steps=250_000)
    assert lr == pytest.approx(expected, rel=3e-4)


@given(
    total=st.integers(2, 10_000), data=st.data(),
    max_lr=st.floats(1e-6, 1.0), final_ratio=st.floats(0, 1))
def test_schedule_is_a_line_then_half_a_cosine(
    total: int, data: st.DataObject, max_lr: float, final_ratio: float
) -> None:
    """The closed form, written with angles instead of shares."""
    warmup = data.draw(st.integers(0, total - 1))
    step = data.draw(st.integers(0, total))
    lr = cosine_lr(step, max_lr=max_lr, warmup_steps=warmup,
                   total_steps=total, final_ratio=final_ratio)
    if step < warmup:
        assert lr == pytest.approx(step * (max_lr / warmup))
        return
    low = max_lr * final_ratio
    angle = math.radians(180 * (step - warmup) / (total - warmup))
    middle, swing = (max_lr + low) / 2, (max_lr - low) / 2
    assert lr == pytest.approx(middle + swing * math.cos(angle), abs=1e-12)


def test_schedule_rises_then_falls_without_a_jump() -> None:
    """No step of it is larger than one step of the warm-up."""
    rates = [cosine_lr(s, max_lr=1.0, warmup_steps=10, total_steps=200)
             for s in range(201)]
    rises = [b - a for a, b in zip(rates, rates[1:])]
    assert rates[0] == 0 and rates[10] == 1.0 == max(rates)
    assert rates[200] == pytest.approx(0.1)
    assert all(r > 0 for r in rises[:10]) and all(r < 0 for r in rises[10:])
    assert max(map(abs, rises)) <= 0.1 + 1e-12


def test_schedule_refuses_a_warmup_as_long_as_the_run() -> None:
    """The message names both numbers and what would work."""
    with pytest.raises(ValueError, match="warmup_steps=50.*steps=50.*try.*=5"):
        cosine_lr(1, max_lr=1.0, warmup_steps=50, total_steps=50)


@pytest.mark.oracle
@pytest.mark.parametrize("max_norm", [1e-3, 1.0, 1e9])
def test_clipping_is_torchs(max_norm: float) -> None:
    """Same norm returned, same gradients left; small ones untouched."""
    ours, theirs = _network(), _network()
    for model in (ours, theirs):
        _gradients(model, 3)
        model[0].bias.grad = None
    before = [p.grad.clone() for p in ours.parameters() if p.grad is not None]
    norm = clip_grad_norm(ours.parameters(), max_norm)
    expected = nn.utils.clip_grad_norm_(theirs.parameters(), max_norm)
    torch.testing.assert_close(norm, expected, rtol=1e-12, atol=0)
    after = [p.grad for p in ours.parameters() if p.grad is not None]
    for p, q in zip(ours.parameters(), theirs.parameters()):
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-12, atol=0)
    length = math.sqrt(sum(float(g.square().sum()) for g in after))
    if float(norm) <= max_norm:
        assert all(map(torch.equal, after, before))
    else:
        # 1e-6 in the denominator keeps it just below.
        assert max_norm * (1 - 1e-3) < length <= max_norm
