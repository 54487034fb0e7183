"""What scripts that train with several seeds have in common."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minillama.files import replace_bytes


def parser(doc: str, out: Path, seeds: int) -> argparse.ArgumentParser:
    """What a script that trains with several seeds asks for."""
    asked = argparse.ArgumentParser(description=doc.splitlines()[0])
    asked.add_argument("--out", type=Path, default=out)
    asked.add_argument("--seeds", type=int, default=seeds)
    return asked


def save_by_line(
    out: Path, results: dict[str, Any], names: Sequence[str]
) -> None:
    """Write JSON whole or not at all; each entry under `names` on a line."""
    text = json.dumps({k: v for k, v in results.items() if k not in names},
                      indent=1)[:-2]
    for name in names:
        left, right = "{}" if isinstance(results[name], dict) else "[]"
        lines = ",\n".join("  " + (
            f"{json.dumps(entry)}: {json.dumps(results[name][entry])}"
            if left == "{" else json.dumps(entry)) for entry in results[name])
        text += f',\n "{name}": {left}\n{lines}\n {right}'
    replace_bytes(out, (text + "\n}\n").encode())
