"""minillama/parallel.py: every mix of 2 and 4 processes is one process.

Losses and gradient norms of 20 steps are held against a run of one process,
which knows nothing of parallelism, in fp64 to 1e-10 and in fp32 to 1e-5;
generated text and evaluation likewise. Checkpoints of one process, of each
mix and across mixes go on as if nothing had happened. The processes are
real, joined by gloo; each world size is started once and asked everything.
"""

from __future__ import annotations

import math
import os
import pickle
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from minillama import checkpoint, parallel, runs, sharded
from minillama.layout import Layout
from minillama.metrics import read_metrics
from minillama.model import Transformer
from minillama.train import fit
from tests import company, small
from tests import company_jobs as jobs
from tools.shell import ROOT

RECIPES = (ROOT / "book" / "recipes.md").read_text(encoding="utf-8")
TOLERANCE = {"fp64": 1e-10, "fp32": 1e-5}
NAMES = {world: ["x".join(map(str, sizes)) for sizes in mixes]
         for world, mixes in jobs.MIXES.items()}
EVERY = [(world, name) for world, names in NAMES.items() for name in names]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return str(small.corpus(tmp_path_factory.mktemp("corpus"), 300))


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    """What one process says to everything."""
    config, found = jobs.config_of(data), {}
    for dtype in jobs.DTYPES:
        state = jobs.fresh(config, dtype)
        found[dtype] = jobs.walk(state, config, jobs.STEPS)
        if dtype == "fp64":
            found["texts"] = jobs.texts(state, data)
            found["held_out"] = jobs.held_out(state, data)
    found["uneven"] = jobs.uneven(jobs.fresh(config), config, 0, 1)
    for name, model in (("shared heads", jobs.SHARED_HEADS),
                        ("tied", jobs.TIED)):
        other = replace(config, model=model)
        found[name] = jobs.walk(jobs.fresh(other), other, 5)
    folder = tmp_path_factory.mktemp("alone")
    state = jobs.fresh(config)
    jobs.walk(state, config, 6)
    runs.save_state(state, folder, 2)
    found["folder"] = str(folder)
    return found


@pytest.fixture(scope="module")
def asked(data, alone, tmp_path_factory):
    """What the processes of each world size said; started once each."""
    found, folders = {}, []  # four processes go on from what two wrote
    for world in jobs.MIXES:
        out = tmp_path_factory.mktemp(f"world-{world}")
        found[world] = company.start(
            world, jobs.everything, world, data, str(out), alone["folder"],
            folders)
        found[world]["folder"] = out
        folders = [str(out / name) for name in NAMES[world]]
    return found


def far(got, wanted):
    """The largest relative difference."""
    got, wanted = (torch.tensor(x, dtype=torch.float64)
                   for x in (got, wanted))
    assert got.shape == wanted.shape
    return ((got - wanted) / wanted).abs().max().item()


@pytest.mark.parametrize("dtype", jobs.DTYPES)
@pytest.mark.parametrize("world, name", EVERY)
def test_every_mix_takes_the_steps_of_one_process(
        asked, alone, world, name, dtype):
    got = asked[world]["steps"][f"{name} {dtype}"]
    assert far(got, alone["fp64"]) < TOLERANCE[dtype]
    assert len(got) == 20 and got[-1][0] < got[0][0] - 1, "it learns"


@pytest.mark.parametrize("world, name", EVERY)
def test_every_mix_writes_the_text_of_one_process(asked, alone, world, name):
    assert asked[world]["texts"][name] == alone["texts"]
    assert far(asked[world]["held_out"][name], alone["held_out"]) < 1e-10


@pytest.mark.parametrize("world, name", EVERY)
def test_the_loss_is_the_mean_over_targets_not_over_processes(
        asked, alone, world, name):
    assert far(asked[world]["uneven"][name], alone["uneven"]) < 1e-10


@pytest.mark.parametrize("world", jobs.MIXES)
def test_other_models_and_batches(asked, alone, world):
    other = asked[world]["other"]
    assert far(other["micro"], alone["fp64"][:5]) < 1e-10
    assert far(other["whole stream"], alone["fp64"][:5]) < 1e-10
    for name in ("shared heads", "tied"):
        assert far(other[name], alone[name]) < 1e-10
    loss, text = other["16 bits"]  # of shards, which travel so
    assert abs(loss / alone["fp64"][0][0] - 1) < 0.01
    assert text.startswith("A") and len(text) > 20


@pytest.mark.parametrize("world, name", EVERY)
def test_a_checkpoint_goes_on_in_its_own_mix(asked, alone, world, name):
    resumed = asked[world]["resumed"]
    step, walked = resumed[f"one -> {name}"]
    assert step == 6 and far(walked, alone["fp64"][6:10]) < 1e-10
    step, walked = resumed[f"{name} -> {name}"]
    assert step == 10 and far(walked, alone["fp64"][10:14]) < 1e-10


@pytest.mark.parametrize("world, name", EVERY)
def test_a_checkpoint_goes_on_in_one_process(
        asked, alone, data, world, name):
    folder = asked[world]["folder"] / name
    assert sharded.holds(jobs.newest(folder))
    config = jobs.config_of(data)
    state = jobs.fresh(config)
    runs.resume_state(state, folder)
    assert state.step == 10
    assert far(jobs.walk(state, config, 4), alone["fp64"][10:14]) < 1e-10
    stored = checkpoint.read(jobs.newest(folder))
    resumed = jobs.fresh(config)
    runs.resume_state(resumed, folder)
    assert all(torch.equal(weight, resumed.model.state_dict()[name])
               for name, weight in stored["weights"].items())


def test_a_checkpoint_goes_on_in_any_mix(asked, alone, data):
    """Those of two processes in four, and those of four in two."""
    folders = [str(asked[4]["folder"] / name) for name in NAMES[4]]
    in_two = company.start(2, jobs.cross, 2, data, folders)
    for found, other in ((in_two, 4), (asked[4]["crossed"], 2)):
        assert len(found) == len(NAMES[other])
        for step, walked in found.values():
            assert step == 10
            assert far(walked, alone["fp64"][10:14]) < 1e-10


def test_a_damaged_part_is_named_and_an_index_runs_no_code(
        asked, tmp_path):
    import shutil

    from minillama.files import fingerprint, manifest

    folder = tmp_path / "step"
    shutil.copytree(jobs.newest(asked[2]["folder"] / "1x2x1"), folder)
    part = next(folder.glob("*.distcp"))
    whole = part.read_bytes()
    part.write_bytes(whole[:-1])
    with pytest.raises(checkpoint.DamagedCheckpoint, match=part.name):
        checkpoint.read(folder)
    part.write_bytes(whole)
    (folder / sharded.INDEX).write_bytes(pickle.dumps(Bomb()))
    (folder / "manifest.json").write_text(manifest(10, {
        path.name: fingerprint(path) for path in folder.iterdir()
        if path.name != "manifest.json"}), encoding="utf-8")
    with pytest.raises(checkpoint.DamagedCheckpoint, match="print"):
        checkpoint.read(folder)


class Bomb:
    """An object that runs something when it is unpickled."""

    def __reduce__(self):
        return print, ("it ran",)


# --- what is refused --------------------------------------------------------

@pytest.mark.parametrize("settings, world, words", [
    ({"tensor_parallel": 3}, 3, "does not divide n_heads=4; try one of .1, 2"),
    ({"tensor_parallel": 4, "model": jobs.SHARED_HEADS}, 4, "n_kv_heads=2"),
    ({"tensor_parallel": 2, "model": replace(jobs.MODEL, vocab_size=321)}, 2,
     "vocab_size=321; try one of .1"),
    ({"tensor_parallel": 4, "model": replace(jobs.MODEL, max_seq_len=18)}, 4,
     "seq_len=18; try one of .1, 2"),
    ({"dp_shard": 2, "tensor_parallel": 2}, 6,
     r"1 \* 2 \* 2 = 4, but there are 6 processes; try torchrun "
     "--nproc-per-node 4"),
    ({"dp_replicate": 2, "batch_size": 5}, 2, "batch_size=5 .* try 6"),
])
def test_what_does_not_divide_is_refused_with_what_would(
        settings, world, words):
    config = jobs.config_of("unused", **settings)
    with pytest.raises(ValueError, match=words):
        parallel.layout_of(config, world)


def test_shards_take_what_is_left():
    config = jobs.config_of("unused", tensor_parallel=2)
    layout = parallel.layout_of(config, 4)
    assert (layout.dp_replicate, layout.dp_shard) == (1, 2)


def test_one_process_does_not_pretend_to_be_many(data, tmp_path):
    config = small.run_config(Path(data), tmp_path, model=jobs.MODEL,
                              sample_prompt="A", dp_shard=2,
                              tensor_parallel=2)
    with pytest.raises(ValueError, match=(
            "ask for 4 processes.*torchrun --nproc-per-node 4")):
        fit(config, log=None)


# --- what breaks ------------------------------------------------------------

@pytest.mark.parametrize("how, words", [
    ("hangs", "another process did not answer for 4 s"),
    ("dies", "the connection to another process broke")])
def test_one_that_hangs_or_dies_ends_the_other_in_time(how, words):
    said, seconds = company.start(
        2, jobs.broken, company.free_port(), how)
    assert words in said and "\n" not in said
    assert seconds < 12


def run_python(*words, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", *words], text=True, encoding="utf-8",
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment})


def test_a_missing_process_and_a_taken_port_end_in_one_line(data, tmp_path):
    """As a scheduler starts them: the environment says who is who."""
    words = ("minillama", "train", "--data", data, "--out", str(tmp_path),
             "--timeout", "4", "--device", "cpu")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        lonely = run_python(*words, **who(0, 2, company.free_port()))
        clash = run_python(*words, **who(0, 2, taken.getsockname()[1]))
        for process, cause in ((lonely, "not all of 2 processes met"),
                               (clash, "is taken by another program")):
            _, said = process.communicate(timeout=60)
            line = said.strip().splitlines()[-1]
            assert line.startswith("minillama: process 0: ")
            assert cause in line and "Traceback" not in said
            assert process.returncode == 2


@pytest.mark.parametrize("taken, cause", [
    (False, "1/2 clients joined"), (True, "EADDRINUSE")])
def test_a_recipe_without_its_second_machine_or_its_port_ends_soon(
        taken, cause):
    """torchrun waits by itself, long before a process of ours is there."""
    line = re.search(r"torchrun --nnodes(?:.*\\\n)*.*", RECIPES).group()
    words = shlex.split(line.replace("\\\n", " "))
    for old, new in (("32", "2"), ("8", "1"), ("NUMBER", "0"),
                     ("FIRST", "127.0.0.1"), ("timeout=120", "timeout=3")):
        words[words.index(old)] = new
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        if taken:
            door.listen()
        port = door.getsockname()[1] if taken else company.free_port()
        process = run_python("torch.distributed.run", "--master-port",
                             str(port), *words[1:])
        _, said = process.communicate(timeout=120)
    assert process.returncode and cause in said.strip().splitlines()[-1]


def who(rank, world, port):
    """What torchrun tells a process, without its own store."""
    return {"RANK": str(rank), "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test"}


def test_a_killed_worker_starts_again_from_the_last_checkpoint(
        data, tmp_path):
    """And the log has each step once, as one process would have it.

    Two machines of one process each: torchrun counts its restarts on the one
    where the worker died, and not on the other.
    """
    out, wanted = tmp_path / "killed", tmp_path / "whole"
    settings = dict(steps=40, checkpoint_every=5, eval_every=0,
                    model=jobs.MODEL, sample_prompt="A")
    fit(small.run_config(Path(data), wanted, **settings), log=None)
    script = tmp_path / "train_mix.py"
    script.write_text(SCRIPT, encoding="utf-8")
    door = f"127.0.0.1:{company.free_port()}"
    machines = [run_python(
        "torch.distributed.run", "--nnodes", "2", "--rdzv-backend", "c10d",
        "--rdzv-endpoint", door, "--rdzv-conf", "join_timeout=120",
        "--max-restarts", "1", "--monitor-interval", "0.1", str(script),
        data, str(out), PYTHONPATH=str(Path(__file__).parents[1]))
        for _ in range(2)]
    while len(lines(out)) < 8 and machines[0].poll() is None:
        time.sleep(0.05)
    if machines[0].poll() is None:
        victim = int((out / "pid-1").read_text(encoding="utf-8"))
        os.kill(victim, signal.SIGKILL)
    said = [machine.communicate(timeout=300)[1] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], said
    records = read_metrics(out / "metrics.jsonl")
    assert [r["step"] for r in records] == list(range(1, 41))
    restarts = sorted(out.glob("began-*"))
    assert len(restarts) == 2, "it was killed while it ran"
    assert int(restarts[1].name.split("-")[1]) >= 5
    for mine, theirs in zip(records, read_metrics(wanted / "metrics.jsonl")):
        assert math.isclose(mine["loss"], theirs["loss"], rel_tol=1e-5)


SCRIPT = """
import os, sys
from pathlib import Path
from tests import company_jobs as jobs, small
from minillama import parallel
from minillama.checkpoint import checkpoints
from minillama.company import join
from minillama.train import fit

if __name__ == "__main__":
    data, out = sys.argv[1], Path(sys.argv[2])
    config = small.run_config(
        Path(data), out, steps=40, checkpoint_every=5, eval_every=0,
        model=jobs.MODEL, sample_prompt="A", timeout=20.0)
    with join(config.timeout, "cpu"):
        rank = os.environ["RANK"]
        config = parallel.restarted(config)
        out.mkdir(exist_ok=True)
        (out / f"pid-{rank}").write_text(str(os.getpid()), encoding="utf-8")
        if rank == "0":
            done = checkpoints(out)
            step = done[-1].name.split("-")[1] if done else "0"
            (out / f"began-{int(step):04d}").touch()
        fit(config, log=None)
"""


def lines(out):
    """The lines of a run's log so far."""
    path = out / "metrics.jsonl"
    return path.read_text("utf-8").splitlines() if path.exists() else []


def test_engines_of_a_notebook_are_one_company():
    pytest.importorskip("ipyparallel")
    from minillama.engines import Engines

    engines = Engines(2)

    def add(x):
        mine = torch.tensor([float(torch.distributed.get_rank() + x)])
        torch.distributed.all_reduce(mine)
        return torch.distributed.get_rank(), mine.item()

    try:
        assert engines(add, 10) == [(0, 21.0), (1, 21.0)]
    finally:
        engines.close()


@small.needs_compiler
def test_compiled_layers_of_split_matrices(data, alone):
    """They take the steps of one process; and where products are cut to
    travel in pieces, every message of a layer is part of one."""
    found = company.start(2, jobs.compiled, data)
    for how in ("plain", "overlapped"):
        assert far(found[how], alone["fp64"][:3]) < 1e-9, how
    forward, backward = found["fused"]
    assert forward == (["fused_all_gather_matmul"] * 2
                       + ["fused_matmul_reduce_scatter"] * 2)
    assert "fused_all_gather_matmul" in backward, backward


class GPUs:
    """Four of one machine, of which the last sees no other's memory."""

    def __init__(self, monkeypatch, me):
        for name, answer in {
                "current_device": lambda: me, "device_count": lambda: 4,
                "can_device_access_peer":
                    lambda a, b: 3 not in (a, b)}.items():
            monkeypatch.setattr(torch.cuda, name, answer)
        self.group_name, self.enabled = "a group", []
        monkeypatch.setattr(
            "torch.distributed._symmetric_memory.enable_symm_mem_for_group",
            self.enabled.append)

    def mesh(self, size, device_type="cuda"):
        return types.SimpleNamespace(
            device_type=device_type, size=lambda: size,
            get_group=lambda: self)


@pytest.mark.parametrize("me, size, device, on", [
    (0, 2, "cuda", True), (1, 2, "cuda", True),
    (2, 2, "cuda", False),  # 3 cannot be reached
    (0, 4, "cuda", False),
    (0, 8, "cuda", False),  # another machine takes part
    (0, 2, "cpu", False)])
def test_products_overlap_where_gpus_reach_each_other(
        monkeypatch, no_shape_checks, me, size, device, on):
    from torch._inductor import config

    gpus = GPUs(monkeypatch, me)
    with config.patch(_micro_pipeline_tp=False):
        assert parallel.overlap_products(gpus.mesh(size, device)) is on
        assert config._micro_pipeline_tp is on
    assert gpus.enabled == ["a group"] * on


@pytest.mark.parametrize("settings, asked", [
    ({}, 1), ({"async_tensor_parallel": False}, 0), ({"compile": False}, 0),
    ({"sequence_parallel": False}, 0), ({"tensor_parallel": 1}, 0)])
def test_overlap_is_asked_for_where_it_can_help(
        monkeypatch, no_shape_checks, settings, asked):
    """In compiled layers, whose split matrices deal the sequence out."""
    calls = []
    monkeypatch.setattr(parallel, "split_matrices", lambda *_, **__: None)
    monkeypatch.setattr(parallel, "share_data", lambda model, *_: model)
    monkeypatch.setattr(parallel, "overlap_products", calls.append)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: None)
    wanted = {"tensor_parallel": 2, "sequence_parallel": True,
              "compile": True, "async_tensor_parallel": True} | settings
    layout = Layout(1, 1, wanted.pop("tensor_parallel"),
                    wanted.pop("sequence_parallel"))
    parallel.apply(Transformer(jobs.MODEL), {"tensor": "mesh"}, layout,
                   **wanted)
    assert calls == ["mesh"] * asked
