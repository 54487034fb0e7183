"""What `minillama plan` says: a dictionary, and the same as a page.

Chapter: notebooks/13_scaling.ipynb
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import asdict, replace
from typing import Any

from minillama.config import TrainConfig
from minillama.fields import refuse
from minillama.layout import Layout
from minillama.model import count_parameters
from minillama.planner import carbon, gpus, layouts, memory
from minillama.planner.count import flops_by_convention, utilisation

FREE = ("dp_replicate", "dp_shard", "tensor_parallel", "micro_batch_size",
        "recompute")
"""Fields of a layout that the command may leave open."""
OWN = ("memory_gib", "peak_flops", "watts", "link_gb_s", "network_gb_s")
"""Fields of a GPU that the command may set."""
MAY_BE_0 = ("reserve_gib", "grid")
"""Numbers of the command that need not be above 0."""


def given(command: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """Those of the named settings that the command does not leave open."""
    return {name: value for name in names
            if (value := getattr(command, name)) is not None}


def plan(command: Any) -> dict[str, Any]:
    """Everything about one command (`cli.plan.PlanCommand`), as numbers.

    Raises:
        ValueError: for an unknown GPU or grid, a number that is none, or a
            layout that cannot be.
    """
    kg_per_kwh = carbon.grid(command.grid)
    _check(command, kg_per_kwh)
    preset = TrainConfig.from_preset(command.preset)
    config, seq_len = preset.model, command.seq_len or preset.model.max_seq_len
    gpu = replace(gpus.find(command.gpu), **given(command, OWN))
    found = {
        "preset": command.preset, "parameters": count_parameters(config),
        "flops_per_token": flops_by_convention(config, seq_len),
        "gpu": asdict(gpu), "gpus": command.gpus}
    if command.serve is not None:
        return found | _serving(command, config, gpu, found["parameters"])
    job = layouts.Job(
        config, gpu, command.gpus, command.batch_size or preset.batch_size,
        seq_len, command.efficiency, command.reserve_gib,
        command.sequence_parallel)
    plans, wanted = layouts.search(job), given(command, FREE)
    best = next((p for p in plans
                 if wanted.items() <= asdict(p.layout).items()), None)
    if best is None:
        size = Layout(tensor_parallel=command.tensor_parallel or 1)
        raise ValueError("; ".join([
            f"layout: {wanted} divides not all of gpus={job.gpus}, batch_size="
            f"{job.batch_size} and the model; leave one of them out, and it "
            "is chosen", *size.misfits(config, seq_len)]))
    close = None if best.fits else layouts.nearest(plans, best.layout)
    tokens = float(command.tokens or (
        preset.steps * preset.batch_size * config.max_seq_len))
    found |= {
        "batch_size": job.batch_size, "seq_len": seq_len, "tokens": tokens,
        "reserve_gib": job.reserve_gib, "efficiency": job.efficiency,
        "fits": best.fits, "best": _row(best),
        "nearest": close and _row(close),
        "enough_gpus": close is None and not best.fits and _enough(job),
        "cost": _cost(command, job, best, tokens, kg_per_kwh),
        "others": [_row(p) for p in plans if p.fits and p is not best][:3],
        "refused": [_row(p) for p in plans if not p.fits]}
    if command.dry_run:
        from minillama.planner.dry_run import dry_run

        found["passes"] = layouts.passes(job, best.layout)
        found["dry_run"] = asdict(dry_run(
            config, best.layout, seq_len=seq_len,
            accumulate=found["passes"] > 1))
    return found


def _check(command: Any, kg_per_kwh: float) -> None:
    """Refuse numbers that cannot be."""
    problems = [
        f"{name}={value} must be a finite number above 0"
        for name, value in {**vars(command), "grid": kg_per_kwh}.items()
        if type(value) in (int, float) and not 0 < value < math.inf
        and (value or name not in MAY_BE_0)]
    if 0 < command.pue < 1:
        problems.append(f"pue={command.pue} is the power of all over that of "
                        "the GPUs, and cannot be below 1")
    if 1 < command.efficiency < math.inf:
        problems.append(f"efficiency={command.efficiency} is a share of the "
                        "peak, and cannot be above 1")
    refuse("plan", problems)


def _enough(job: layouts.Job) -> int | None:
    """GPUs, in doublings, on which some layout fits."""
    for times in (2, 4, 8, 16, 32, 64):
        more = replace(job, gpus=times * job.gpus)
        with contextlib.suppress(ValueError):  # so many divide nothing
            if layouts.search(more)[0].fits:
                return more.gpus
    return None


def _row(plan: layouts.Plan) -> dict[str, Any]:
    """One layout in numbers."""
    return {"layout": asdict(plan.layout), "gib": plan.used.gib(),
            "excess_gib": plan.excess_gib, "seconds": plan.seconds,
            "received_bytes": plan.received}


def _cost(command: Any, job: layouts.Job, best: layouts.Plan,
          tokens: float, kg_per_kwh: float) -> dict[str, Any]:
    """Speed, time, energy and carbon of the whole run."""
    rate = job.batch_size * job.seq_len / best.seconds / job.gpus
    hours = tokens / rate / 3600
    kwh = carbon.energy_kwh(hours, job.gpu.watts, command.pue)
    return {"tokens_per_s_per_gpu": rate,
            "mfu": utilisation(job.config, job.seq_len, rate,
                               job.gpu.peak_flops),
            "days": hours / job.gpus / 24, "gpu_hours": hours, "kwh": kwh,
            "tonnes_co2": carbon.tonnes_co2(kwh, kg_per_kwh)}


def _serving(command: Any, config: Any, gpu: gpus.Gpu,
             parameters: int) -> dict[str, Any]:
    """Weights and cache of a model that writes on all the GPUs together."""
    used = memory.serving(
        config, parameters, sequences=command.serve, context=command.seq_len,
        tensor_parallel=command.tensor_parallel or command.gpus)
    excess = sum(used.values()) / memory.GIB + 1 - gpu.memory_gib
    return {"serve": command.serve, "fits": excess <= 0, "excess_gib": excess,
            "gib": {name: size / memory.GIB for name, size in used.items()}}


def text(found: dict[str, Any]) -> str:
    """The page that a person reads."""
    gpu = found["gpu"]
    lines = [
        f"{found['preset']}: {found['parameters']:,} parameters; to train on "
        f"a token: {_list(found['flops_per_token'], '.3g')} operations",
        f"{found['gpus']:,} x {gpu['name']}: {gpu['memory_gib']:.1f} GiB, "
        f"{gpu['peak_flops'] / 1e12:.0f} TFLOP/s, {gpu['watts']:.0f} W"]
    if "serve" in found:
        return "\n".join([*lines, (
            f"writing {found['serve']} sequences at once: "
            f"{_list(found['gib'], '.2f')} GiB; "
            f"{_verdict(found)}, after 1 GiB kept free")])
    best = found["best"]
    lines += [
        f"{found['batch_size']:,} x {found['seq_len']:,} tokens a step, "
        f"{found['tokens']:.3g} in all",
        ("fastest: " if found["fits"] else "does not fit: ") + _flags(best),
        f"  memory when fullest: {_list(best['gib'], '.2f')} GiB",
        f"  {_verdict(best)}, after {found['reserve_gib']:g} GiB kept free"]
    if found["fits"]:
        lines += _outlook(found, best, found["cost"])
    elif close := found["nearest"]:
        lines.append(f"nearest that fits: {_flags(close)}: {_verdict(close)}")
    else:
        more = found["enough_gpus"]
        lines.append("no layout of so many GPUs fits; try " + (
            f"--gpus {more}" if more else "GPUs with more memory each"))
    if "dry_run" in found:
        lines += _counted(found["dry_run"], found["passes"])
    return "\n".join(lines)


def _counted(run: dict[str, Any], passes: int) -> list[str]:
    """What one GPU held and received in a dry run."""
    return [
        f"run on paper: {run['shard']:,} parameters on a GPU; "
        f"{run['resting_bytes'] / memory.GIB:.2f} GiB between steps, "
        f"{run['peak_bytes'] / memory.GIB:.2f} GiB when fullest; messages "
        + (f"of each of {passes:,} micro-batches:" if passes > 1 else
           "of a step:"),
        *(f"  {t['kind']} over {t['axis']}, {t['gpus']:,} GPUs: "
          f"{t['calls']:,} messages, {t['bytes'] / 1e9:.3g} GB"
          for t in run["traffic"])]


def _outlook(found: dict[str, Any], best: dict[str, Any],
             cost: dict[str, Any]) -> list[str]:
    """What stands below a layout that fits."""
    received = {name: size / 1e9
                for name, size in best["received_bytes"].items() if size}
    refused = found["refused"]
    lines = [
        f"  a step: {best['seconds']:.3g} s, assuming "
        f"{found['efficiency']:.0%} of the peak; a GPU receives "
        f"{_list(received, '.3g') or 'nothing: 0'} GB",
        f"  {cost['tokens_per_s_per_gpu']:,.0f} tokens/s/GPU; MFU "
        f"{_list(cost['mfu'], '.1%')}",
        f"  {cost['days']:.3g} days, {cost['gpu_hours']:,.0f} GPU hours, "
        f"{cost['kwh']:,.0f} kWh, {cost['tonnes_co2']:.3g} t CO2eq",
        *(f"next: {_flags(row)}: {row['seconds']:.3g} s"
          for row in found["others"])]
    if refused:
        lines.append(f"{len(refused)} layouts do not fit, closest first:")
    return lines + [f"  {_flags(row)}: {_verdict(row)}" for row in refused[:3]]


def _list(numbers: dict[str, Any], how: str) -> str:
    return ", ".join(f"{name} {value:{how}}"
                     for name, value in numbers.items())


def _verdict(row: dict[str, Any]) -> str:
    excess = row["excess_gib"]
    return f"{abs(excess):.2f} GiB " + (
        "to spare" if excess <= 0 else "too much")


def _flags(row: dict[str, Any]) -> str:
    """A layout as flags of `plan`."""
    layout = row["layout"]
    flags = [f"--{name.replace('_', '-')} {layout[name]}" for name in FREE]
    if layout["tensor_parallel"] > 1 and not layout["sequence_parallel"]:
        flags.append("--no-sequence-parallel")
    return " ".join(flags)
