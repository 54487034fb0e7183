"""The plays as a web site would serve them: an experiment on cleaning.

Every scene is a page with a menu, a script and a footer, and some pages have
a mirror. Three ways to read the same site give three training sets; the text
that they are judged on is the same, one play that is on no page.

Chapter: notebooks/03_mixture.ipynb
"""

from __future__ import annotations

import html
from pathlib import Path

from minillama.data import corpus, fetch
from minillama.data.commoncrawl import extract
from minillama.data.dedup import text_key
from minillama.tokenizer import Tokenizer

ARMS = ("raw", "text", "cleaned")
"""The bytes of the pages; their text, menus and mirrors included; the main
text of each, once."""
MIRRORED = 3
"""One page in so many has a copy."""

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<link rel="stylesheet" href="/static/css/main.3f2a.css">
<script>window.dataLayer = window.dataLayer || [];</script></head>
<body class="page scene"><nav id="menu" class="nav"><ul>
{menu}
</ul></nav><main><article><h1>{title}</h1>
{speeches}
</article></main><footer class="footer"><p>Share this scene | Print</p>
<p>Copyright The Reading Room. All rights reserved. Privacy policy</p>
</footer><script src="/static/js/app.js" async></script></body></html>
"""


def page(scene: str, titles: list[str]) -> str:
    """One scene as a page of the site.

    Args:
        scene: its heading, then speeches with an empty line between.
        titles: of all plays, for the menu.
    """
    title, *speeches = (html.escape(part) for part in scene.split("\n\n"))
    menu = "\n".join(
        f'<li class="nav-item"><a href="/plays/{number}">{name}</a></li>'
        for number, name in enumerate(titles))
    paragraphs = "\n".join(
        '<p class="speech">' + speech.strip().replace("\n", "<br>\n") + "</p>"
        for speech in speeches)
    return _PAGE.format(title=title, menu=menu, speeches=paragraphs)


def site(plays: dict[str, str]) -> list[str]:
    """All pages of the site, mirrors included; one play is not on it."""
    titles = [title for title in plays if title != corpus.HELD_OUT_PLAY]
    pages = [page(scene, titles[:12]) for title in titles
             for scene in fetch.scenes(plays[title])]
    return [copy for number, one in enumerate(pages)
            for copy in [one] * (1 + (number % MIRRORED == 0))]


def read_site(arm: str, pages: list[str]) -> list[str]:
    """The training documents of one arm."""
    if arm == "raw":
        return pages
    texts = [extract(one, main_content=arm == "cleaned")[1] + "\n"
             for one in pages]
    return texts if arm == "text" else list(
        {text_key(text): text for text in texts}.values())


def prepare_arm(arm: str, plays: dict[str, str], tokenizer: Tokenizer,
                folder: Path) -> Path:
    """Token shards of one arm, with the same held-out play for all.

    Raises:
        ValueError: for an arm that is not in `ARMS`.

    Chapter: notebooks/03_mixture.ipynb
    """
    if arm not in ARMS:
        raise ValueError(f"arm={arm!r} is unknown; try one of {ARMS}")
    held_out = [extract(page(scene, []))[1] + "\n"
                for scene in fetch.scenes(plays[corpus.HELD_OUT_PLAY])]
    return corpus.write_split(folder / arm, arm, {
        "train": read_site(arm, site(plays)), "validation": held_out,
    }, tokenizer)
