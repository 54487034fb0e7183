"""A conversation: what was said so far, and the next answer as it comes.

An instruct model has a template that says how turns are written down. A base
model has none: it goes on with the text, and what is typed joins that text.

Chapter: notebooks/11_generation.ipynb
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from minillama.fast import FastTransformer
from minillama.generate import next_tokens
from minillama.model import Transformer
from minillama.tokenizer import Tokenizer
from minillama.weights.text import ChatTemplate


class Conversation:
    """Keeps the history; in a notebook `print(talk.ask("..."))` is enough.

    Args:
        model: in evaluation mode.
        tokenizer: of the model.
        template: of an instruct model; None: a base model.
        system: what an instruct model is told before anything else.
        max_new_tokens, temperature, top_p, seed: see `generate`.

    Chapter: notebooks/11_generation.ipynb
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        template: ChatTemplate | None = None,
        *,
        system: str = "",
        max_new_tokens: int = 200,
        temperature: float = 0.8,
        top_p: float = 0.95,
        seed: int = 1,
    ) -> None:
        self.model, self.tokenizer = FastTransformer(model), tokenizer
        self.template, self.max_new_tokens = template, max_new_tokens
        self.temperature, self.top_p = temperature, top_p
        self.generator = torch.Generator(
            model.output.weight.device).manual_seed(seed)
        self.messages = [{"role": "system", "content": system}] * bool(system)

    def prompt(self) -> list[int]:
        """The ids that the next answer follows.

        What does not fit beside the answer is forgotten: an instruct model
        loses whole turns, the oldest first, a base model the beginning.

        Raises:
            ValueError: if the last question alone is too long.
        """
        room = self.model.config.max_seq_len - 1
        room -= min(self.max_new_tokens, room // 2)
        if self.template is None:
            text = "".join(m["content"] for m in self.messages)
            ids = self.tokenizer.encode(text, bos=True)
            return ids if len(ids) <= room else ids[:1] + ids[1 - room:]
        kept = list(self.messages)
        while len(ids := self.template.encode(kept)) > room:
            first = int(kept[0]["role"] == "system")
            if len(kept) <= first + 1:
                raise ValueError(
                    f"the question has {len(ids)} tokens and leaves no room "
                    f"for an answer in max_seq_len="
                    f"{self.model.config.max_seq_len}; shorten it")
            del kept[first:first + 2]  # a question and its answer
        return ids

    def stream(self, question: str) -> Iterator[str]:
        """The answer piece by piece; what was said is kept, even if cut off.

        Raises:
            ValueError: if the question is too long; it is not kept then.
        """
        self.messages.append({"role": "user", "content": question})
        try:
            ids = self.prompt()
        except ValueError:
            self.messages.pop()
            raise
        answer = {"role": "assistant", "content": ""}
        self.messages.append(answer)
        settled = self.tokenizer.stream(ids)
        columns = next_tokens(
            self.model, [ids], max_new_tokens=self.max_new_tokens,
            temperature=self.temperature, top_p=self.top_p,
            generator=self.generator)
        for number, column in enumerate(columns):
            if number < len(ids):
                continue
            if column.item() == self.tokenizer.eos_id:
                break
            piece = settled.feed(int(column))
            answer["content"] += piece
            yield piece
        rest = settled.finish()
        answer["content"] += rest
        yield rest

    def ask(self, question: str) -> str:
        """The whole answer."""
        return "".join(self.stream(question))
