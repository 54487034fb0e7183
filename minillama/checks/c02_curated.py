r"""Exercises of chapter 2: comments, scores, quality, macros, explosions.

Chapter: notebooks/02_curated_data.ipynb
"""

from __future__ import annotations

import re
from typing import Any

import torch

from minillama.checks import answer, compare, exercise
from minillama.data import latex

WORDS = "kiln clay glaze bowl wheel slip cone ash foot rim".split()


def _whole(draw: torch.Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high, (), generator=draw))


def _word(draw: torch.Generator) -> str:
    return WORDS[_whole(draw, 0, len(WORDS))]


def _lines(draw: torch.Generator) -> dict[str, Any]:
    a, b, c = (_word(draw) for _ in range(3))
    n = _whole(draw, 10, 99)
    return {"lines": [f"the {a} lost {n}\\% of it. % really?",
                      f"one {b}\\\\% a line break, then a note",
                      f"a {c} of {n} grams", "% nothing else"]}


@exercise("02-curated-1", given=_lines)
def uncomment(mine: Any, lines: list[str]) -> str | None:
    """A function line -> the line without its LaTeX comment."""
    def slip(pattern: str) -> str:
        return "\n".join(re.sub(pattern, "", line) for line in lines)

    right = ["".join(latex.tokens(line)) for line in lines]
    return compare(
        "\n".join(str(answer(mine, line)) for line in lines),
        "\n".join(right),
        ("\n".join(lines), "the comments are still there"),
        ("\n".join(line.split("%")[0] for line in lines), "`\\%` is a per "
         "cent sign; your function stops there"),
        (slip(r"(?<!\\)%.*"), "in `\\\\%` the two backslashes are a line "
         "break, so the % starts a comment"),
        (slip(r"[^\\]%.+$"), "the character before the % goes with it"),
        ("\n".join(map(str.strip, right)),
         "only the comment goes: keep the blank before it"),
    )


def _answers(draw: torch.Generator) -> dict[str, Any]:
    high = _whole(draw, 10, 60)
    posts = [(11, str(high)), (12, "9"), (13, "-3"), (14, "9"),
             (15, str(high + 100)), (16, "0")]
    order = torch.randperm(len(posts), generator=draw).tolist()
    # In no order that a slip would leave as it is.
    return {"posts": [posts[n] for n in order]}


@exercise("02-curated-2", given=_answers)
def best_first(mine: Any, posts: list[tuple[int, str]]) -> str | None:
    """A function posts -> ids, the best score first, equal ones by id."""
    by = [(id, int(score)) for id, score in posts]
    return compare(
        answer(mine, posts),
        [id for id, _ in sorted(by, key=lambda p: (-p[1], p[0]))],
        ([id for id, _ in sorted(posts, key=lambda p: p[1], reverse=True)],
         "the scores are compared as strings, and \"9\" > \"10\""),
        ([id for id, _ in sorted(by, key=lambda p: (p[1], p[0]))],
         "the worst answer comes first"),
        ([id for id, _ in sorted(by, key=lambda p: (p[1], p[0]),
                                 reverse=True)],
         "equal scores: the smaller id comes first, in any order of input"),
        ([id for id, _ in posts], "the answers are in the order of the dump"),
        ([id for id, _ in sorted(posts)], "these are sorted by id"),
        tolerance=0.0,
    )


def _source(draw: torch.Generator) -> dict[str, Any]:
    lines = [f"{_word(draw)} = {_whole(draw, 1, 9999)}  # {_word(draw)}"
             for _ in range(_whole(draw, 3, 6))]
    return {"text": "\n".join(lines) + "\n" + "-" * _whole(draw, 30, 90)}


@exercise("02-curated-3", given=_source)
def measures(mine: Any, text: str) -> str | None:
    """A function text -> longest line, mean line, share of letters, digits."""
    lines = text.split("\n")
    longest, mean = max(map(len, lines)), len(text) / len(lines)
    share = sum(map(str.isalnum, text)) / len(text)
    return compare(
        answer(mine, text), [longest, mean, share],
        ([longest, sum(map(len, lines)) / len(lines), share], "the mean "
         "counts line ends too: characters of the file over lines"),
        ([longest, mean, sum(map(str.isalpha, text)) / len(text)],
         "digits count with the letters"),
        ([longest, mean, 1 - share], "this is the share of all the others"),
        ([longest, mean, 100 * share], "a share, not per cent"),
        ([longest, mean, sum(map(str.isalnum, text)) / sum(
            not c.isspace() for c in text)], "blanks belong to the whole, "
         "too"),
    )


def _macros(draw: torch.Generator) -> dict[str, Any]:
    a, b = _word(draw), _word(draw)
    n = _whole(draw, 2, 99)
    return {"bodies": {"warm": f"<{a} \\hot{{#1}} and #1>",
                       "hot": f"({b} {n}: #1)"},
            "text": f"First \\warm{{x}}, then \\hot{{{n}}} and \\cold{{y}}."}


@exercise("02-curated-4", given=_macros)
def expand(mine: Any, bodies: dict[str, str], text: str) -> str | None:
    r"""A function (bodies, text) -> text with every \name{x} written out."""
    r"""Bodies use `#1` and other macros; names not in bodies stay."""
    def once(text: str, fill: bool = True, names: Any = None) -> str:
        return re.sub(
            r"\\(\w+)\{([^{}]*)\}", lambda m: bodies[m[1]].replace(
                "#1", m[2] if fill else "#1") if m[1] in (names or bodies)
            else m[0], text)

    right = text
    while once(right) != right:
        right = once(right)
    unfilled = once(once(text, fill=False), fill=False)
    return compare(
        answer(mine, bodies, text), right,
        (text, "nothing is written out"),
        (once(text), "a macro within a macro is left: go on until nothing "
         "changes"),
        (unfilled, "`#1` stands for the argument; put it in"),
        (once(text, fill=False), "`#1` stands for the argument; put it in"),
        (re.sub(r"\\cold\{y\}", "", right), "what the authors did not define "
         "stays"),
    )


@exercise("02-curated-5", given=lambda draw: {"n": _whole(draw, 10, 40)})
def letters(mine: Any, n: int) -> str | None:
    """How many letters n macros write: each is the next one twice, the last
    one is a letter."""
    return compare(
        answer(mine, n) if callable(mine) else mine, 2 ** (n - 1),
        (2**n, "the last macro does not double: it is one letter"),
        (2 * n, "each macro doubles all that comes after it, so they "
         "multiply"),
        (2 * (n - 1), "each macro doubles all that comes after it, so they "
         "multiply"),
        (n, "each macro uses the next one twice"),
        tolerance=0.0,
    )
