"""minillama/data/engines.py: one recipe on processes, on Slurm and on Ray.

Whatever runs the steps, the files that a build is for have the same bytes.
Slurm is a stand-in: an `sbatch` that runs the array of the script it is
given, with `scontrol` beside it. Ray runs on this machine.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from minillama.data import engines
from minillama.data.build import build
from minillama.data.engines import Cluster, Step
from tests.test_build import (
    MODEL,
    ROOT,
    content,
    documents,
    recipe,
    records,
    write_rows,
)

SBATCH = """#!/bin/bash
# Runs every task of the array at once; prints what the real one prints.
for word in "$@"; do
  case "$word" in
    --export=*) export RUN_OFFSET="${word##*RUN_OFFSET=}" ;;
    --*) ;;
    *) script="$word" ;;
  esac
done
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$script")
echo "$*" >> "$SBATCH_LOG"
for task in $(seq 0 "${last:-0}"); do
  SLURM_ARRAY_TASK_ID=$task SLURM_JOB_ID=7 SLURM_NODELIST=here \\
    bash "$script" >> "$SBATCH_LOG" 2>&1 || exit 1
done
echo "Submitted batch job 7"
"""
SCONTROL = "#!/bin/bash\necho here\n"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A build by this process."""
    folder = tmp_path_factory.mktemp("whole")
    write_rows(folder / "in", records(5), 3)
    assert build(recipe(folder / "out", own=folder / "in"))
    return folder


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
def test_slurm_scripts_give_the_same_bytes(whole, tmp_path, monkeypatch):
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("scontrol", SCONTROL)):
        (bin_folder / name).write_text(text, encoding="utf-8")
        (bin_folder / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{bin_folder}{os.pathsep}"
                       + os.environ["PATH"])
    log = tmp_path / "sbatch.log"
    monkeypatch.setenv("SBATCH_LOG", str(log))
    made = recipe(tmp_path / "out", own=whole / "in")
    cluster = Cluster("slurm", workers=2, slurm_partition="tiny",
                      slurm_time="0:05:00")
    assert build(made, cluster) is False
    assert content(tmp_path / "out") == content(whole / "out"), (
        log.read_text("utf-8")[-3000:])
    script = (made.work / "logs/read/launch_script.slurm").read_text("utf-8")
    assert "#SBATCH --partition=tiny" in script
    assert "#SBATCH --array=0-2%2" in script
    assert "--dependency=afterok:7" in log.read_text("utf-8")


@pytest.mark.slow
def test_ray_gives_the_same_bytes(whole, tmp_path):
    """In a process of its own, since Ray leaves others behind."""
    pytest.importorskip("ray")
    done = subprocess.run(
        [sys.executable, "-m", "minillama", "data", "build", "--source",
         f"own={whole / 'in'}", "--near", "own", "--tokenizer", str(MODEL),
         "--out", str(tmp_path / "out"), "--engine", "ray", "--workers",
         "2"], cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert content(tmp_path / "out") == content(whole / "out")
    assert documents(tmp_path / "out")


@pytest.mark.parametrize("failures", [0, 2, 3])
def test_ray_is_started_again_where_it_came_too_late(monkeypatch, failures):
    done: list[str] = []

    def init(address: str, **_: object) -> None:
        done.append("start" if done.count("fail") == failures else "fail")
        if done[-1] == "fail":
            raise Exception("timed out during startup")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(
        init=init, is_initialized=lambda: "start" in done,
        shutdown=lambda: done.append("clear")))
    monkeypatch.setitem(sys.modules, "datatrove.executor.ray",
                        SimpleNamespace(RayPipelineExecutor=dict))
    if failures == 3:
        with pytest.raises(ValueError, match="timed out.*--engine local"):
            engines._executor(Cluster("ray"))
    else:
        engines._executor(Cluster("ray"))
    assert done == ["fail", "clear"] * failures + ["start"] * (failures < 3)


def test_slurm_wants_a_login_node(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(engines.shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="sbatch.*--engine local"):
        build(recipe(tmp_path / "out", own=whole / "in"), Cluster("slurm"))


def test_a_missing_engine_is_named(whole, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datatrove.executor.local", None)
    with pytest.raises(ValueError, match="datatrove.*pip install"):
        build(recipe(tmp_path / "out", own=whole / "in"))


def note(folder: Path, item: int) -> None:
    """An item of work that leaves its name."""
    with (folder / f"{item}").open("a", encoding="utf-8") as file:
        file.write("x")


@pytest.mark.parametrize("count, tasks", [(1, 1), (7, 7), (300, 256)])
def test_every_item_is_done_once(tmp_path, count, tasks):
    step = Step("note", note, tmp_path, tuple(range(count)))
    assert step.tasks == tasks
    for rank in range(tasks):
        step(None, rank, tasks)
    assert sorted(path.name for path in tmp_path.iterdir()) == (
        sorted(map(str, range(count))))
    assert all(path.read_text("utf-8") == "x" for path in tmp_path.iterdir())


def test_finished_tasks_are_not_done_again(tmp_path):
    (tmp_path / "notes").mkdir()
    step = Step("note", note, tmp_path / "notes", (0, 1, 2))
    marks = tmp_path / "logs" / "note" / "completions"
    marks.mkdir(parents=True)
    (marks / "00001").touch()
    assert engines.run([step], tmp_path / "logs", Cluster())
    assert {p.name for p in (tmp_path / "notes").iterdir()} == {"0", "2"}


@pytest.mark.skipif(sys.platform == "win32", reason="asks ps")
@pytest.mark.parametrize("workers", [1, 2])
def test_nothing_goes_on_after_a_kill(whole, tmp_path, workers):
    """Neither datatrove's manager, nor workers, nor what they were."""
    out = tmp_path / "out"
    build = subprocess.Popen([
        sys.executable, "-m", "minillama", "data", "build", "--source",
        f"own={whole / 'in'}", "--out", str(out), "--workers", str(workers),
        "--tokenizer", str(MODEL)], cwd=ROOT, start_new_session=True,
        stdout=subprocess.DEVNULL)

    def left() -> int:
        listed = subprocess.run(["ps", "-eo", "sess="], check=True,
                                capture_output=True, encoding="utf-8")
        return listed.stdout.split().count(str(build.pid))

    def wait(enough: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not enough():
            assert time.monotonic() < end

    wait(lambda: left() > workers)
    build.kill()
    build.wait()
    wait(lambda: left() == 0)


def test_no_chatter(tmp_path, capfd):
    (tmp_path / "notes").mkdir()
    step = Step("note", note, tmp_path / "notes", (0, 1, 2))
    assert engines.run([step], tmp_path / "logs", Cluster(workers=2))
    assert capfd.readouterr() == ("", "")
