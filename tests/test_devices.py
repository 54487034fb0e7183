"""What the verbs do on a device that is not the CPU.

No GPU runs these tests. `pretend.py` makes a device that computes on the CPU
and refuses, as a GPU does, to mix what lies here with what lies there; what it
cannot show is said there. Every job runs on it and on the CPU, in a process of
its own, and has to give the same.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils import backend_registration

from minillama.devices import choose_device, choose_dtype

pytestmark = pytest.mark.skipif(
    not hasattr(backend_registration,
                "_setup_privateuseone_for_python_backend"),
    reason=f"PyTorch {torch.__version__} has no devices written in Python")

JOBS = ("train", "by_hand", "write", "verbs", "benchmark")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Of `pretend_jobs.py`."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.pretend_jobs",
         str(tmp_path_factory.mktemp("jobs"))], capture_output=True,
        encoding="utf-8", check=False, timeout=600,
        cwd=Path(__file__).resolve().parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS)
def test_a_job_gives_what_it_gives_on_the_cpu(found: dict, job: str) -> None:
    cpu, paper = found[job]["cpu"], found[job]["paper"]
    for one in (cpu, paper):
        assert not isinstance(one, str), one  # a traceback
    assert len(paper) == len(cpu) > 0
    if job in ("write", "verbs"):
        assert paper == cpu
    else:  # the CPU may multiply in 16 bits where the benchmark lets it
        rounding = 1e-3 if job == "benchmark" else 1e-5
        assert paper == pytest.approx(cpu, rel=rounding)


@pytest.mark.slow
def test_the_device_refuses_what_a_gpu_refuses(tmp_path: Path) -> None:
    """Or the tests above would show nothing."""
    done = subprocess.run(
        [sys.executable, "-c", """
from tests import pretend
import torch
with pretend.Everywhere():
    here, away = torch.ones(3, device="paper"), torch.ones(3)
    for what in (lambda: here + away, lambda: here.numpy(),
                 lambda: torch.nn.functional.embedding(
                     torch.tensor([0]), here[None]),
                 lambda: here.double(), lambda: here.mul_(away)):
        try:
            what()
            print("taken")
        except (RuntimeError, TypeError) as error:
            print("refused")
    print((here + 1).sum().item(), here[torch.tensor([0])].tolist())
"""], capture_output=True, encoding="utf-8", check=True,
        cwd=Path(__file__).resolve().parents[1])
    assert done.stdout.split("\n")[:6] == ["refused"] * 5 + ["6.0 [1.0]"]


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="device='nowhere' cannot be used"):
        choose_device("nowhere")
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_dtype("bf16", torch.device("cpu")) == torch.bfloat16
