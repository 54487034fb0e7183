"""Weights come in and go out unchanged, and nothing odd comes in.

Released shards are cut here by hand along the axes of the release, with
NumPy, and their shapes are held against the table of the four sizes. The
oracle for Hugging Face folders is `transformers` itself: models that it wrote
give its logits here, models written here give ours there, and with the
permutation of q and k left out the check fails. GGUF is read back tensor by
tensor by `gguf`'s own reader, and whole by transformers. Memory is measured
in a process of its own; a pickle that would run a program does not run it.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from minillama import checkpoint, samples, weights
from minillama.config import ModelConfig, RopeScaling
from minillama.model import Transformer, count_parameters
from minillama.tokenizer import Tokenizer
from minillama.weights import gguf, hf, meta, parts
from tests import small
from tests.real import real_tokenizer

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers")
transformers.utils.logging.disable_progress_bar()

SMALL = dict(dim=64, n_layers=2, n_heads=8, multiple_of=16, vocab_size=512,
             max_seq_len=64)
SHAPES = {
    "paper": ModelConfig(**SMALL),
    "65B's epsilon": ModelConfig(**SMALL, norm_eps=1e-5),
    "shared heads": ModelConfig(**SMALL, n_kv_heads=4),
    "tied": ModelConfig(**SMALL, tie_embeddings=True),
    "own width": ModelConfig(**SMALL, ffn_dim=200),
    "stretched": ModelConfig(**SMALL, rope_theta=5e5, rope_scaling=RopeScaling(
        factor=8.0, original_max_seq_len=32)),
    "linear": ModelConfig(**SMALL, rope_scaling=RopeScaling(
        "linear", factor=4.0)),
}
TEXT = torch.randint(512, (2, 40), generator=torch.Generator().manual_seed(5))


def random_model(
    config: ModelConfig, dtype: torch.dtype = torch.float32
) -> Transformer:
    """A model whose weights are large enough that nothing hides."""
    model = Transformer(config)
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.15
                    + (p.ndim == 1))
    return model.to(dtype).eval()


def assert_same(a: Transformer, b: Transformer) -> None:
    """Every weight is the same, bit for bit, and of the same type."""
    left, right = a.state_dict(), b.state_dict()
    assert left.keys() == right.keys()
    for name, weight in left.items():
        assert weight.dtype == right[name].dtype, name
        assert weight.equal(right[name]), name


def mini_tokenizer() -> Tokenizer:
    """512 pieces."""
    return Tokenizer(samples.MINI / "tokenizer.model")


# -- Meta's layout -----------------------------------------------------------

# The axis along which the release cuts each tensor, from its own model code.
CUT = {"tok_embeddings": 1, "wq": 0, "wk": 0, "wv": 0, "wo": 1, "w1": 0,
       "w2": 1, "w3": 0, "output": 0}


def release(
    model: Transformer, folder: Path, shards: int, by_rows: bool = False
) -> Path:
    """Write a model as Meta would have, without the code under test."""
    folder.mkdir()
    c = model.config
    (folder / "params.json").write_text(json.dumps({
        "dim": c.dim, "multiple_of": c.multiple_of, "n_heads": c.n_heads,
        "n_layers": c.n_layers, "norm_eps": c.norm_eps, "vocab_size": -1}),
        "utf-8")
    mini_tokenizer().save(folder / "tokenizer.model")
    names = {"w_gate": "w1", "w_up": "w3", "w_down": "w2"}
    for number in range(shards):
        shard = {"rope.freqs": torch.ones(4)}
        for name, weight in model.state_dict().items():
            for ours, theirs in names.items():
                name = name.replace(ours, theirs)
            kind = name.split(".")[-2]
            array = weight.numpy()
            if kind in CUT:
                axis = 0 if by_rows and kind == "tok_embeddings" else (
                    CUT[kind])
                array = np.split(array, shards, axis)[number]
            shard[name] = torch.from_numpy(np.ascontiguousarray(array))
        torch.save(shard, folder / f"consolidated.{number:02d}.pth")
    return folder


@pytest.mark.parametrize("shards", [1, 2, 4, 8])
def test_released_shards_are_put_together(tmp_path, shards):
    model = random_model(SHAPES["paper"])
    folder = release(model, tmp_path / "7B", shards)
    loaded, tokenizer = weights.load(folder)
    assert_same(model, loaded)
    assert not loaded.training
    assert loaded.config == ModelConfig(**{**SMALL, "max_seq_len": 2048})
    assert tokenizer.encode("To be") == mini_tokenizer().encode("To be")


def test_llama_3_cuts_the_vocabulary_instead(tmp_path):
    model = random_model(SHAPES["paper"])
    folder = release(model, tmp_path / "3", 4, by_rows=True)
    assert_same(model, weights.load(folder)[0])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("shards", [1, 4])
def test_meta_there_and_back(tmp_path, shape, shards):
    """All that a config says survives, and every bit of the weights."""
    model = random_model(SHAPES[shape], torch.float16)
    weights.save_meta(model, tmp_path / "m", tokenizer=mini_tokenizer(),
                      shards=shards)
    loaded, tokenizer = weights.load(tmp_path / "m")
    assert_same(model, loaded)
    assert loaded(TEXT).equal(model(TEXT))
    width = model.layers[0].feed_forward.w_up.out_features
    assert {**loaded.config.to_dict(), "ffn_dim": width, "multiple_of": 0} == {
        **model.config.to_dict(), "ffn_dim": width, "multiple_of": 0}
    assert tokenizer.to_bytes() == mini_tokenizer().to_bytes()


# dim, layers, heads, eps, shards; then what one shard of the release holds:
# embedding, output, wq, wo, w1, w2 and all its numbers.
RELEASED = {
    "7B": (1, (32000, 4096), (32000, 4096), (4096, 4096), (4096, 4096),
           (11008, 4096), (4096, 11008), 6738415616),
    "13B": (2, (32000, 2560), (16000, 5120), (2560, 5120), (5120, 2560),
            (6912, 5120), (5120, 6912), 6508139520),
    "33B": (4, (32000, 1664), (8000, 6656), (1664, 6656), (6656, 1664),
            (4480, 6656), (6656, 4480), 8132839936),
    "65B": (8, (32000, 1024), (4000, 8192), (1024, 8192), (8192, 1024),
            (2752, 8192), (8192, 2752), 8161861632),
}


@pytest.mark.parametrize("size", RELEASED)
def test_shards_have_the_released_shapes(size):
    count, *want, numbers = RELEASED[size]
    found = meta.shard_shapes(ModelConfig.preset(size), count)
    layer = "layers.0."
    assert [found[name + ".weight"] for name in (
        "tok_embeddings", "output", layer + "attention.wq",
        layer + "attention.wo", layer + "feed_forward.w1",
        layer + "feed_forward.w2")] == want
    assert sum(int(np.prod(shape)) for shape in found.values()) == numbers


def test_the_released_tokenizer_goes_with_the_released_shape(tmp_path):
    """vocab_size -1 means: as many as the tokenizer has."""
    config = ModelConfig(dim=16, n_layers=1, n_heads=2, multiple_of=8)
    folder = release(random_model(config), tmp_path / "7B", 2)
    shutil.copy(real_tokenizer(), folder / "tokenizer.model")
    model, tokenizer = weights.load(folder)
    assert model.config.vocab_size == tokenizer.vocab_size == 32000


def test_shards_that_do_not_divide_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"shards=3 .*try one of \[1, 2, 4"):
        weights.save_meta(random_model(SHAPES["paper"]), tmp_path / "m",
                          shards=3)
    assert list(tmp_path.iterdir()) == []


# -- Hugging Face's layout ---------------------------------------------------

def hugging_face(config: ModelConfig) -> transformers.LlamaForCausalLM:
    """An untrained model of transformers, of this shape."""
    torch.manual_seed(3)
    rope = {"rope_type": "default", "rope_theta": config.rope_theta}
    if (s := config.rope_scaling) is not None:
        rope |= {"rope_type": s.kind, "factor": s.factor}
        if s.kind == "llama3":
            rope |= {
                "low_freq_factor": s.low_freq_factor,
                "high_freq_factor": s.high_freq_factor,
                "original_max_position_embeddings": s.original_max_seq_len}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        hidden_size=config.dim, num_hidden_layers=config.n_layers,
        num_attention_heads=config.n_heads,
        num_key_value_heads=config.kv_heads, rms_norm_eps=config.norm_eps,
        intermediate_size=config.ffn_dim or 176, rope_parameters=rope,
        vocab_size=config.vocab_size, initializer_range=0.2,
        max_position_embeddings=config.max_seq_len,
        tie_word_embeddings=config.tie_embeddings))
    return model.eval()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", ["5GB", "50KB"])
def test_a_folder_that_transformers_wrote(tmp_path, shape, size):
    """One file, or several with an index; the logits are theirs."""
    theirs = hugging_face(SHAPES[shape])
    theirs.save_pretrained(tmp_path, max_shard_size=size)
    assert (tmp_path / hf.INDEX).is_file() == (size == "50KB")
    ours, tokenizer = weights.load(tmp_path)
    assert tokenizer is None
    with torch.no_grad():
        torch.testing.assert_close(
            ours(TEXT), theirs(TEXT).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_transformers_reads_what_is_written_here(tmp_path, shape):
    model = random_model(SHAPES[shape])
    weights.save_hf(model, tmp_path / "h", tokenizer=mini_tokenizer(),
                    file_bytes=100_000)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "h", dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(
            theirs(TEXT).logits, model(TEXT), rtol=2e-5, atol=2e-5)
    assert_same(model, weights.load(tmp_path / "h")[0])


def test_a_forgotten_permutation_is_noticed(tmp_path, monkeypatch):
    """Everything loads, and the logits are grossly others."""
    monkeypatch.setattr(hf, "is_turned", lambda name: False)
    model = random_model(SHAPES["paper"])
    weights.save_hf(model, tmp_path / "h")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "h", dtype=torch.float32)
    with torch.no_grad():
        assert (theirs(TEXT).logits - model(TEXT)).abs().max() > 0.5


def test_the_permutation_by_its_own_definition():
    """Row j of Hugging Face's is row 2j of ours, then 2j + 1."""
    rows = torch.arange(16.0)[:, None]
    there = hf.to_halves("wq.weight", rows, 8).squeeze()
    assert there.tolist() == [0, 2, 4, 6, 1, 3, 5, 7,
                              8, 10, 12, 14, 9, 11, 13, 15]
    back = hf.to_neighbours("wk.weight", there[:, None], 8)
    assert back.equal(rows)
    assert hf.to_halves("wv.weight", rows, 8) is rows


# What open models have in their config.json, in the old spelling.
TINYLLAMA = {
    "architectures": ["LlamaForCausalLM"], "bos_token_id": 1,
    "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 2048,
    "initializer_range": 0.02, "intermediate_size": 5632,
    "max_position_embeddings": 2048, "model_type": "llama",
    "num_attention_heads": 32, "num_hidden_layers": 22,
    "num_key_value_heads": 4, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
    "rope_scaling": None, "tie_word_embeddings": False,
    "torch_dtype": "float32", "use_cache": True, "vocab_size": 32000}
SMOLLM = {
    "architectures": ["LlamaForCausalLM"], "attention_bias": False,
    "bos_token_id": 0, "eos_token_id": 0, "hidden_act": "silu",
    "hidden_size": 576, "intermediate_size": 1536,
    "max_position_embeddings": 2048, "mlp_bias": False,
    "model_type": "llama", "num_attention_heads": 9,
    "num_hidden_layers": 30, "num_key_value_heads": 3,
    "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "rope_scaling": None,
    "tie_word_embeddings": True, "torch_dtype": "bfloat16",
    "vocab_size": 49152}
LLAMA_3_2 = {
    "head_dim": 64, "hidden_act": "silu", "hidden_size": 2048,
    "intermediate_size": 8192, "max_position_embeddings": 131072,
    "model_type": "llama", "num_attention_heads": 32,
    "num_hidden_layers": 16, "num_key_value_heads": 8, "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192, "rope_type": "llama3"},
    "rope_theta": 500000.0, "tie_word_embeddings": True,
    "vocab_size": 128256}


@pytest.mark.parametrize(("stored", "count"), [
    (TINYLLAMA, 1_100_048_384), (SMOLLM, 134_515_008),
    (LLAMA_3_2, 1_235_814_400)])
def test_open_models_have_their_published_counts(tmp_path, stored, count):
    """The configs load into shapes of exactly so many parameters."""
    (tmp_path / "config.json").write_text(json.dumps(stored), "utf-8")
    with pytest.raises(ValueError, match="model.safetensors is missing"):
        weights.load(tmp_path)
    config = hf._config(tmp_path / "config.json")
    assert count_parameters(config) == count
    assert config.rope_theta == stored.get("rope_theta", 10000.0)


@pytest.fixture(scope="module")
def smollm(tmp_path_factory) -> Path:
    """Random weights in the exact shape of SmolLM-135M, 269 MB in bf16."""
    folder = tmp_path_factory.mktemp("smollm")
    torch.manual_seed(1)
    config = transformers.LlamaConfig(**{
        name: value for name, value in SMOLLM.items()
        if name not in ("torch_dtype", "rope_scaling")})
    model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    old = {**SMOLLM, "transformers_version": "4.40.1"}
    (folder / "config.json").write_text(json.dumps(old), "utf-8")
    return folder


@pytest.mark.slow
def test_the_exact_shape_of_an_open_model(smollm):
    ours, _ = weights.load(smollm, dtype=torch.float32)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        smollm, dtype=torch.float32)
    text = TEXT[:1, :16]
    with torch.no_grad():
        torch.testing.assert_close(
            ours(text), theirs(text).logits, rtol=1e-5, atol=1e-5)


MEMORY = """
import re, sys, threading, time, torch
from pathlib import Path
from minillama import weights
def private():
    text = Path("/proc/self/status").read_text("utf-8")
    return 1024 * int(re.search(r"RssAnon:\\s+(\\d+)", text)[1])
before, peak, stop = private(), 0, False
def watch():
    global peak
    while not stop:
        peak = max(peak, private())
        time.sleep(0.001)
watcher = threading.Thread(target=watch)
watcher.start()
dtype = getattr(torch, sys.argv[2])
model, _ = weights.load(sys.argv[1], dtype=dtype)
stop = True
watcher.join()
size = sum(p.numel() * p.element_size() for p in model.parameters())
print((max(peak, private()) - before) / size)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(),
                    reason="RssAnon is Linux's word")
@pytest.mark.slow
@pytest.mark.parametrize(("layout", "dtype"), [
    ("hf", "bfloat16"), ("meta", "float32")])
def test_memory_stays_under_a_fifth_more_than_the_model(
        smollm, tmp_path, layout, dtype):
    """Private memory of a process that loads 135M parameters."""
    folder = smollm
    if layout == "meta":
        folder = tmp_path / "m"
        weights.save_meta(weights.load(smollm)[0], folder, shards=3)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(folder), dtype],
        capture_output=True, text=True, encoding="utf-8", check=True)
    assert 0.9 < float(done.stdout) < 1.2


# -- our own checkpoints -----------------------------------------------------

def test_our_own_runs_and_checkpoints(tmp_path):
    model = random_model(small.MODEL)
    step = checkpoint.save(tmp_path, 3, model, {}, keep_last=1)
    tokenizer = small.tokenizer_of(small.corpus(tmp_path / "c"))
    tokenizer.save(tmp_path / "tokenizer.model")
    for folder in (tmp_path, step):
        loaded, found = weights.load(folder)
        assert_same(model, loaded)
        assert loaded.config == model.config
        assert found.to_bytes() == tokenizer.to_bytes()
    damaged = step / checkpoint.WEIGHTS
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    with pytest.raises(ValueError, match="not what was written"):
        weights.load(tmp_path)


def test_the_shipped_model_as_stored_and_wider():
    stored, tokenizer = weights.load(samples.MINI)
    assert stored.output.weight.dtype == torch.bfloat16
    assert tokenizer.vocab_size == 512
    wide, _ = weights.load(samples.MINI, dtype=torch.float32, max_seq_len=99)
    assert wide.config.max_seq_len == 99
    assert_same(wide, samples.load_mini()[0])


# -- GGUF --------------------------------------------------------------------

@pytest.mark.parametrize("dtype", [
    torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", ["paper", "shared heads", "tied",
                                   "stretched"])
def test_gguf_holds_every_tensor_and_the_vocabulary(tmp_path, shape, dtype):
    reader_of = pytest.importorskip("gguf").GGUFReader
    model = random_model(SHAPES[shape], dtype)
    tokenizer = mini_tokenizer()
    weights.save_gguf(model, tmp_path / "m.gguf", tokenizer=tokenizer)
    reader = reader_of(tmp_path / "m.gguf")
    found = {tensor.name: tensor for tensor in reader.tensors}
    stretch = found.pop("rope_freqs.weight", None)
    assert (stretch is not None) == (shape == "stretched")
    expected = checkpoint.weights_of(model)
    assert set(found) == {gguf.gguf_name(name) for name in expected}
    for name, weight in expected.items():
        stored = found[gguf.gguf_name(name)]
        raw = torch.from_numpy(np.array(stored.data)).contiguous().view(
            torch.uint8).flatten()
        kind = torch.float32 if weight.ndim == 1 else dtype
        assert raw.equal(weight.to(kind).view(torch.uint8).flatten()), name
        assert list(stored.shape) == list(weight.shape)[::-1]
    pieces = reader.fields["tokenizer.ggml.tokens"].contents()
    assert pieces == [tokenizer.piece(i) for i in range(512)]
    words = {"llama.context_length": 64, "llama.attention.head_count": 8,
             "llama.attention.head_count_kv": model.config.kv_heads,
             "llama.rope.freq_base": model.config.rope_theta,
             "llama.rope.dimension_count": 8, "llama.block_count": 2,
             "llama.embedding_length": 64, "general.architecture": "llama",
             "tokenizer.ggml.bos_token_id": 1,
             "tokenizer.ggml.eos_token_id": 2}
    for name, value in words.items():
        assert reader.fields[name].contents() == value, name


@pytest.mark.parametrize("shape", ["paper", "shared heads", "tied"])
def test_transformers_reads_the_gguf_file(tmp_path, shape):
    """A third reader, with its own idea of where rows belong."""
    model = random_model(SHAPES[shape])
    weights.save_gguf(model, tmp_path / "m.gguf", tokenizer=mini_tokenizer())
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="m.gguf")
    with torch.no_grad():
        torch.testing.assert_close(
            theirs(TEXT).logits, model(TEXT), rtol=2e-5, atol=2e-5)


def test_frequencies_of_a_stretched_model_in_gguf():
    """Divided by the factors, the plain frequencies are the scaled ones."""
    from minillama import rope

    config = SHAPES["stretched"]
    with torch.device("meta"):
        factors = gguf._stretch(Transformer(config))
    plain = rope.frequencies(config.head_dim, config.rope_theta)
    want = rope.frequencies(
        config.head_dim, config.rope_theta, config.rope_scaling)
    torch.testing.assert_close((plain / factors).float(), want.float())
    assert factors[0] == 1 and factors[-1] == pytest.approx(8)


# -- precision, files that are there -----------------------------------------

def test_a_narrower_type_has_to_be_asked_for(tmp_path):
    model = random_model(SHAPES["paper"])
    weights.save_hf(model, tmp_path / "same")
    weights.save_hf(model, tmp_path / "half", dtype=torch.bfloat16)
    assert_same(model, weights.load(tmp_path / "same")[0])
    half, _ = weights.load(tmp_path / "half")
    assert half.output.weight.equal(model.output.weight.bfloat16())
    assert model.output.weight.dtype == torch.float32  # left as it was
    assert json.loads((tmp_path / "half" / "config.json").read_text("utf-8"))[
        "dtype"] == "bfloat16"


def test_nothing_is_written_over(tmp_path):
    (tmp_path / "there").mkdir()
    model = random_model(SHAPES["paper"])
    for save in (weights.save_meta, weights.save_hf):
        with pytest.raises(ValueError, match="is there already"):
            save(model, tmp_path / "there")
    assert [p.name for p in tmp_path.iterdir()] == ["there"]


def test_a_type_that_cannot_hold_the_weights_is_refused(tmp_path):
    """bfloat16 reaches 3e38, float16 only 65,504."""
    model = random_model(SHAPES["paper"]).bfloat16()
    model.output.weight.data[0, 0] = 1e5
    with pytest.raises(ValueError, match="output.weight is not finite in"):
        weights.save_hf(model, tmp_path / "h", dtype=torch.float16)
    assert not list(tmp_path.iterdir())


def test_the_card_of_a_gguf_file_replaces_nothing(tmp_path):
    (tmp_path / "notes.md").write_text("mine", "utf-8")
    with pytest.raises(ValueError, match="notes.md is there"):
        weights.save_gguf(
            random_model(SHAPES["paper"]), tmp_path / "notes.gguf",
            tokenizer=mini_tokenizer(), card="card")
    assert (tmp_path / "notes.md").read_text("utf-8") == "mine"


# -- what is refused ---------------------------------------------------------

class Bomb:
    """Pickled, it writes a file when it is unpickled carelessly."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


def test_a_pickle_that_runs_a_program_does_not_run_it(tmp_path):
    folder = release(random_model(SHAPES["paper"]), tmp_path / "7B", 1)
    shard = folder / "consolidated.00.pth"
    stored = torch.load(shard, weights_only=True)
    trap = tmp_path / "sprung"
    torch.save({**stored, "norm.weight": Bomb(trap)}, shard)
    with pytest.raises(ValueError, match="00.pth is refused.*plain tensors"):
        weights.load(folder)
    assert not trap.exists()
    pickle.loads(pickle.dumps(Bomb(trap)))  # the trap works
    assert trap.exists()


def _edit_pth(change):
    def edit(folder: Path) -> None:
        path = folder / "consolidated.01.pth"
        stored = torch.load(path, weights_only=True)
        change(stored)
        torch.save(stored, path)
    return edit


def _set(name, value):
    return lambda stored: stored.__setitem__(name, value)


BROKEN_META = {
    "a missing shard": (
        lambda folder: (folder / "consolidated.01.pth").unlink(),
        r"2 shards, .* missing or left over: consolidated.01.pth"),
    "a shard too many": (
        lambda folder: shutil.copy(folder / "consolidated.01.pth",
                                   folder / "consolidated.02.pth"),
        "left over: consolidated.02.pth"),
    "a missing tensor": (
        _edit_pth(lambda stored: stored.pop("layers.1.feed_forward.w2"
                                            ".weight")),
        r"01.pth: layers.1.feed_forward.w2.weight is missing"),
    "an extra tensor": (
        _edit_pth(_set("layers.9.wq.weight", torch.ones(2))),
        "01.pth: layers.9.wq.weight is no weight of this model"),
    "a wrong shape": (
        _edit_pth(_set("layers.0.attention.wo.weight", torch.ones(64, 31))),
        r"01.pth: layers.0.attention.wo.weight is \(64, 31\), .*\(64, 32\)"),
    "whole numbers": (
        _edit_pth(_set("layers.0.attention.wo.weight",
                       torch.ones(64, 32, dtype=torch.int8))),
        "wo.weight is torch.int8; quantised"),
    "not a tensor": (
        _edit_pth(_set("norm.weight", [1.0, 2.0])),
        "01.pth is refused: norm.weight is not a tensor"),
    "not a pickle": (
        lambda folder: (folder / "consolidated.01.pth").write_bytes(b"PK no"),
        "01.pth is refused: it is not a file of plain tensors"),
    "an unknown setting": (
        lambda folder: (folder / "params.json").write_text(
            '{"dim": 64, "moe_experts": 8}', "utf-8"),
        "moe_experts=8 is not understood"),
    "a setting that is missing": (
        lambda folder: (folder / "params.json").write_text(
            '{"dim": 64}', "utf-8"),
        "7B does not describe a LLaMA"),
    "a setting of another kind": (
        lambda folder: (folder / "params.json").write_text(
            (folder / "params.json").read_text("utf-8").replace(
                '"dim": 64', '"dim": "64"'), "utf-8"),
        "7B does not describe a LLaMA"),
    "more rows than the model is wide": (
        lambda folder: torch.save(
            {"layers.0.attention.wq.weight": torch.ones(999, 64)},
            folder / "consolidated.00.pth"),
        "00.pth: .*is missing"),
    "a name that is a number": (
        _edit_pth(_set(7, torch.ones(2))), "01.pth is refused: 7 is not"),
    "not a number": (
        _edit_pth(lambda stored: stored["layers.0.attention.wo.weight"]
                  [0].fill_(torch.nan)),
        "7B: layers.0.attention.wo.weight is not finite"),
    "no JSON": (
        lambda folder: (folder / "params.json").write_text("{", "utf-8"),
        "params.json cannot be read"),
    "a tokenizer that is too large": (
        lambda folder: (folder / "params.json").write_text(
            (folder / "params.json").read_text("utf-8").replace(
                "-1", "510"), "utf-8"),
        r"\(512, 32\), the config asks for \(510, 32\)"),
}


@pytest.mark.parametrize("case", BROKEN_META)
def test_broken_released_folders_are_refused_by_name(tmp_path, case):
    breaks, message = BROKEN_META[case]
    folder = release(random_model(SHAPES["paper"]), tmp_path / "7B", 2)
    breaks(folder)
    with pytest.raises(ValueError, match=message):
        weights.load(folder)


def _edit_config(**changes):
    def edit(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text("utf-8")),
                                    **changes}), "utf-8")
    return edit


def _edit_st(change):
    def edit(folder: Path) -> None:
        path = next(folder.glob("model-00001*"))
        stored = load_file(path)
        change(stored)
        save_file(stored, path)
    return edit


BROKEN_HF = {
    "a missing file": (
        lambda folder: next(folder.glob("model-00002*")).unlink(),
        "model-00002.*is missing or damaged"),
    "a cut file": (
        lambda folder: next(folder.glob("model-00002*")).write_bytes(b"{}"),
        "model-00002.*is missing or damaged"),
    "a file elsewhere": (
        lambda folder: (folder / hf.INDEX).write_text(
            '{"weight_map": {"a": "../model.safetensors"}}', "utf-8"),
        "is not a file beside it"),
    "a missing tensor": (
        _edit_st(lambda stored: stored.pop("model.embed_tokens.weight")),
        "model.embed_tokens.weight is missing"),
    "an extra tensor": (
        _edit_st(_set("model.bias", torch.ones(3))),
        "model.bias is no weight"),
    "a wrong shape": (
        _edit_config(hidden_size=128), r"is \(.*64\), the config asks for"),
    "another family": (
        _edit_config(model_type="mixtral"), "model_type='mixtral' is not"),
    "biases": (_edit_config(attention_bias=True), "attention_bias=True"),
    "a head of its own size": (_edit_config(head_dim=32), "head_dim=32"),
    "another activation": (_edit_config(hidden_act="gelu"), "hidden_act"),
    "a window": (_edit_config(sliding_window=4096), "sliding_window=4096"),
    "another stretching": (
        _edit_config(rope_parameters={"rope_type": "yarn", "factor": 2.0}),
        "rope_type='yarn' is not read"),
    "a stretching that does not say how far": (
        _edit_config(rope_parameters={"rope_type": "linear"}),
        "does not describe a LLaMA .KeyError..factor"),
    "half a stretching": (
        _edit_config(rope_parameters={"rope_type": "llama3", "factor": 8.0}),
        "does not describe a LLaMA .KeyError..low_freq"),
    "a number as text": (
        _edit_config(num_attention_heads="4"), "does not describe a LLaMA"),
    "a list for a dictionary": (
        lambda folder: (folder / hf.INDEX).write_text(
            '{"weight_map": ["a"]}', "utf-8"), "does not describe a LLaMA"),
    "no config": (
        lambda folder: (folder / "config.json").unlink(),
        "is no folder of weights"),
    "half a config": (
        lambda folder: (folder / "config.json").write_text(
            '{"hidden_size": 64, "model_type": "llama"}', "utf-8"),
        "does not describe a LLaMA"),
}


@pytest.mark.parametrize("case", BROKEN_HF)
def test_broken_hugging_face_folders_are_refused_by_name(tmp_path, case):
    breaks, message = BROKEN_HF[case]
    folder = tmp_path / "h"
    weights.save_hf(random_model(SHAPES["paper"]), folder, file_bytes=100_000)
    breaks(folder)
    with pytest.raises(ValueError, match=message):
        weights.load(folder)


def test_a_tied_head_that_differs_is_refused(tmp_path):
    model = random_model(SHAPES["tied"])
    weights.save_hf(model, tmp_path / "h")
    path = tmp_path / "h" / hf.WEIGHTS
    stored = load_file(path)
    head = stored["model.embed_tokens.weight"].clone()
    save_file({**stored, "lm_head.weight": head}, path)
    assert_same(model, weights.load(tmp_path / "h")[0])
    head[0, 0] += 1
    save_file({**stored, "lm_head.weight": head}, path)
    with pytest.raises(ValueError, match="lm_head.weight differs"):
        weights.load(tmp_path / "h")


def test_an_old_stretching_beside_the_new_base(tmp_path):
    """Both spellings in one file: transformers takes `rope_scaling`."""
    weights.save_hf(random_model(SHAPES["paper"]), tmp_path / "h")
    _edit_config(rope_parameters={"rope_theta": 1e4}, rope_scaling={
        "type": "linear", "factor": 4.0})(tmp_path / "h")
    text = torch.arange(24)[None]
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "h")
    with torch.no_grad():
        torch.testing.assert_close(
            weights.load(tmp_path / "h")[0](text), theirs(text).logits,
            atol=1e-4, rtol=1e-4)


def test_early_hugging_face_tables_are_left_out(tmp_path):
    model = random_model(SHAPES["paper"])
    weights.save_hf(model, tmp_path / "h")
    path = tmp_path / "h" / hf.WEIGHTS
    save_file({**load_file(path),
               "model.layers.0.self_attn.rotary_emb.inv_freq":
               torch.ones(4)}, path)
    assert_same(model, weights.load(tmp_path / "h")[0])


def test_a_list_of_problems_is_cut_short():
    with pytest.raises(ValueError, match="and 2 more"):
        parts.refuse_unlike(Path("x"), {str(n): (1,) for n in range(6)}, {})


def test_a_folder_without_weights(tmp_path):
    with pytest.raises(ValueError, match="is no folder of weights"):
        weights.load(tmp_path)
