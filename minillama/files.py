"""Files that survive a kill: written whole, flushed, and recognised again."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any


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


def flush(path: Path) -> None:
    """Ask the operating system to put a file or folder on the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open folders, and orders renames itself.
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
