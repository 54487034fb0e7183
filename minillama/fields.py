"""What a field may hold: complaints are gathered, then raised at once.

For the `__post_init__` of configuration dataclasses. Torch-free.

Chapter: notebooks/09_model.ipynb
"""

from __future__ import annotations


def refuse(owner: str, problems: list[str]) -> None:
    """Raise one ValueError that lists every problem, or nothing at all."""
    if problems:
        raise ValueError(f"{owner}: " + "; ".join(problems))


def below_one(owner: object, names: tuple[str, ...]) -> list[str]:
    """Name the fields that must be positive whole numbers and are not.

    None stands for "worked out later" and passes.
    """
    return [
        f"{name}={getattr(owner, name)} must be at least 1"
        for name in names
        if getattr(owner, name) is not None and getattr(owner, name) < 1
    ]


def above_zero(owner: object, names: tuple[str, ...]) -> list[str]:
    """Name the fields that must be above 0 and are not."""
    return [f"{name}={getattr(owner, name)} must be above 0"
            for name in names if not getattr(owner, name) > 0]
