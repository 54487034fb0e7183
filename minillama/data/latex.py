r"""What LaTeX's authors defined for themselves, written out in place.

A small part of TeX: text becomes tokens without comments, and definitions
become a table that is applied until nothing of it is left. Conditions, boxes
and counters are not computed; they stay in the text as they are. `@` counts
as a letter of names everywhere.

Chapter: notebooks/02_curated_data.ipynb
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from minillama.data.archives import Refused

# Before a token: it means what LaTeX means by it, whatever authors define.
_PLAIN = "\0"

_TOKEN = re.compile(r"""
    \\begin\{(?P<block>verbatim\*?|Verbatim\*?|lstlisting|minted|comment)\}
  | \\(?:verb|lstinline)\*?(?P<bar>[!"'()+,\-./:;=?|~^_`$&@\#%])
  | \\(?:begin|end)\s*\{[^{}\\\n\#]*\}
  | \\(?:url|path|href|nolinkurl)\s*\{[^{}\n]*\}
  | \\[A-Za-z@]+[ \t]*
  | \\.?
  | (?P<comment>%[^\n]*(?:\n[ \t]*)?)
  | \#+[1-9]?
  | [^\W_]+ | [ \t]+ | .
""", re.VERBOSE | re.DOTALL)
# What this module gives a meaning to keeps it.
_OURS = frozenset(
    r"""\newcommand \renewcommand \providecommand \DeclareRobustCommand
    \newenvironment \renewenvironment \def \gdef \edef \xdef \let
    \DeclareMathOperator \input \include""".split())
_OPEN = ("{", "\\begin", "\\bgroup")
_CLOSE = ("}", "\\end{", "\\endgroup", "\\egroup")


def tokens(text: str) -> list[str]:
    r"""Cut LaTeX into control words, parameters, words and signs.

    `%` and what follows on the line is gone, with the line's end and the
    next line's indentation, as TeX reads it; `\%` stays. Verbatim text and
    addresses are one token each, a `comment` environment is none.

    Chapter: notebooks/02_curated_data.ipynb
    """
    found: list[str] = []
    at, missing, text = 0, set(), text.replace(_PLAIN, "")  # as TeX does
    while match := _TOKEN.match(text, at):
        start, at = at, match.end()
        block, bar, comment = match["block"], match["bar"], match["comment"]
        if comment:
            # An empty line below the comment still ends the paragraph.
            if text.startswith("\n", at) and found and found[-1] != "\n":
                found.append("\n")
            continue
        mark = "\\end{" + block + "}" if block else bar
        if mark and mark not in missing:
            end = text.find(mark, at)
            if end < 0:
                missing.add(mark)  # Never search the rest of a text twice.
            else:
                at = end + len(mark)
        if block != "comment":
            found.append(sys.intern(text[start:at]))
    return found


def join(parts: Iterable[str]) -> str:
    r"""Tokens as text: `\alpha` before `x` needs a blank between them."""
    out: list[str] = []
    for part in parts:
        if part[:1].isalpha() and out and (
                out[-1][0] == "\\" and out[-1][-1].isalpha()):
            out.append(" ")
        out.append(part)
    return "".join(out)


def _bare(token: str) -> str:
    """A control word without the blanks behind it."""
    return token.rstrip(" \t") if token[1:2].isalpha() else token


def _frozen(token: str) -> str:
    """A token as LaTeX means it now; what we give a meaning to keeps it."""
    return token if _bare(token) in _OURS else _PLAIN + token


@dataclass(frozen=True, slots=True)
class Macro:
    """What stands for a name: how its arguments are found, and what comes."""

    pattern: list[str]
    """`#1` to `#9`, and the tokens that have to stand between them."""
    default: list[str] | None
    """Of the first argument, if that is optional."""
    body: list[str]
    """Tokens, `#1` where the first argument goes."""


class Expander:
    r"""Applies an author's definitions, and follows `\input`.

    A macro that leads back to itself needs TeX's conditions to end. It is
    left as it stands, and counted in `recursive`.

    Args:
        look_up: the text of a file by the name in `\input`, or nothing.
        kept: names whose redefinition is not applied.
        limit: characters that may be read, written by macros or not.

    Chapter: notebooks/02_curated_data.ipynb
    """

    def __init__(
        self, look_up: Callable[[str], str], kept: frozenset[str], limit: int
    ) -> None:
        self.look_up, self.kept, self.left = look_up, kept, limit
        self.recursive = 0
        self.macros: dict[str, Macro | None] = {}
        self._loops: dict[str, bool] = {}
        self._ahead: list[str] = []  # the next token last
        # What definitions hid, and None for each group that was opened.
        self._undo: list[tuple[str, Macro | None] | None] = []
        self._level = 0

    def expand(self, text: str) -> list[str]:
        """All tokens of a text, no definition and no macro among them.

        Raises:
            Refused: if macros write too much, or an argument never ends.
        """
        self._push(tokens(text))
        out: list[str] = []
        while self._ahead:
            token = self._ahead.pop()
            if token[0] not in "\\{}":  # most of a text
                out.append(token.lstrip(_PLAIN))
                continue
            name = _bare(token)
            if name.startswith(_OPEN):
                self._undo.append(None)
                self._level += 1
            macro = self.macros.get(name)
            if macro and not self._leads_to_itself(name):
                self._apply(macro)
            elif macro or not (self._define(name) or self._include(name)):
                self.recursive += macro is not None
                out.append(token)
            if name.startswith(_CLOSE) and self._level:
                self._level -= 1
                while (entry := self._undo.pop()) is not None:
                    self._set(*entry)
        return out

    def _push(self, found: list[str]) -> None:
        """Read these first, as long as there is room for so much text."""
        self.left -= sum(map(len, found))
        if self.left < 0:
            raise Refused("macros write without end")
        self._ahead += reversed(found)

    def _leads_to_itself(self, name: str) -> bool:
        """Whether a macro's body, written out, holds the macro again."""
        if name not in self._loops:
            seen, todo = {name}, [name]
            self._loops[name] = False
            while todo and (macro := self.macros.get(todo.pop())):
                self.left -= len(macro.body)
                for token in set(map(_bare, macro.body)):
                    self._loops[name] |= token == name
                    if token in self.macros and token not in seen:
                        seen.add(token)
                        todo.append(token)
        return self._loops[name]

    def _apply(self, macro: Macro) -> None:
        """Put a macro's body in its place, arguments filled in."""
        given, pattern = {}, macro.pattern
        if macro.default is not None:
            first = self._optional()
            given["#1"] = macro.default if first is None else first
            pattern = pattern[1:]
        for part, mark in zip(pattern, [*pattern[1:], "#"]):
            if part[0] == "#":
                given[part] = (self._take() if mark[0] == "#"
                               else self._until(mark))
            elif self._next() == part:
                self._ahead.pop()
        found: list[str] = []
        for token in macro.body:
            found += given.get(token) or (
                [] if token in given else [token[token.startswith("##"):]])
        self._push(found)

    def _next(self) -> str:
        """The next token, left where it is; nothing at the end."""
        return _bare(self._ahead[-1]) if self._ahead else ""

    def _pop(self) -> str:
        """The next token, taken.

        Raises:
            Refused: if there is none.
        """
        if not self._ahead:
            raise Refused("macro argument without end")
        return self._ahead.pop()

    def _skip(self) -> str:
        """Step over blanks; the token behind them, left where it is."""
        while self._ahead and self._ahead[-1].isspace():
            self._ahead.pop()
        return self._next()

    def _take(self) -> list[str]:
        """One argument: a group without its braces, or a single token."""
        if self._skip() == "}":  # The group around ends: no argument.
            return []
        token = _bare(self._pop())
        if token == "{":
            found = self._until("}")
            self._pop()
            return found
        if token[0].isalnum():  # Of a word the first letter.
            self._ahead += [token[1:]] * (len(token) > 1)
            token = token[0]
        return [token]

    def _until(self, mark: str) -> list[str]:
        """What comes before a mark outside inner braces."""
        found, level = [], 0
        while level or self._next() != mark:
            found.append(self._pop())
            level += (found[-1] == "{") - (found[-1] == "}")
        return found

    def _optional(self) -> list[str] | None:
        """An argument in brackets, if one comes next."""
        if not self._sign("["):
            return None
        found = self._until("]")
        self._ahead.pop()
        return found

    def _sign(self, sign: str) -> str:
        """A sign that may stand here, stepped over; or nothing."""
        return self._ahead.pop() if self._skip() == sign else ""

    def _word(self) -> str:
        """An argument as text."""
        return "".join(self._take()).strip()

    def _define(self, name: str) -> bool:
        """Carry out a definition; False if this is none."""
        match name:
            case ("\\newcommand" | "\\renewcommand" | "\\providecommand"
                  | "\\DeclareRobustCommand"):
                self._sign("*")
                new, macro = self._word(), self._signature()
                if name != "\\providecommand" or not self.macros.get(new):
                    self._store(new, macro)
            case "\\newenvironment" | "\\renewenvironment":
                self._sign("*")
                new = self._word()
                self._store("\\begin{" + new + "}", self._signature())
                self._store("\\end{" + new + "}",
                            Macro([], None, self._take()))
            case "\\def" | "\\gdef" | "\\edef" | "\\xdef":
                new = self._word()
                pattern = self._until("{")
                self._store(new, Macro(
                    [_bare(part) for part in pattern if part.strip()],
                    None, self._take()))
            case "\\let":
                new = self._word()
                self._sign("=")
                old = self._take()
                self._store(new, self.macros.get("".join(old).strip())
                            or Macro([], None, list(map(_frozen, old))))
            case "\\DeclareMathOperator":
                star, new = self._sign("*"), self._word()
                self._store(new, Macro([], None, [
                    "\\operatorname" + star, "{", *self._take(), "}"]))
            case "\\long" | "\\global" | "\\outer" | "\\protected":
                pass  # Marks on a definition that comes next.
            case _:
                return False
        return True

    def _signature(self) -> Macro:
        """[count][default]{body}"""
        count, default = self._optional() or ["0"], self._optional()
        digits = [f"#{n}" for n in range(1, 10) if str(n) <= count[0]]
        return Macro(digits, default, self._take())

    def _store(self, name: str, macro: Macro) -> None:
        """Define a name until the group ends."""
        if name.startswith("\\") and name not in self.kept | _OURS:
            self._undo.append((name, self.macros.get(name)))
            self._set(name, macro)

    def _set(self, name: str, macro: Macro | None) -> None:
        """What a name means from now on."""
        self.macros[name] = macro
        self._loops.clear()

    def _include(self, name: str) -> bool:
        r"""Read the file that \input names next; False if this is none."""
        if name not in ("\\input", "\\include"):
            return False
        if self._skip() == "{":
            place = self._word()
        else:
            place = ""
            while self._ahead and not self._ahead[-1].isspace():
                place += self._ahead.pop()
        self._push(tokens(self.look_up(place)))
        return True
