"""Any causal model of Hugging Face's transformers, behind `Scorer`.

Chapter: notebooks/14_evaluation.ipynb
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from minillama.evals.scorers import LlamaScorer
from minillama.files import needs
from minillama.model import LayerCache, Transformer
from minillama.text_stream import TextStream


class HuggingFaceModel(Transformer):
    """A model of transformers that is called like ours.

    It has what scoring and generation ask of a `Transformer`: `config`,
    `tok_embeddings` and the call, with a cache of fixed length that is copied
    into a `DynamicCache` and back.

    Chapter: notebooks/14_evaluation.ipynb
    """

    def __init__(self, model: Any) -> None:
        nn.Module.__init__(self)  # none of our own layers
        c = model.config
        heads = c.num_attention_heads
        self.model = model.eval()
        self.tok_embeddings = model.get_input_embeddings()
        # What `generate.empty_cache` asks of a layer.
        kept = SimpleNamespace(
            kv_heads=getattr(c, "num_key_value_heads", None) or heads)
        self.layers = [SimpleNamespace(attention=kept)] * c.num_hidden_layers
        self.config = SimpleNamespace(
            max_seq_len=c.max_position_embeddings,
            head_dim=getattr(c, "head_dim", None) or c.hidden_size // heads)

    def forward(
        self,
        tokens: Int[Tensor, "B T"],
        start_pos: int = 0,
        cache: list[LayerCache] | None = None,
    ) -> Float[Tensor, "B T V"]:
        """Logits (B, T, V) of the token after each position."""
        from transformers import DynamicCache

        past = DynamicCache()
        if start_pos:
            for n, (k, v) in enumerate(cache or []):
                past.update(k[:, :, :start_pos], v[:, :, :start_pos], n)
        out = self.model(input_ids=tokens, past_key_values=past,
                         use_cache=True)
        end = start_pos + tokens.shape[1]
        for (k, v), layer in zip(cache or [], out.past_key_values.layers):
            k[:, :, start_pos:end] = layer.keys[:, :, start_pos:]
            v[:, :, start_pos:end] = layer.values[:, :, start_pos:]
        return out.logits


class HuggingFaceTokenizer:
    """A tokenizer of transformers with the methods of `Tokenizer`.

    Where it has no BOS, EOS stands for it, as in lm-evaluation-harness.

    Chapter: notebooks/14_evaluation.ipynb
    """

    def __init__(self, tokenizer: Any) -> None:
        self.inner = tokenizer
        self.eos_id: int = tokenizer.eos_token_id
        bos = tokenizer.bos_token_id
        self.bos_id: int = self.eos_id if bos is None else bos

    def encode(self, text: str, bos: bool = False) -> list[int]:
        """The ids of a text, with BOS before it if asked for."""
        ids = self.inner.encode(text, add_special_tokens=False)
        return [self.bos_id] * bos + ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""
        return self.inner.decode(
            list(ids), skip_special_tokens=True,
            clean_up_tokenization_spaces=False)

    def stream(self, after: Sequence[int] = ()) -> TextStream:
        """A decoder that is fed one id at a time."""
        return TextStream(self, after)  # type: ignore[arg-type]


def hugging_face(
    model: Any, tokenizer: Any = None, batch_tokens: int | None = None
) -> LlamaScorer:
    """A scorer of a transformers model, or of the folder that holds one.

    Args:
        model: a causal model, or what `from_pretrained` takes.
        tokenizer: its tokenizer; None: the one beside the model.
        batch_tokens: see `LlamaScorer`.

    Raises:
        ValueError: if transformers is not installed.

    Chapter: notebooks/14_evaluation.ipynb
    """
    with needs('Hugging Face models need `pip install "minillama[hf]"`'):
        from transformers import AutoModelForCausalLM, AutoTokenizer
    if isinstance(model, (str, bytes)) or hasattr(model, "__fspath__"):
        tokenizer = tokenizer or AutoTokenizer.from_pretrained(model)
        model = AutoModelForCausalLM.from_pretrained(model)
    with torch.no_grad():
        return LlamaScorer(
            HuggingFaceModel(model), HuggingFaceTokenizer(tokenizer),
            batch_tokens)
