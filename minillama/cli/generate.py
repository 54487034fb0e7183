"""`minillama generate`: a trained model continues a text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import tyro

from minillama.cli import open_model
from minillama.config import GenerateConfig

TIMEOUT = 120.0
"""Seconds that processes which write together wait for one another."""


def command(argv: Sequence[str]) -> Any:
    """The verb."""
    return Annotated[GenerateConfig, tyro.conf.subcommand(
        "generate", description="Continue a text.")]


def run(config: GenerateConfig) -> int:
    """Print the text as it comes, alone or with what torchrun started."""
    from torch import distributed

    from minillama.devices import choose_device

    if not (distributed.is_available()
            and distributed.is_torchelastic_launched()):
        from minillama.fast import FastTransformer

        return write(config, choose_device(config.device),
                     lambda m: FastTransformer(m, config.compile, config.int8))
    from minillama import company, parallel

    with company.join(TIMEOUT, config.device) as device, company.one_voice():
        return write(config, device, parallel.split_for_writing)


def write(
    config: GenerateConfig, device: Any, arrange: Callable[[Any], Any]
) -> int:
    """Load a model, arrange it on its device, and print what it writes."""
    import torch

    from minillama.generate import stream

    model, tokenizer = open_model(config.checkpoint, device=device)
    if device.type != "cuda":
        model.float()  # 16 bits are slower there
    model = arrange(model)
    generator = torch.Generator(device).manual_seed(config.seed)
    for piece in stream(
            model, tokenizer, config.prompt,
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature, top_p=config.top_p,
            generator=generator):
        print(piece, end="", flush=True)
    print()
    return 0
