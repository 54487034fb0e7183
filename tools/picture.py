"""Draw the README's picture: the shipped model's loss, and what it writes.

`python -m tools.picture` writes book/images/first_run.svg from the
`metrics.jsonl` beside the shipped checkpoint and a sample drawn from it. An
SVG is text: it stays small, and a change in it can be read.
"""

from __future__ import annotations

import html
import json
from pathlib import Path

from tools.shell import ROOT

PICTURE = ROOT / "book" / "images" / "first_run.svg"
METRICS = ROOT / "minillama" / "samples" / "mini" / "metrics.jsonl"
LEFT, TOP, WIDTH, HEIGHT = 52, 20, 300, 210
LOWEST, HIGHEST = 1.5, 7.0
COLUMNS, LINES = 44, 12


def losses(text: str) -> list[tuple[int, float]]:
    """(step, loss) from metrics.jsonl, averaged over twenty steps."""
    rows = [json.loads(line) for line in text.splitlines() if line]
    rows = [row for row in rows if row.get("loss") is not None]
    groups = [rows[i:i + 20] for i in range(0, len(rows), 20)]
    # The first step alone is what a model says that has learnt nothing.
    points = [(rows[0]["step"], rows[0]["loss"])]
    points += [(group[-1]["step"],
                sum(row["loss"] for row in group) / len(group))
               for group in groups]
    return points


def polyline(points: list[tuple[int, float]]) -> str:
    """The curve in the picture's coordinates."""
    last = points[-1][0]
    return " ".join(
        f"{LEFT + WIDTH * step / last:.1f},{_height(loss):.1f}"
        for step, loss in points)


def _height(loss: float) -> float:
    """Where a loss stands, from the top."""
    return TOP + HEIGHT * (HIGHEST - loss) / (HIGHEST - LOWEST)


def wrapped(sample: str) -> list[str]:
    """The first lines of a sample, cut where the box ends."""
    lines = []
    for line in sample.strip().splitlines():
        while len(line) > COLUMNS:
            cut = line.rfind(" ", 0, COLUMNS)
            cut = COLUMNS if cut < 1 else cut
            lines.append(line[:cut])
            line = line[cut:].lstrip()
        lines.append(line)
    return lines[:LINES]


def draw(points: list[tuple[int, float]], sample: str) -> str:
    """The whole picture, dark ink on white so that it shows everywhere."""
    ticks = "".join(
        f'<line x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{_height(loss):.1f}" '
        f'y2="{_height(loss):.1f}" stroke="#ddd"/>'
        f'<text x="{LEFT - 8}" y="{_height(loss) + 4:.1f}" '
        f'text-anchor="end">{loss}</text>\n' for loss in range(2, 8))
    last = points[-1][0]
    steps = "".join(
        f'<text x="{LEFT + WIDTH * part / 4:.0f}" y="{TOP + HEIGHT + 18}" '
        f'text-anchor="middle">{last * part // 4}</text>\n'
        for part in range(5))
    text = "".join(
        f'<text x="395" y="{38 + 17 * number}" xml:space="preserve" '
        f'font-family="monospace">{html.escape(line)}</text>\n'
        for number, line in enumerate(wrapped(sample)))
    middle = TOP + HEIGHT / 2
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 280" font-size="13"
 font-family="sans-serif" fill="#222">
<rect width="760" height="280" fill="#fff"/>
{ticks}{steps}<polyline fill="none" stroke="#0072b2" stroke-width="2"
 points="{polyline(points)}"/>
<text x="{LEFT + WIDTH / 2:.0f}" y="{TOP + HEIGHT + 38}"
 text-anchor="middle">optimiser step</text>
<text x="16" y="{middle:.0f}" text-anchor="middle"
 transform="rotate(-90 16 {middle:.0f})">loss (nats per token)</text>
<rect x="380" y="{TOP}" width="365" height="{HEIGHT}" rx="6" fill="#f4f4f4"/>
{text}</svg>
"""


def main() -> None:
    """Draw a sample from the shipped model and write the picture."""
    import torch

    from minillama.generate import generate
    from minillama.samples import load_mini

    model, tokenizer = load_mini()
    sample, = generate(
        model, tokenizer, ["KING HENRY"], max_new_tokens=160,
        temperature=0.7, top_p=0.9,
        generator=torch.Generator().manual_seed(1))
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(
        draw(losses(METRICS.read_text(encoding="utf-8")), sample),
        encoding="utf-8", newline="\n")
    print(f"wrote {Path(PICTURE).relative_to(ROOT)}")


if __name__ == "__main__":
    main()
