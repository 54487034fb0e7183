"""The fast path writes what the plain path writes.

The oracle is `generate` on the plain model: token for token in float64, for
every shape that loads, one text and sixteen, greedy and drawn, over the end
of the context and with the step compiled, which happens once; logits to
rounding. The model it was made from must stay whole. Products in 8 bits are
those of the rounded matrix.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from minillama import generate as plain
from minillama import samples
from minillama.fast import (
    FastTransformer, in_8_bits, joined, product)
from minillama.model import Transformer
from minillama.config import ModelConfig, RopeScaling

SMALL = dict(dim=48, n_layers=3, n_heads=4, multiple_of=16, vocab_size=61,
             max_seq_len=40)
SHAPES = {
    "paper": ModelConfig(**SMALL),
    "shared heads": ModelConfig(**SMALL, n_kv_heads=2),
    "one key head": ModelConfig(**SMALL, n_kv_heads=1),
    "tied": ModelConfig(**SMALL, tie_embeddings=True),
    "stretched": ModelConfig(**SMALL, rope_scaling=RopeScaling(
        factor=4.0, original_max_seq_len=32)),
}


def wild_model(config: ModelConfig, dtype: torch.dtype) -> Transformer:
    """Weights large enough that texts differ."""
    torch.manual_seed(3)
    model = Transformer(config).to(dtype).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn_like(p) * 0.3 + (p.ndim == 1))
    return model


def texts(model: Transformer, rows: int, length: int, **knobs) -> list:
    """Ids of several prompts of different lengths, continued."""
    prompts = [list(range(1, 3 + row % 5)) for row in range(rows)]
    return torch.stack(list(plain.next_tokens(
        model, prompts, max_new_tokens=length,
        generator=torch.Generator().manual_seed(8), **knobs))).tolist()


@pytest.mark.parametrize("rows", [1, 16])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_text_is_the_plain_one(shape, rows):
    """70 new tokens run over the end of a context of 40, twice."""
    model = wild_model(SHAPES[shape], torch.float64)
    for knobs in ({"temperature": 0.0}, {"temperature": 1.0, "top_p": 0.9}):
        want = texts(model, rows, 70, **knobs)
        assert texts(FastTransformer(model), rows, 70, **knobs) == want
        assert texts(model, rows, 70, **knobs) == want  # it works on


def side_by_side(model, fast):
    """Logits of both, token by token, each with a cache of its own."""
    ours, theirs = (plain.empty_cache(m, 1, 10) for m in (model, fast))
    for position in range(9):
        token = torch.tensor([[position]])
        with torch.inference_mode():
            pair = (model(token, position, ours),
                    fast(token, position, theirs))
        yield pair


@pytest.mark.parametrize("dtype", [
    torch.float32, torch.bfloat16, torch.float16])
def test_logits_to_rounding(dtype):
    """Within a few roundings of the plain pass in the same precision."""
    model = wild_model(SHAPES["shared heads"], dtype)
    fast = FastTransformer(copy.deepcopy(model))
    for want, got in side_by_side(model, fast):
        assert got.dtype == torch.float32
        scale = want.abs().max() * torch.finfo(dtype).eps
        assert (got - want).abs().max() < 16 * scale


def test_a_shipped_text():
    model, tokenizer = samples.load_mini()
    args = dict(max_new_tokens=60, temperature=0.0)
    want = plain.generate(model, tokenizer, ["KING HENRY", "O"], **args)
    assert plain.generate(
        FastTransformer(model), tokenizer, ["KING HENRY", "O"], **args) == want


@pytest.mark.slow
def test_compiled_once_for_all_lengths(no_shape_checks):
    """One short text and two short batches, then nothing is compiled again.

    Not for other lengths of prompt and text, nor other numbers of texts, nor
    over the end of the context, whose last place is the plain model's.
    """
    config = replace(
        SHAPES["shared heads"], n_layers=1, tie_embeddings=True)
    model = wild_model(config, torch.float64)
    fast = FastTransformer(model, compile=True)
    for rows in (1, 2, 3):
        texts(fast, rows, 5, temperature=0.0)
    with torch.compiler.set_stance("fail_on_recompile"):
        for rows, length in ((1, 70), (1, 9), (5, 70), (2, 31)):
            want = texts(model, rows, length, temperature=0.0)
            assert texts(fast, rows, length, temperature=0.0) == want


@pytest.mark.slow
def test_compiled_logits_in_16_bits(no_shape_checks):
    """A fused step rounds less often, so that only the logits are near."""
    model = wild_model(
        replace(SHAPES["paper"], n_layers=1), torch.bfloat16)
    for want, got in side_by_side(model, FastTransformer(model, compile=True)):
        assert (got - want).abs().max() < want.abs().max() / 16


def test_eight_bits_err_by_half_a_step():
    """And every column uses its whole range; zeros stay zeros."""
    matrix = torch.randn(64, 40, generator=torch.Generator().manual_seed(1))
    matrix *= torch.logspace(-3, 3, 40)
    matrix[:, 7] = 0
    whole, scales = in_8_bits(matrix)
    assert whole.dtype == torch.int8 and whole.shape == (40, 64)
    error = (whole.T * scales - matrix).abs()
    assert (error <= scales * 0.501).all()
    used = whole.abs().amax(dim=1).tolist()
    assert used[7] == 0 and set(used[:7] + used[8:]) == {127}


@pytest.mark.parametrize("rows", [1, 5])
def test_a_product_in_eight_bits(rows):
    """The same as with the rounded matrix written out."""
    draw = torch.Generator().manual_seed(2)
    x = torch.randn(rows, 64, generator=draw).bfloat16()
    whole, scales = in_8_bits(
        torch.randn(64, 32, generator=draw).bfloat16())
    want = x.double() @ (whole.double().T * scales.double())
    got = product(x, (whole, scales))
    assert (got - want).abs().max() < want.abs().max() / 64


def test_what_eight_bits_cost_the_shipped_model():
    """Three hundredths of a nat a piece at most, 16 bits included."""
    model, tokenizer = samples.load_mini()
    ids = torch.tensor([tokenizer.encode(SCENE, bos=True)])
    losses = []
    for int8 in (False, True):
        fast = FastTransformer(copy.deepcopy(model).float(), int8=int8)
        cache = plain.empty_cache(fast, 1, ids.shape[1] + 1)
        with torch.inference_mode():
            logits = torch.cat([fast(ids[:, [i]], i, cache)
                                for i in range(ids.shape[1] - 1)], dim=1)
        losses.append(F.cross_entropy(logits[0], ids[0, 1:]).item())
    assert abs(losses[1] - losses[0]) < 0.03


SCENE = """HAMLET:
To be, or not to be: that is the question.
"""


def test_no_weight_is_in_memory_twice():
    """The model's matrices become views of the joined ones."""
    model = wild_model(SHAPES["paper"], torch.float32)
    before = {name: w.clone() for name, w in model.state_dict().items()}
    fast = FastTransformer(model)
    for name, weight in model.state_dict().items():
        assert weight.equal(before[name]), name
    a = model.layers[0].attention
    store = fast.blocks[0].w_qkv.untyped_storage().data_ptr()
    assert {w.weight.untyped_storage().data_ptr()
            for w in (a.wq, a.wk, a.wv)} == {store}
    assert fast.blocks[0].w_qkv.shape == (48, 144)
    assert fast.blocks[0].w_qkv.is_contiguous()


def test_joined_answers_like_the_parts():
    parts = [torch.nn.Linear(5, n, bias=False) for n in (2, 3)]
    x = torch.randn(4, 5)
    want = torch.cat([part(x) for part in parts], dim=1)
    torch.testing.assert_close(x @ joined(parts), want)
    torch.testing.assert_close(
        torch.cat([part(x) for part in parts], dim=1), want)


def test_what_it_is_not_for_is_refused():
    model = wild_model(SHAPES["paper"], torch.float32)
    fast = FastTransformer(model)
    with pytest.raises(ValueError, match="cache=None.*score texts with"):
        fast(torch.zeros(1, 3, dtype=torch.long))
    cache = plain.empty_cache(fast, 1, 41)
    with pytest.raises(ValueError, match="max_seq_len=40"):
        fast(torch.zeros(1, 1, dtype=torch.long), 40, cache)
    with pytest.raises(ValueError, match="int8.*device='cpu'"):
        FastTransformer(model.to("meta"), int8=True)
