"""Instruction tuning: the same training, on questions with their answers.

LLaMA-I is LLaMA-65B trained on a little instruction data (paper, section 4).
What is new is in the data alone: a template around each example, a loss that
counts the answer only, and several examples in one sequence that do not see
each other. Steps, checkpoints and resuming are those of `train.fit`.

Chapter: notebooks/15_instruction_tuning.ipynb
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from minillama.batches import Batch, permuted
from minillama.config import TrainConfig
from minillama.files import replace_bytes
from minillama.model import Transformer
from minillama.runs import Result, begin
from minillama.tokenizer import Tokenizer
from minillama.train import IGNORE, fit, next_token_loss


@dataclass(frozen=True)
class Example:
    """One instruction, the text it is about (or none), and the answer."""

    instruction: str
    input: str
    output: str


def prompt_of(example: Example) -> str:
    """What stands before the answer: the template of this book."""
    text = f"\nText: {example.input}" if example.input else ""
    return f"Task: {example.instruction}{text}\nAnswer:"


CHAT_TEMPLATE = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('this model was "
    "tuned without a system message; leave it out') }}{% endif %}"
    "{{ bos_token }}Task: {{ messages[-1].content | replace(' Text: ', "
    "'\nText: ') }}\nAnswer:")
"""`prompt_of` in the language of chat templates, for `minillama chat`.

Examples stood alone when they were learnt, so earlier turns are left out. One
line may hold an instruction and its text: `Say the last word. Text: b k f`.
"""


def read_examples(path: Path) -> list[Example]:
    """Instruction data: a JSON list, or one JSON object a line.

    Each record has `instruction` and `output`, and may have `input`, as in
    the data sets that came after LLaMA.

    Raises:
        ValueError: naming the record's line or place and what it lacks.
    """
    text = Path(path).read_text(encoding="utf-8-sig")
    if text.lstrip().startswith("["):
        records = list(enumerate(_parse(text, path, 1), 1))
    else:
        records = [(n, _parse(line, path, n))
                   for n, line in enumerate(text.split("\n"), 1)
                   if line.strip()]
    if not records:
        raise ValueError(f"data={str(path)!r} holds no examples")
    return [_example(record, path, n) for n, record in records]


def _parse(line: str, path: Path, number: int) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise ValueError(
            f"{path}, from line {number} on, is not JSON ({error}); write one "
            "object a line, or one list in all") from error


def _example(record: Any, path: Path, number: int) -> Example:
    fields = record if isinstance(record, dict) else {}
    values = [fields.get("instruction"), fields.get("input", ""),
              fields.get("output")]
    if not all(isinstance(v, str) for v in values) or not (
            values[0].strip() and values[2].strip()):
        raise ValueError(
            f"{path}, record {number}: wants the texts `instruction` and "
            f"`output`, and perhaps `input`; found {str(record)[:80]}")
    return Example(*values)


def encode(
    example: Example, tokenizer: Tokenizer
) -> tuple[list[int], list[int]]:
    """Prompt and answer as ids: (BOS prompt, answer EOS).

    The two are encoded apart, so that the prompt has the same ids here as
    when the model is asked; the space before the answer is SentencePiece's.
    """
    return (tokenizer.encode(prompt_of(example), bos=True),
            tokenizer.encode(example.output, eos=True))


def pack(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Put examples into as few rows of `room` tokens as first-fit finds.

    The longest are placed first (Johnson 1973: at most 11/9 of the fewest
    rows, and two thirds of one more).

    Returns:
        The numbers of the examples in each row.

    Raises:
        ValueError: if one is longer than a row.
    """
    if lengths and max(lengths) > room:
        raise ValueError(
            f"an example has {max(lengths)} tokens, a sequence {room}; "
            "shorten it, or tune a model with a larger max_seq_len")
    rows: list[list[int]] = []
    free: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda n: -lengths[n]):
        row = next((r for r, f in enumerate(free) if f >= lengths[number]),
                   len(rows))
        if row == len(rows):
            rows.append([])
            free.append(room)
        rows[row].append(number)
        free[row] -= lengths[number]
    return rows


class Instructions:
    """An endless iterator over packed batches, in an order from the seed.

    Args:
        examples: what to learn.
        tokenizer: of the model.
        seq_len: T, tokens a row.
        batch_size: B, rows a step.
        seed: of the order.

    Chapter: notebooks/15_instruction_tuning.ipynb
    """

    def __init__(
        self,
        examples: Sequence[Example],
        tokenizer: Tokenizer,
        *,
        seq_len: int,
        batch_size: int,
        seed: int,
    ) -> None:
        parts = [encode(example, tokenizer) for example in examples]
        rows = pack([len(p) + len(a) - 1 for p, a in parts], seq_len)
        shape = (len(rows), seq_len)
        # EOS fills what is left over; nobody is scored there.
        self.inputs = torch.full(shape, tokenizer.eos_id)
        self.targets = torch.full(shape, IGNORE)
        for row, members in enumerate(rows):
            at = 0
            for prompt, answer in (parts[n] for n in members):
                ids = torch.tensor(prompt + answer)
                end = at + len(ids) - 1
                self.inputs[row, at:end] = ids[:-1]
                self.targets[row, end - len(answer):end] = ids[len(prompt):]
                at = end
        self.batch_size, self.seed, self.samples = batch_size, seed, 0

    def __iter__(self) -> Instructions:
        return self

    def __next__(self) -> Batch:
        """The next rows; each epoch has an order of its own."""
        first, size = self.samples, len(self.inputs)
        rows = [permuted(i % size, size, f"{self.seed}/{i // size}")
                for i in range(first, first + self.batch_size)]
        self.samples += self.batch_size
        return Batch(self.inputs[rows], self.targets[rows], first)

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on."""
        return {"samples": self.samples, "seed": self.seed,
                "rows": len(self.inputs)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            ValueError: if the rows or their order are others.
        """
        mine = self.state_dict()
        if (state["seed"], state["rows"]) != (mine["seed"], mine["rows"]):
            raise ValueError(
                f"the checkpoint saw {state['rows']} rows with seed "
                f"{state['seed']}, this run has {mine['rows']} with seed "
                f"{mine['seed']}; use the same data and settings to resume")
        self.samples = state["samples"]


def own_example(
    inputs: Int[Tensor, "B T"], bos_id: int
) -> Bool[Tensor, "B 1 T T"]:
    """True where query t may see key s: not later, and of the same example.

    An example begins at its BOS, which no text can hold.
    """
    number = (inputs == bos_id).cumsum(dim=1)  # (B, T): of each example
    same = number[:, :, None] == number[:, None, :]
    return same.tril()[:, None]


def packed_loss(
    model: Transformer,
    inputs: Int[Tensor, "B T"],
    targets: Int[Tensor, "B T"],
    *,
    bos_id: int = 1,
) -> Float[Tensor, ""]:
    """`next_token_loss`, every example of a row as if it stood alone.

    RoPE knows differences of positions alone, so that an example may begin
    anywhere in its row.
    """
    visible = own_example(inputs, bos_id)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if k.shape[1] < q.shape[1]:
            k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1)
                    for x in (k, v))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=visible)

    layers = [layer.attention for layer in model.layers]
    before = [layer.attend for layer in layers]
    for layer in layers:
        layer.attend = attend
    try:
        return next_token_loss(model, inputs, targets)
    finally:
        for layer, own in zip(layers, before):
            layer.attend = own


@torch.no_grad()
def answer_loss(
    model: Transformer, tokenizer: Tokenizer, examples: Sequence[Example]
) -> float:
    """Nats per token of the answers, each example alone in its row."""
    total, count = 0.0, 0
    for example in examples:
        prompt, answer = encode(example, tokenizer)
        ids = torch.tensor([prompt + answer],
                           device=model.output.weight.device)
        targets = ids[:, 1:].clone()
        targets[:, :len(prompt) - 1] = IGNORE
        total += next_token_loss(model, ids[:, :-1], targets).item()
        count += len(answer)
    return total / count


def finetune(
    model: Transformer,
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    config: TrainConfig,
    *,
    held_out: Sequence[Example] = (),
    log: Any = print,
) -> Result:
    """Tune a model on instructions, in place.

    Args:
        model: the base model; its weights are changed.
        tokenizer: its own.
        examples: to learn from.
        config: steps, learning rate and folder; `data` is not read.
        held_out: their answers are scored at each evaluation, as
            `answer_loss` in nats a token.
        log: receives lines of progress; None keeps silent.

    Returns:
        The result of `train.fit`, whose folder is a checkpoint like any,
        with a chat template beside it.

    Source: Touvron et al. 2023, section 4, which follows Chung et al. 2022.
    Chapter: notebooks/15_instruction_tuning.ipynb
    """
    folder = Path(config.out) / "data"
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder / "tokenizer.model")
    # No shards: the batches come from the examples.
    replace_bytes(folder / "index.json", json.dumps({
        "version": 1, "dtype": "uint32", "vocab_size": tokenizer.vocab_size,
        "tokenizer": "tokenizer.model", "sources": {}}).encode())
    batches = Instructions(
        examples, tokenizer, seq_len=model.config.max_seq_len,
        batch_size=config.batch_size, seed=config.seed)
    config = replace(config, data=folder, model=model.config)
    loss = partial(packed_loss, bos_id=tokenizer.bos_id)
    state = begin(config, loss, model, batches)
    # At the last step it would be too late to find one that is too long.
    pack([len(p) + len(a) - 1 for p, a in (
        encode(e, tokenizer) for e in held_out)], model.config.max_seq_len)

    def evaluate(tuned: Transformer, _: Tokenizer) -> dict[str, float]:
        return {"answer_loss": answer_loss(tuned, tokenizer, held_out)}

    result = fit(config, state=state, log=log,
                 evaluate=evaluate if held_out else None)
    replace_bytes(result.out / "chat_template.jinja", CHAT_TEMPLATE.encode())
    return result
