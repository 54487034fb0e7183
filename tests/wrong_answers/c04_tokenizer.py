"""Right and wrong answers to the exercises of notebooks/04_tokenizer.ipynb.

Written from the definitions, not from the package or its checks.
"""

from __future__ import annotations

import math

S = "\u2581"


def merges(words, count=4, weigh=True, stale=False, prefix=S):
    """BPE on strings: parts of a word are separated by a blank."""
    text = {" ".join(prefix + w): n for w, n in words.items()}
    found, pairs = [], {}
    while len(found) < count:
        if not stale or not found:
            pairs = {}
            for word, n in text.items():
                parts = word.split(" ")
                for pair in zip(parts, parts[1:]):
                    pairs[pair] = pairs.get(pair, 0) + (n if weigh else 1)
        best = max(pairs, key=pairs.get)
        del pairs[best]
        found.append("".join(best))
        text = {f" {w} ".replace(f" {best[0]} {best[1]} ",
                                 f" {best[0]}{best[1]} ").strip(): n
                for w, n in text.items()}
    return found


def encode(word, rules):
    """Apply each rule everywhere, from the left, in order."""
    parts = list(word)
    for a, b in rules:
        i = 0
        while i + 1 < len(parts):
            if parts[i] == a and parts[i + 1] == b:
                parts[i:i + 2] = [a + b]
            i += 1
    return parts


def only_first(word, rules):
    """Apply each rule at the first place only."""
    parts = list(word)
    for a, b in rules:
        for i in range(len(parts) - 1):
            if parts[i] == a and parts[i + 1] == b:
                parts[i:i + 2] = [a + b]
                break
    return parts


def longest(word, rules):
    """The longest known piece from the left."""
    known = {a + b for a, b in rules}
    out = []
    while word:
        n = next((n for n in range(len(word), 1, -1) if word[:n] in known), 1)
        out.append(word[:n])
        word = word[n:]
    return out


def stands_for(piece):
    """Bytes of text."""
    return 1 if piece[:3] == "<0x" else len(
        piece.replace(S, " ").encode("utf-8"))


def bpb(count):
    """A right division by a count of bytes that may be wrong."""
    return lambda g: lambda nats, pieces: nats / math.log(2) / count(pieces)


def total(pieces):
    """All pieces, the space before the first word included."""
    return sum(map(stands_for, pieces))


def moved(context, continuation):
    """The cut before the white space."""
    n = len(context.rstrip())
    return context[:n], context[n:] + continuation


RIGHT = {
    "04-tokenizer-1": lambda g: merges(g["words"]),
    "04-tokenizer-2": lambda g: lambda text: [
        3 + byte for byte in text.encode()],
    "04-tokenizer-3": lambda g: encode,
    "04-tokenizer-4": bpb(lambda p: total(p) - 1),
    "04-tokenizer-5": lambda g: moved,
}

WRONG = {
    "04-tokenizer-1": [
        (lambda g: merges(g["words"], stale=True), "only once"),
        (lambda g: merges(g["words"], weigh=False), "as often as it occurs"),
        (lambda g: [m.replace(S, "") for m in merges(g["words"])], "marker"),
        (lambda g: merges(g["words"])[:3], "four merges"),
        (lambda g: [*merges(g["words"])[:3], "xy"], "number 4"),
        (lambda g: 30, "list of four strings"),
    ],
    "04-tokenizer-2": [
        (lambda g: lambda text: list(text.encode()), "3 special"),
        (lambda g: lambda text: [ord(c) + 3 for c in text], "code points"),
        (lambda g: lambda text: [b + 3 for b in text.encode("utf-16-le")],
         "UTF-16"),
        (lambda g: lambda text: [b + 3 for b in text.encode()][::-1],
         "turned round"),
        (lambda g: lambda text: [0] * len(text), "shape|off"),
    ],
    "04-tokenizer-3": [
        (lambda g: longest, "longest piece"),
        (lambda g: lambda w, m: encode(w, m[::-1]), "last merge"),
        (lambda g: lambda w, m: list(w), "nothing was merged"),
        (lambda g: lambda w, m: encode(w, m)[:-1], "not the word"),
        (lambda g: lambda w, m: " ".join(encode(w, m)), "list of strings"),
    ],
    "04-tokenizer-4": [
        (lambda g: lambda nats, p: nats / (total(p) - 1), "nats per byte"),
        (lambda g: lambda nats, p: nats * math.log(2) / (total(p) - 1),
         "multiplied"),
        (bpb(total), "before the first word"),
        (bpb(lambda p: len("".join(p).encode())), "names of the pieces"),
        (bpb(lambda p: len("".join(p))), "letters of the names"),
        (bpb(lambda p: len("".join(p).replace(S, " ").encode())),
         "byte piece such as"),
        (bpb(len), "bits per token"),
    ],
    "04-tokenizer-5": [
        (lambda g: lambda c, w: (c, w), "still stands at the end"),
        (lambda g: lambda c, w: (c.rstrip(), w), "lost or added"),
        (lambda g: lambda c, w: (c.strip(), " " + w.strip()),
         "lost or added|no longer the same|still stands"),
        (lambda g: lambda c, w: c + w, "two strings"),
        (lambda g: lambda c, w: (c[:-3], c[-3:] + w), "only some|nothing"),
    ],
}
