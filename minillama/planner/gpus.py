"""GPUs by name: memory, speed, power, wires.

Chapter: notebooks/13_scaling.ipynb
"""

from __future__ import annotations

from dataclasses import dataclass

from minillama.metrics import peak_flops


@dataclass(frozen=True)
class Gpu:
    """What the planner has to know about a GPU and the machine around it."""

    name: str
    """As in the table, or a name of your own."""
    memory_gib: int | float
    """What a program finds: a card of 80 GB shows 79.1 GiB."""
    peak_flops: int | float
    """Dense 16-bit operations a second, from the data sheet."""
    watts: int | float
    """Board power (TDP)."""
    link_gb_s: int | float
    """GB a second, one way, to a neighbour in the same machine."""
    network_gb_s: int | float = 25
    """GB a second and GPU, one way, between machines (25: 200 Gbit/s)."""
    per_machine: int = 8
    """GPUs that the fast link joins."""


# Name: GiB, watts, GB/s to a neighbour (NVLink or PCIe), from data sheets.
_TABLE = {
    "T4-16GB": (14.6, 70, 16), "L4-24GB": (22.0, 72, 32),
    "A10G-24GB": (22.1, 300, 32), "L40S-48GB": (44.4, 350, 32),
    "V100-16GB": (15.7, 300, 150), "V100-32GB": (31.7, 300, 150),
    "A100-40GB": (39.4, 400, 300), "A100-80GB": (79.1, 400, 300),
    "H100-80GB": (79.1, 700, 450), "H200-141GB": (139.7, 700, 450),
}


def known() -> list[str]:
    """The names in the table."""
    return list(_TABLE)


def find(name: str) -> Gpu:
    """A GPU of the table; capitals do not matter.

    Raises:
        ValueError: listing the known names and how to describe another.
    """
    for real, (memory, watts, link) in _TABLE.items():
        if real.casefold() == name.casefold():
            peak = peak_flops(real)
            assert peak, real
            return Gpu(real, memory, peak, watts, link)
    raise ValueError(
        f"gpu={name!r} is not in the table; try one of "
        f"{[real.lower() for real in _TABLE]}, or describe yours: start from "
        "the nearest of them and set --memory-gib, --peak-flops, --watts, "
        "--link-gb-s and --network-gb-s")
