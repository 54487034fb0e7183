"""A conversation keeps what was said, in code and in a real terminal.

The oracle is plain greedy generation on the whole text so far. The terminal
is a pty: Ctrl-C in mid-answer stops the answer and not the session, and the
next answer is the one that follows from everything before it.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

import pytest
import torch

from minillama import cli, samples, weights
from minillama.chat import Conversation
from minillama.config import ModelConfig
from minillama.generate import generate
from minillama.model import Transformer
from minillama.tokenizer import Tokenizer
from minillama.weights.text import ChatTemplate

TURNS = ("{% for m in messages %}[{{ m.role }}] {{ m.content }}\n"
         "{% endfor %}[assistant]")


@pytest.fixture(scope="module")
def mini():
    """The shipped model and its tokenizer."""
    return samples.load_mini()


def greedy(mini, text: str, count: int) -> str:
    """What plain generation adds to a text."""
    model, tokenizer = mini
    return generate(model, tokenizer, [text], max_new_tokens=count,
                    temperature=0.0)[0][len(text):]


def test_a_base_model_continues_everything_so_far(mini):
    talk = Conversation(*mini, temperature=0.0, max_new_tokens=12)
    first = talk.ask("KING HENRY:\n")
    assert first == greedy(mini, "KING HENRY:\n", 12)
    second = talk.ask("\n\nQUEEN:\n")
    text = f"KING HENRY:\n{first}\n\nQUEEN:\n"
    assert second == greedy(mini, text, 12)
    assert second != greedy(mini, "\n\nQUEEN:\n", 12)


def test_a_template_writes_the_turns(mini):
    model, tokenizer = mini
    talk = Conversation(model, tokenizer, ChatTemplate(TURNS, tokenizer),
                        system="Be brief.", temperature=0.0,
                        max_new_tokens=8)
    first = talk.ask("Who?")
    assert first == greedy(
        mini, "[system] Be brief.\n[user] Who?\n[assistant]", 8)
    text = (f"[system] Be brief.\n[user] Who?\n[assistant] {first}\n"
            "[user] Why?\n[assistant]")
    assert talk.ask("Why?") == greedy(mini, text, 8)


def test_an_answer_that_is_cut_off_is_kept(mini):
    talk = Conversation(*mini, temperature=0.0, max_new_tokens=30)
    pieces = talk.stream("KING HENRY:\n")
    begun = "".join(next(pieces) for _ in range(6))
    pieces.close()
    assert talk.messages[-1] == {"role": "assistant", "content": begun}
    assert talk.ask("No.") == greedy(mini, f"KING HENRY:\n{begun}No.", 30)


def test_the_same_seed_draws_the_same_answers(mini):
    one, two, other = (Conversation(*mini, seed=s, max_new_tokens=20)
                       for s in (4, 4, 5))
    answers = [talk.ask("O") for talk in (one, two, other)]
    assert answers[0] == answers[1] != answers[2]


def test_old_turns_are_forgotten_and_the_system_is_not(mini):
    model, tokenizer = mini
    talk = Conversation(model, tokenizer, ChatTemplate(TURNS, tokenizer),
                        system="S", max_new_tokens=40)
    for number in range(12):
        talk.ask(f"question number {number}")
    text = tokenizer.decode(talk.prompt())
    assert len(talk.prompt()) <= 256 - 1 - 40
    assert text.startswith("[system] S\n[user]")
    assert "number 11" in text and "number 0" not in text
    base = Conversation(model, tokenizer, max_new_tokens=40)
    for number in range(12):
        base.ask(f"line {number} ")
    assert len(base.prompt()) == 215 and base.prompt()[0] == 1


def test_a_question_that_is_too_long_is_not_kept(mini):
    model, tokenizer = mini
    talk = Conversation(model, tokenizer, ChatTemplate(TURNS, tokenizer))
    with pytest.raises(ValueError, match="leaves no room for an answer"):
        talk.ask("why " * 300)
    assert talk.messages == []


def test_the_end_of_a_text_ends_the_answer(mini, monkeypatch):
    model, tokenizer = mini
    talk = Conversation(model, tokenizer, temperature=0.0, max_new_tokens=30)
    whole = greedy(mini, "KING HENRY:\n", 30)
    ids = tokenizer.encode("KING HENRY:\n" + whole, bos=True)
    monkeypatch.setattr(tokenizer, "eos_id", ids[-8])
    try:
        assert len(talk.ask("KING HENRY:\n")) < len(whole)
    finally:
        monkeypatch.undo()


# -- a terminal --------------------------------------------------------------

class Terminal:
    """A program in a pty, and all that it has printed."""

    def __init__(self, *words: str) -> None:
        import pty

        self.pid, self.handle = pty.fork()
        if self.pid == 0:  # pragma: no cover
            # A job in the background has it ignored, a terminal never.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.environ["TERM"] = "dumb"
            os.environ["OMP_NUM_THREADS"] = "1"
            os.execv(sys.executable,
                     [sys.executable, "-m", "minillama", *words])
        self.seen = ""

    def until(self, sign: str, start: int, seconds: float = 60) -> int:
        """Read on until a sign appears behind `start`; where it ends."""
        limit = time.monotonic() + seconds
        while sign not in self.seen[start:]:
            left = limit - time.monotonic()
            assert left > 0, f"no {sign!r} in {self.seen[start:]!r}"
            if select.select([self.handle], [], [], left)[0]:
                try:
                    data = os.read(self.handle, 65536)
                except OSError:  # the program has ended
                    data = b""
                assert data or sign in self.seen[start:], self.seen
                self.seen += data.decode("utf-8", "replace").replace(
                    "\r\n", "\n")
        return self.seen.index(sign, start) + len(sign)

    def until_length(self, length: int) -> None:
        """Read on until so much has been printed."""
        while len(self.seen) < length:
            assert select.select([self.handle], [], [], 60)[0], self.seen
            self.seen += os.read(self.handle, 65536).decode()

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.handle, text.encode())

    def end(self) -> int:
        """Ctrl-D; the exit code."""
        self.type("\x04")
        limit = time.monotonic() + 30
        while time.monotonic() < limit:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.05)
        os.kill(self.pid, signal.SIGKILL)
        raise AssertionError("it did not end")


@pytest.fixture(scope="module")
def talker(tmp_path_factory):
    """It writes letters and spaces alone, and never ends of itself."""
    tokenizer = Tokenizer(samples.MINI / "tokenizer.model")
    torch.manual_seed(5)
    model = Transformer(ModelConfig(256, 6, 4, multiple_of=32, vocab_size=512,
                                    max_seq_len=8192)).eval()
    letters = torch.tensor([
        tokenizer.piece(i).isascii() and tokenizer.piece(i).isalpha()
        for i in range(512)])
    with torch.no_grad():
        model.tok_embeddings.weight.normal_()
        model.output.weight.mul_(letters[:, None])
        for layer in model.layers:  # what was said long ago weighs, too
            layer.attention.wv.weight.mul_(20)
            layer.attention.wo.weight.mul_(20)
    folder = tmp_path_factory.mktemp("talker") / "h"
    weights.save_hf(model, folder, tokenizer=tokenizer)
    (folder / "chat_template.jinja").write_text(TURNS, "utf-8")
    return folder, model, tokenizer


@pytest.mark.skipif(sys.platform == "win32", reason="no pty there")
def test_ctrl_c_stops_the_answer_and_not_the_session(talker):
    """The second answer is the one that knows the first question."""
    folder, model, tokenizer = talker
    shell = Terminal("chat", "--checkpoint", str(folder), "--device", "cpu",
                     "--temperature", "0", "--max-new-tokens", "4000")
    answers, at = [], 0
    for question in ("My name is Ann.", "Who am I?"):
        at = shell.until("> ", at)
        shell.type(question + "\n")
        at = shell.until(question + "\n", at)
        shell.until_length(at + 60)
        shell.type("\x03")
        end = shell.until(" [stopped]\n", at)
        answer = shell.seen[at:end - len(" [stopped]\n")]
        answers.append(answer.replace("^C", ""))
        at = end
    shell.until("> ", at)
    assert shell.end() == 0
    first, second = answers
    talk = Conversation(model, tokenizer, ChatTemplate(TURNS, tokenizer),
                        temperature=0.0, max_new_tokens=40)
    alone = talk.ask("Who am I?")
    talk.messages = [{"role": "user", "content": "My name is Ann."},
                     {"role": "assistant", "content": first}]
    talk.max_new_tokens = 40
    knows = talk.ask("Who am I?")
    assert second[:40] == knows[:40] != alone[:40]


def test_bad_words_end_in_one_line(tmp_path, capsys):
    assert cli.main(["chat", "--checkpoint", str(tmp_path)]) == 2
    assert "is no folder of weights" in capsys.readouterr().err


def test_the_loop_without_a_terminal(monkeypatch, capsys):
    """Piped input: answers, /new, and the end of the input."""
    lines = iter(["KING HENRY:", "", "/new", "KING HENRY:"])

    def typed(prompt: str) -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", typed)
    assert cli.main(["chat", "--max-new-tokens", "10", "--device", "cpu",
                     "--temperature", "0"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("A base model: it continues your text")
    answer = greedy(samples.load_mini(), "KING HENRY:", 10)
    assert printed.split("\n", 1)[1] == f"{answer}\n{answer}\n\n"
