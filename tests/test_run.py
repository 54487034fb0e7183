"""run.py and its tools: plans, exit codes, one clear line, nothing twice.

Checked by running the script as a reader does, in a process of its own, and
by watching which programs its steps would start. The two big commands are
read from their plans here: this suite is one of their steps.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import run
from tools import environment, mutants, shell, toy, tree
from tools.shell import ROOT, Failed, call


def run_py(*arguments: object, cwd: Path = ROOT) -> tuple[int, str, str]:
    """Exit code, output and complaints of `python run.py ...`."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *map(str, arguments)], cwd=cwd,
        capture_output=True, text=True, encoding="utf-8", check=False)
    return done.returncode, done.stdout, done.stderr


def test_plans_name_what_is_done_downloaded_and_taken(monkeypatch):
    monkeypatch.setattr(environment, "ready", lambda extras: False)
    monkeypatch.setattr(toy, "done", lambda: Path("nowhere"))
    plan = {step.what: step.cost for step in run.book_steps(train=True)}
    install, train, build = plan
    assert "install" in install and "MB" in plan[install]
    assert "train the toy" in train and "3 minutes" in plan[train]
    assert "build the book" in build
    assert len(run.book_steps(train=False)) == 2
    assert len(run.test_steps()) == 5


def test_what_is_done_is_not_done_again(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "ready", lambda extras: True)
    finished = tmp_path / "finished"
    finished.touch()
    monkeypatch.setattr(toy, "done", lambda: finished)
    assert [step.what for step in run.book_steps(train=True)] == [
        "build the book into _build/html"]
    assert "install minillama" not in " ".join(
        step.what for step in run.test_steps())


@pytest.mark.parametrize("verb", ["book", "test"])
def test_plan_prints_and_stops(verb):
    code, out, complaints = run_py(verb, "--plan")
    assert (code, complaints) == (0, "")
    assert out.startswith("This will\n  1. ")
    assert "==" not in out


def test_it_works_from_another_folder(tmp_path):
    code, out, _ = run_py("book", "--plan", "--no-train", cwd=tmp_path)
    assert code == 0 and "build the book" in out and "train" not in out


@pytest.mark.parametrize("words, code, line", [
    ((), 2, "the following arguments are required"),
    (("bok",), 2, "invalid choice"),
    (("test", "--mine", "no_such.py"), 1, "there is no such file"),
    (("publish-as", "not an owner"), 1, "write OWNER or OWNER/REPO"),
    (("notebooks", "99_none"), 1, "ended with exit code 1"),
])
def test_a_failure_is_one_clear_line(words, code, line):
    got, _, complaints = run_py(*words)
    assert got == code
    assert line in complaints
    assert "Traceback" not in complaints


def test_sizes_prints_the_promise():
    _, out, _ = run_py("sizes")
    assert "the core, promised below 1200" in out
    assert "minillama/model.py" in out


def test_call_reports_what_failed(capsys):
    call(sys.executable, "-c", "print('shown only on failure')", quiet=True)
    assert capsys.readouterr().out == ""
    with pytest.raises(Failed, match="ended with exit code 3"):
        call(sys.executable, "-c", "print('why'); raise SystemExit(3)",
             quiet=True)
    assert "why" in capsys.readouterr().out
    with pytest.raises(Failed, match="could not start `no-such-program x`"):
        call("no-such-program", "x")


def test_call_sets_variables_for_one_program():
    look = "import os; assert os.environ['SET_HERE'] == '1'"
    call(sys.executable, "-c", look, quiet=True, SET_HERE="1")
    with pytest.raises(Failed):
        call(sys.executable, "-c", look, quiet=True)


@pytest.fixture
def started(monkeypatch):
    """The commands that would be started."""
    commands: list[list[str]] = []

    def note(*command, **_):
        commands.append([str(word) for word in command])

    for module in (run, environment, toy):
        monkeypatch.setattr(module, "call", note)
    return commands


def test_an_interrupted_training_goes_on(started, monkeypatch, tmp_path):
    monkeypatch.setattr(toy, "folder", lambda: tmp_path)
    toy.train()
    train, generate = started
    assert train[1:4] == ["train", "--preset", "toy"]
    assert "--resume" not in train and str(tmp_path) in train
    assert generate[1] == "generate" and str(tmp_path) in generate
    assert toy.done().is_file()
    (tmp_path / "checkpoints" / "step-00000250").mkdir(parents=True)
    toy.train()
    assert "--resume" in started[2]


def test_the_run_is_named_after_the_code_that_decides_it(
        monkeypatch, tmp_path):
    tree.copy_tree(tmp_path)
    monkeypatch.setattr(toy, "ROOT", tmp_path)
    before = toy.folder()
    picture = tmp_path / "minillama" / "plots" / "__init__.py"
    picture.write_bytes(picture.read_bytes() + b"# more\n")
    assert toy.folder() == before
    norm = tmp_path / "minillama" / "norm.py"
    norm.write_bytes(norm.read_bytes().replace(b"\n", b"\r\n"))
    assert toy.folder() == before
    norm.write_bytes(norm.read_bytes() + b"# more\n")
    assert toy.folder() != before


def test_the_suite_sees_encodings_and_the_book_sees_warnings(started):
    run.unit_tests()
    run.build_book()
    suite, book = started
    assert suite[1:5] == ["-X", "warn_default_encoding", "-m", "pytest"]
    assert {"-n", "-W", "--keep-going", "--all"} <= set(book)


def test_chapters_run_strictly_in_an_empty_folder(monkeypatch, tmp_path):
    seen = []

    def note(*command, cwd=ROOT, **variables):
        seen.append((command, sorted(p.name for p in Path(cwd).iterdir()),
                     variables))

    monkeypatch.setattr(run, "call", note)
    monkeypatch.setattr(environment, "wheel_room", lambda: Path("inside"))
    run.run_chapters()
    command, names, variables = seen[-1]
    assert names == sorted(
        path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
    assert command[0] == Path("inside") and "--nbval" in command
    assert "--nbval-lax" not in command
    # Cells of one notebook share a kernel, so they may not be scattered.
    assert command[command.index("--dist") + 1] == "loadfile"
    assert variables["OMP_NUM_THREADS"] == "1"


MINE = """
from minillama import attention


def attend(q, k, v, *, causal=True):
    return attention.attend(q, k, v, causal=causal){slip}
"""


@pytest.mark.slow
@pytest.mark.parametrize("slip, code", [("", 0), (" * 1.001", 1)])
def test_the_readers_own_model_is_judged(slip, code, tmp_path):
    """A right model passes, a wrong one fails, missing names are skipped."""
    mine = tmp_path / "my_llama.py"
    mine.write_text(MINE.replace("{slip}", slip), encoding="utf-8")
    got = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/test_model.py",
         "tests/test_attention.py", "-q", "-rs", "-x", "-p",
         "no:cacheprovider", "--mine", str(mine)], cwd=ROOT,
        capture_output=True, text=True, encoding="utf-8", check=False)
    assert got.returncode == code, got.stdout
    assert "my_llama.py defines no Transformer" in got.stdout
    assert "deselected" in got.stdout


def test_the_template_for_readers_has_every_name():
    text = (ROOT / "book" / "my_llama.py").read_text("utf-8")
    scope: dict = {}
    exec(compile(text, "my_llama.py", "exec"), scope)
    from tests.conftest import SUBJECTS

    assert set(SUBJECTS) <= set(scope)


def test_every_mutant_still_applies():
    """But this file's own, which lies applied when it is tried."""
    for patch in sorted((ROOT / "tests" / "mutants").glob("*.patch")):
        if patch.stem != "test_run":
            subprocess.run(["git", "apply", "--check", str(patch)], cwd=ROOT,
                           check=True)


def test_the_mutant_tool_tells_caught_from_alive(tmp_path):
    """On a repository of one function, with one test."""
    tests = tmp_path / "tests"
    tests.mkdir()
    (tmp_path / "code.py").write_text("def one():\n    return 1\n",
                                      encoding="utf-8")
    (tests / "test_one.py").write_text(
        "import sys\nsys.path.insert(0, '.')\nfrom code import one\n\n\n"
        "def test_one():\n    assert one() == 1\n".replace("code", "code_"),
        encoding="utf-8")
    (tmp_path / "code.py").rename(tmp_path / "code_.py")
    diff = ("# why\n--- a/code_.py\n+++ b/code_.py\n@@ -1,2 +1,2 @@\n"
            " def one():\n-    return 1\n+    return {}\n")
    patch = tmp_path / "test_one.patch"
    for new, reason in (("2", None), ("3 - 2", "every test passed"),
                        ("1 +", "pytest ended with")):
        patch.write_text(diff.format(new), encoding="utf-8", newline="\n")
        found = mutants.survives(patch, tmp_path)
        assert (found is None) == (reason is None)
        assert reason is None or reason in found
        assert "return 1" in (tmp_path / "code_.py").read_text("utf-8")
    patch.write_text(diff.replace("return 1", "return 7").format("2"),
                     encoding="utf-8", newline="\n")
    assert "does not apply" in mutants.survives(patch, tmp_path)


def test_shell_needs_no_third_party_module():
    script = "import tools.shell, tools.environment, tools.toy, run"
    assert subprocess.run([sys.executable, "-S", "-c", script], cwd=ROOT,
                          check=False).returncode == 0
    assert shell.ROOT == ROOT
