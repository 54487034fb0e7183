"""`minillama generate`: a trained model continues a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from minillama.config import GenerateConfig


def command(argv: Sequence[str]) -> Any:
    """The verb."""
    return Annotated[GenerateConfig, tyro.conf.subcommand(
        "generate", description="Continue a text.")]


def run(config: GenerateConfig) -> int:
    """Print the text as it comes."""
    import torch

    from minillama import checkpoint, samples
    from minillama.devices import choose_device
    from minillama.generate import stream

    device = choose_device(config.device)
    if config.checkpoint is None:
        model, tokenizer = samples.load_mini()
    else:
        model, tokenizer = checkpoint.load_model(config.checkpoint)
    if device.type == "cpu":
        model.columns_first()
    generator = torch.Generator(device).manual_seed(config.seed)
    for piece in stream(
            model.to(device), tokenizer, config.prompt,
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature, top_p=config.top_p,
            generator=generator):
        print(piece, end="", flush=True)
    print()
    return 0
