"""`minillama train`: text in, a trained model out."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from minillama.cli import complain
from minillama.config import TrainConfig


def command(argv: Sequence[str]) -> Any:
    """The verb; the preset on the command line sets every default."""
    return Annotated[TrainConfig, tyro.conf.subcommand(
        "train", default=TrainConfig.from_preset(_preset_name(argv)),
        description="Train a LLaMA from text.")]


def _preset_name(argv: Sequence[str]) -> str:
    """The preset on the command line; it decides all other defaults."""
    for i, word in enumerate(argv):
        if word == "--preset" and i + 1 < len(argv):
            return argv[i + 1]
        if word.startswith("--preset="):
            return word.removeprefix("--preset=")
    return "toy"


def run(config: TrainConfig) -> int:
    """Train, alone or as one of the processes that torchrun started."""
    from torch import distributed

    if not (distributed.is_available()
            and distributed.is_torchelastic_launched()):
        return train(config, contextlib.nullcontext())
    from minillama import parallel

    with parallel.company(config.timeout, config.device), \
            parallel.one_voice():
        return train(parallel.restarted(config), parallel.one_first())


def train(
    config: TrainConfig, in_turn: contextlib.AbstractContextManager[None]
) -> int:
    """Prepare the text, in turn if there are many; train, say what next."""
    from minillama.data import corpus
    from minillama.tokenizer import Tokenizer
    from minillama.train import NonFiniteLoss, fit

    print(f"text: {config.data or 'the plays of Shakespeare'}")
    # Weights of another run can read only what its tokenizer wrote.
    theirs = Path(config.init_from or "") / "tokenizer.model"
    tokenizer = (Tokenizer(theirs)
                 if config.init_from and theirs.is_file() else None)
    with in_turn:
        shards = corpus.prepare(
            config.data, config.model.vocab_size, tokenizer=tokenizer)
    try:
        result = fit(replace(config, data=shards))
    except NonFiniteLoss as error:
        complain(str(error))
        return 1
    print(f"run in {result.out}; try: minillama generate --checkpoint "
          f"{result.out}")
    return 0
