"""Two commands for readers, a few more for authors; standard library only.

    python run.py book [--no-train]     install, train the toy, build the book
    python run.py test [--mine FILE]    check everything, or your own model

    python run.py notebooks [NAME ...]  execute chapters again, in place
    python run.py mutants [NAME ...]    break the code, see each test fail
    python run.py student               an edition without the solutions
    python run.py publish-as OWNER[/REPO]   put the public address everywhere
    python run.py sizes                 lines of code against the promises
    python run.py llamacpp              the shipped model in llama.cpp

`book` and `test` say what they will do before they do it; with `--plan` they
say it and stop.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tools import environment, toy
from tools.shell import ROOT, Failed, call


class Step(NamedTuple):
    """One thing that a command does."""

    what: str
    """What happens, for the reader."""
    cost: str
    """Minutes and downloads."""
    act: Callable[[], None]


def book_steps(train: bool) -> list[Step]:
    """Install, train, build."""
    steps = environment.steps(Step, environment.READING)
    if train:
        steps += toy.steps(Step)
    return [*steps, Step("build the book into _build/html", "1 minute at most",
                         build_book)]


def test_steps() -> list[Step]:
    """Everything that `.ci/run` checks, in the order of the README."""
    return [
        *environment.steps(Step, environment.TESTING),
        Step("run the unit tests", "16 minutes", unit_tests),
        Step("install the built wheel, alone, and run every chapter there",
             "15 minutes; 3 MB of text and a model the first time",
             run_chapters),
        Step("build the book, warnings being errors", "1 minute at most",
             build_book),
        Step("look at the built pages", "1 minute", check_pages),
    ]


def build_book() -> None:
    """Render the pages and the stored outputs of the chapters.

    All of them each time: a page that did not change may link to one that is
    new, and the warnings of a page that is kept are not repeated.
    """
    call(environment.tool("jupyter-book"), "build", "-n", "-W",
         "--keep-going", "--all", ".", quiet=True, PYTHONUTF8="1")


def unit_tests() -> None:
    """The tests of the package, with unspoken encodings as errors."""
    # Two files at a time; the tests of a file share what they have made.
    call(environment.python(), "-X", "warn_default_encoding", "-m", "pytest",
         "tests", "-q", "-m", "not html", "-n",
         str(min(2, os.cpu_count() or 1)), "--dist", "loadfile",
         "--durations=15", OMP_NUM_THREADS="1")


def run_chapters() -> None:
    """Compare fresh outputs with the stored ones, in an empty folder.

    This is all that Colab has: the wheel, and the notebook.
    """
    inside = environment.wheel_room()
    # Once per machine, so that no chapter waits for it and prints about it.
    call(inside, "-c", "import matplotlib.font_manager\n"
         "from minillama.data import fetch\nfetch.plays()\n"
         "fetch.sample('language-model')", cwd=ROOT.parent)
    with tempfile.TemporaryDirectory() as folder:
        for chapter in sorted((ROOT / "notebooks").glob("*.ipynb")):
            shutil.copy(chapter, folder)
        # Two at a time, each whole: cells of one share a kernel.
        call(inside, "-m", "pytest", "-p", "nbval.plugin", "-p",
             "xdist.plugin", "-p", "no:cacheprovider", "--nbval",
             "--nbval-current-env", "-q", "-n",
             str(min(2, os.cpu_count() or 1)), "--dist", "loadfile",
             "--durations=10", ".", cwd=folder, OMP_NUM_THREADS="1",
             OMP_WAIT_POLICY="PASSIVE",
             PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")


def check_pages() -> None:
    """Links, pictures, mathematics and width of the built book."""
    call(environment.python(), "-m", "pytest", "tests", "-q", "-rs", "-m",
         "html", OMP_NUM_THREADS="1")


def carry_out(steps: list[Step], plan_only: bool) -> None:
    """Say what will happen, then do it, saying how long each part took."""
    print("This will")
    for number, step in enumerate(steps, 1):
        print(f"  {number}. {step.what}\n     ({step.cost})")
    if plan_only:
        return
    print("Ctrl-C stops; the same command goes on where it stopped.")
    began = time.monotonic()
    for number, step in enumerate(steps, 1):
        print(f"\n== {number}. {step.what} ==", flush=True)
        before = time.monotonic()
        step.act()
        print(f"   done in {time.monotonic() - before:.0f} s", flush=True)
    print(f"\nAll of it took {(time.monotonic() - began) / 60:.1f} minutes.")


def book(args: argparse.Namespace) -> None:
    """The reader's first command."""
    carry_out(book_steps(not args.no_train), args.plan)
    if args.plan:
        return
    page = ROOT / "_build" / "html" / "index.html"
    print(f"\nOpen the book:   {page.as_uri()}")
    if not args.no_train:
        print(f"Your own model:  {toy.generate_command()}")


def test(args: argparse.Namespace) -> None:
    """The reader's second command, and the one that CI runs."""
    if args.mine is None:
        carry_out(test_steps(), args.plan)
        return
    mine = Path(args.mine).resolve()
    if not mine.is_file():
        raise Failed(f"--mine {args.mine}: there is no such file; "
                     "book/my_llama.py is a template to start from")
    judge = Step(
        f"compare {mine.name} with independent implementations", "1 minute",
        lambda: call(environment.python(), "-m", "pytest", "tests", "-q",
                     "-rs", "--mine", mine, OMP_NUM_THREADS="1"))
    carry_out([*environment.steps(Step, environment.TESTING), judge],
              args.plan)


def in_environment(module: str, *names: str) -> None:
    """Run one of the authors' tools with the book's Python."""
    environment.make()
    call(environment.python(), "-m", module, *names, OMP_NUM_THREADS="1")


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python run.py", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb in ("book", "test"):
        added = verbs.add_parser(verb)
        added.add_argument("--plan", action="store_true",
                           help="say what would happen, and stop")
        if verb == "book":
            added.add_argument("--no-train", action="store_true",
                               help="do not train the toy LLaMA")
        else:
            added.add_argument("--mine", metavar="FILE",
                               help="judge the reader's own model instead")
    for verb in ("notebooks", "mutants"):
        verbs.add_parser(verb).add_argument("names", nargs="*")
    verbs.add_parser("student")
    verbs.add_parser("publish-as").add_argument("address")
    verbs.add_parser("sizes")
    verbs.add_parser("llamacpp")
    return parser


def main() -> int:
    """Run one verb; any failure is one clear line and exit code 1."""
    args = arguments().parse_args()
    try:
        match args.verb:
            case "book":
                book(args)
            case "test":
                test(args)
            case "notebooks" | "mutants":
                in_environment(f"tools.{args.verb}", *args.names)
            case "publish-as":
                in_environment("tools.publish", args.address)
            case verb:
                in_environment(f"tools.{verb}")
    except Failed as failure:
        print(f"run.py: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nrun.py: stopped; the same command goes on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
