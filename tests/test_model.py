"""The whole model against Hugging Face's Llama, and its own promises.

The oracle is `transformers.LlamaForCausalLM` with the same random weights:
logits and gradients to 1e-10 in float64, with its two hard-wired float32
islands (the norm, the rotary tables) patched here to the input's type, and
to 1e-5 in float32 as it comes. Counts are Table 2's shapes worked out with
the released settings. FLOPs are held against PyTorch's own counter. The rest
are properties: nothing leaks from the future, the cache changes nothing, the
initialisation has the promised statistics.
"""

from __future__ import annotations

import math
import os
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from minillama.attention import attend, attend_eager
from minillama.config import ModelConfig, RopeScaling
from minillama.model import Transformer, count_parameters, flops_per_token
from minillama.weights.hf import hf_name, to_halves

os.environ.setdefault("HF_HUB_OFFLINE", "1")

SMALL = dict(dim=48, n_layers=3, n_heads=4, multiple_of=16, vocab_size=61,
             max_seq_len=64)
SCALING = RopeScaling(factor=4.0, original_max_seq_len=32)
SHAPES = {
    "paper": ModelConfig(**SMALL),
    "shared heads": ModelConfig(**SMALL, n_kv_heads=2),
    "tied": ModelConfig(**SMALL, tie_embeddings=True),
    "stretched": ModelConfig(**SMALL, rope_theta=500.0, rope_scaling=SCALING),
    "own width": ModelConfig(**SMALL, ffn_dim=40, norm_eps=1e-3),
}

# -- Hugging Face's model with our weights ---------------------------------

def hf_model(config, dtype):
    """An untrained LlamaForCausalLM of the same shape."""
    transformers = pytest.importorskip("transformers")
    rope = {"rope_type": "default", "rope_theta": config.rope_theta}
    if (s := config.rope_scaling) is not None:
        rope |= {"rope_type": s.kind, "factor": s.factor,
                 "low_freq_factor": s.low_freq_factor,
                 "high_freq_factor": s.high_freq_factor,
                 "original_max_position_embeddings": s.original_max_seq_len}
    hidden = config.ffn_dim or -(-(8 * config.dim // 3) //
                                 config.multiple_of) * config.multiple_of
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        hidden_size=config.dim, num_hidden_layers=config.n_layers,
        num_attention_heads=config.n_heads, intermediate_size=hidden,
        num_key_value_heads=config.n_kv_heads or config.n_heads,
        vocab_size=config.vocab_size, rms_norm_eps=config.norm_eps,
        max_position_embeddings=config.max_seq_len, rope_parameters=rope,
        tie_word_embeddings=config.tie_embeddings,
        attn_implementation="sdpa"))
    return theirs.to(dtype).eval()


def twins(model_class, config, dtype):
    """The model under test and Hugging Face's, with the same weights."""
    torch.manual_seed(7)
    ours = model_class(config).to(dtype)
    _same_names(ours, config)
    theirs = hf_model(config, dtype)
    with torch.no_grad():
        for p in ours.parameters():  # large enough that nothing hides
            p.copy_(torch.randn_like(p) * 0.2 + (p.ndim == 1))
        slots = dict(theirs.named_parameters())
        for name, p in ours.named_parameters():
            slots[hf_name(name)].copy_(to_halves(name, p, config.head_dim))
    return ours, theirs


def _same_names(model, config):
    """A reader's model has to name and shape its weights as ours does."""
    with torch.device("meta"):
        want = {n: tuple(p.shape)
                for n, p in Transformer(config).named_parameters()}
    have = {n: tuple(p.shape) for n, p in model.named_parameters()}
    odd = sorted({n for n in want | have if want.get(n) != have.get(n)})
    assert not odd, (f"{odd[0]} should have shape {want.get(odd[0])} and has "
                     f"{have.get(odd[0])} (None: there is no such weight)")


def wide_frequencies(config):
    """RoPE frequencies in float64, as Llama 3.1's release scales them."""
    half = config.head_dim // 2
    freqs = [config.rope_theta ** (-j / half) for j in range(half)]
    s = config.rope_scaling
    if s is None:
        return torch.tensor(freqs, dtype=torch.float64)
    out = []
    for freq in freqs:
        wave = 2 * math.pi / freq
        if wave < s.original_max_seq_len / s.high_freq_factor:
            out.append(freq)
        elif wave > s.original_max_seq_len / s.low_freq_factor:
            out.append(freq / s.factor)
        else:
            mix = (s.original_max_seq_len / wave - s.low_freq_factor) / (
                s.high_freq_factor - s.low_freq_factor)
            out.append((1 - mix) * freq / s.factor + mix * freq)
    return torch.tensor(out, dtype=torch.float64)


@pytest.fixture
def float64_islands(monkeypatch):
    """Let Hugging Face's norm and rotary tables keep the input's type."""
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")

    def norm(self, x):
        mean = x.pow(2).mean(-1, keepdim=True)
        return self.weight * (x * torch.rsqrt(mean + self.variance_epsilon))

    def rotary(self, x, position_ids):
        freqs = position_ids[..., None].to(x.dtype) * self.wide
        both = torch.cat((freqs, freqs), dim=-1)
        return both.cos(), both.sin()

    monkeypatch.setattr(llama.LlamaRMSNorm, "forward", norm)
    monkeypatch.setattr(llama.LlamaRotaryEmbedding, "forward", rotary)


def compare(config, ours, theirs, tolerance):
    """Logits, and the loss's gradient of every parameter by name."""
    tokens = torch.randint(config.vocab_size, (2, 33),
                           generator=torch.Generator().manual_seed(3))
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    mine, right = ours(inputs), theirs(inputs).logits
    torch.testing.assert_close(mine, right, rtol=tolerance, atol=tolerance)
    for logits in (mine, right):
        F.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
    slots = dict(theirs.named_parameters())
    for name, p in ours.named_parameters():
        want = slots[hf_name(name)].grad
        got = to_halves(name, p.grad, config.head_dim)
        torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance,
                                   msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.oracle
@pytest.mark.parametrize("shape", SHAPES)
def test_logits_and_gradients_are_hugging_faces_in_float64(
        shape, subject, float64_islands):
    """1e-10, for the paper's model and for what later Llamas changed."""
    config = SHAPES[shape]
    ours, theirs = twins(subject("Transformer"), config, torch.float64)
    theirs.model.rotary_emb.wide = wide_frequencies(config)
    compare(config, ours, theirs, 1e-10)


@pytest.mark.oracle
@pytest.mark.parametrize("shape", SHAPES)
def test_logits_and_gradients_are_hugging_faces_in_float32(shape, subject):
    """1e-5 against the model as it is installed, nothing patched."""
    config = SHAPES[shape]
    ours, theirs = twins(subject("Transformer"), config, torch.float32)
    compare(config, ours, theirs, 1e-5)


def test_the_oracle_notices_a_forgotten_permutation():
    """Without the change of pairing the logits differ grossly."""
    ours, theirs = twins(Transformer, SHAPES["paper"], torch.float64)
    slots = dict(theirs.named_parameters())
    with torch.no_grad():
        for name, p in ours.named_parameters():
            slots[hf_name(name)].copy_(p)
        tokens = torch.arange(20)[None]
        gap = (ours(tokens) - theirs(tokens).logits).abs().max()
    assert gap > 0.1


# -- counts and operations --------------------------------------------------

@pytest.mark.parametrize(("name", "count"), [
    ("7B", 6_738_415_616), ("13B", 13_015_864_320),
    ("33B", 32_528_943_616), ("65B", 65_285_660_672)])
def test_the_paper_sizes_count_exactly(name, count):
    """The released checkpoints have these many numbers."""
    assert count_parameters(ModelConfig.preset(name)) == count


@settings(max_examples=25, deadline=None)
@given(heads=st.integers(1, 6), half=st.integers(1, 8),
       layers=st.integers(1, 4), hidden=st.integers(1, 70),
       vocab=st.integers(1, 90), tied=st.booleans(), data=st.data())
def test_counts_follow_the_formula(heads, half, layers, hidden, vocab, tied,
                                   data):
    """2 V D + L (2 D^2 + 2 D G K + 3 D F + 2 D) + D for any shape."""
    groups = data.draw(st.sampled_from(
        [g for g in range(1, heads + 1) if heads % g == 0]))
    dim = 2 * heads * half
    config = ModelConfig(dim, layers, heads, n_kv_heads=groups,
                         ffn_dim=hidden, vocab_size=vocab,
                         tie_embeddings=tied)
    attention = 2 * dim * dim + 2 * dim * groups * 2 * half
    block = attention + 3 * dim * hidden + 2 * dim
    tables = (1 if tied else 2) * vocab * dim
    assert count_parameters(config) == tables + layers * block + dim


@pytest.mark.parametrize("tied", [False, True])
def test_flops_are_those_that_pytorch_counts(tied, monkeypatch):
    """A training step under FlopCounterMode, two things set straight.

    The counter sees the whole square of scores, of which a causal model needs
    half; and it counts products of matrices only, not the norms' weights.
    """
    monkeypatch.setattr(
        "minillama.model.attend",
        lambda q, k, v: attend_eager(q, k, v, causal=True))
    config = ModelConfig(64, 2, 4, multiple_of=32, vocab_size=96,
                         max_seq_len=40, tie_embeddings=tied)
    model, length = Transformer(config), 40
    with FlopCounterMode(display=False) as counter:
        model(torch.arange(length)[None]).sum().backward()
    upper_triangle = 6 * config.n_layers * config.dim * length
    norms = 6 * (2 * config.n_layers + 1) * config.dim
    assert counter.get_total_flops() == length * (
        flops_per_token(config, length) + upper_triangle - norms)


# -- properties -------------------------------------------------------------

@pytest.fixture
def wild(subject):
    """A small float64 model with weights large enough to be felt."""
    torch.manual_seed(5)
    model = subject("Transformer")(SHAPES["shared heads"]).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn_like(p) * 0.3 + (p.ndim == 1))
    return model


@pytest.mark.oracle
@torch.no_grad()
def test_nothing_leaks_from_the_future(wild):
    """Changing token t changes logits from t on, and none before, by a bit."""
    tokens = torch.randint(61, (1, 20))
    before = wild(tokens)
    for t in (0, 7, 19):
        changed = tokens.clone()
        changed[0, t] = (changed[0, t] + 1) % 61
        after = wild(changed)
        torch.testing.assert_close(after[:, :t], before[:, :t],
                                   rtol=1e-13, atol=1e-13)
        assert (after[:, t:] - before[:, t:]).abs().amax(-1).min() > 1e-6


@torch.no_grad()
@pytest.mark.parametrize("pieces", [[20], [1] * 20, [7, 1, 5, 7], [19, 1]])
def test_the_cache_changes_nothing(wild, pieces):
    """Reading a text piece by piece gives the logits of the full pass."""
    c, tokens = wild.config, torch.randint(61, (2, 20))
    shape = (2, c.kv_heads, 24, c.head_dim)  # more room than needed
    cache = [(torch.full(shape, 9.0, dtype=torch.float64),
              torch.full(shape, 9.0, dtype=torch.float64))
             for _ in range(c.n_layers)]
    start, parts = 0, []
    for size in pieces:
        parts.append(wild(tokens[:, start:start + size], start, cache))
        start += size
    torch.testing.assert_close(torch.cat(parts, 1), wild(tokens),
                               rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_positions_count_from_anywhere(wild):
    """RoPE knows distances alone: a later start gives the same logits."""
    tokens = torch.randint(61, (1, 12))
    torch.testing.assert_close(wild(tokens, 0), wild(tokens, 30),
                               rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_each_row_of_a_batch_is_alone(wild):
    """Another row of the batch changes nothing."""
    tokens = torch.randint(61, (3, 9))
    torch.testing.assert_close(wild(tokens)[1:2], wild(tokens[1:2]),
                               rtol=1e-12, atol=1e-12)


def test_initialisation_has_the_promised_statistics():
    """N(0, 0.02), and 0.02 / sqrt(2 L) for what writes on the stream.

    A sample's deviation over n numbers strays by 1 / sqrt(2 n): five times
    that is allowed, one false alarm in a million matrices.
    """
    model = Transformer(ModelConfig(128, 8, 4, vocab_size=256))
    model.init_weights(torch.Generator().manual_seed(1))
    for name, p in model.named_parameters():
        if p.ndim == 1:
            assert (p == 1).all(), name
            continue
        writes = name.endswith(("wo.weight", "w_down.weight"))
        want = 0.02 / math.sqrt(16) if writes else 0.02
        slack = 5 / math.sqrt(2 * p.numel())
        assert abs(p.std().item() / want - 1) < slack, name
        assert abs(p.mean().item()) < 5 * want / math.sqrt(p.numel()), name


def test_initialisation_follows_its_generator():
    """The same seed gives the same weights, another seed others."""
    def draw(seed):
        model = Transformer(SHAPES["paper"])
        model.init_weights(torch.Generator().manual_seed(seed))
        return torch.cat([p.flatten() for p in model.parameters()])
    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


@torch.no_grad()
def test_the_first_loss_is_ln_v():
    """A fresh model bets evenly: within 2 % of ln V."""
    config = ModelConfig(128, 4, 4, multiple_of=32, vocab_size=500)
    model = Transformer(config)
    model.init_weights(torch.Generator().manual_seed(1))
    tokens = torch.randint(500, (4, 65),
                           generator=torch.Generator().manual_seed(2))
    logits = model(tokens[:, :-1])
    loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    assert abs(loss.item() / math.log(500) - 1) < 0.02


def test_tied_embeddings_are_one_tensor():
    """Input and output share storage when tied, and only then."""
    for tied in (True, False):
        model = Transformer(ModelConfig(**SMALL, tie_embeddings=tied))
        same = model.output.weight is model.tok_embeddings.weight
        assert same == tied


@torch.no_grad()
def test_logits_are_wide_in_a_narrow_model():
    """bf16 weights give float32 logits near those of the wide model."""
    torch.manual_seed(0)
    model = Transformer(SHAPES["paper"])
    tokens = torch.randint(61, (1, 30))
    wide, narrow = model(tokens), model.bfloat16()(tokens)
    assert narrow.dtype == torch.float32
    assert (wide - narrow).abs().max() < 0.05 * wide.abs().max()


@pytest.mark.parametrize(("start", "length"), [(0, 65), (60, 5), (64, 1)])
def test_too_long_is_refused(start, length):
    """One token past max_seq_len is refused, the last one that fits is not.
    """
    model = Transformer(SHAPES["paper"])
    with pytest.raises(ValueError, match=r"65 tokens.*max_seq_len=64.*"
                       r"shorten the text"):
        model(torch.zeros(1, length, dtype=torch.long), start)
    model(torch.zeros(1, length - 1 or 1, dtype=torch.long),
          start if length > 1 else start - 1)


def test_another_attention_may_take_its_place():
    """The model asks its layers' `attend`, whichever function that is."""
    model = Transformer(ModelConfig(16, 2, 2, multiple_of=4, vocab_size=9,
                                    max_seq_len=8)).eval()
    tokens = torch.arange(8)[None]
    before = model(tokens)
    for layer in model.layers:
        layer.attention.attend = partial(attend, causal=False)
    after = model(tokens)
    assert not torch.allclose(before[:, 0], after[:, 0])
    for layer in model.layers:
        layer.attention.attend = partial(attend, backend="eager")
    torch.testing.assert_close(model(tokens), before)
