"""Right and wrong answers to the exercises of chapter 12."""

from __future__ import annotations

import torch


def _count(d, kv, h):
    return d + 2 * kv + d + h + h + d


def _swiglu(a, u, g):
    a, u = a.clone().requires_grad_(), u.clone().requires_grad_()
    return torch.autograd.grad((torch.nn.functional.silu(a) * u), (a, u), g)


def _norm(x, g):
    x = x.clone().requires_grad_()
    y = x / x.square().mean(-1, keepdim=True).sqrt()
    return torch.autograd.grad(y, x, g)[0]


def _peak(layers, every, stream, inside):
    groups = range(0, layers, every)
    return max(len(groups) * stream + every * inside for _ in groups)


def _seconds(m, k, n, size, peak, bandwidth):
    flops = sum(2 * m * k for _ in range(n))
    return max(flops / peak, (m * k + k * n + m * n) * size / bandwidth)


def _rms(x):
    return x.square().mean(-1, keepdim=True).sqrt()


RIGHT = {
    "12-efficiency-1": lambda given: _count,
    "12-efficiency-2": lambda given: _swiglu,
    "12-efficiency-3": lambda given: _norm,
    "12-efficiency-4": lambda given: _peak,
    "12-efficiency-5": lambda given: _seconds,
}

WRONG = {
    "12-efficiency-1": [
        (lambda given: (lambda d, kv, h: 5 * d + 2 * h), "kv wide"),
        (lambda given: (lambda d, kv, h: 2 * d + 2 * kv + 2 * h), "missing"),
        (lambda given: (lambda d, kv, h: 3 * d + 2 * kv + h), "two layers"),
        (lambda given: (lambda d, kv, h:
                        2 * d * d + 2 * d * kv + 3 * d * h), "weights"),
    ],
    "12-efficiency-2": [
        (lambda given: (lambda a, u, g: _swiglu(a, u, g)[::-1]),
         "wrong way round"),
        (lambda given: (lambda a, u, g: (
            g * u * a.sigmoid(), g * a * a.sigmoid())), "not the sigmoid"),
        (lambda given: (lambda a, u, g: (
            g * u * a.sigmoid() * (1 - a.sigmoid()), g * a * a.sigmoid())),
         "slope of the sigmoid"),
        (lambda given: (lambda a, u, g: _swiglu(a, u, torch.ones_like(g))),
         "from above"),
    ],
    "12-efficiency-3": [
        (lambda given: (lambda x, g: g / _rms(x)), "depends on x"),
        (lambda given: (lambda x, g: _norm(x, g) * _rms(x)),
         "divide by the rms"),
        (lambda given: (lambda x, g: (
            g - x / _rms(x) * (g * x / _rms(x)).sum(-1, keepdim=True))
            / _rms(x)), "not a sum"),
        (lambda given: (lambda x, g: (
            g - x / _rms(x) * (g * x / _rms(x)).mean()) / _rms(x)),
         "one mean a row"),
    ],
    "12-efficiency-4": [
        (lambda given: (lambda layers, every, stream, inside:
                        layers // every * stream + inside), "whole group"),
        (lambda given: (lambda layers, every, stream, inside:
                        layers * stream + every * inside), "th layer only"),
        (lambda given: (lambda layers, every, stream, inside:
                        layers // every * stream), "there too"),
    ],
    "12-efficiency-5": [
        (lambda given: (lambda m, k, n, size, peak, bandwidth: min(
            2 * m * k * n / peak,
            size * (m * k + k * n + m * n) / bandwidth)), "slower one"),
        (lambda given: (lambda m, k, n, size, peak, bandwidth: (
            2 * m * k * n / peak
            + size * (m * k + k * n + m * n) / bandwidth)), "add up"),
        (lambda given: (lambda m, k, n, size, peak, bandwidth:
                        1e3 * _seconds(m, k, n, size, peak, bandwidth)),
         "milliseconds"),
    ],
}
