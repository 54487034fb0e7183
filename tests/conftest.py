"""What every test shares: shape checks, one thread, the reader's own model.

Importing this file turns on run-time checks of every shape annotation in the
package (jaxtyping and beartype), so it has to happen before `minillama` is
imported anywhere. Worker processes that a test starts are not covered.

Markers:
    oracle: compares the package with an independent implementation. Tests
        that should also judge a reader's own code take the `subject` fixture.
    slow: longer than about ten seconds.
    html: looks at the built book; `python run.py test` runs these last.

The reader's own code, `python run.py test --mine my_llama.py`, runs only the
oracle tests that ask for `subject`:

    @pytest.mark.oracle
    def test_lengths_are_kept(subject):
        apply = subject("rope")  # the package's, or the reader's `rope`
        ...
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import jaxtyping
import pytest
import torch

jaxtyping.install_import_hook("minillama", "beartype.beartype")

# The same examples in every course's run; to look for new ones,
# HYPOTHESIS_PROFILE=search.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.register_profile("search", deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

# Two spinning OpenMP threads make tiny matrices forty times slower.
torch.set_num_threads(1)

SUBJECTS = {
    "RMSNorm": ("minillama.norm", "RMSNorm"),
    "SwiGLU": ("minillama.swiglu", "SwiGLU"),
    "rope": ("minillama.rope", "apply"),
    "attend": ("minillama.attention", "attend"),
    "Transformer": ("minillama.model", "Transformer"),
}


@pytest.fixture
def no_shape_checks():
    """None, for stand-ins, and for torch.compile, which cannot trace them."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
    torch.compiler.reset()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--mine FILE`."""
    parser.addoption(
        "--mine", metavar="FILE", default=None,
        help="judge the RMSNorm, SwiGLU, rope, attend or Transformer in FILE")


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """With --mine, keep the oracle tests that ask for a subject."""
    if config.getoption("--mine") is None:
        return
    keep = [item for item in items
            if item.get_closest_marker("oracle")
            and "subject" in getattr(item, "fixturenames", ())]
    dropped = [item for item in items if item not in keep]
    config.hook.pytest_deselected(items=dropped)
    items[:] = keep


@pytest.fixture(scope="session")
def mine(request: pytest.FixtureRequest) -> Any | None:
    """The module in the reader's file, or None when --mine is not given."""
    name = request.config.getoption("--mine")
    if name is None:
        return None
    path = Path(name).resolve()
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        pytest.exit(f"--mine {name}: there is no such Python file", 2)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def subject(mine: Any | None) -> Callable[[str], Any]:
    """Look up what is under test: the package's own, or the reader's.

    Names: `RMSNorm(dim, eps)`, `SwiGLU(dim, hidden_dim)`, `rope(x, angles)`,
    `attend(q, k, v, *, causal=True)`, `Transformer(config)`. A name that the
    reader's file does not define is skipped.
    """

    def look_up(name: str) -> Any:
        module, attribute = SUBJECTS[name]
        if mine is None:
            return getattr(importlib.import_module(module), attribute)
        if not hasattr(mine, name):
            pytest.skip(f"{Path(mine.__file__).name} defines no {name}")
        return getattr(mine, name)

    return look_up
