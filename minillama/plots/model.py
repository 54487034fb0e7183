"""Pictures of the whole model: ladder, block, where the numbers sit.

Chapter: notebooks/09_model.ipynb
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from minillama.config import ModelConfig
from minillama.plots import COLOURS, figure, show, slider
from minillama.swiglu import ffn_hidden_dim

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from minillama.model import Transformer
    from minillama.tokenizer import Tokenizer


def ladder(bits: dict[str, float]) -> None:
    """Bits per byte of several models on one text, one bar a model.

    Args:
        bits: name to bits per byte, in the order in which they are drawn.
    """
    picture, axes = figure(height=2.9)
    names = list(bits)
    axes.barh(names, list(bits.values()), color=COLOURS[0], height=0.6)
    axes.invert_yaxis()
    for row, value in enumerate(bits.values()):
        axes.text(value + 0.05, row, f"{value:.2f}", va="center")
    axes.set_xlim(0, max(bits.values()) * 1.15)
    axes.set_xlabel("bits per byte of the held-out play")
    axes.set_ylabel("model")
    axes.grid(False, axis="y")
    show(picture, alt="One bar for each model, its bits per byte on the "
         "held-out play: " + ", ".join(
             f"{name} {value:.2f}" for name, value in bits.items()) + ".")


def block() -> None:
    """The data flow of one block: a road, and two lay-bys that add to it."""
    picture, axes = figure(height=4.6)
    axes.set(xlim=(0, 10), ylim=(0, 12))
    axes.axis("off")
    _road(axes)
    for y, inner, label in (
            (2.2, "attention", "looks at earlier positions"),
            (6.8, "SwiGLU", "each position alone")):
        _lay_by(axes, y, inner, label)
    axes.text(1.9, 0.1, "x from the block below (T x D)", va="center")
    axes.text(1.9, 11.7, "y to the block above (T x D)", va="center")
    show(picture, alt="The residual stream runs straight up. Attention reads "
         "a normalised copy and adds its result; above it SwiGLU does the "
         "same. Nothing ever replaces the stream.")


def _road(axes: Axes) -> None:
    """The residual stream: one straight arrow."""
    axes.annotate("", xy=(1.3, 11.9), xytext=(1.3, 0), arrowprops=dict(
        arrowstyle="-|>", lw=5, color=COLOURS[0]))
    axes.text(0.55, 6.0, "residual stream", rotation=90, va="center",
              ha="center", color=COLOURS[0])


def _lay_by(axes: Axes, y: float, inner: str, label: str) -> None:
    """One branch: out to the norm, through the layer, back by addition."""
    for x, text, colour in ((4.2, "RMSNorm", "0.35"),
                            (7.6, inner, COLOURS[1])):
        axes.text(x, y, text, ha="center", va="center", color="white",
                  bbox=dict(boxstyle="round,pad=0.5", fc=colour, ec="none"))
    arrow = dict(arrowstyle="-|>", lw=1.5, color="0.3")
    axes.annotate("", xy=(3.0, y), xytext=(1.4, y), arrowprops=arrow)
    axes.annotate("", xy=(6.3, y), xytext=(5.4, y), arrowprops=arrow)
    axes.annotate("", xy=(1.7, y + 2.4), xytext=(7.6, y + 0.55),
                  arrowprops=dict(connectionstyle="angle,angleA=90,angleB=0",
                                  **arrow))
    axes.text(1.3, y + 2.4, "+", ha="center", va="center", fontsize=14,
              bbox=dict(boxstyle="circle,pad=0.15", fc="white", ec="0.3"))
    axes.text(4.6, y + 1.25, label, ha="center", va="center", fontsize=10,
              style="italic")


def parts(config: ModelConfig) -> dict[str, int]:
    """Parameters of one shape by role.

    Returns:
        `embeddings` (input and output), `attention`, `feed-forward`, `norms`.
    """
    c = config
    hidden = c.ffn_dim or ffn_hidden_dim(c.dim, c.multiple_of)
    tables = 1 if c.tie_embeddings else 2
    return {
        "embeddings": tables * c.vocab_size * c.dim,
        "attention": c.n_layers * 2 * c.dim * (
            c.dim + c.kv_heads * c.head_dim),
        "feed-forward": c.n_layers * 3 * c.dim * hidden,
        "norms": (2 * c.n_layers + 1) * c.dim,
    }


def shares(presets: Sequence[str]) -> None:
    """Area plot: which part of all parameters sits where, by preset."""
    counts = [parts(ModelConfig.preset(name)) for name in presets]
    picture, axes = figure(height=3.8)
    places = range(len(presets))
    rows = {role: [100 * c[role] / sum(c.values()) for c in counts]
            for role in counts[0]}
    areas = axes.stackplot(
        places, list(rows.values()), labels=list(rows),
        colors=[COLOURS[4], COLOURS[0], COLOURS[1], "black"])
    areas[-1].set_linewidth(1)
    axes.set_xticks(list(places), presets)
    axes.set(xlim=(0, len(presets) - 1), ylim=(0, 100), xlabel="preset",
             ylabel="share of all numbers (%)")
    axes.legend(loc="upper center", bbox_to_anchor=(0.45, 1.27), ncols=2)
    last = {role: row[-1] for role, row in rows.items()}
    show(picture, alt="Stacked areas over the presets. The embeddings' share "
         "falls to next to nothing; at the largest the feed-forward layers "
         f"hold {last['feed-forward']:.0f} per cent, attention "
         f"{last['attention']:.0f} per cent, the norms cannot be seen.")


@torch.no_grad()
def lens(model: Transformer, tokenizer: Tokenizer, text: str,
         top: int = 6) -> None:
    """What the model would bet if it stopped after each block (a slider).

    The residual stream after block k, at the last position, goes straight
    to the final norm and the output matrix.

    Args:
        model: in eval mode, on the CPU.
        tokenizer: its tokenizer.
        text: the prompt.
        top: bars a frame.
    """
    ids = torch.tensor([tokenizer.encode(text, bos=True)])
    x = model.tok_embeddings(ids)
    tables = model.rope_tables(0, ids.shape[1], x)
    frames = []
    for k in range(len(model.layers) + 1):
        probs = model.output(model.norm(x))[0, -1].softmax(-1)
        picture, axes = figure(height=3.2)
        best = probs.topk(top)
        names = [repr(tokenizer.piece(i).replace("\u2581", " "))
                 for i in best.indices.tolist()]
        axes.barh(range(top), best.values.tolist(), color=COLOURS[0])
        axes.set_yticks(range(top), names)
        axes.invert_yaxis()
        axes.set(xlim=(0, 1), xlabel="probability", ylabel="next piece")
        axes.grid(False, axis="y")
        frames.append((f"after {k} of {len(model.layers)} blocks", picture))
        if k < len(model.layers):
            x = model.layers[k](x, tables)
    slider(frames, label="blocks passed",
           alt=f"The likeliest next pieces behind {text!r},")


@torch.no_grad()
def stream_growth(model: Transformer, ids: Sequence[int]) -> None:
    """Root mean square of the stream and of what each layer adds to it."""
    tokens = torch.tensor([list(ids)])
    x = model.tok_embeddings(tokens)
    tables = model.rope_tables(0, tokens.shape[1], x)
    size = [_rms(x)]
    added: dict[str, list[float]] = {"attention": [], "feed-forward": []}
    for layer in model.layers:
        out = layer.attention(layer.attention_norm(x), tables)
        x = x + out
        added["attention"].append(_rms(out))
        out = layer.feed_forward(layer.ffn_norm(x))
        x = x + out
        added["feed-forward"].append(_rms(out))
        size.append(_rms(x))
    picture, axes = figure(height=3.2)
    axes.plot(range(len(size)), size, "o-", label="the stream")
    for shift, (name, sizes) in zip((-0.7, -0.3), added.items()):
        axes.bar([i + 1 + shift for i in range(len(sizes))], sizes,
                 width=0.35, label=f"added by {name}",
                 color=COLOURS[1 if shift < -0.5 else 2])
    axes.set_xticks(range(len(size)))
    axes.set(xlabel="blocks passed", ylabel="root mean square")
    axes.legend()
    show(picture, alt="The size of the residual stream rises block by block; "
         "beside it, bars for what attention and the feed-forward layer of "
         "each block add.")


def _rms(x: torch.Tensor) -> float:
    return x.square().mean().sqrt().item()
