"""The README's commands are run, its links followed, its numbers recomputed.

Checked against the command line itself. The two big commands are the suite
and the book, so their plans are read; all others are run as they stand, on
small inputs.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tools import publish
from tools.shell import ROOT

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", TEXT, re.S)
            for line in block.splitlines()]
OURS = [line for line in COMMANDS if line.startswith(".venv/bin/minillama")]


def test_every_command_is_known():
    """A new command in the README needs a test here."""
    rest = [line for line in COMMANDS if line not in OURS]
    assert rest == [
        f"git clone https://github.com/{publish.address()}",
        f"cd {publish.address().split('/')[1]}",
        "python run.py book", "python run.py test"]
    assert [shlex.split(line)[1] for line in OURS] == [
        "generate", "train", "generate"]


@pytest.mark.parametrize("command", ["book", "test"])
def test_the_two_commands_have_a_plan(command):
    assert f"python run.py {command}" in COMMANDS
    done = subprocess.run(
        [sys.executable, "run.py", command, "--plan"], cwd=ROOT,
        capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0 and "This will" in done.stdout


def minillama(line: str, *more: str, cwd: Path) -> str:
    """Run a command of the README with this Python; return its output."""
    words = shlex.split(line)[1:] + list(more)
    done = subprocess.run(
        [sys.executable, "-m", "minillama", *words], cwd=cwd,
        capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_packages_own_model_writes(tmp_path):
    first = OURS[0]
    text = minillama(first, cwd=tmp_path)
    assert text.startswith("KING HENRY")
    assert len(text.split()) > 20
    assert minillama(first, cwd=tmp_path) == text, "seeded"


@pytest.mark.slow
def test_a_text_of_yours_is_trained_on_and_continued(tmp_path):
    texts = tmp_path / "my_texts"
    texts.mkdir()
    for number in range(10):
        words = " ".join(f"Once upon a time {n} birds sang to {n + number} "
                         f"trees in the wind.\n" for n in range(300))
        (texts / f"{number}.txt").write_text(words, encoding="utf-8")
    train, generate = OURS[1:]
    minillama(train, "--steps", "2", "--warmup-steps", "0", "--vocab-size",
              "330", cwd=tmp_path)
    assert (tmp_path / "runs" / "mine" / "metrics.jsonl").is_file()
    assert minillama(generate, "--max-new-tokens", "5",
                     cwd=tmp_path).startswith("Once")


def test_links_lead_to_files():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        if not target.startswith("http"):
            assert (ROOT / target).is_file(), target


def test_every_chapter_is_in_the_table():
    listed = re.findall(r"\]\(notebooks/(\w+)\.ipynb\)", TEXT)
    assert listed == sorted(
        path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


def test_the_first_loss_is_the_logarithm_of_the_vocabulary():
    """`the loss fall from 6.9`: ln 1024, before anything is learnt."""
    import math

    from minillama.config import ModelConfig

    start = math.log(ModelConfig.preset("toy").vocab_size)
    assert f"from {start:.1f} to" in " ".join(TEXT.split())


def test_the_first_screen_comes_first():
    """Sentence, picture, commands, chapters, what it is not; no badges."""
    order = ["# minillama", "![", "python run.py book", "python run.py test",
             "## The chapters", "## What it is not"]
    places = [TEXT.index(part) for part in order]
    assert places == sorted(places)
    assert "badge" not in TEXT and "shields" not in TEXT


def test_the_picture_is_drawn_from_the_shipped_run():
    from tools import picture

    points = picture.losses(picture.METRICS.read_text(encoding="utf-8"))
    drawn = picture.PICTURE.read_text(encoding="utf-8")
    assert picture.polyline(points) in drawn
    assert "KING HENRY" in drawn
    steps = [step for step, _ in points]
    assert steps == sorted(steps)
    assert points[0][1] > 6 and points[-1][1] < 3.5
    # A thousand steps and the loss 7 stand at the corners of the axes.
    assert picture.polyline([(0, 7.0), (1000, 1.5)]) == "52.0,20.0 352.0,230.0"


def test_the_sample_is_wrapped_to_its_box():
    from tools import picture

    lines = picture.wrapped("short\n" + "word " * 30 + "\n" + "x" * 100)
    assert max(map(len, lines)) <= picture.COLUMNS
    assert lines[0] == "short" and "".join(lines[-3:]) == "x" * 100
