"""The shipped model in llama.cpp: same text, same logits?

`python run.py llamacpp` compiles llama-cpp-python (6 to 20 minutes, once) in
a folder of its own, `build/llamacpp`, so that no other command waits for it.
The model goes through `save_gguf`; what comes back is compared with this
package's and stored in `benchmarks/results/llamacpp.json`, which the book
quotes.
"""

from __future__ import annotations

import json
import sys
import tempfile
import venv
from datetime import date
from pathlib import Path
from typing import Any

from tools.shell import ROOT, call

ROOM = ROOT / "build" / "llamacpp"
RESULT = ROOT / "benchmarks" / "results" / "llamacpp.json"
PROMPT, NEW_TOKENS = "KING HENRY:\n", 100
NEEDED = "llama-cpp-python>=0.3.16"

# Runs where llama.cpp is and nothing else: prints JSON.
SCRIPT = '''
import json, sys
import llama_cpp
job = json.load(open(sys.argv[1], encoding="utf-8"))

def write(**options):
    model = llama_cpp.Llama(job["model"], n_ctx=job["room"], n_threads=1,
                            logits_all=True, verbose=False, **options)
    ids = list(job["ids"])
    model.eval(ids)
    while len(ids) < job["length"]:
        token = int(model.scores[len(ids) - 1].argmax())
        ids.append(token)
        model.eval([token])
    return ids, model.scores[:len(job["ids"])].tolist(), model

plain_ids, plain_scores, _ = write()
ids, scores, model = write(type_k=0, type_v=0, flash_attn=False)
json.dump({"version": llama_cpp.__version__, "ids": ids, "scores": scores,
           "default_ids": plain_ids, "default_scores": plain_scores,
           "pieces": model.tokenize(job["text"].encode(), add_bos=True)},
          open(sys.argv[2], "w", encoding="utf-8"))
'''


def room() -> Path:
    """The Python that has llama.cpp, installed the first time."""
    name = "Scripts/python.exe" if sys.platform == "win32" else "bin/python"
    python = ROOM / name
    if not (ROOM / "installed.txt").is_file():
        print("compiling llama.cpp, 6 to 20 minutes ...", flush=True)
        venv.create(ROOM, with_pip=True, clear=ROOM.exists())
        call(python, "-m", "pip", "--disable-pip-version-check", "install",
             NEEDED, quiet=True)
        (ROOM / "installed.txt").write_text(NEEDED, encoding="utf-8")
    return python


def compare(python: Path, folder: Path) -> dict[str, Any]:
    """Write the model, let llama.cpp read it, hold both together."""
    import torch

    from minillama import samples
    from minillama.generate import next_tokens
    from minillama.weights import save_gguf

    model, tokenizer = samples.load_mini()
    save_gguf(model, folder / "mini.gguf", tokenizer=tokenizer)
    ids = tokenizer.encode(PROMPT, bos=True)
    job = {"model": str(folder / "mini.gguf"), "ids": ids, "text": PROMPT,
           "length": len(ids) + NEW_TOKENS, "room": model.config.max_seq_len}
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    (folder / "script.py").write_text(SCRIPT, encoding="utf-8")
    call(python, folder / "script.py", folder / "job.json",
         folder / "found.json", quiet=True)
    found = json.loads((folder / "found.json").read_text(encoding="utf-8"))
    ours = torch.cat(list(next_tokens(
        model, [ids], max_new_tokens=NEW_TOKENS, temperature=0.0))).tolist()
    with torch.no_grad():
        want = model(torch.tensor([ids]))[0]
    gaps = {name: (torch.tensor(found[name]) - want).abs().max().item()
            for name in ("scores", "default_scores")}
    return {
        "date": date.today().isoformat(), "command": "python run.py llamacpp",
        "llama_cpp_python": found["version"], "model": "mini, fp32 GGUF",
        "prompt": PROMPT, "text": tokenizer.decode(found["ids"]),
        "same_tokens": len(ours) if found["ids"] == ours else False,
        "same_pieces_of_the_prompt": found["pieces"] == ids,
        "logit_difference": gaps["scores"],
        "same_tokens_with_default_cache": found["default_ids"] == ours,
        "logit_difference_with_default_cache": gaps["default_scores"]}


def main() -> int:
    """Compare, store, print; 1 if it is not the same model."""
    with tempfile.TemporaryDirectory() as folder:
        result = compare(room(), Path(folder))
    RESULT.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n",
                      encoding="utf-8")
    print(json.dumps(result, indent=1, ensure_ascii=False))
    return int(not result["same_tokens"] or result["logit_difference"] > 1e-4)


if __name__ == "__main__":
    sys.exit(main())
