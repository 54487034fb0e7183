"""The files of this repository: those git tracks, and new ones not ignored."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tools.shell import ROOT, Failed


def files() -> list[Path]:
    """Paths relative to the root, of files that exist.

    Raises:
        Failed: if this folder is not a git checkout.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others",
         "--exclude-standard"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        raise Failed("git cannot list the files of this folder; work in a "
                     "clone of the repository, not in a downloaded archive")
    names = listed.stdout.decode("utf-8").split("\0")
    return [Path(name) for name in sorted(set(names))
            if name and (ROOT / name).is_file()]


def copy_tree(target: Path) -> Path:
    """Copy all of `files()` into the folder `target`, and return it."""
    for path in files():
        place = target / path
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, place)
    return target
