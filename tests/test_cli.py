"""minillama/cli/ as a user meets it: what it prints, where it ends.

Bad input of every kind ends in exit code 2 and one line on stderr that says
what would work, never in a traceback. Good input is taken once round: text
to tokenizer to training to a sample that the seed decides. Most of it runs
in this process; what hangs on a fresh one (imports, the entry points) runs
in its own.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import SafetensorError

from minillama import cli
from minillama.checkpoint import checkpoints
from minillama.cli import main, parse
from minillama.cli.train import TrainCommand
from minillama.config import GenerateConfig
from minillama.metrics import read_metrics
from minillama.tokenizer import Tokenizer
from tests.small import VOCAB, sentences

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _own_cache(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left in the user's cache folder."""
    folder = tmp_path_factory.getbasetemp() / "user-cache"
    monkeypatch.setattr(
        "minillama.data.fetch.platformdirs.user_cache_path",
        lambda *names, **settings: folder)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of some 30 kB."""
    path = tmp_path_factory.mktemp("text") / "my text.txt"
    path.write_text(sentences(600), encoding="utf-8")
    return path


def _train(text: Path, out: Path, *more: str) -> list[str]:
    return ["train", "--data", str(text), "--out", str(out), "--dim", "16",
            "--n-layers", "1", "--n-heads", "1", "--multiple-of", "8",
            "--vocab-size", str(VOCAB), "--max-seq-len", "16", "--steps",
            "12", "--batch-size", "2", "--max-lr", "0.01", "--warmup-steps",
            "3", "--device", "cpu", "--dtype", "fp32", "--log-every", "4",
            "--checkpoint-every", "5", "--eval-every", "6",
            "--sample-prompt", "A", *more]


def _refused(
    argv: list[str], capfd: pytest.CaptureFixture[str]
) -> str:
    """Exit code 2, one line on stderr, which is returned."""
    assert main(argv) == 2
    out, err = capfd.readouterr()
    assert err.endswith("\n") and err.count("\n") == 1, err
    assert err.startswith("minillama: ") and "Traceback" not in err
    assert not set("│╭╰") & set(err)
    return err.removeprefix("minillama: ").strip()


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, text: Path
) -> Path:
    """A finished run of the command line, in a process of its own."""
    out = tmp_path_factory.mktemp("trained") / "run"
    done = subprocess.run(
        [sys.executable, "-m", "minillama", *_train(text, out)],
        capture_output=True, check=False, cwd=out.parent, env={
            **os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
            "PYTHONIOENCODING": "utf-8",
            "XDG_CACHE_HOME": str(out.parent), "HOME": str(out.parent)})
    assert done.returncode == 0, done.stderr.decode("utf-8")
    printed = done.stdout.decode("utf-8")
    for words in (f"text: {text}", "12 steps of 2 x 16 tokens",
                  "step      4  loss ", "bits per byte on all held-out text",
                  f"run in {out}; try: minillama generate --checkpoint"):
        assert words in printed
    return out


BAD_WORDS = {
    "train --nope": "Unrecognized options: --nope",
    "train --steps abc": "--steps.*'abc'",
    "train --steps -3": "steps=-3 must be at least 1",
    "train --max-lr 0": "max_lr=0.0 must be above 0",
    "train --preset huge": "preset='huge' is unknown; try.*toy",
    "train --preset=huge": "preset='huge' is unknown; try.*toy",
    "train --preset": "--preset",
    "train --dtype int8": "int8",
    "train --dim 33": "dim=33 must be a multiple.*try dim=40",
    "train --n-kv-heads 3": "n_kv_heads=3 must divide n_heads=4; try",
    "train --batch-size 8 --micro-batch-size 5":
        r"micro_batch_size=5 must divide batch_size=8; try one of \[1, 2, 4",
    "train extra": "extra",
    "nonsense": "nonsense.*train, generate",
    "": "train, generate",
    "generate --max-new-tokens x": "--max-new-tokens",
    "tokenizer": "train, encode",
    "tokenizer encode": "model",
}


@pytest.mark.parametrize("words", BAD_WORDS)
def test_bad_flags(words: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Unknown, missing, of the wrong type, out of range."""
    assert re.search(BAD_WORDS[words], _refused(words.split(), capfd))


def test_all_problems_of_a_config_come_at_once(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Not one after the other."""
    message = _refused(
        ["train", "--steps", "0", "--beta1", "1.5", "--grad-clip", "-1"],
        capfd)
    for part in ("steps=0", "beta1=1.5", "grad_clip=-1.0"):
        assert part in message


BAD_FILES = {
    "missing": (None, "does not exist; give a text file"),
    "empty": (b"", "is empty; give"),
    "blank": (b" \n\n ", "is empty; give"),
    "binary": (bytes(range(256)) * 100, "not UTF-8|binary"),
    "zeros": (b"text\0" * 5000, "binary file"),
    "latin-1": ("Grüße an alle. ".encode("latin-1") * 900, "not UTF-8"),
    "tiny": (b"To be, or not to be.\n", "too little.*at least 10,000"),
    "monotone": (b"a" * 20_000, "vocab_size=320 is too large"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_text(
    kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing there, nothing in it, not text, too little."""
    content, message = BAD_FILES[kind]
    path = tmp_path / "data.txt"
    if content is not None:
        path.write_bytes(content)
    refusal = _refused(_train(path, tmp_path / "run"), capfd)
    assert re.search(message, refusal)
    assert not (tmp_path / "run").exists()


def test_an_empty_folder(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The same in a folder; a folder with text works in test_corpus."""
    assert "no readable text" in _refused(
        _train(tmp_path, tmp_path / "run"), capfd)


def test_bad_runs(
    text: Path, trained: Path, tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Resuming nothing, running twice, other settings, no such device."""
    assert "no checkpoint to resume from" in _refused(
        _train(text, tmp_path / "none", "--resume"), capfd)
    assert "already holds a run; add --resume" in _refused(
        _train(text, trained), capfd)
    assert "seed: 1 then, 2 now" in _refused(
        _train(text, trained, "--resume", "--seed", "2"), capfd)
    assert "device='abacus' cannot be used" in _refused(
        _train(text, tmp_path / "a", "--device", "abacus"), capfd)
    assert "is no folder of weights" in _refused(
        _train(text, tmp_path / "b", "--init-from", str(tmp_path)), capfd)
    file = tmp_path / "a file"
    file.write_text("", encoding="utf-8")
    assert "a file" in _refused(_train(text, file), capfd)


def test_bad_generation(
    trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """No checkpoint, a damaged one, impossible settings, a long prompt."""
    def refused(*words: str, folder: Path = trained) -> str:
        return _refused(["generate", "--device", "cpu", "--checkpoint",
                         str(folder), *words], capfd)

    assert "is no folder of weights" in refused(folder=tmp_path)
    assert "temperature=-1.0" in refused("--temperature", "-1")
    assert "temperature=nan" in refused("--temperature", "nan")
    assert "top_p=1.5" in refused("--top-p", "1.5")
    assert "max_new_tokens=-1" in refused("--max-new-tokens", "-1")
    assert "fewer than max_seq_len=16" in refused("--prompt", "zw" * 40)
    damaged = tmp_path / "damaged"
    shutil.copytree(trained, damaged)
    (checkpoints(damaged)[-1] / "model.safetensors").write_bytes(b"")
    assert "not what was written" in refused(folder=damaged)


@pytest.mark.parametrize("error, code, words", [
    (KeyboardInterrupt(), 130, "stopped"),
    (SafetensorError("no space"), 2, "no space"),
    (RuntimeError("unexpected pos 7 vs 5"), 2, "unexpected pos 7 vs 5"),
    (RuntimeError("CUDA out of memory"), 2, "CUDA out of memory"),
])
def test_what_interrupts_a_command_is_one_line(
    error: BaseException, code: int, words: str,
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:
    """Ctrl-C, and what the writers of weights raise on a full disk."""
    def fail(command: object) -> int:
        raise error

    monkeypatch.setattr("minillama.cli.plan.run", fail)
    assert main(["plan"]) == code
    assert capfd.readouterr().err == f"minillama: {words}\n"


@pytest.mark.parametrize("words", [
    "shapes do not fit", "not possible: written in place, memory shared"])
def test_a_mistake_of_ours_keeps_its_traceback(
    words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(command: object) -> int:
        raise RuntimeError(words)

    monkeypatch.setattr("minillama.cli.plan.run", fail)
    with pytest.raises(RuntimeError, match=words):
        main(["plan"])


def test_a_reader_that_has_seen_enough(trained: Path) -> None:
    """`| head -1`: neither a complaint nor a traceback."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "minillama", "generate", "--checkpoint",
         str(trained), "--device", "cpu"], stdout=write, cwd=ROOT,
        stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_run_that_diverges_ends_with_1(
    text: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is no bad input, and no success: one line, another code."""
    argv = _train(text, tmp_path / "run", "--max-lr", "1e38",
                  "--grad-clip", "1e38")
    assert main(argv) == 1
    _, err = capfd.readouterr()
    assert err.count("\n") == 1 and "the weights are as before" in err


def test_each_step_once_after_a_resume(
    text: Path, trained: Path, tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """And the same losses as without."""
    out = tmp_path / "run"
    shutil.copytree(trained, out)
    shutil.rmtree(checkpoints(out)[-1])
    assert main(_train(text, out, "--resume")) == 0
    assert "resumed after step 10" in capfd.readouterr().out
    records = read_metrics(out / "metrics.jsonl")
    assert [r["step"] for r in records] == list(range(1, 13))
    assert records == read_metrics(trained / "metrics.jsonl")


def test_from_training_to_a_sample(
    trained: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The text goes to stdout alone, begins with the prompt, ends a line."""
    def sample(*words: str) -> str:
        assert main(["generate", "--checkpoint", str(trained), "--prompt",
                     "My aunt", "--max-new-tokens", "30", "--device", "cpu",
                     *words]) == 0
        out, err = capfd.readouterr()
        assert err == "" and out.endswith("\n")
        assert out.startswith("My aunt") and len(out) > len("My aunt\n")
        return out

    assert sample("--seed", "3") == sample("--seed", "3")
    assert sample("--seed", "3") != sample("--seed", "4")
    greedy = sample("--temperature", "0", "--seed", "3")
    assert greedy == sample("--temperature", "0", "--seed", "4")


def test_going_on_from_other_weights_with_another_text(
    trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The new text is written in the old run's tokenizer."""
    text = tmp_path / "other.txt"
    text.write_text(sentences(600, seed=8).upper(), encoding="utf-8")
    out = tmp_path / "run"
    assert main(_train(text, out, "--init-from", str(trained))) == 0
    assert (out / "tokenizer.model").read_bytes() == (
        trained / "tokenizer.model").read_bytes()
    assert f"text: {text}" in capfd.readouterr().out
    assert main(_train(text, tmp_path / "fresh")) == 0
    assert (tmp_path / "fresh" / "tokenizer.model").read_bytes() != (
        trained / "tokenizer.model").read_bytes()


def test_one_dial_and_every_field() -> None:
    """A preset sets all; a flag changes one field and leaves the others."""
    for name in ("toy", "15M", "7B"):
        assert parse(["train", "--preset", name]) == (
            TrainCommand.from_preset(name))
    assert parse(["train"]) == TrainCommand.from_preset("toy")
    changed = parse(["train", "--steps", "7", "--preset=15M", "--dim", "192",
                     "--resume", "--compile", "--tracker", "tensorboard"])
    base = TrainCommand.from_preset("15M")
    assert changed == replace(
        base, steps=7, resume=True, compile=True, tracker="tensorboard",
        model=replace(base.model, dim=192))
    assert parse(["generate", "--top-p", "0.5"]) == GenerateConfig(top_p=0.5)


def test_tokenizer_there_and_back(
    text: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Train a vocabulary, look at a text in it."""
    model = tmp_path / "t.model"
    assert main(["tokenizer", "train", "--input", str(text), "--out",
                 str(model), "--vocab-size", str(VOCAB)]) == 0
    assert f"{VOCAB} pieces" in capfd.readouterr().out
    assert main(["tokenizer", "encode", "--model", str(model), "--json",
                 "The fox 🦊"]) == 0
    shown = json.loads(capfd.readouterr().out)
    tokenizer = Tokenizer(model)
    assert shown["ids"] == tokenizer.encode("The fox 🦊")
    assert tokenizer.decode(shown["ids"]) == "The fox 🦊"
    assert [tokenizer.piece(i) for i in shown["ids"]] == shown["pieces"]
    assert main(["tokenizer", "encode", "--model", str(model), "rain"]) == 0
    assert len(capfd.readouterr().out.splitlines()) == len(
        tokenizer.encode("rain"))
    assert "is not a file" in _refused(
        ["tokenizer", "encode", "--model", str(tmp_path / "no"), "x"], capfd)


def test_prepared_data_can_be_trained_on(
    text: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """`data prepare` prints the folder that `train --data` takes."""
    assert main(["data", "prepare", str(text), "--vocab-size",
                 str(VOCAB)]) == 0
    folder = Path(capfd.readouterr().out.strip())
    assert (folder / "index.json").is_file()
    assert main(_train(folder, tmp_path / "run")) == 0


@pytest.mark.parametrize("verb", [
    "", "train", "generate", "tokenizer", "tokenizer train",
    "tokenizer encode", "data", "data fetch", "data prepare"])
def test_every_verb_has_help(
    verb: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """On stdout, with exit code 0, a sentence for each flag."""
    with pytest.raises(SystemExit) as stop:
        main([*verb.split(), "--help"])
    out, err = capfd.readouterr()
    assert stop.value.code == 0 and err == ""
    assert out.startswith("usage: minillama") and "--help" in out
    if verb == "train":
        for name in ("--preset", "--data", "--resume", "--deterministic",
                     "--init-from", "--n-kv-heads", "--tracker"):
            assert name in out


def test_help_imports_nothing_heavy() -> None:
    """A fresh process answers without PyTorch; so does a refusal."""
    program = (
        "import sys\n"
        "from minillama.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'matplotlib', 'sentencepiece',"
        " 'safetensors', 'IPython'}\n"
        "print(sorted(heavy & set(sys.modules)))\n")
    for words in (["train", "--help"], ["--help"], ["train", "--nope"]):
        done = subprocess.run(
            [sys.executable, "-c", program, *words], capture_output=True,
            text=True, encoding="utf-8", check=True,
            env={**os.environ, "PYTHONPATH": str(ROOT),
                 "PYTHONIOENCODING": "utf-8"})
        assert done.stdout.splitlines()[-1] == "[]"


def test_every_verb_parses_and_runs() -> None:
    """Each has its module; the help of each is made from its dataclass."""
    for verb in cli.VERBS:
        module = importlib.import_module(f"minillama.cli.{verb}")
        assert callable(module.run) and callable(module.command), verb
        with pytest.raises(SystemExit) as stop:
            parse([verb, "--help"])
        assert not stop.value.code


def test_torchrun_is_told_the_cause_and_says_it_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Read back by torchrun's own class; a full disk costs only the echo."""
    from torch.distributed.elastic.multiprocessing.errors import (
        ProcessFailure)

    told = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(told))
    line = _refused(["plan", "--gpus", "0"], capfd)
    assert "gpus=0 must be" in line
    failure = ProcessFailure(0, 1, 2, str(told))
    assert failure.message["message"] == f"minillama: {line}"
    assert int(failure.timestamp) > 1.7e9
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path))
    assert "gpus=0 must be" in _refused(["plan", "--gpus", "0"], capfd)
