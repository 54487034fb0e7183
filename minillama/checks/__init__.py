"""Exercises that mark themselves.

`check("05-rmsnorm-1", mine)` says whether an answer is right. An answer is a
value (a number, a list, a tensor) or a function that the check calls. The
right answer is computed by the package from the numbers of the variant, so
that a class of 80 does not share one answer; `given(id, variant)` hands out
those numbers. An id is permanent: once published it keeps its meaning.

Each chapter has one file, `minillama/checks/cNN_name.py`, for example
`c05_rmsnorm.py`:

    import torch

    from minillama.checks import answer, compare, exercise
    from minillama.norm import RMSNorm


    def _numbers(draw: torch.Generator) -> dict:
        return {"x": torch.randn(6, generator=draw) + 1}


    @exercise("05-rmsnorm-1", given=_numbers)
    def rms_norm(mine, x):
        '''A function x -> y: RMSNorm with all weights 1.'''
        return compare(
            answer(mine, x),
            RMSNorm(6)(x),
            (x / x.norm(), "divide by the root of the mean, not of the sum"),
            ((x - x.mean()) / x.std(), "you subtracted the mean: LayerNorm"),
        )

The decorated function returns None for a right answer and otherwise one
sentence that names the mistake; the pairs after the right answer are wrong
ones that learners give, each with its sentence. If one exercise needs no
numbers, leave `given` out.

`tests/wrong_answers/c05_rmsnorm.py` holds, for every id of the chapter, the
right answer and at least three wrong ones. `given` there is the dictionary of
the variant's numbers; an answer that is a function is wrapped once more, so
that both kinds look the same:

    RIGHT = {"05-rmsnorm-1": lambda given: my_rms_norm}
    WRONG = {"05-rmsnorm-1": [
        (lambda given: (lambda x: x / x.norm()), "root of the mean"),
        ...
    ]}

The second member of each pair is a regular expression that the message has to
match. `tests/test_checks.py` runs all of it for several variants.
"""

from __future__ import annotations

import importlib
import pkgutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


class WrongAnswer(Exception):
    """The answer to an exercise is not right yet; the message says why."""

    def _render_traceback_(self) -> list[str]:
        """In a notebook show the sentence alone, not the engine's stack."""
        return [f"Not yet. {self}"]


@dataclass(frozen=True)
class Exercise:
    """One exercise: what it gives and how it judges."""

    id: str
    """Permanent: chapter, topic, number, as in `05-rmsnorm-1`."""
    judge: Callable[..., str | None]
    """(mine, **given) -> None, or the sentence that names the mistake."""
    given: Callable[[torch.Generator], dict[str, Any]] | None
    """Draws the numbers of a variant; None: the exercise has none."""

    def numbers(self, variant: int) -> dict[str, Any]:
        """The numbers of one variant, the same on every machine."""
        if self.given is None:
            return {}
        seed = zlib.crc32(f"{self.id}/{variant}".encode())
        return self.given(torch.Generator().manual_seed(seed))


EXERCISES: dict[str, Exercise] = {}


def exercise(
    id: str,
    *,
    given: Callable[[torch.Generator], dict[str, Any]] | None = None,
) -> Callable[[Callable[..., str | None]], Callable[..., str | None]]:
    """Register the decorated function as the judge of the exercise `id`."""

    def register(judge: Callable[..., str | None]) -> Callable[..., Any]:
        assert id not in EXERCISES, f"two exercises are called {id}"
        EXERCISES[id] = Exercise(id, judge, given)
        return judge

    return register


def ids() -> list[str]:
    """The ids of all exercises, in the order of the chapters."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return sorted(EXERCISES)


def _find(id: str) -> Exercise:
    """The exercise of this id; only its own chapter's file is imported."""
    for module in pkgutil.iter_modules(__path__):
        if module.name.startswith(f"c{id[:2]}_"):
            importlib.import_module(f"{__name__}.{module.name}")
    if id not in EXERCISES:
        near = [name for name in ids() if name[:2] == id[:2]] or ids()
        raise ValueError(f"id={id!r} is no exercise; try one of {near}")
    return EXERCISES[id]


def given(id: str, variant: int = 0) -> dict[str, Any]:
    """The numbers of an exercise, by name.

    Args:
        id: such as `05-rmsnorm-1`.
        variant: a whole number; a teacher gives each student another one.

    Raises:
        ValueError: if there is no such exercise.
    """
    return _find(id).numbers(variant)


def check(id: str, mine: Any, variant: int = 0) -> None:
    """Print one line if the answer is right, raise otherwise.

    Args:
        id: such as `05-rmsnorm-1`.
        mine: the reader's value or function.
        variant: which numbers to use.

    Raises:
        WrongAnswer: with a sentence that names the mistake.
        ValueError: if there is no such exercise.
    """
    found = _find(id)
    if mine is None or mine is ...:
        raise WrongAnswer(f"{id}: there is no answer yet.")
    try:
        mistake = found.judge(mine, **found.numbers(variant))
    except WrongAnswer as wrong:
        raise WrongAnswer(f"{id}: {wrong}") from None
    except Exception as error:
        # The reader's own stack trace is the best help here: keep it.
        error.add_note(f"This happened while {id} was checking your answer.")
        raise
    if mistake is not None:
        raise WrongAnswer(f"{id}: {mistake}")
    print(f"{id}: right.")


def answer(mine: Any, *args: Any, **kwargs: Any) -> Any:
    """What the reader's function returns for these arguments.

    Tensors are cloned first, so that a function which writes into its
    arguments cannot change what the check compares with.

    Raises:
        WrongAnswer: if `mine` is no function, or returns nothing.
    """
    if not callable(mine):
        raise WrongAnswer(
            f"a function is wanted here, and yours is a "
            f"{type(mine).__name__}; hand over its name without ().")
    fresh = [_fresh(value) for value in args]
    got = mine(*fresh, **{k: _fresh(v) for k, v in kwargs.items()})
    if got is None or got is ...:
        raise WrongAnswer(
            "your function returned nothing; does it end in `return`?")
    return got


def _fresh(value: Any) -> Any:
    """A copy of a tensor; anything else as it is."""
    return value.clone() if isinstance(value, torch.Tensor) else value


def compare(
    got: Any,
    want: Any,
    *mistakes: tuple[Any, str],
    tolerance: float = 1e-4,
) -> str | None:
    """None if `got` is `want`, else a sentence that names the mistake.

    Args:
        got: the reader's number, text, list or tensor.
        want: the right one.
        *mistakes: wrong values that learners give, each with its sentence.
        tolerance: relative and absolute, for numbers that are not whole.
    """
    difference = _difference(got, want, tolerance)
    if difference is None:
        return None
    for wrong, sentence in mistakes:
        # A slip that gives the right value for these numbers is no slip.
        if (_difference(got, wrong, tolerance) is None
                and _difference(wrong, want, tolerance) is not None):
            return sentence
    return difference


def _difference(got: Any, want: Any, tolerance: float) -> str | None:
    """None if equal, else in which way the two differ (never the answer)."""
    if isinstance(want, str | bytes | bool | set | dict):
        same = type(got) is type(want) and got == want
        return None if same else f"{got!r} is not it."
    try:
        mine, right = _numbers(got), _numbers(want)
    except (TypeError, ValueError, RuntimeError):
        return f"numbers are wanted here, and yours is {got!r}."
    if mine.shape != right.shape:
        return (f"the shape should be {tuple(right.shape)}, and yours is "
                f"{tuple(mine.shape)}.")
    if torch.allclose(mine, right, tolerance, tolerance, equal_nan=True):
        return None
    if not mine.isfinite().all() and right.isfinite().all():
        return "some of your numbers are infinite or not a number (nan)."
    if mine.dim() == 0:
        side = "large" if mine > right else "small"
        return f"{mine.item():.6g} is too {side}."
    wrong = ~torch.isclose(mine, right, tolerance, tolerance, equal_nan=True)
    first = tuple(wrong.nonzero()[0].tolist())
    return (f"{int(wrong.sum())} of {wrong.numel()} numbers are off, the "
            f"first at index {first}, where yours is "
            f"{mine[first].item():.6g}.")


def _numbers(value: Any) -> torch.Tensor:
    """Numbers, nested lists of them, or a tensor, as float64 on the CPU."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", torch.float64)
    return torch.as_tensor(value, dtype=torch.float64)
