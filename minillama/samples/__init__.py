"""The small files that come with the package, and the one checkpoint.

`mini/` holds a LLaMA of 0.94M parameters that this package trained on
Shakespeare's plays, so that a chapter can look inside a model that has learnt
something without training one first.
"""

from __future__ import annotations

from pathlib import Path

from minillama.model import Transformer
from minillama.tokenizer import Tokenizer

FOLDER = Path(__file__).parent
MINI = FOLDER / "mini"


def load_mini() -> tuple[Transformer, Tokenizer]:
    """The shipped model, in float32 on the CPU and in evaluation mode.

    Its weights are stored in bf16 (1.9 MB); the held-out play is The Tempest.

    Chapter: notebooks/11_generation.ipynb
    """
    from safetensors.torch import load_file

    from minillama.checkpoint import load_weights, read_config

    model = Transformer(read_config(MINI))
    load_weights(model, load_file(MINI / "model.safetensors"))
    return model.eval(), Tokenizer(MINI / "tokenizer.model")
