"""Exercises of notebooks/06_swiglu.ipynb."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from minillama.checks import answer, compare, exercise
from minillama.swiglu import ffn_hidden_dim


def _pick(draw: torch.Generator, *values: int) -> int:
    """One of the values, drawn."""
    return values[int(torch.randint(len(values), (), generator=draw))]


def _shape(draw: torch.Generator) -> dict:
    return {"dim": _pick(draw, 1280, 2048, 2560, 3584, 5632, 6400, 7168),
            "multiple_of": _pick(draw, 64, 128, 256)}


@exercise("06-swiglu-1", given=_shape)
def width(mine: object, dim: int, multiple_of: int) -> str | None:
    """A whole number: the width that the release's rule gives."""
    right = ffn_hidden_dim(dim, multiple_of)
    return compare(
        mine,
        right,
        (8 * dim // 3, "right before the rounding; now go up to the next "
                       "multiple"),
        (right - multiple_of, "you rounded down; the rule rounds up"),
        (-(-4 * dim // multiple_of) * multiple_of,
         "that is the width without the 2/3, for two matrices"),
        (-(-2 * dim // 3 // multiple_of) * multiple_of,
         "take 2/3 of 4 * dim, not of dim"),
        tolerance=1e-9,
    )


def _layer(draw: torch.Generator) -> dict:
    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    return {"x": randn(4), "w_gate": randn(6, 4), "w_up": randn(6, 4),
            "w_down": randn(4, 6)}


@exercise("06-swiglu-2", given=_layer)
def layer(mine: object, x: Tensor, w_gate: Tensor, w_up: Tensor,
          w_down: Tensor) -> str | None:
    """A function (x, w_gate, w_up, w_down) -> y."""
    gate, up = w_gate @ x, w_up @ x
    return compare(
        answer(mine, x, w_gate, w_up, w_down),
        w_down @ (F.silu(gate) * up),
        (w_down @ (gate * F.silu(up)), "silu belongs to the gate, not to up"),
        (w_down @ F.silu(gate * up), "silu comes before the product, on the "
                                     "gate alone"),
        (w_down @ (gate.sigmoid() * up), "that is GLU, with the sigmoid; "
                                         "silu(z) is z * sigmoid(z)"),
        (w_down @ (gate.relu() * up), "that is ReGLU; the gate here is silu"),
        (w_down @ F.silu(gate), "the signal w_up is missing"),
        (w_down @ (gate * up), "that is a product without silu (bilinear)"),
        (F.silu(gate) * up, "the way back, w_down, is missing"),
    )


def _sizes(draw: torch.Generator) -> dict:
    return {"dim": _pick(draw, 1024, 2048, 4096, 8192),
            "hidden": _pick(draw, 5632, 11008, 14336, 28672)}


@exercise("06-swiglu-3", given=_sizes)
def share(mine: object, dim: int, hidden: int) -> str | None:
    """A number: the feed-forward share of a layer's matrices."""
    attention, ffn = 4 * dim**2, 3 * dim * hidden
    return compare(
        mine,
        ffn / (attention + ffn),
        (2 * dim * hidden / (attention + 2 * dim * hidden),
         "SwiGLU has three matrices, not two"),
        (ffn / attention, "divide by the whole layer, not by attention "
                          "alone"),
        (attention / (attention + ffn), "that is the share of attention"),
        (ffn / (dim**2 + ffn), "attention has four matrices: wq, wk, wv, wo"),
        (ffn / (3 * dim**2 + ffn), "attention has four matrices, wo "
                                   "included"),
        (100 * ffn / (attention + ffn), "a share between 0 and 1 is wanted, "
                                        "not per cent"),
        tolerance=1e-3,
    )


def _gradients(draw: torch.Generator) -> dict:
    gate, up, back = torch.randn(
        3, 5, generator=draw, dtype=torch.float64)
    return {"gate": gate, "up": up, "back": back}


@exercise("06-swiglu-4", given=_gradients)
def backward(mine: object, gate: Tensor, up: Tensor, back: Tensor
             ) -> str | None:
    """A function (gate, up, back) -> both gradients of h, stacked."""
    g, u = gate.clone().requires_grad_(), up.clone().requires_grad_()
    (F.silu(g) * u).backward(back)
    soft = gate.sigmoid()
    d_up = back * F.silu(gate)

    got = answer(mine, gate, up, back)
    if isinstance(got, tuple | list) and all(
            isinstance(part, Tensor) for part in got):
        got = torch.stack(list(got))
    return compare(
        got,
        torch.stack((g.grad, u.grad)),
        (torch.stack((u.grad, g.grad)), "the two are swapped: the gate's "
                                        "gradient comes first"),
        (torch.stack((back * up * soft, d_up)),
         "silu is a product: its derivative has a second term, with that of "
         "the sigmoid"),
        (torch.stack((back * up * soft * (1 - soft), d_up)),
         "that is the derivative of the sigmoid; silu is z * sigmoid(z)"),
        (torch.stack((back * soft * (1 + gate * (1 - soft)), d_up)),
         "the gate's gradient is multiplied by up"),
        (torch.stack((back * up * soft * (1 + gate * (1 - soft)),
                      back * gate)),
         "up's gradient is multiplied by silu(gate), not by the gate"),
    )


@exercise("06-swiglu-5")
def product(mine: object) -> str | None:
    """Three matrices (w_gate, w_up, w_down) that multiply two numbers."""
    if callable(mine):
        mine = answer(mine)
    try:
        gate, up, down = (torch.as_tensor(w, dtype=torch.float64)
                          for w in mine)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return "three matrices are wanted: w_gate, w_up, w_down."
    shapes = [tuple(w.shape) for w in (gate, up, down)]
    if shapes != [(2, 2), (2, 2), (1, 2)]:
        return ("the shapes should be (2, 2), (2, 2) and (1, 2), and yours "
                f"are {shapes}.")
    draw = torch.Generator().manual_seed(65)
    x = 3 * torch.randn(200, 2, generator=draw, dtype=torch.float64)
    got = ((F.silu(x @ gate.T) * (x @ up.T)) @ down.T)[:, 0]
    first, second = x.unbind(1)
    return compare(
        got,
        first * second,
        (F.silu(first) * second, "one unit alone is right only for a large "
                                 "first number: a negative one shuts its "
                                 "gate. Let the second unit open then"),
        (F.silu(second) * first, "one unit alone is right only for a large "
                                 "second number: a negative one shuts its "
                                 "gate. Let the second unit open then"),
        (-first * second, "the sign is turned round"),
        (2 * F.silu(first) * second, "both units do the same; the second "
                                     "gate has to open where the first is "
                                     "shut"),
        (first.abs() * second * (2 * first.abs().sigmoid() - 1),
         "the second unit opens at the right time, but it has to turn the "
         "sign of its signal too"),
    )
