"""The house keeps its promises: sizes, arrows, names, licences, no leftovers.

Checked against the rules themselves, written out here: which module may see
which, how long a file may be, what a name outside may rely on. Nothing is
executed but imports; sources are read with `ast` and `tokenize`.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools import environment, sizes, tree, wheel_room
from tools.shell import ROOT

PACKAGE = ROOT / "minillama"
FILES = tree.files()
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))

# Arrows point down, one floor or more, never within a floor.
FLOORS = [
    {"fields", "files"},
    {"config"},
    {"presets"},
    {"tiled", "kernels", "vocabulary", "text_stream"},
    {"attention", "swiglu", "rope", "norm", "tokenizer", "shards", "devices",
     "sharded"},
    {"model", "profiling"},
    {"checkpoint", "generate", "recompute", "optim", "batches", "metrics",
     "layout", "company"},
    {"weights", "samples", "fast"},
    {"runs", "chat"},
    {"parallel"},
    {"train"},
    {"finetune", "evals", "planner", "ablations", "engines", "cluster"},
    {"instructions"},
    {"cli"},
    {"__main__"},
]
FLOOR = {room: n for n, rooms in enumerate(FLOORS) for room in rooms}
SEE_ALL = {"checks", "show", "plots"}
# data/ writes the files that batches reads, whole or not at all (`files`), and
# knows no model.
DATA_SEES = {"config", "tokenizer", "data", "files"}
# `ModelConfig.preset(name)` looks a table up, inside a function: the one arrow
# that points up, because the table is written in the classes' own terms.
LOOKS_UP = {("config", "presets"), ("text_stream", "tokenizer")}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts
                 ).removesuffix(".__init__"): path
        for path in sorted(PACKAGE.rglob("*.py"))}


def room(module: str) -> str:
    """The part of a dotted name that stands in the table of floors."""
    return (module.split(".") + [""])[1]


def arrows(path: Path) -> list[tuple[str, bool]]:
    """Modules of the package that a file imports; whether at its top."""
    text = ast.parse(path.read_text(encoding="utf-8"))
    inside = {node for function in ast.walk(text)
              if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
              for node in ast.walk(function)}
    typing_only = {node for block in ast.walk(text)
                   if isinstance(block, ast.If)
                   and ast.unparse(block.test).endswith("TYPE_CHECKING")
                   for node in ast.walk(block)}
    found = []
    for node in ast.walk(text):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports out in full"
            names = ([f"minillama.{alias.name}" for alias in node.names]
                     if node.module == "minillama" else [node.module or ""])
        found += [(name, node not in inside and node not in typing_only)
                  for name in names if name.split(".")[0] == "minillama"]
    return found


def forbidden(module: str, target: str, at_top: bool) -> str | None:
    """Why an arrow may not be, or None."""
    here, there = room(module), room(target)
    if here in SEE_ALL or not here or not there or here == there:
        return None
    if (here, there) in LOOKS_UP and not at_top:
        return None
    if there in SEE_ALL:
        return f"nothing imports {there} at its top" if at_top else None
    if here == "data":
        return (None if there in DATA_SEES
                else "data sees config and tokenizer alone")
    if there == "data":
        return None if FLOOR[here] > FLOOR["model"] else "data is not below"
    return None if FLOOR[here] > FLOOR[there] else "arrows point down"


def test_sizes():
    assert sizes.problems() == []


@pytest.mark.parametrize("text, lines", [
    ('"""doc"""\n\nx = 1  # why\n# why\n', {3}),
    ('def f():\n    """doc\n\n    more"""\n    return (1,\n\n  2)\n',
     {1, 5, 7}),
    ('class C:\n    x: int = 1\n    """What x is."""\n', {1, 2}),
    ('s = """a\nb"""\n', {1, 2}),
])
def test_how_lines_of_code_are_counted(text, lines):
    assert sizes.code_lines(text) == lines


def test_every_room_has_a_floor():
    rooms = {room(module) for module in modules()} - {"", "data"} - SEE_ALL
    assert rooms <= set(FLOOR), "give the new room a floor in FLOORS"


def test_arrows_point_down():
    wrong = [f"{module} -> {target}: {reason}"
             for module, path in modules().items()
             for target, at_top in arrows(path)
             if (reason := forbidden(module, target, at_top))]
    assert wrong == []


def test_the_arrow_rule_itself():
    assert forbidden("minillama.model", "minillama.train", True)
    assert forbidden("minillama.norm", "minillama.rope", True)
    assert forbidden("minillama.train", "minillama.plots.x", True)
    assert not forbidden("minillama.train", "minillama.plots.x", False)
    assert forbidden("minillama.config", "minillama.presets", True)
    assert not forbidden("minillama.config", "minillama.presets", False)
    assert forbidden("minillama.data.corpus", "minillama.model", False)
    assert forbidden("minillama.model", "minillama.data", False)
    assert not forbidden("minillama.checks.c05_x", "minillama.cli", True)


IMPORT_ALL = """
import importlib
for name in {names!r}:
    importlib.import_module(name)
"""


def test_every_module_imports_with_the_base_dependencies_alone():
    """In a fresh process where nothing but these is found."""
    import importlib.metadata as metadata

    base = wheel_room.closure(
        ["minillama", *(Requirement(text).name
                        for text in PYPROJECT["project"]["dependencies"])])
    closed = sorted(
        package for package, owners in
        metadata.packages_distributions().items()
        if not any(canonicalize_name(owner) in base for owner in owners)
        and package not in ("_distutils_hack", "pkg_resources", "setuptools"))
    assert {"matplotlib", "IPython", "transformers", "pytest"} <= set(closed)
    door = wheel_room.DOOR.format(closed=closed, lender=str(ROOT))
    script = door + IMPORT_ALL.format(
        names=[name for name in modules() if "__main__" not in name])
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT,
                          capture_output=True, text=True, encoding="utf-8",
                          check=False)
    assert done.returncode == 0, done.stderr


def test_importing_the_settings_costs_no_torch():
    script = ("import sys, minillama, minillama.config\n"
              "assert 'torch' not in sys.modules")
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT,
                          check=False).returncode == 0


# What everything outside a module may rely on.
NAMES = {
    "config": ["ModelConfig.preset", "TrainConfig", "GenerateConfig"],
    "tokenizer": ["Tokenizer.train", "Tokenizer.encode", "Tokenizer.decode"],
    "norm": ["RMSNorm"],
    "swiglu": ["SwiGLU", "ffn_hidden_dim"],
    "rope": ["angles", "apply"],
    "attention": ["attend"],
    "model": ["Block", "Transformer"],
    "optim": ["AdamW", "cosine_lr", "clip_grad_norm"],
    "train": ["fit", "train_step", "evaluate_loss"],
    "generate": ["generate"],
    "checks": ["check"],
    "show": ["show"],
    "plots": ["style", "slider"],
    "samples": ["load_mini"],
    "weights": ["load", "save_meta", "save_hf", "save_gguf"],
    "cli": ["main"],
}


@pytest.mark.parametrize("module", NAMES)
def test_promised_names_exist(module):
    loaded = importlib.import_module(f"minillama.{module}")
    for name in NAMES[module]:
        found = loaded
        for part in name.split("."):
            found = getattr(found, part)
        assert inspect.getdoc(found), f"{module}.{name} has no docstring"


def test_signatures_that_scripts_rely_on():
    def parameters(path: str) -> list[str]:
        module, name = path.split(":")
        found = importlib.import_module(f"minillama.{module}")
        for part in name.split("."):
            found = getattr(found, part)
        return list(inspect.signature(found).parameters)

    assert parameters("rope:angles")[:4] == [
        "head_dim", "length", "theta", "scaling"]
    assert parameters("rope:apply") == ["x", "angles"]
    assert parameters("attention:attend")[:5] == [
        "q", "k", "v", "causal", "backend"]
    assert parameters("optim:cosine_lr") == [
        "step", "max_lr", "warmup_steps", "total_steps", "final_ratio"]
    assert parameters("model:Transformer.forward")[:4] == [
        "self", "tokens", "start_pos", "cache"]
    assert {"max_new_tokens", "temperature", "top_p", "generator"} <= set(
        parameters("generate:generate"))
    assert {"text", "bos", "eos"} <= set(parameters("tokenizer:Tokenizer."
                                                    "encode"))


def public_functions():
    """(module, name, node) of every public function of the package."""
    for module, path in modules().items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            parts = node.body if isinstance(node, ast.ClassDef) else [node]
            for part in parts:
                if (isinstance(part, ast.FunctionDef)
                        and not part.name.startswith("_")
                        and not getattr(node, "name", "").startswith("_")):
                    yield module, part.name, part


def test_public_functions_have_types_and_a_docstring():
    bare = []
    for module, name, node in public_functions():
        if room(module) == "checks" and module != "minillama.checks":
            continue  # judges take whatever the reader hands in
        arguments = [*node.args.posonlyargs, *node.args.args,
                     *node.args.kwonlyargs]
        typed = all(a.annotation or a.arg in ("self", "cls")
                    for a in arguments) and node.returns
        if not typed or not ast.get_docstring(node):
            bare.append(f"{module}.{name}")
    assert bare == []


def test_files_are_opened_with_an_encoding():
    """Text opened without one reads differently on Windows."""
    wrong = []
    for path in FILES:
        if path.suffix != ".py":
            continue
        for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8"))):
            if isinstance(node, ast.Call) and _opens_text(node):
                wrong.append(f"{path}:{node.lineno}")
    assert wrong == []


def _opens_text(node: ast.Call) -> bool:
    """Whether this call opens a text file and names no encoding."""
    name = (node.func.id if isinstance(node.func, ast.Name)
            else getattr(node.func, "attr", ""))
    words = {keyword.arg for keyword in node.keywords}
    values = [a.value for a in node.args if isinstance(a, ast.Constant)]
    if "encoding" in words or "utf-8" in values:
        return False
    if name == "open" and isinstance(node.func, ast.Name):
        return not any(isinstance(v, str) and "b" in v for v in values[-1:])
    if name == "read_text":
        return not node.args
    return name == "write_text" and len(node.args) < 2


def test_no_posix_only_module_is_imported_at_the_top():
    posix = {"fcntl", "pwd", "grp", "resource", "termios", "tty", "pty"}
    wrong = []
    for path in FILES:
        if path.suffix != ".py" or path.parts[0] == "tests":
            continue
        for node in ast.parse((ROOT / path).read_text("utf-8")).body:
            names = ([a.name for a in node.names]
                     if isinstance(node, ast.Import) else
                     [node.module] if isinstance(node, ast.ImportFrom)
                     else [])
            wrong += [f"{path}: {name}" for name in names if name in posix]
    assert wrong == []


def test_lines_are_at_most_79_columns():
    long = [f"{path}:{number}"
            for path in FILES if path.suffix == ".py"
            for number, line in enumerate(
                (ROOT / path).read_text("utf-8").splitlines(), 1)
            if len(line) > 79]
    assert long == []


# Written in two parts, so that this file does not find itself.
LEFTOVERS = re.compile("|".join([
    r"(?<![\w.])/" + "work/", r"(?<![\w.])/" + "root/", r"\.\./" + "shared",
    "/tmp/" + "bash", "python" + "hosted", r"pypi" + r"\.org",
    "registry" + r"\.npmjs", "deb" + r"\.debian", "conda" + r"\.anaconda",
    "download" + r"\.pytorch", "hugging" + r"face\.co/datasets",
]))
# A tick that ends a sentence of a to-do list, and text from a draft.
PICTURE = re.compile(r"[\w+/=]{100,}")
DRAFT = re.compile("|".join([r"\bX" + "XX", r"\bFIX" + "ME", "lorem " + "ip",
                             r"\bTO" + r"DO(?!.*https://)"]))


def texts():
    """(path, text) of every file that is text."""
    for path in FILES:
        data = (ROOT / path).read_bytes()
        if b"\0" not in data:
            yield path, data.decode("utf-8")


def test_no_path_of_a_machine_and_no_registry_is_named():
    found = [f"{path}: {hit.group(0)}" for path, text in texts()
             for hit in LEFTOVERS.finditer(text)]
    assert found == []


def test_no_draft_was_left():
    found = [f"{path}: {hit.group(0)}" for path, text in texts()
             if path.suffix in (".py", ".md", ".ipynb")
             # Letters of a stored picture spell anything, sooner or later.
             for hit in DRAFT.finditer(PICTURE.sub("", text))]
    assert found == []


def test_files_are_small_and_the_checkpoint_is_the_only_binary():
    for path in FILES:
        size = (ROOT / path).stat().st_size
        inside = path.parts[:3] == ("minillama", "samples", "mini")
        limit = 2_000_000 if inside else (
            300_000 if path.suffix == ".ipynb" else 150_000)
        assert size <= limit, f"{path} has {size} bytes"
    binaries = {path for path in FILES
                if b"\0" in (ROOT / path).read_bytes()}
    assert all(path.parts[:3] == ("minillama", "samples", "mini")
               or path.suffix == ".png" for path in binaries), binaries
    mini = ROOT / "minillama" / "samples" / "mini"
    assert sum((mini / name).stat().st_size for name in (
        "model.safetensors", "tokenizer.model", "config.json")) <= 2_000_000


def test_data_folders_of_the_package_are_not_ignored():
    kept = subprocess.run(
        ["git", "check-ignore", "-q", "minillama/data/corpus.py"], cwd=ROOT,
        check=False)
    assert kept.returncode == 1


def extras(names: str) -> set[str]:
    """Distributions that these extras name, one extra through another."""
    optional = PYPROJECT["project"]["optional-dependencies"]
    found = set()
    for text in (text for name in names.split(",") for text in optional[name]):
        need = Requirement(text)
        found |= (extras(",".join(need.extras)) if need.name == "minillama"
                  else {canonicalize_name(need.name)})
    return found


def base() -> set[str]:
    """Distributions that the package itself names."""
    return {canonicalize_name(Requirement(text).name)
            for text in PYPROJECT["project"]["dependencies"]}


def test_extras_are_the_promised_ones():
    optional = PYPROJECT["project"]["optional-dependencies"]
    assert set(optional) == {"book", "data", "eval", "hf", "xformers", "test"}
    assert all(Requirement(text).marker for text in optional["xformers"])


def test_torch_and_numpy_have_lower_bounds_only():
    for text in PYPROJECT["project"]["dependencies"]:
        need = Requirement(text)
        if need.name in ("torch", "numpy"):
            operators = {clause.operator for clause in need.specifier}
            assert operators == {">="}, text


def test_constraints_pin_every_direct_dependency_within_its_bounds():
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = {canonicalize_name(name): version for name, _, version in
            (line.partition("==") for line in lines
             if line and not line.startswith("#"))}
    assert base() | extras(environment.TESTING) <= set(pins)
    assert pins["torch"] == "2.13.0"
    project = PYPROJECT["project"]
    optional = project["optional-dependencies"]
    asked = [text for name in ("book", "data", "eval", "hf", "test")
             for text in optional[name] if not text.startswith("minillama[")]
    for text in [*project["dependencies"], *asked]:
        need = Requirement(text)
        pin = pins[canonicalize_name(need.name)]
        assert need.specifier.contains(pin), f"{text} against {pin}"


def test_conda_installs_the_same():
    """Names only: no conda channel was at hand to run it."""
    conda = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    *plain, pip = conda["dependencies"]
    names = [re.split(r"[<>=]", text)[0] for text in plain]
    assert names == ["python", "pip"]
    assert pip["pip"] == ["--constraint constraints.txt",
                          f"-e .[{environment.TESTING}]"]
    bounds = plain[0].removeprefix("python")
    assert bounds.split(",")[0] == PYPROJECT["project"]["requires-python"]


def test_packages_that_are_imported_are_declared():
    """Every third-party import of package, tests and tools is asked for."""
    owners = importlib.import_module("importlib.metadata"
                                     ).packages_distributions()
    declared = base() | extras("book,test,hf,xformers,data,eval")
    # These come with a declared one, which is named for each.
    with_others = {"pyyaml": "jupyter-book", "packaging": "pytest",
                   "nbformat": "nbval", "nbclient": "jupyter-book",
                   "ipython": "ipykernel", "pillow": "matplotlib",
                   "docutils": "jupyter-book", "sphinx": "jupyter-book",
                   "tokenizers": "transformers"}
    assert set(with_others.values()) <= declared
    missing = set()
    for path in FILES:
        if path.suffix != ".py":
            continue
        for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8"))):
            names = ([a.name for a in node.names]
                     if isinstance(node, ast.Import) else
                     [node.module or ""] if isinstance(node, ast.ImportFrom)
                     else [])
            for name in {n.split(".")[0] for n in names}:
                for owner in owners.get(name, [])[:1]:
                    owner = canonicalize_name(owner)
                    if owner not in declared | set(with_others) | {
                            "minillama"}:
                        missing.add(f"{path}: {name} ({owner})")
    assert missing == set()


def test_licence_files():
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert "Apache License" in text and "END OF TERMS" in text
    assert PYPROJECT["project"]["license"] == "Apache-2.0"
    assert "CC BY 4.0" in (ROOT / "LICENSE-book.md").read_text("utf-8")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert cited["version"] == PYPROJECT["project"]["version"]
    assert cited["license"] == PYPROJECT["project"]["license"]


def test_ci_runs_the_readmes_command():
    script = ROOT / ".ci" / "run"
    assert "run.py test" in script.read_text("utf-8")
    if os.name == "posix":
        assert os.access(script, os.X_OK)
        checked = subprocess.run(["bash", "-n", str(script)], check=False)
        assert checked.returncode == 0


# Small rooms that are tested where they are used.
TESTED_WITH = {"fields": "config", "runs": "train", "company": "parallel",
               "shards": "batches", "sharded": "parallel",
               "presets": "config", "text_stream": "tokenizer",
               "protocol": "evaluate", "hugging_face": "scorers",
               "originals": "tasks", "commonsense": "tasks",
               "reading": "tasks", "mmlu": "tasks", "plays": "tasks",
               "paper": "tasks", "walls": "sandbox", "truthful": "bias",
               "closed_book": "written", "math": "written",
               "code": "written", "toxicity": "written", "judges": "written",
               "training": "evaluate",
               "parts": "weights", "meta": "weights", "hf": "weights",
               "recipe": "build", "own": "build",
               "stores": "build", "results": "build",
               "gguf": "weights", "text": "weights", "ladder": "weights",
               "card": "convert",
               "gpus": "layouts", "engines": "parallel"}


def test_every_module_has_a_test_file_of_its_name():
    """Pictures share tests/test_plots.py, exercises tests/test_checks.py.

    The verbs of the command line are tested with what they call.
    """
    tests = {path.stem for path in FILES if path.parts[0] == "tests"}
    bare = [module for module, path in modules().items()
            if room(module) not in {"", "plots", "checks", "cli", "__main__"}
            and path.stem != "__init__"
            and f"test_{TESTED_WITH.get(path.stem, path.stem)}" not in tests]
    assert bare == []


def test_every_test_file_says_what_it_checks_and_has_a_mutant():
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        first = ast.get_docstring(ast.parse(path.read_text("utf-8")))
        assert first and len(first) > 80, f"{path.name}: say what, by what"
        patch = ROOT / "tests" / "mutants" / f"{path.stem}.patch"
        assert patch.is_file(), f"{path.name} has no mutant"


def test_run_py_needs_the_standard_library_alone():
    """And so do the tools that run before anything is installed."""
    early = ("run.py", "tools/shell.py", "tools/environment.py",
             "tools/toy.py")
    for name in early:
        tree_ = ast.parse((ROOT / name).read_text("utf-8"))
        for node in ast.walk(tree_):
            names = ([a.name for a in node.names]
                     if isinstance(node, ast.Import) else
                     [node.module or ""] if isinstance(node, ast.ImportFrom)
                     else [])
            for found in names:
                first = found.split(".")[0]
                assert first == "tools" or first in sys.stdlib_module_names
    lines = len(sizes.code_lines((ROOT / "run.py").read_text("utf-8")))
    assert lines < 300


def test_an_old_python_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(environment, "ready", lambda extras: False)
    monkeypatch.setattr(sys, "version_info", (3, 10, 2))
    with pytest.raises(environment.Failed, match="too old; use 3.11"):
        environment.make()


def test_the_stamp_follows_what_is_installed(monkeypatch, tmp_path):
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text((ROOT / name).read_text("utf-8"),
                                     encoding="utf-8")
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    before = environment.fingerprint("book")
    text = (tmp_path / "constraints.txt").read_bytes()
    (tmp_path / "constraints.txt").write_bytes(text.replace(b"\n", b"\r\n"))
    assert environment.fingerprint("book") == before, "line ends mean nothing"
    (tmp_path / "constraints.txt").write_bytes(text + b"extra==1\n")
    assert environment.fingerprint("book") != before


def test_what_tests_need_holds_what_readers_need(monkeypatch, tmp_path):
    assert extras(environment.READING) <= extras(environment.TESTING)
    monkeypatch.setattr(environment, "STAMP", tmp_path / "stamp")
    monkeypatch.setattr(environment, "already_inside", lambda: False)
    for installed, enough in [(environment.READING, False),
                              (environment.TESTING, True)]:
        environment.STAMP.write_text(environment.fingerprint(installed),
                                     encoding="utf-8")
        assert environment.ready(environment.READING)
        assert environment.ready(environment.TESTING) is enough


def test_the_wheel_asks_for_what_it_needs_and_the_room_lends_no_more():
    lent = wheel_room.closure(["minillama[data]", *wheel_room.VISITORS])
    assert {"torch", "numpy", "matplotlib", "ipykernel", "nbval"} <= lent
    assert {"warcio", "resiliparse"} <= lent
    assert not {"transformers", "hypothesis", "jupyter-book"} & lent
    assert "sys.path.append" in textwrap.dedent(wheel_room.DOOR)
