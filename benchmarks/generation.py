"""Generation speed beside Hugging Face's `generate()`, greedy.

    export OMP_NUM_THREADS=2
    python -m benchmarks.generation --compile --int8
    python -m benchmarks.generation --preset 110M --new-tokens 50 --turns 7
    python -m benchmarks.generation --batch 16
    python -m benchmarks.generation --preset 7B --compile --dtype bf16

All have the same random weights and a cache, work under
`torch.inference_mode`, and must write the same tokens before the clock
starts; in 16 bits, where near ties fall otherwise, what is compared is a
short text in fp32. Speed does not depend on whether the text makes sense.
Ours is timed as it is built, as `minillama generate` writes
(`FastTransformer`), with that compiled, and with its matrices in 8 bits,
where the text may differ. Writing one token reads every weight but the
embedding. So in the same turns a block
of their size is summed once for every new token: nothing that reads all
weights for each token can be faster, and a small model is held to the speed
of the cache that its weights fit into. And the matrices are multiplied by a
vector, one after another, with nothing between them: what is left then is not
the loop's.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from typing import Any

import torch

from benchmarks import harness
from minillama.config import ModelConfig
from minillama.devices import choose_device, choose_dtype
from minillama.fast import FastTransformer
from minillama.generate import next_tokens
from minillama.model import Transformer
from minillama.weights.ladder import twin

INT8 = "fast, int8"
OURS = ("as built", "fast", "fast, compiled", INT8)
THEIRS = "Hugging Face generate()"
READ = "reading the weights"
PRODUCTS = "the products alone"
PROMPT = [1, *range(300, 315)]

Write = Callable[[], list[int]]
"""Continues the prompt; gives prompt and continuation, text after text."""


def our_writer(model: Transformer, new_tokens: int, batch: int = 1) -> Write:
    """The package's own loop."""

    def write() -> list[int]:
        columns = next_tokens(model, [PROMPT] * batch,
                              max_new_tokens=new_tokens, temperature=0.0)
        return torch.stack(list(columns), dim=1).flatten().tolist()

    return write


def their_writer(
    model: Transformer, new_tokens: int, batch: int = 1
) -> Write:
    """Hugging Face's `generate`, told to go on to the last token."""
    theirs = twin(model)
    theirs.generation_config.eos_token_id = None
    ids = torch.tensor([PROMPT] * batch, device=model.output.weight.device)

    @torch.inference_mode()
    def write() -> list[int]:
        return theirs.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False,
            max_new_tokens=new_tokens).flatten().tolist()

    return write


def make_model(config: ModelConfig, device: torch.device) -> Transformer:
    """One of random weights."""
    with device:
        model = Transformer(config)
    model.init_weights(torch.Generator(device).manual_seed(1))
    return model.eval()


def make_sides(
    model: Transformer,
    new_tokens: int,
    batch: int = 1,
    ours: tuple[str, ...] = OURS[:2],
) -> dict[str, Write]:
    """Writers of the same text; in 32 bits it has been compared."""
    forms = {OURS[0]: lambda m: m, OURS[1]: FastTransformer,
             OURS[2]: lambda m: FastTransformer(m, compile=True),
             INT8: lambda m: FastTransformer(m, int8=True)}
    sides = {THEIRS: their_writer(model, new_tokens, batch)}
    for name in ours:
        sides[name] = our_writer(
            forms[name](copy.deepcopy(model)), new_tokens, batch)
    texts = {name: write() for name, write in sides.items()}
    if model.output.weight.dtype.itemsize < 4:
        return sides
    for name, text in texts.items():
        if text != texts[THEIRS] and name != INT8:  # which is rounded
            raise RuntimeError(f"{name} writes another text than {THEIRS}")
    return sides


def products(model: Transformer, batch: int = 1) -> Callable[[], Any]:
    """The matrix products of one step, as the fast form lays them out."""
    fast = FastTransformer(copy.deepcopy(model))
    matrices = [fast.w_output, *(
        matrix for block in fast.blocks for matrix in (
            block.w_qkv, block.wo, block.w_gate_up, block.w_down))]
    pairs = [(torch.ones(batch, len(m), dtype=m.dtype, device=m.device), m)
             for m in matrices]

    @torch.inference_mode()
    def multiply() -> list[torch.Tensor]:
        return [x @ matrix for x, matrix in pairs]

    return multiply


def summarise(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """A row for each of our forms, over all turns of all runs.

    `of_read` is how long a plain read of the weights takes, as a share of the
    time that writing took, `of_products` the same of the products alone, and
    `at_most` the ratio to their speed that a plain read would have. A batch
    reads the weights once for all its texts.
    """
    s = runs[0]["settings"]
    rows = {}
    for ours in OURS:
        kept = [r for r in runs if ours in r["times"]["wall"]]
        if not kept:
            continue
        rate = harness.median_rate(kept, ours)
        part = 0.25 if ours == INT8 else 1.0  # of the bytes are to read
        read = rate / s["batch"] * kept[0]["weight_bytes"] * part
        held = harness.pooled(kept, "wall", ours, READ)["median"]
        bound = harness.pooled(kept, "wall", READ, THEIRS)["median"]
        kind = f", {s['dtype']}" if "dtype" in s else ""
        rows[f"{s['preset']}, batch {s['batch']}{kind}: {ours}"] = {
            "turns": sum(len(r["times"]["wall"][ours]) for r in kept),
            "tokens_per_s": rate,
            "theirs": harness.median_rate(kept, THEIRS),
            "wall": harness.pooled(kept, "wall", ours, THEIRS),
            "cpu": harness.pooled(kept, "cpu", ours, THEIRS),
            "gb_per_s": read / 1e9, "of_read": held * part,
            "of_products": None if ours == INT8 else harness.pooled(
                kept, "wall", ours, PRODUCTS)["median"],
            "at_most": bound / part}
    return rows


def weight_bytes(model: Transformer) -> int:
    """What one new token has to read: all matrices but the embedding."""
    looked_up = 0 if model.config.tie_embeddings else (
        model.tok_embeddings.weight.nbytes)
    return sum(p.nbytes for p in model.parameters()) - looked_up


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="15M")
    parser.add_argument("--new-tokens", type=int, default=200)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", choices=("fp32", "bf16", "fp16"),
                        default="fp32")
    parser.add_argument("--compile", action="store_true",
                        help="time the compiled form as well")
    parser.add_argument("--int8", action="store_true",
                        help="time the form in 8 bits as well")
    args = parser.parse_args()
    device, config = choose_device(args.device), ModelConfig.preset(
        args.preset)
    model, settings = make_model(config, device), {
        "preset": args.preset, "batch": args.batch,
        "new_tokens": args.new_tokens}
    name = f"generation-{args.preset.lower()}-batch{args.batch}"
    if args.dtype != "fp32":
        make_sides(model, 8, args.batch)  # or a RuntimeError
        model.to(choose_dtype(args.dtype, device))
        settings["dtype"] = args.dtype
        name += f"-{args.dtype}"
    sides = make_sides(model, args.new_tokens, args.batch,
                       (*OURS[:2], *OURS[2:3] * args.compile,
                        *OURS[3:] * args.int8))
    step = products(model, args.batch)
    size = weight_bytes(model)
    block = torch.ones(size // 4, device=device)
    sides[READ] = lambda: [block.sum() for _ in range(args.new_tokens)]
    sides[PRODUCTS] = lambda: [step() for _ in range(args.new_tokens)]
    path, rows = harness.store(
        name, {
            "settings": settings,
            "units_per_turn": args.new_tokens * args.batch,
            "weight_bytes": size,
            "times": harness.take_turns(sides, turns=args.turns, warm_up=0),
        }, summarise, device)
    print(harness.table(rows), path, sep="\n\n")


if __name__ == "__main__":
    main()
