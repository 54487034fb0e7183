"""The rival: Hugging Face's LLaMA with the weights of ours.

Two things differ. The names; and RoPE's pairs: ours are neighbours, as in the
release, Hugging Face's are component j and j + K/2. The rows of wq and wk
within each head are put in the other order, and every dot product of a query
and a key stays what it was.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from minillama.model import Transformer

NAMES = {
    "tok_embeddings": "model.embed_tokens", "norm": "model.norm",
    "output": "lm_head", "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm", "wq": "self_attn.q_proj",
    "wk": "self_attn.k_proj", "wv": "self_attn.v_proj",
    "wo": "self_attn.o_proj", "w_gate": "mlp.gate_proj",
    "w_up": "mlp.up_proj", "w_down": "mlp.down_proj",
}


def twin(model: Transformer) -> Any:
    """A LlamaForCausalLM that computes what `model` computes.

    Args:
        model: ours, without RoPE scaling.

    Returns:
        A model with sdpa attention, on the same device and of the same type.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    c = model.config
    assert c.rope_scaling is None, "Hugging Face spells scaling otherwise"
    output = model.output.weight
    other = LlamaForCausalLM(LlamaConfig(
        vocab_size=c.vocab_size, hidden_size=c.dim,
        intermediate_size=model.layers[0].feed_forward.w_up.out_features,
        num_hidden_layers=c.n_layers, num_attention_heads=c.n_heads,
        num_key_value_heads=c.kv_heads, rms_norm_eps=c.norm_eps,
        max_position_embeddings=c.max_seq_len,
        rope_parameters={"rope_type": "default", "rope_theta": c.rope_theta},
        tie_word_embeddings=c.tie_embeddings, pad_token_id=None,
        bos_token_id=1, eos_token_id=2, attn_implementation="sdpa"))
    other.load_state_dict(
        {rename(name): arranged(name, weight, c.head_dim)
         for name, weight in model.state_dict().items()})
    return other.to(output.device, output.dtype)


def rename(name: str) -> str:
    """layers.3.attention.wq.weight -> model.layers.3.self_attn.q_proj..."""
    *path, last, kind = name.split(".")
    if path:  # layers, number[, attention or feed_forward]
        return f"model.layers.{path[1]}.{NAMES[last]}.{kind}"
    return f"{NAMES[last]}.{kind}"


def is_turned(name: str) -> bool:
    """Whether RoPE turns what this matrix makes."""
    return name.endswith(("wq.weight", "wk.weight"))


def arranged(name: str, weight: Tensor, head_dim: int) -> Tensor:
    """A weight or its gradient with the rows in Hugging Face's order.

    Rows (0, 1, 2, 3, ...) of each head of wq and wk become
    (0, 2, ..., 1, 3, ...); everything else stays.
    """
    if not is_turned(name):
        return weight
    pairs = weight.unflatten(0, (-1, head_dim // 2, 2))
    return pairs.transpose(1, 2).flatten(0, 2)


def twin_tokenizer(path: Path) -> Any:
    """Hugging Face's fast tokenizer with the pieces of a SentencePiece file.

    As it comes it drops the first of several spaces at the start of a text;
    the two settings below are SentencePiece's. BOS is left to the caller.

    Args:
        path: the SentencePiece model, named `tokenizer.model`.
    """
    from tokenizers import normalizers
    from transformers import LlamaTokenizer, PreTrainedTokenizerFast

    inner = LlamaTokenizer.from_pretrained(path.parent).backend_tokenizer
    inner.normalizer = normalizers.Sequence([
        normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.pre_tokenizer = None
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>",
        unk_token="<unk>")
