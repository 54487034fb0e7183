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
