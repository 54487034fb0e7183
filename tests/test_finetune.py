"""minillama/finetune.py: a packed row is its examples, each by itself.

The oracle of packing is the model without it: losses and gradients of a row
equal those of its examples one at a time, in float64. What counts in the loss
is checked by counting tokens and by changing the prompt; first fit by the
properties of every packing; a resumed run by the undisturbed one, to the bit;
the files by what learners really hand in;
the chat template by the ids that were learnt.
"""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minillama import finetune as ft
from minillama import samples
from minillama.cli import main
from minillama.config import ModelConfig, TrainConfig
from minillama.model import Transformer
from minillama.tokenizer import Tokenizer
from minillama.train import IGNORE, next_token_loss, train_step
from minillama.weights import chat_template
from minillama.weights.text import ChatTemplate
from tests.small import VOCAB, corpus, tokenizer_of

EXAMPLES = [
    ft.Example("Say the last word.", "cat dog", "dog"),
    ft.Example("Add.", "1 2", "3"),
    ft.Example("Greet.", "", "hello there my friend"),
    ft.Example("Say the first word.", "sun moon star", "sun"),
    ft.Example("Say yes.", "", "yes"),
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A small vocabulary learnt from made-up words."""
    return tokenizer_of(corpus(tmp_path_factory.mktemp("words")))


def small(heads: int = 2, length: int = 96) -> Transformer:
    """A model of random weights."""
    torch.manual_seed(0)
    config = ModelConfig(16, 2, 2, n_kv_heads=heads, multiple_of=4,
                         vocab_size=VOCAB, max_seq_len=length)
    return Transformer(config)


def rows(tokenizer: Tokenizer, size: int, length: int = 96, seed: int = 0
         ) -> ft.Instructions:
    """The examples, packed."""
    return ft.Instructions(EXAMPLES, tokenizer, seq_len=length,
                           batch_size=size, seed=seed)


def alone(model: Transformer, tokenizer: Tokenizer, example: ft.Example
          ) -> torch.Tensor:
    """Summed loss of one example in a row of its own, written out."""
    prompt, answer = ft.encode(example, tokenizer)
    ids = torch.tensor([prompt + answer])
    logits = model(ids[:, :-1])[0, len(prompt) - 1:]
    return -logits.log_softmax(-1)[range(len(answer)), answer].sum()


@pytest.mark.parametrize("heads", [2, 1])
def test_a_packed_row_is_its_examples(tokenizer, heads):
    """Losses and gradients, with and without shared key heads."""
    model = small(heads).double()
    packed = rows(tokenizer, 1)
    count = len(packed.inputs)
    assert count < len(EXAMPLES)
    loss = ft.packed_loss(model, packed.inputs, packed.targets)
    loss.backward()
    ours = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    theirs = sum(alone(model, tokenizer, e) for e in EXAMPLES)
    theirs.backward()
    torch.testing.assert_close(loss, theirs, rtol=1e-10, atol=1e-10)
    for mine, parameter in zip(ours, model.parameters()):
        torch.testing.assert_close(mine, parameter.grad, rtol=0, atol=1e-10)
    seen = next_token_loss(model, packed.inputs, packed.targets)
    assert abs(seen - loss) > 1e-6, "the mask makes no difference here"


def test_the_models_own_attention_comes_back(tokenizer):
    model, packed = small(), rows(tokenizer, 1)
    before = [layer.attention.attend for layer in model.layers]
    ft.packed_loss(model, packed.inputs, packed.targets)
    with pytest.raises(ValueError, match="do not fit max_seq_len"):
        ft.packed_loss(model, torch.ones(1, 200, dtype=torch.long),
                       torch.ones(1, 200, dtype=torch.long))
    assert [layer.attention.attend for layer in model.layers] == before


def test_answers_alone_are_scored(tokenizer):
    packed = rows(tokenizer, 1)
    answers = [ft.encode(e, tokenizer)[1] for e in EXAMPLES]
    scored = packed.targets[packed.targets != IGNORE].tolist()
    assert sorted(scored) == sorted(id for a in answers for id in a)
    assert scored.count(tokenizer.eos_id) == len(EXAMPLES)


def test_prompt_and_answer_are_what_generation_sees(tokenizer):
    """The prompt's ids are those of the prompt; the whole reads well."""
    for example in EXAMPLES:
        prompt, answer = ft.encode(example, tokenizer)
        assert prompt == tokenizer.encode(ft.prompt_of(example), bos=True)
        text = tokenizer.decode(prompt[1:] + answer[:-1])
        assert text == f"{ft.prompt_of(example)} {example.output}"


def test_the_mean_is_over_tokens_however_they_are_split(tokenizer, tmp_path):
    """Answers of one and of many tokens: the mean of means would differ."""
    losses = []
    for micro in (None, 1):
        model = small()
        config = TrainConfig(
            model=model.config, out=tmp_path, steps=4, batch_size=2,
            micro_batch_size=micro, device="cpu", dtype="fp32",
            warmup_steps=0, data=corpus(tmp_path))
        packed = rows(tokenizer, 2, length=48)
        state = ft.begin(config, ft.packed_loss, model, packed)
        state.step = 1
        losses.append(train_step(state, next(packed), config)["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@given(st.lists(st.integers(1, 20), max_size=40))
def test_every_packing(lengths):
    packed = ft.pack(lengths, 20)
    assert sorted(n for row in packed for n in row) == list(
        range(len(lengths)))
    sums = [sum(lengths[n] for n in row) for row in packed]
    assert all(total <= 20 for total in sums)
    # First fit leaves no two rows that would go into one.
    assert all(a + b > 20 for i, a in enumerate(sums) for b in sums[:i])


def test_an_example_longer_than_a_sequence_is_refused():
    with pytest.raises(ValueError, match="has 21 tokens, a sequence 20"):
        ft.pack([3, 21], 20)


def test_each_epoch_has_every_row_once_in_its_own_order(tokenizer):
    packed = rows(tokenizer, 1, length=48)
    size = len(packed.inputs)
    assert size >= 3
    epochs = [[next(packed).inputs[0].tolist() for _ in range(size)]
              for _ in range(6)]
    everything = sorted(packed.inputs.tolist())
    assert all(sorted(epoch) == everything for epoch in epochs)
    assert any(epoch != epochs[0] for epoch in epochs[1:])
    state = packed.state_dict()
    ahead = next(packed).inputs
    packed.load_state_dict(state)
    assert torch.equal(next(packed).inputs, ahead)
    with pytest.raises(ValueError, match="saw .* rows with seed 9"):
        packed.load_state_dict({**state, "seed": 9})


class Stop(Exception):
    """Thrown in the middle of a run."""


def test_a_resumed_run_is_the_undisturbed_one(tokenizer, tmp_path):
    """A run that dies after step 3 goes on from step 2, to the same bits."""
    def settings(name: str) -> TrainConfig:
        return TrainConfig(
            model=small().config, out=tmp_path / name, steps=6, batch_size=2,
            log_every=3, checkpoint_every=2, device="cpu", dtype="fp32",
            warmup_steps=1, eval_every=0, sample_prompt="Task")

    def die(line: str) -> None:
        if line.startswith("step      3"):
            raise Stop

    whole = ft.finetune(small(), tokenizer, EXAMPLES, settings("whole"),
                        held_out=EXAMPLES[:2], log=None)
    with pytest.raises(Stop):
        ft.finetune(small(), tokenizer, EXAMPLES, settings("cut"),
                    held_out=EXAMPLES[:2], log=die)
    again = ft.finetune(small(), tokenizer, EXAMPLES,
                        replace(settings("cut"), resume=True),
                        held_out=EXAMPLES[:2], log=None)
    assert whole.finished and again.metrics == whole.metrics
    assert [m["step"] for m in again.metrics] == [1, 2, 3, 4, 5, 6]
    assert whole.metrics[-1]["answer_loss"] > 0


def test_answer_loss_is_the_mean_over_answer_tokens(tokenizer):
    model = small().double()
    total = sum(alone(model, tokenizer, e) for e in EXAMPLES).item()
    count = sum(len(ft.encode(e, tokenizer)[1]) for e in EXAMPLES)
    assert ft.answer_loss(model, tokenizer, EXAMPLES) == pytest.approx(
        total / count, rel=1e-9)


def test_chat_writes_what_was_learnt(tokenizer):
    """The ids of a question, also of one that is not the first."""
    template = ChatTemplate(ft.CHAT_TEMPLATE, tokenizer)
    for example in EXAMPLES:
        question = example.instruction + (
            f" Text: {example.input}" if example.input else "")
        last = {"role": "user", "content": question}
        earlier = [{"role": "user", "content": "Add. Text: 1 1"},
                   {"role": "assistant", "content": "2"}]
        for messages in ([last], [*earlier, last]):
            assert template.encode(messages) == ft.encode(
                example, tokenizer)[0]
    with pytest.raises(ValueError, match="without a system message"):
        template.render([{"role": "system", "content": "Be kind."}, last])


def records() -> list[dict]:
    """The examples as a data set has them."""
    return [{"instruction": e.instruction, "input": e.input,
             "output": e.output} for e in EXAMPLES]


def test_lists_and_lines_read_the_same(tmp_path):
    whole, lines = tmp_path / "a.json", tmp_path / "b.jsonl"
    whole.write_text(json.dumps(records()), encoding="utf-8")
    lines.write_text("\n".join(map(json.dumps, records())) + "\n\n",
                     encoding="utf-8")
    assert ft.read_examples(whole) == EXAMPLES == ft.read_examples(lines)
    del (bare := records()[1:2])[0]["input"]
    whole.write_text(json.dumps(bare), encoding="utf-8")
    assert ft.read_examples(whole) == [ft.Example("Add.", "", "3")]


def test_a_line_ends_where_json_lines_end(tmp_path):
    """Other marks that Unicode calls line ends may stand inside a text."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"instruction": "a\u2028b\x85", "output": "c"}\r\n' * 2,
                    encoding="utf-8")
    assert ft.read_examples(path) == [ft.Example("a\u2028b\x85", "", "c")] * 2


def test_a_held_out_example_that_is_too_long_is_refused_at_once(tmp_path):
    """Not after the last step, with what was learnt since a checkpoint."""
    model, tokenizer = samples.load_mini()
    config = TrainConfig(model=model.config, out=tmp_path / "o", steps=1)
    with pytest.raises(ValueError, match="an example has .* tokens"):
        ft.finetune(model, tokenizer, EXAMPLES, config, log=None, held_out=[
            ft.Example("Count.", "", "one " * 500)])
    assert not (tmp_path / "o" / "run.json").exists()


BAD = {
    '{"instruction": "a", "output": "b"}\n{"instruction": "a"}':
        "record 2: wants the texts .instruction. and .output.",
    '{"instruction": "a", "output": "b"}\n{"instruction": ':
        "line 2 on, is not JSON",
    '[{"instruction": "a", "output": 3}]': "record 1: wants",
    '[{"instruction": " ", "output": "b"}]': "record 1: wants",
    '["a"]': "record 1: wants",
    '[{"instruction": "a"': "is not JSON",
    "": "holds no examples",
    "[]": "holds no examples",
}


@pytest.mark.parametrize("text", BAD)
def test_bad_records_are_named(text, tmp_path, capsys):
    path = tmp_path / "data.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=BAD[text]):
        ft.read_examples(path)
    assert main(["finetune", "--data", str(path), "--out",
                 str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("share", ["1", "2", "-0.1", "nan"])
def test_a_share_that_leaves_nothing_to_train_on_is_refused(
        share, tmp_path, capsys):
    path = tmp_path / "data.json"
    path.write_text(json.dumps(records()), encoding="utf-8")
    assert main(["finetune", "--data", str(path), "--out", str(
        tmp_path / "out"), "--held-out", share]) == 2
    said = capsys.readouterr().err
    assert "must be a share from 0 to below 1" in said
    assert said.count("\n") == 1 and not (tmp_path / "out").exists()


def test_the_command_line_from_file_to_answer(tmp_path, capsys, monkeypatch):
    """The shipped model, a few steps, a text and a chat from what came out.
    """
    path, out = tmp_path / "data.json", tmp_path / "tuned"
    path.write_text(json.dumps(records() * 4), encoding="utf-8")
    words = ["finetune", "--data", str(path), "--out", str(out), "--steps",
             "4", "--batch-size", "1", "--device", "cpu", "--dtype", "fp32",
             "--held-out", "0.2"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert f"--checkpoint {out}" in printed
    losses = [json.loads(line) for line in
              (out / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert len(losses) == 4 and "answer_loss" in losses[-1]
    assert main(words) == 2, "a run is already there"
    assert "--resume" in capsys.readouterr().err
    assert main(["generate", "--checkpoint", str(out), "--prompt", "Task:",
                 "--max-new-tokens", "4"]) == 0
    assert Path(out / "tokenizer.model").is_file()
    assert chat_template(out, samples.load_mini()[1]) is not None
    monkeypatch.setattr("sys.stdin", io.StringIO("Greet.\n"))
    assert main(["chat", "--checkpoint", str(out), "--max-new-tokens",
                 "4"]) == 0
    assert "An instruct model." in capsys.readouterr().out
