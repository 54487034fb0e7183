"""`minillama train`: text in, a trained model out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from minillama.cli import complain
from minillama.config import TrainConfig


@dataclass(frozen=True)
class TrainCommand(TrainConfig):
    """One training run, and what to ask the model on the way."""

    eval_tasks: str = ""
    """Benchmarks or groups, with commas between, at each evaluation."""
    eval_data: Path | None = None
    """Their files, as for `minillama eval`; None: the small samples."""
    eval_limit: int | None = None
    """Items of each, always the same ones; None: all."""


def command(argv: Sequence[str]) -> Any:
    """The verb; the preset on the command line sets every default."""
    return Annotated[TrainCommand, tyro.conf.subcommand(
        "train", default=TrainCommand.from_preset(_preset_name(argv)),
        description="Train a LLaMA from text.")]


def _preset_name(argv: Sequence[str]) -> str:
    """The preset on the command line; it decides all other defaults."""
    for i, word in enumerate(argv):
        if word == "--preset" and i + 1 < len(argv):
            return argv[i + 1]
        if word.startswith("--preset="):
            return word.removeprefix("--preset=")
    return "toy"


def run(command: TrainCommand) -> int:
    """Train, alone or as one of the processes that torchrun started."""
    from torch import distributed

    from minillama.evals.training import scores_of

    config = TrainConfig(**{
        f.name: getattr(command, f.name) for f in fields(TrainConfig)})
    look = scores_of(command.eval_tasks, command.eval_data,
                     command.eval_limit) if command.eval_tasks else None
    if not (distributed.is_available()
            and distributed.is_torchelastic_launched()):
        return train(config, contextlib.nullcontext(), look)
    if look:
        raise ValueError(
            f"eval_tasks={command.eval_tasks} needs a single process; run "
            "`minillama eval --checkpoint` on what torchrun wrote")
    from minillama import company, parallel

    with company.join(config.timeout, config.device), company.one_voice():
        return train(parallel.restarted(config), company.one_first())


def train(
    config: TrainConfig,
    in_turn: contextlib.AbstractContextManager[None],
    look: Callable[[Any, Any], dict[str, Any]] | None = None,
) -> int:
    """Prepare the text, in turn if there are many; train, say what next."""
    from minillama import weights
    from minillama.data import corpus
    from minillama.train import NonFiniteLoss, fit

    print(f"text: {config.data or 'the plays of Shakespeare'}")
    tokenizer = None
    if config.init_from is not None:
        # Weights decide the shape, and read what their tokenizer wrote; how
        # long a text to train on is still the command's to say.
        shape = weights.read_config(config.init_from)
        config = replace(config, model=replace(
            shape, max_seq_len=config.model.max_seq_len))
        tokenizer = weights.open_tokenizer(config.init_from)
    with in_turn:
        shards = corpus.prepare(
            config.data, config.model.vocab_size, tokenizer=tokenizer)
    try:
        result = fit(replace(config, data=shards), evaluate=look)
    except NonFiniteLoss as error:
        complain(str(error))
        return 1
    print(f"run in {result.out}; try: minillama generate --checkpoint "
          f"{result.out}")
    return 0
