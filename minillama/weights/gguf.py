"""GGUF: one file for llama.cpp and what is built on it.

RoPE pairs neighbours in llama.cpp as in the release: wq and wk are written as
they are. Norm weights have to be float32 there, which holds every 16-bit
number exactly.

Chapter: notebooks/11_generation.ipynb
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from minillama import rope
from minillama.checkpoint import weights_of
from minillama.files import needs
from minillama.model import Transformer
from minillama.tokenizer import Tokenizer
from minillama.weights.text import NEEDS, JsonTokenizer, sentencepiece_of

if TYPE_CHECKING:
    from gguf import GGUFWriter

NAMES = {
    "tok_embeddings": "token_embd", "norm": "output_norm",
    "output": "output", "attention_norm": "attn_norm", "ffn_norm": "ffn_norm",
    "wq": "attn_q", "wk": "attn_k", "wv": "attn_v", "wo": "attn_output",
    "w_gate": "ffn_gate", "w_up": "ffn_up", "w_down": "ffn_down",
}


def gguf_name(name: str) -> str:
    """layers.3.attention.wq.weight -> blk.3.attn_q.weight"""
    *path, last, kind = name.split(".")
    return ".".join([*(["blk", path[1]] if path else []), NAMES[last], kind])


def write(
    model: Transformer, path: Path, tokenizer: Tokenizer, name: str
) -> None:
    """Write one file, in the dtype of the model.

    Raises:
        ValueError: if the package gguf is not installed, or the tokenizer is
            not SentencePiece's.

    Chapter: notebooks/11_generation.ipynb
    """
    with needs(f"GGUF {NEEDS}"):
        import gguf
    if isinstance(tokenizer, JsonTokenizer):
        raise ValueError(
            "GGUF is written with a SentencePiece tokenizer only; this model "
            "came with a tokenizer.json. Use llama.cpp's own converter on "
            "its Hugging Face folder")
    writer = gguf.GGUFWriter(path, "llama")
    _describe(writer, model, name)
    _spell(writer, tokenizer)
    kinds = {torch.float32: gguf.GGMLQuantizationType.F32,
             torch.float16: gguf.GGMLQuantizationType.F16,
             torch.bfloat16: gguf.GGMLQuantizationType.BF16}
    for ours, weight in weights_of(model).items():
        w = weight.cpu().float() if weight.ndim == 1 else weight.cpu()
        # As bytes, since NumPy has no bfloat16.
        writer.add_tensor(gguf_name(ours), w.view(torch.uint8).numpy(),
                          raw_dtype=kinds[w.dtype])
    if (factors := _stretch(model)) is not None:
        writer.add_tensor("rope_freqs.weight", factors.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _describe(writer: GGUFWriter, model: Transformer, name: str) -> None:
    """The shape, in GGUF's words."""
    import gguf

    c = model.config
    writer.add_name(name)
    writer.add_context_length(c.max_seq_len)
    writer.add_embedding_length(c.dim)
    writer.add_block_count(c.n_layers)
    writer.add_feed_forward_length(
        model.layers[0].feed_forward.w_up.out_features)
    writer.add_head_count(c.n_heads)
    writer.add_head_count_kv(c.kv_heads)
    writer.add_layer_norm_rms_eps(c.norm_eps)
    writer.add_rope_dimension_count(c.head_dim)
    writer.add_rope_freq_base(c.rope_theta)
    writer.add_vocab_size(c.vocab_size)
    writer.add_file_type({
        torch.float32: gguf.LlamaFileType.ALL_F32,
        torch.float16: gguf.LlamaFileType.MOSTLY_F16,
        torch.bfloat16: gguf.LlamaFileType.MOSTLY_BF16,
    }[model.tok_embeddings.weight.dtype])
    if c.rope_scaling is not None and c.rope_scaling.kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(c.rope_scaling.factor)


def _stretch(model: Transformer) -> torch.Tensor | None:
    """By how much llama3 scaling divides each frequency, if it does."""
    c = model.config
    if c.rope_scaling is None or c.rope_scaling.kind != "llama3":
        return None
    plain = rope.frequencies(c.head_dim, c.rope_theta)
    return (plain / rope.frequencies(
        c.head_dim, c.rope_theta, c.rope_scaling)).float()


def _spell(writer: GGUFWriter, tokenizer: Tokenizer) -> None:
    """The vocabulary with scores and kinds of pieces."""
    from gguf import TokenType

    model = sentencepiece_of(tokenizer)
    ids = range(tokenizer.vocab_size)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([model.id_to_piece(i).encode("utf-8") for i in ids])
    writer.add_token_scores([model.get_score(i) for i in ids])
    writer.add_token_types([
        TokenType.UNKNOWN if model.is_unknown(i)
        else TokenType.CONTROL if model.is_control(i)
        else TokenType.BYTE if model.is_byte(i)
        else TokenType.NORMAL for i in ids])
    writer.add_unk_token_id(model.unk_id())
    writer.add_bos_token_id(tokenizer.bos_id)
    writer.add_eos_token_id(tokenizer.eos_id)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(tokenizer.dummy_prefix)
