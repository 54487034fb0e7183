"""Real files that tests use where a copy is at hand, and never require."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def real_tokenizer() -> Path:
    """The released 32,000 pieces, or the running test is skipped.

    Looked for in MINILLAMA_REAL_TOKENIZER, then in a folder
    `data/models/llama_tokenizer` beside the repository.
    """
    beside = Path(__file__).resolve().parents[2].glob(
        "*/data/models/llama_tokenizer/tokenizer.model")
    path = os.environ.get("MINILLAMA_REAL_TOKENIZER") or next(beside, None)
    if path is None:
        pytest.skip("the real 32k model is not on this machine")
    return Path(path)


def real_data(relative: str) -> Path:
    """A file or folder of real samples, or the running test is skipped.

    Looked for in the folder MINILLAMA_REAL_DATA, then in a folder `data`
    beside the repository.

    Args:
        relative: its path below that folder, such as `evaluation/boolq`.
    """
    beside = Path(__file__).resolve().parents[2].glob(f"*/data/{relative}")
    named = os.environ.get("MINILLAMA_REAL_DATA")
    path = Path(named) / relative if named else next(beside, None)
    if path is None or not path.exists():
        pytest.skip(f"the real {relative} is not on this machine")
    return path
