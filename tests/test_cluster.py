"""minillama/cluster.py: several processes judged by what one process did.

The runs are real, started through the command line on a CPU. A machine that
computes wrongly is played by another seed in every run but the first; one
whose processes cannot meet, by a network that is not there.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from subprocess import CompletedProcess

import pytest

from minillama import cluster
from minillama.cli import main
from minillama.layout import Layout
from minillama.metrics import read_metrics
from tests import small

MODEL = replace(small.MODEL, dim=16, n_layers=1)
FLAGS = ("--preset", "toy", "--dim", "16", "--n-layers", "1", "--n-heads", "2",
         "--multiple-of", "8", "--vocab-size", str(small.VOCAB),
         "--max-seq-len", "32", "--batch-size", "4", "--device", "cpu")


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    data = small.corpus(tmp_path_factory.mktemp("corpus"), 300)
    return [*FLAGS, "--data", str(data)]


def test_the_mixes_of_eight_processes(tmp_path):
    mixes = cluster.mixes(replace(MODEL, n_heads=8), 8)
    assert Layout(8, 1, 1) in mixes and Layout(1, 8, 1) in mixes
    assert Layout(1, 1, 8) in mixes and Layout(2, 2, 2) in mixes
    assert len(mixes) == len(set(mixes)) == 6
    assert {mix.world_size for mix in mixes} == {8}
    assert Layout(1, 1, 8) not in cluster.mixes(MODEL, 8), "two heads"
    with pytest.raises(ValueError, match="cluster=1: .* try 2, 4"):
        next(cluster.check(MODEL, 1, tmp_path))


@pytest.mark.slow
def test_two_processes_are_one_also_after_a_kill(
        flags, tmp_path, monkeypatch):
    assert len(cluster.mixes(MODEL, 2)) == 3
    monkeypatch.setattr(cluster, "mixes", lambda *_: [
        Layout(2, 1, 1), Layout(1, 1, 2)])
    found = list(cluster.check(MODEL, 2, tmp_path, steps=80, flags=flags))
    assert all(one.holds for one in found), found
    assert [one.what.split(", ")[0] for one in found if "compiled" not in
            one.what] == ["2 copies x 1 shards x 1 parts",
                          "1 copies x 1 shards x 2 parts", "killed"]
    assert (found[2].what == "compiled, 1 copies x 1 shards x 2 parts"
            ) == any(map(shutil.which, cluster.COMPILERS))
    for one in found:
        assert re.search(r"; [\d,]+ tokens/s, MFU unknown$", one.detail)
    log = read_metrics(tmp_path / "killed" / "metrics.jsonl")
    assert [record["step"] for record in log] == list(range(1, 81))


@pytest.mark.slow
def test_a_machine_that_computes_something_else_is_found_out(
        flags, tmp_path, monkeypatch):
    plain = cluster._command

    def other(layout, out, flags):
        more = ["--seed", "7"] if layout else []
        return plain(layout, out, [*flags, *more])

    monkeypatch.setattr(cluster, "_command", other)
    monkeypatch.setattr(cluster, "mixes", lambda *_: [Layout(2, 1, 1)])
    found = next(cluster.check(MODEL, 2, tmp_path, steps=4, flags=flags))
    assert not found.holds and "losses and norms within" in found.detail


def test_what_cannot_train_alone_or_overwrites_is_refused(
        tmp_path, capsys, monkeypatch):
    out = tmp_path / "runs"
    assert main(["verify", "--cluster", "2", "--data", str(tmp_path / "no"),
                 "--device", "cpu", "--out", str(out)]) == 2
    assert "one process alone cannot train: " in capsys.readouterr().err
    out.mkdir()
    assert main(["verify", "--cluster", "2", "--out", str(out)]) == 2
    assert "is there already" in capsys.readouterr().err
    findings = [cluster.Finding("a", True, "b"),
                cluster.Finding("c", False, "d")]
    monkeypatch.setattr(cluster, "check", lambda *_, **__: iter(findings))
    new = ["verify", "--cluster", "2", "--out", str(tmp_path / "new")]
    assert main(new) == 1
    assert capsys.readouterr().out == "ok  a: b\nNO  c: d\n"
    assert main([*new, "--json"]) == 1
    assert json.loads(capsys.readouterr().out.splitlines()[1])["what"] == "c"


@pytest.mark.parametrize("code, said, wanted", [
    (2, "warning\nminillama: no room\ntorchrun: 1\n",
     "it ended with 2 | minillama: no room"),
    (1, "a\nb\nc\nd\n", "it ended with 1 | b | c | d"),
    (-9, "", "it ended with -9")])
def test_a_run_that_fails_is_quoted(
        code, said, wanted, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "_train", lambda *_: CompletedProcess(
        [], code, "", said))
    with pytest.raises(ValueError) as caught:
        next(cluster.check(MODEL, 2, tmp_path))
    assert str(caught.value) == f"one process alone cannot train: {wanted}"
    assert cluster._run(Layout(2), tmp_path, [], tmp_path) == (
        "2 copies x 1 shards x 1 parts", False, wanted)
