"""Run the steps of a build: processes here, a Slurm cluster, or Ray.

The executors are datatrove's. A step is a function of one item of work (a
file, or a part of all hashes); an item's output does not depend on who does
it. Finished tasks leave a mark, so that a killed build goes on.

Chapter: notebooks/03_mixture.ipynb
"""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

Engine = Literal["local", "slurm", "ray"]
_MOST_TASKS = 256


@dataclass(frozen=True)
class Cluster:
    """Where and how the build runs."""

    engine: Engine = "local"
    """`local`: processes on this machine; `slurm`: jobs that are submitted;
    `ray`: a Ray cluster, or this machine if no address is given."""
    workers: int = 1
    """How many tasks run at the same time."""
    slurm_partition: str = "cpu"
    """Slurm's partition."""
    slurm_time: str = "24:00:00"
    """Slurm's time limit for one task."""
    ray_address: str = "local"
    """Address of a Ray cluster, or `auto` for the one that runs here."""


@dataclass(frozen=True)
class Step:
    """One step of a build; datatrove calls it once a task."""

    name: str
    """Also names the folder of its logs."""
    work: Callable[[Any, Any], None]
    """Does one item: work(recipe, item)."""
    recipe: Any
    """What is built."""
    items: tuple[Any, ...]
    """The units of work."""

    @property
    def tasks(self) -> int:
        """How many tasks share the items."""
        return min(len(self.items), _MOST_TASKS)

    def __call__(self, data: Any, rank: int, world_size: int) -> None:
        """Do the items of one task."""
        for item in self.items[rank::world_size]:
            self.work(self.recipe, item)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Arrive in another process: be quiet there too."""
        self.__dict__.update(state)
        _silence()


def run(steps: Sequence[Step], logs: Path, cluster: Cluster) -> bool:
    """Run steps one after another.

    Args:
        steps: in their order.
        logs: folder of logs and marks; another recipe needs another one.
        cluster: where.

    Returns:
        Whether all is done; with Slurm it is only submitted.

    Raises:
        ValueError: if a package or command is missing.

    Chapter: notebooks/03_mixture.ipynb
    """
    try:
        import datatrove  # noqa: F401
        if cluster.engine == "ray":
            import ray
    except ImportError as error:
        raise ValueError(
            f"engine={cluster.engine} needs the package {error.name}; try "
            "`pip install \"minillama[data]\"`"
            + " ray" * (error.name == "ray")) from None
    _silence()
    if cluster.engine == "slurm":
        _submit(steps, logs, cluster)
        return False
    if cluster.engine == "ray" and not ray.is_initialized():
        here = {"num_cpus": cluster.workers, "include_dashboard": False}
        ray.init(address=cluster.ray_address, log_to_driver=False,
                 logging_level="ERROR",
                 **(here if cluster.ray_address == "local" else {}))
    for step in steps:
        with _progress(step, logs / step.name / "completions"):
            executor = _executor(step, logs, cluster)
            executor.run()
        if left := executor.get_incomplete_ranks(skip_completed=True):
            raise ValueError(
                f"step {step.name}: {len(left)} tasks failed; their logs are "
                f"in {logs / step.name / 'logs'}, and the same command goes "
                "on from here")
    return True


def _executor(step: Step, logs: Path, cluster: Cluster) -> Any:
    """datatrove's executor for one step."""
    common = dict(pipeline=[step], tasks=step.tasks,
                  workers=min(cluster.workers, step.tasks),
                  logging_dir=str(logs / step.name))
    if cluster.engine == "ray":
        from datatrove.executor.ray import RayPipelineExecutor
        return RayPipelineExecutor(**common, mem_per_cpu_gb=0.4)
    from datatrove.executor.local import LocalPipelineExecutor
    methods = multiprocessing.get_all_start_methods()
    return LocalPipelineExecutor(**common, start_method=(
        "forkserver" if "forkserver" in methods else "spawn"))


def _submit(steps: Sequence[Step], logs: Path, cluster: Cluster) -> None:
    """Submit one array of jobs a step, each waiting for the one before.

    Raises:
        ValueError: if there is no `sbatch`.
    """
    from datatrove.executor.slurm import SlurmPipelineExecutor

    before = None
    for step in steps:
        before = SlurmPipelineExecutor(
            pipeline=[step], tasks=step.tasks,
            workers=min(cluster.workers, step.tasks), depends=before,
            time=cluster.slurm_time, partition=cluster.slurm_partition,
            job_name=f"minillama-{step.name}",
            env_command=f'export PATH="{Path(sys.executable).parent}:$PATH"',
            logging_dir=str(logs / step.name))
    try:
        before.run()
    except FileNotFoundError:
        raise ValueError(
            "engine=slurm needs the command sbatch; run this on a login node "
            "of a Slurm cluster, or take --engine local") from None


def _silence() -> None:
    """datatrove logs twenty lines a task; errors arrive as exceptions."""
    from loguru import logger
    logger.disable("datatrove")


@contextlib.contextmanager
def _progress(step: Step, marks: Path) -> Iterator[None]:
    """A bar that counts the marks of finished tasks, on a terminal."""
    bar = tqdm(total=step.tasks, desc=step.name, unit="task", disable=None,
               leave=False)
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            bar.n = len(list(marks.glob("*")))
            bar.refresh()

    watcher = threading.Thread(target=watch, daemon=True)
    if not bar.disable:
        watcher.start()
    try:
        yield
    finally:
        done.set()
        if watcher.ident is not None:
            watcher.join()
        bar.close()
