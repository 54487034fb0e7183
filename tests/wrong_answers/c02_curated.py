r"""What learners answer in chapter 2, and the sentence they should get."""

from __future__ import annotations

import re


def _fixed(function):
    """The same function for every variant."""
    return lambda given: function


def _uncomment(line):
    return re.sub(r"((?:^|[^\\])(?:\\\\)*)%.*", r"\1", line)


def _best(posts):
    return [id for id, _ in sorted(posts, key=lambda p: (-int(p[1]), p[0]))]


def _measures(text):
    lines = text.split("\n")
    return [max(map(len, lines)), len(text) / len(lines),
            sum(c.isalnum() for c in text) / len(text)]


def _once(bodies, text):
    return re.sub(
        r"\\(\w+)\{([^{}]*)\}",
        lambda m: bodies[m[1]].replace("#1", m[2]) if m[1] in bodies
        else m[0], text)


def _expand(bodies, text):
    while (new := _once(bodies, text)) != text:
        text = new
    return text


RIGHT = {
    "02-curated-1": _fixed(_uncomment),
    "02-curated-2": _fixed(_best),
    "02-curated-3": _fixed(_measures),
    "02-curated-4": _fixed(_expand),
    "02-curated-5": _fixed(lambda n: 2 ** (n - 1)),
}

WRONG = {
    "02-curated-1": [
        (_fixed(lambda line: line), "still there"),
        (_fixed(lambda line: line.split("%")[0]), "per cent sign"),
        (_fixed(lambda line: re.sub(r"(?<!\\)%.*", "", line)), "line break"),
        (_fixed(lambda line: re.sub(r"[^\\]%.+$", "", line)),
         "character before"),
        (_fixed(lambda line: _uncomment(line).strip()), "keep the blank"),
    ],
    "02-curated-2": [
        (_fixed(lambda posts: [id for id, _ in sorted(
            posts, key=lambda p: p[1], reverse=True)]), "strings"),
        (_fixed(lambda posts: _best(posts)[::-1]),
         "worst answer|different|wrong|off"),
        (_fixed(lambda posts: [id for id, _ in sorted(
            posts, key=lambda p: (int(p[1]), p[0]), reverse=True)]),
         "smaller id"),
        (_fixed(lambda posts: [id for id, _ in sorted(posts)]), "by id"),
    ],
    "02-curated-3": [
        (_fixed(lambda text: [*_measures(text)[:1], sum(map(
            len, text.split("\n"))) / len(text.split("\n")),
            _measures(text)[2]]), "line ends"),
        (_fixed(lambda text: [*_measures(text)[:2], sum(
            c.isalpha() for c in text) / len(text)]), "digits count"),
        (_fixed(lambda text: [*_measures(text)[:2],
                              100 * _measures(text)[2]]), "not per cent"),
        (_fixed(lambda text: [*_measures(text)[:2],
                              1 - _measures(text)[2]]), "all the others"),
    ],
    "02-curated-4": [
        (_fixed(lambda bodies, text: text), "nothing is written"),
        (_fixed(_once), "until nothing changes"),
        (_fixed(lambda bodies, text: _expand(bodies, text).replace(
            "\\cold{y}", "")), "did not define"),
    ],
    "02-curated-5": [
        (_fixed(lambda n: 2**n), "does not double"),
        (_fixed(lambda n: 2 * n), "multiply"),
        (_fixed(lambda n: n), "twice"),
    ],
}
