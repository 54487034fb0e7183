"""The rival: Hugging Face's LLaMA with the weights and pieces of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minillama.weights.ladder import twin

__all__ = ["twin", "twin_tokenizer"]


def twin_tokenizer(path: Path) -> Any:
    """Hugging Face's fast tokenizer with the pieces of a SentencePiece file.

    As it comes it drops the first of several spaces at the start of a text;
    the settings below are SentencePiece's. With special tokens it adds BOS.

    Args:
        path: the SentencePiece model, named `tokenizer.model`.
    """
    from tokenizers import normalizers, processors
    from transformers import LlamaTokenizer, PreTrainedTokenizerFast

    inner = LlamaTokenizer.from_pretrained(path.parent).backend_tokenizer
    inner.normalizer = normalizers.Sequence([
        normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.pre_tokenizer = None
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>",
        unk_token="<unk>")
