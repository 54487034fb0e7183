"""Files that survive a kill: written whole, flushed, and recognised again.

And packages that may be absent: `needs` says which one to install.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DATA = 'try `pip install "minillama[data]"`'


@contextlib.contextmanager
def needs(words: str) -> Iterator[None]:
    """For imports of what may not be installed: these words, if it is not."""
    try:
        yield
    except ImportError as error:
        raise ValueError(words) from error


def replace_bytes(path: Path, data: bytes) -> None:
    """Write a file in one step: a kill leaves the old one or the new."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_bytes(data)
    os.replace(partial, path)


def fingerprint(path: Path) -> dict[str, Any]:
    """Size and sha256 of a file."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def manifest(step: int, files: dict[str, Any]) -> str:
    """What was written, by name; sealed by a checksum of its own."""
    body = {"step": step, "files": files}
    seal = hashlib.sha256(json.dumps(body, sort_keys=True).encode())
    return json.dumps({**body, "sha256": seal.hexdigest()}, indent=1)


def read_manifest(path: Path) -> tuple[int, list[str]]:
    """The step in a manifest, and which files beside it are damaged."""
    text = path.read_text(encoding="utf-8")
    found = json.loads(text)
    step, files = found["step"], found["files"]
    damaged = [] if text == manifest(step, files) else [path.name]
    names = {found.name for found in path.parent.iterdir()} - {path.name}
    damaged += [name for name in sorted(names | set(files))
                if fingerprint(path.with_name(name)) != files.get(name)]
    return step, damaged


def flush(path: Path) -> None:
    """Ask the operating system to put a file or folder on the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open folders, and orders renames itself.
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
