"""Right and wrong answers to the exercises of chapter 0."""

import math

RIGHT = {
    "00-tour-1": lambda given: math.log(given["vocab_size"]),
    "00-tour-2": lambda given: (
        lambda nats, tokens, text_bytes:
        nats * tokens / text_bytes / math.log(2)),
    "00-tour-3": lambda given: (
        lambda steps, batch_size, seq_len, parameters:
        6 * parameters * steps * batch_size * seq_len),
}

WRONG = {
    "00-tour-1": [
        (lambda given: math.log2(given["vocab_size"]), "those are bits"),
        (lambda given: -math.log(given["vocab_size"]), "cannot be negative"),
        (lambda given: 1 / given["vocab_size"], "that is the probability"),
    ],
    "00-tour-2": [
        (lambda given: (lambda n, t, b: n * t / b), "nats per byte"),
        (lambda given: (lambda n, t, b: n * t / b * math.log(2)),
         "do not multiply"),
        (lambda given: (lambda n, t, b: n / math.log(2)), "bits per token"),
        (lambda given: (lambda n, t, b: n / math.log(2) / b),
         "the bytes of all of them"),
    ],
    "00-tour-3": [
        (lambda given: (lambda s, b, t, n: 2 * n * s * b * t),
         "forward pass alone"),
        (lambda given: (lambda s, b, t, n: 6 * n * s * b),
         "counts tokens, not sequences"),
        (lambda given: (lambda s, b, t, n: 6 * n * s), "a whole batch"),
    ],
}
