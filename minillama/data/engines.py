"""Run the steps of a build: processes here, a Slurm cluster, or Ray.

The executors are datatrove's. A step is a function of one item of work (a
file, or a part of all hashes); an item's output does not depend on who does
it. Finished tasks leave a mark, so that a killed build goes on.

Chapter: notebooks/03_mixture.ipynb
"""

from __future__ import annotations

import functools
import os
import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

_MOST_TASKS = 256
# datatrove's scripts, which need not be on the path of a compute node.
_TOOLS = ("launch_pickled_pipeline", "merge_stats")


@dataclass(frozen=True)
class Cluster:
    """Where and how the build runs."""

    engine: Literal["local", "slurm", "ray"] = "local"
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
        for item in tqdm(self.items[rank::world_size], self.name,
                         disable=None, leave=False):
            self.work(self.recipe, item)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Arrive in another process: datatrove shall be quiet there too."""
        self.__dict__.update(state)
        _silence()
        _end_with_parent(None)


def run(steps: Sequence[Step], logs: Path, cluster: Cluster) -> bool:
    """Run steps one after another, or submit them.

    Args:
        steps: in their order.
        logs: folder of logs and marks; another recipe needs another one.
        cluster: where.

    Returns:
        Whether all is done; with Slurm it is only submitted.

    Raises:
        ValueError: if a package or command is missing, or tasks failed.

    Chapter: notebooks/03_mixture.ipynb
    """
    make, last = _executor(cluster), None
    for step in tqdm(steps, "steps", disable=None, leave=False):
        later = (dict(depends=last, job_name=f"minillama-{step.name}")
                 if cluster.engine == "slurm" else {})
        last = make(pipeline=[step], tasks=step.tasks, **later,
                    workers=min(cluster.workers, step.tasks),
                    logging_dir=str(logs / step.name))
        if not later:
            last.run()
            if left := last.get_incomplete_ranks(skip_completed=True):
                raise ValueError(
                    f"step {step.name}: {len(left)} tasks failed, see "
                    f"{logs / step.name / 'logs'}; the same command goes on")
    if cluster.engine == "slurm":
        last.run()  # submits all: each waits for the one before
    return cluster.engine != "slurm"


def _executor(cluster: Cluster) -> Callable[..., Any]:
    """datatrove's executor with what all steps have in common."""
    try:
        _silence()
        if cluster.engine == "local":
            import multiprocess.util
            # For datatrove's manager, which would wait for ever.
            multiprocess.util.register_after_fork(Step, _end_with_parent)
            from datatrove.executor.local import LocalPipelineExecutor
            method = "spawn" if sys.platform == "win32" else "forkserver"
            # Workers of every step start with these instead of for them.
            multiprocess.get_context(method).set_forkserver_preload(
                ["minillama.data.build", "datatrove.executor.local"])
            return functools.partial(
                LocalPipelineExecutor, start_method=method)
        if cluster.engine == "slurm":
            from datatrove.executor.slurm import SlurmPipelineExecutor
            if not shutil.which("sbatch"):
                raise ValueError(
                    "engine=slurm needs the command sbatch; run this on a "
                    "login node of the cluster, or take --engine local")
            tools = (f'{tool}() {{ "{sys.executable}" -m datatrove.tools.'
                     f'{tool} "$@"; }}' for tool in _TOOLS)
            return functools.partial(
                SlurmPipelineExecutor, time=cluster.slurm_time,
                partition=cluster.slurm_partition, with_srun=False,
                env_command="; ".join(tools))
        import ray
        from datatrove.executor.ray import RayPipelineExecutor
    except ImportError as error:
        raise ValueError(
            f"engine={cluster.engine} needs the package {error.name}; try "
            "`pip install \"minillama[data]\" ray`") from None
    here = ({"num_cpus": cluster.workers, "include_dashboard": False}
            if cluster.ray_address == "local" else {})
    for tries_left in (2, 1, 0):
        if ray.is_initialized():
            break
        try:
            ray.init(address=cluster.ray_address, log_to_driver=False,
                     logging_level="ERROR", **here)
        except Exception as error:  # a plain one if the machine is busy
            # Its agents import for longer than the 30 seconds that Ray
            # waits for them; the next time their files are in memory.
            ray.shutdown()
            if not tries_left:
                raise ValueError(
                    f"engine=ray: Ray does not start ({error}); try again, "
                    "or take --engine local") from None
    return functools.partial(RayPipelineExecutor, mem_per_cpu_gb=0.4)


@functools.cache
def _end_with_parent(_: object) -> None:
    """In a process of its own: nobody writes on for a build that is killed.

    The same command may be at work on these files again.
    """
    from multiprocess import parent_process

    if parent := parent_process():
        threading.Thread(daemon=True, target=lambda: (
            parent.join(), os._exit(1))).start()


def _silence() -> None:
    """datatrove logs twenty lines a task; errors arrive as exceptions."""
    from datatrove.utils.logging import logger
    logger.disable("datatrove")
