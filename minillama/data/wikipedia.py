"""Wikipedia: articles from the XML dumps, without links, markup and tables.

A dump is read line by line. `<page>` and `</page>` stand on lines of their
own, and each page is parsed alone: a broken one costs only itself.

Chapter: notebooks/02_curated_data.ipynb
"""

from __future__ import annotations

import functools
import html
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from minillama.data import archives
from minillama.data.archives import Refused
from minillama.data.document import Document, Ledger
from minillama.files import DATA, needs

LANGUAGES = ("bg", "ca", "cs", "da", "de", "en", "es", "fr", "hr", "hu",
             "it", "nl", "pl", "pt", "ro", "ru", "sl", "sr", "sv", "uk")
"""The twenty of the paper, in Latin or Cyrillic script."""

PAGE_LIMIT = 4_000_000
"""Bytes of a page in the dump; MediaWiki allows two million of text."""

_LANGUAGE = re.compile(rb'<mediawiki\b[^<>]*xml:lang="([^"<]+)"')
_NAMESPACE = re.compile(rb'<namespace key="(?:-2|6|14)"[^<>]*>([^<]+)<')
# Removed before parsing: faster, and safe from what is never closed.
_ASIDE = re.compile(
    r"<!--(?:(?!-->).)*+(?:-->)?|<ref\b[^<>]*/>"
    r"|<ref\b[^<>]*>(?:(?!</ref\s*>|<ref\b).)*+</ref\s*>",
    re.DOTALL | re.IGNORECASE)
_FORMAT = re.compile(
    r"</?(?:b|i|u|s|em|strong|small|big|sub|sup|span|div|center|font|p|br"
    r"|hr|tt|code|cite|blockquote|abbr|var|kbd|li|ul|ol|dl|dt|dd|del|ins"
    r"|onlyinclude|includeonly|noinclude|nowiki|ref|references|poem)"
    r"\b[^<>]*>", re.IGNORECASE)
_DROPPED = {
    "table", "gallery", "math", "timeline", "syntaxhighlight", "source",
    "score", "imagemap", "hiero", "chem", "ce", "graph", "pre", "mapframe",
    "maplink", "templatestyles", "section", "inputbox", "categorytree"}
# More of these than any article has; unclosed, each costs the parser a look
# through all that follows.
_MOST = {r"\{\|": 300, "<": 1_500, r"\[(?:\w+:|//)": 2_000, r"\n\*": 10_000}
# What ends the first part of a link or a tag, or all of it.
_LINK = "ExternalLinkSeparator", "ExternalLinkClose"
_WIKILINK = "WikilinkSeparator", "WikilinkClose"
_TAG = "TagCloseOpen", "TagCloseSelfclose"
_UNSEEN = {"file", "image", "media", "category"}
_INTERWIKI = re.compile(r"[a-z]{2,3}(?:-[a-z-]+)?|simple")
# Rows of tables that were never closed, and signs without a partner.
_LEFT = re.compile(
    r"^[^\S\n]*[|!].*$|'{2,}|\[\[|\]\]|\{\{+|\}\}+|\{\||\|\}|__[A-Z]+__"
    r"|</?[A-Za-z][^<>\n]*>|&#\w{9,};?", re.MULTILINE)


def inputs(path: Path) -> list[Path]:
    """The dumps below a folder, sorted: .xml, plain, .bz2 or .gz.

    Chapter: notebooks/02_curated_data.ipynb
    """
    return archives.files(path, ".xml", ".bz2", ".xml.gz")


def read(path: Path, ledger: Ledger) -> Iterator[Document]:
    """Stream a dump into articles.

    Raises:
        ValueError: if mwparserfromhell is not installed.

    Chapter: notebooks/02_curated_data.ipynb
    """
    language, unseen = "", set(_UNSEEN)
    page: list[bytes] | None = None
    try:
        for line in archives.lines(path, PAGE_LIMIT):
            mark = (line or b"").strip()
            if mark == b"<page>":
                if page is not None:
                    ledger.drop("cut off")
                page, left = [], PAGE_LIMIT
            if page is None:
                if found := _LANGUAGE.search(mark):
                    language = found[1].decode("utf-8", "replace")
                elif found := _NAMESPACE.search(mark):
                    unseen.add(found[1].decode("utf-8", "replace").lower())
                elif line is None or b"<page>" in mark:
                    ledger.drop("broken XML" if line else "too long")
                continue
            left -= PAGE_LIMIT if line is None else len(line)
            page += [line] if left > 0 else []
            if mark == b"</page>":
                result = ("too long" if left <= 0 else
                          _article(b"".join(page), language, unseen))
                if isinstance(result, Document):
                    yield ledger.keep(result)
                else:
                    ledger.drop(result)
                page = None
    except archives.BROKEN:
        page = page or []
    if page is not None:
        ledger.drop("cut off")


def _article(xml: bytes, language: str, unseen: set[str]) -> Document | str:
    """One page as a document, or the reason to drop it."""
    try:
        page = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return "broken XML"
    if page.findtext("ns", "0") != "0":
        return "no article"
    text = ["", *(t.text or "" for t in page.findall("revision/text"))][-1]
    if page.find("redirect") is not None or text[:9].upper() == "#REDIRECT":
        return "redirect"
    if language not in LANGUAGES:
        return "other language"
    title = page.findtext("title", "")
    try:
        text = plain(text, unseen)
    except Refused as reason:
        return str(reason)
    return Document("wikipedia", f"{language}/{page.findtext('id')}",
                    f"{title}\n\n{text}", {"title": title})


def plain(markup: str, unseen: set[str] = _UNSEEN) -> str:
    """The text of an article without what formats and links it.

    Args:
        markup: as an editor sees it.
        unseen: names, in lower case, of the namespaces whose links show no
            text: files and categories, in English and in the dump's language.

    Raises:
        Refused: if there is no text, or more markup than an article has.
        ValueError: if mwparserfromhell is not installed.

    Chapter: notebooks/02_curated_data.ipynb
    """
    with needs(f"source=wikipedia needs mwparserfromhell; {DATA}"):
        from mwparserfromhell import parser as mw
    markup = _FORMAT.sub("", _ASIDE.sub("", markup))
    if any(len(re.findall(sign, markup)) > most for sign, most in
           _MOST.items()) or any(_depth(markup, *signs) > 100 for signs in (
               (r"\{\{", r"\}\}"), (r"\[\[", r"\]\]"))):
        raise Refused("too much markup")
    text, _ = _visible(iter(mw.Parser()._tokenizer.tokenize(markup)), unseen)
    # What is written as &lt; is no markup, so this comes after the signs.
    text = html.unescape(_LEFT.sub("", text))
    text = re.sub(r"(?<![^\S\n])[^\S\n]++$", "", text, flags=re.MULTILINE)
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    if not text:
        raise Refused("empty")
    return text


def _depth(markup: str, opens: str, closes: str) -> int:
    """How deep signs nest; what is never closed counts to the end."""
    return max(itertools.accumulate(
        re.findall(rf"{opens}|{closes}", markup), lambda now, sign: max(
            0, now + (1 if sign in "{{[[" else -1)), initial=0))


def _visible(
    tokens: Iterator[Any], unseen: set[str], *ends: str
) -> tuple[str, str]:
    """The visible text up to a token of a certain kind, and which it was.

    The parser would build a tree of objects from these tokens, which takes
    it ten times as long as finding them.
    """
    # A function of its own would be made anew for every token.
    inner = functools.partial(_visible, tokens, unseen)
    out = []
    for token in tokens:
        kind = type(token).__name__
        if kind in ends:
            return "".join(out), kind
        match kind:
            case "Text":
                out.append(token.text)
            case "HTMLEntityStart":
                out.append(f"&{inner('HTMLEntityEnd')[0]};")
            case "HTMLEntityNumeric" | "HTMLEntityHex":
                out.append(token.char or "#")
            case "HeadingStart":
                out.append(inner("HeadingEnd")[0].strip())
            case "TemplateOpen" | "ArgumentOpen":
                inner(kind.replace("Open", "Close"))
            case "ExternalLinkOpen":
                if inner(*_LINK)[1] == _LINK[0]:
                    out.append(inner(*_LINK)[0].strip())
            case "WikilinkOpen":
                title, end = inner(*_WIKILINK)
                text = inner(*_WIKILINK)[0] if end == _WIKILINK[0] else ""
                space = title[:max(title.find(":"), 0)].strip().lower()
                if space not in unseen and not _INTERWIKI.fullmatch(space):
                    out.append(text or title)
            case "TagOpenOpen":
                tag, end = inner("TagAttrStart", *_TAG)
                end = end if end in _TAG else inner(*_TAG)[1]
                if end == _TAG[0]:
                    text, _ = inner("TagOpenClose")
                    inner("TagCloseClose")  # its name once more
                    out.append("" if tag.lower().strip() in _DROPPED else text)
    return "".join(out), ""
