"""The equality ladder: is it the same model, rung by rung?

The oracle is Hugging Face's LLaMA with the same weights. In float64, with its
two hard-wired float32 islands (the norm, the rotary tables) taken out, logits
and gradients agree to 1e-10; as it comes, in float32, to 1e-5; in bfloat16
ours is as near to float64 as twice the distance of theirs; and llama.cpp,
where it is installed, agrees in float32 to 1e-4.

Chapter: notebooks/11_generation.ipynb
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional as F

from minillama import rope
from minillama.files import needs
from minillama.model import Transformer
from minillama.tokenizer import Tokenizer
from minillama.weights import gguf
from minillama.weights.hf import config_of, hf_name, to_halves
from minillama.weights.text import NEEDS


class Rung(NamedTuple):
    """One comparison."""

    against: str
    """Whose numbers, and in which precision."""
    what: str
    """Logits, or gradients of the loss."""
    gap: float
    """Largest difference, relative to 1 + the oracle's largest number."""
    allowed: float
    """What it may be."""

    @property
    def holds(self) -> bool:
        """Whether it is the same model; not so if anything is NaN."""
        return self.gap <= self.allowed


def twin(model: Transformer, dtype: torch.dtype | None = None) -> Any:
    """Hugging Face's LlamaForCausalLM with the weights of `model`.

    Args:
        model: ours.
        dtype: of the twin; None: that of the model.

    Returns:
        A model with sdpa attention, on the same device, in evaluation mode.

    Raises:
        ValueError: if transformers is not installed.

    Chapter: notebooks/11_generation.ipynb
    """
    with needs(f"the equality ladder {NEEDS}"):
        from transformers import LlamaConfig, LlamaForCausalLM
    settings = config_of(model)
    del settings["dtype"], settings["rope_theta"], settings["rope_scaling"]
    with model.output.weight.device:  # to draw billions elsewhere takes long
        other = LlamaForCausalLM(LlamaConfig(
            **settings, pad_token_id=None, attn_implementation="sdpa"))
    weights = {hf_name(name): to_halves(name, w, model.config.head_dim)
               for name, w in model.state_dict().items()}
    other.load_state_dict(weights)
    return other.to(model.output.weight.device,
                    dtype or model.output.weight.dtype).eval()


@contextlib.contextmanager
def without_islands(model: Transformer) -> Iterator[None]:
    """Let Hugging Face's norm and rotary tables keep the input's type."""
    from transformers.models.llama import modeling_llama as llama

    c = model.config
    frequencies = rope.frequencies(c.head_dim, c.rope_theta, c.rope_scaling)

    def norm(self: Any, x: Tensor) -> Tensor:
        mean = x.pow(2).mean(-1, keepdim=True)
        return self.weight * (x * torch.rsqrt(mean + self.variance_epsilon))

    def rotary(self: Any, x: Tensor, position_ids: Tensor) -> Any:
        angles = position_ids[..., None] * frequencies
        both = torch.cat((angles, angles), dim=-1).to(x.dtype)
        return both.cos(), both.sin()

    with (mock.patch.object(llama.LlamaRMSNorm, "forward", norm),
          mock.patch.object(llama.LlamaRotaryEmbedding, "forward", rotary)):
        yield


def climb(
    model: Transformer,
    tokenizer: Tokenizer | None = None,
    *,
    tokens: int = 32,
    seed: int = 1,
) -> list[Rung]:
    """Every rung for one model; it needs several copies in memory.

    Args:
        model: on the CPU, in any precision.
        tokenizer: of the model, for llama.cpp, which is left out without.
        tokens: length of the two random texts that are compared.
        seed: of the texts.

    Raises:
        ValueError: if transformers is not installed.

    Chapter: notebooks/11_generation.ipynb
    """
    text = torch.randint(
        model.config.vocab_size, (2, min(tokens, model.config.max_seq_len)),
        generator=torch.Generator().manual_seed(seed))
    exact = _copy(model, torch.float64)
    theirs = twin(exact)
    with without_islands(exact):
        best = _pass(theirs, text)
    head = model.config.head_dim
    rungs = _compare("Hugging Face, fp64", _pass(exact, text), best, head,
                     1e-10)
    single, theirs = _copy(model, torch.float32), theirs.float()
    rungs += _compare("Hugging Face, fp32", _pass(single, text),
                      _pass(theirs, text), head, 1e-5)
    with torch.no_grad():
        rough, their_rough = single.bfloat16()(text), theirs.bfloat16()(text)
    rungs.append(Rung("fp64, ours in bf16", "logits", _gap(
        rough, best["logits"]), 2 * _gap(their_rough.logits, best["logits"])))
    if tokenizer is not None and importlib.util.find_spec("llama_cpp"):
        single = _copy(model, torch.float32)
        rungs.append(Rung("llama.cpp, fp32", "logits", _gap(
            single(text[:1])[0], llama_cpp_logits(single, tokenizer, text[0])
        ), 1e-4))
    return rungs


def _copy(model: Transformer, dtype: torch.dtype) -> Transformer:
    """The same model in another precision."""
    return copy.deepcopy(model).to(dtype).requires_grad_(True).eval()


def _pass(model: Any, text: Int[Tensor, "B T"]) -> dict[str, Tensor]:
    """Logits, and the gradient of the loss by our names and order."""
    out = model(text)
    logits = out if isinstance(out, Tensor) else out.logits
    F.cross_entropy(logits[:, :-1].flatten(0, 1),
                    text[:, 1:].flatten()).backward()
    found = {"logits": logits.detach()}
    for name, weight in model.named_parameters():
        found[name], weight.grad = weight.grad, None
    return found


def _compare(
    against: str,
    ours: dict[str, Tensor],
    theirs: dict[str, Tensor],
    head_dim: int,
    allowed: float,
) -> list[Rung]:
    """Two rungs: logits, and the worst gradient."""
    gradients = [
        _gap(to_halves(name, gradient, head_dim), theirs[hf_name(name)])
        for name, gradient in ours.items() if name != "logits"]
    return [Rung(against, "logits", _gap(ours["logits"], theirs["logits"]),
                 allowed),
            Rung(against, "gradients", max(gradients), allowed)]


def _gap(a: Tensor, b: Tensor) -> float:
    """Largest difference of a from b, relative to 1 + the largest of b."""
    a, b = a.double(), b.double()
    return ((a - b).abs().max() / (1 + b.abs().max())).item()


def llama_cpp_logits(
    model: Transformer, tokenizer: Tokenizer, text: Int[Tensor, "T"]
) -> Tensor:
    """(T, V) logits of llama.cpp on a GGUF file of this model.

    Its cache is float32 and flash attention off; by default the cache has 16
    bits, which alone moves logits by 6e-3.
    """
    from llama_cpp import Llama

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        gguf.write(model, path, tokenizer, "model")
        other = Llama(str(path), n_ctx=model.config.max_seq_len, type_k=0,
                      type_v=0, flash_attn=False, logits_all=True,
                      verbose=False)
        other.eval(text.tolist())
        return torch.from_numpy(other.scores[:len(text)].copy())
