"""Text that appears while its tokens are still being drawn.

Chapter: notebooks/11_generation.ipynb
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minillama.tokenizer import Tokenizer


class TextStream:
    """Turns growing ids into growing text, holding back half characters.

    A character outside the vocabulary arrives as two to four byte pieces,
    and half of them decode to U+FFFD. Such an end is kept back until the
    next ids settle it. The pieces of text joined equal `decode` of all ids.

    Args:
        tokenizer: whose ids these are.
        after: ids whose text is known already.

    Chapter: notebooks/11_generation.ipynb
    """

    def __init__(self, tokenizer: Tokenizer, after: Sequence[int] = ()):
        self._tokenizer = tokenizer
        self._ids = [int(token) for token in after]
        self._shown = len(self._settled())

    def _settled(self) -> str:
        """The text so far without a half character at its end."""
        return self._tokenizer.decode(self._ids).rstrip("\ufffd")

    def feed(self, *ids: int) -> str:
        """Take more ids; return the text they settle, perhaps none."""
        # Decoding from the start each time is quadratic, and right: a piece
        # on its own loses its leading space. 2,048 tokens cost well under
        # a second.
        self._ids.extend(int(token) for token in ids)
        return self._advance(self._settled())

    def finish(self) -> str:
        """The rest, half characters shown as U+FFFD."""
        return self._advance(self._tokenizer.decode(self._ids))

    def _advance(self, text: str) -> str:
        """What is new in text since the last call."""
        new, self._shown = text[self._shown:], max(self._shown, len(text))
        return new
