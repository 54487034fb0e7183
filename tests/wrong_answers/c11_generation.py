"""Right and wrong answers to the exercises of chapter 11."""

import torch


def _top_p(probs, top_p):
    ordered, order = probs.sort(descending=True)
    keep = order[ordered.cumsum(0) - ordered <= top_p]
    out = torch.zeros_like(probs)
    out[keep] = probs[keep]
    return out / out.sum()


def _too_early(probs, top_p):
    ordered, order = probs.sort(descending=True)
    keep = order[ordered.cumsum(0) <= top_p]
    out = torch.zeros_like(probs)
    out[keep] = probs[keep]
    return out / out.sum()


def _numbers(config):
    return 2 * config.n_layers * config.kv_heads * config.head_dim


def _without(given):
    return sum(given["prompt"] + i for i in range(given["new"]))


def _with(given):
    return given["prompt"] + given["new"] - 1


def _halves(weight, head_dim):
    heads = weight.split(head_dim)
    return torch.cat([rows[start::2] for rows in heads for start in (0, 1)])


def _neighbours(weight, head_dim):
    half = head_dim // 2
    order = [start + half * second + i
             for start in range(0, len(weight), head_dim)
             for i in range(half) for second in (0, 1)]
    return weight[order]


def _join(axes):
    def join(name, pieces):
        axis = {"tok_embeddings": 1, "wo": 1, "w2": 1, "norm": None,
                **axes}.get(name, 0)
        return pieces[0] if axis is None else torch.cat(pieces, axis)
    return lambda given: join


RIGHT = {
    "11-generation-1": lambda given: (
        lambda logits, t: torch.softmax(logits / t, dim=-1)),
    "11-generation-2": lambda given: _top_p,
    "11-generation-3": lambda given: 2 * _numbers(given["config"]),
    "11-generation-4": lambda given: _without(given) / _with(given),
    "11-generation-5": lambda given: _halves,
    "11-generation-6": _join({}),
}

WRONG = {
    "11-generation-1": [
        (lambda given: (lambda x, t: torch.softmax(x * t, -1)), "multiply"),
        (lambda given: (lambda x, t: torch.softmax(x, -1) / t),
         "before the softmax"),
        (lambda given: (lambda x, t: x / t), "still logits"),
        (lambda given: (lambda x, t: torch.softmax(x, -1)), "no effect"),
    ],
    "11-generation-2": [
        (lambda given: _too_early, "crosses top_p is kept"),
        (lambda given: (lambda p, top_p: p * (_top_p(p, top_p) > 0)),
         "does not sum to 1"),
        (lambda given: (lambda p, top_p: torch.where(p > top_p, p, 0.0)),
         "running sum"),
    ],
    "11-generation-3": [
        (lambda given: _numbers(given["config"]), "2 bytes"),
        (lambda given: 2 * _numbers(given["config"])
         // given["config"].n_layers, "every layer"),
        (lambda given: 4 * _numbers(given["config"]), "n_kv_heads"),
    ],
    "11-generation-4": [
        (lambda given: _with(given) / _without(given), "turned the ratio"),
        (lambda given: _without(given) / (given["prompt"] + given["new"]),
         "never read"),
        (lambda given: sum(given["prompt"] + i for i in range(
            1, given["new"] + 1)) / _with(given), "the prompt alone"),
        (lambda given: sum(range(given["new"])) / _with(given),
         "the prompt again"),
    ],
    "11-generation-5": [
        (lambda given: _neighbours, "the way back"),
        (lambda given: (lambda w, k: torch.cat([w[0::2], w[1::2]])),
         "head by head"),
        (lambda given: (lambda w, k: w), "nothing has moved"),
        (lambda given: (lambda w, k: torch.cat(
            [w[:, 0::2], w[:, 1::2]], dim=1)), "the rows that move"),
    ],
    "11-generation-6": [
        (_join({"tok_embeddings": 0}), "along the embedding axis"),
        (_join({"wo": 0}), "wo takes in"),
        (_join({"w2": 0}), "w2: w2 takes in"),
        (_join({"norm": 0}), "norm: every file holds the whole"),
        (_join({"wq": 1}), "wq: its rows are cut"),
        (lambda given: (lambda name, pieces: _join({})(given)(
            name, pieces[::-1])), "out of order"),
    ],
}
