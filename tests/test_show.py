"""`show` prints what is installed; checked against `inspect` and `ast`.

Whatever is done to docstrings, the printed code has to be the same program:
both sides are parsed, docstrings are removed from both trees, and the trees
are compared, for every public object of the small modules.
"""

from __future__ import annotations

import ast
import inspect
import textwrap

import pytest

from minillama import attention, model, norm, rope, swiglu
from minillama.show import setup_cell, show

OBJECTS = [
    item
    for module in (norm, swiglu, rope, attention, model)
    for item in vars(module).values()
    if getattr(item, "__module__", "") == module.__name__
    and (inspect.isclass(item) or inspect.isfunction(item))
] + [norm, swiglu]


def without_docstrings(text: str) -> str:
    """The program, as a tree, with neither docstrings nor placeholders."""
    tree = ast.parse(textwrap.dedent(text))
    for node in ast.walk(tree):
        if isinstance(getattr(node, "body", None), list):
            node.body = [part for part in node.body if not (
                isinstance(part, ast.Expr)
                and isinstance(part.value, ast.Constant))]
    return ast.dump(tree)


@pytest.mark.parametrize("docs", ["first", "all", "none"])
@pytest.mark.parametrize("item", OBJECTS, ids=lambda item: item.__name__)
def test_the_code_stays_the_same_program(item, docs, capsys):
    show(item, docs=docs)
    printed = capsys.readouterr().out
    original = inspect.getsource(inspect.unwrap(item))
    assert without_docstrings(printed) == without_docstrings(original)


def test_docstrings_are_cut_kept_or_dropped(capsys):
    show(norm.RMSNorm)
    first = capsys.readouterr().out
    assert first.startswith("class RMSNorm(nn.Module):\n")
    assert '"""Root mean square normalisation' in first
    assert "released code" not in first
    show(norm.RMSNorm, docs="all")
    assert "released code" in capsys.readouterr().out
    show(norm.RMSNorm, docs="none")
    assert '"""' not in capsys.readouterr().out


def test_methods_are_dedented_and_comments_stay(capsys):
    show(norm.RMSNorm.forward)
    assert capsys.readouterr().out.startswith("def forward(self")
    show(rope.frequencies)
    assert "# MPS has no float64" in capsys.readouterr().out


def only_documented():
    """Nothing but this sentence."""


def test_a_body_that_is_only_a_docstring_still_parses(capsys):
    show(only_documented, docs="none")
    assert capsys.readouterr().out == "def only_documented():\n    ...\n"


def test_two_objects_stand_one_blank_line_apart(capsys):
    show(rope.apply, rope.rotate)
    printed = capsys.readouterr().out
    assert printed.index("def apply") < printed.index("\n\ndef rotate")


def test_what_cannot_be_shown_is_refused():
    with pytest.raises(ValueError, match="has no Python source"):
        show(3)
    with pytest.raises(ValueError, match="docs='some'"):
        show(norm, docs="some")


@pytest.mark.parametrize("chapter, asked", [
    ("07_rope", "-q git+https://"),
    ("01_web_data", '-q "minillama[data] @ git+https://')])
def test_the_setup_cell_installs_only_what_is_missing(chapter, asked):
    # IPython's %pip is no Python: stand a marker in its place.
    lines = [line.replace("%pip install", "installed = '")
             + ("'" if "%pip" in line else "")
             for line in setup_cell(chapter).splitlines()]
    scope: dict = {}
    exec("\n".join(lines), scope)
    assert "minillama" in scope and "installed" not in scope
    scope = {"__builtins__": {"__import__": _refuse,
                              "ImportError": ImportError}}
    exec("\n".join(lines), scope)
    assert scope["installed"].strip().startswith(asked)


def _refuse(name, *rest):
    """An import that finds nothing, as on a fresh Colab machine."""
    raise ImportError(name)
