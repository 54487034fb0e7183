"""What `book/todays_models.md` says of other models, and the cell in Colab.

Every block of settings on the page is made small, built with random weights
by transformers from those very settings, written by it, and read back by
`weights.load`; its logits are the oracle. Parameters are counted against the
figures that the owners of the models publish, the cache against its formula.
The cell of chapter 11 that fetches a model by name runs here as if online,
with a download that hands over a local folder.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from minillama import cli, samples, weights
from minillama.model import count_parameters
from minillama.tokenizer import Tokenizer
from minillama.weights import hf
from tools.shell import ROOT

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers")
transformers.utils.logging.disable_progress_bar()

PAGE = (ROOT / "book" / "todays_models.md").read_text(encoding="utf-8")
BASE, REFUSED = "LLaMA 7B", "Mixtral 8x7B"
BLOCK = re.compile(
    r"^\*\*(?P<name>[^*]+)\*\*(?:, where it differs from (?P<base>[\w. ]+?))?"
    r"(?P<said>,[^:]*?(?:`[^`]*`))?:\n\n```json\n(?P<json>.*?)```",
    re.MULTILINE | re.DOTALL)


def blocks() -> dict[str, dict[str, Any]]:
    """The whole config.json of each model on the page."""
    found: dict[str, dict[str, Any]] = {}
    for block in BLOCK.finditer(PAGE):
        start = found[block["base"]] if block["base"] else {}
        found[block["name"]] = start | json.loads(block["json"])
    return found


CONFIGS = blocks()
LOADED = [name for name in CONFIGS if name != REFUSED]
# The owners' own counts, from their model cards and papers.
PUBLISHED = {
    "LLaMA 7B": 6_738_415_616, "Llama 2 70B": 68_976_648_192,
    "Llama 3 8B": 8_030_261_248, "Llama 3.1 8B": 8_030_261_248,
    "Llama 3.2 1B": 1_235_814_400, "SmolLM 135M": 134_515_008,
    "Mistral 7B v0.3": 7_248_023_552}


def test_every_block_on_the_page_is_one_of_ours():
    assert list(PUBLISHED) == LOADED
    assert len(CONFIGS) == PAGE.count("```json")


def written(config: dict[str, Any], folder: Path) -> Path:
    """The folder with this config.json in it."""
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", LOADED)
def test_the_table_counts_right(name: str, tmp_path: Path) -> None:
    config = hf._config(written(CONFIGS[name], tmp_path) / "config.json")
    cells = re.search(rf"^\| {re.escape(name)} \| ([\d,]+) \| ([\d,]+) \|$",
                      PAGE, re.MULTILINE)
    count, cache = (int(cell.replace(",", "")) for cell in cells.groups())
    assert count == count_parameters(config) == PUBLISHED[name]
    # A key and a value a layer, two bytes a number.
    assert cache == 2 * 2 * config.n_layers * config.kv_heads * (
        config.dim // config.n_heads)


def shrunk(config: dict[str, Any]) -> dict[str, Any]:
    """The same settings with heads of 8 numbers, two layers, 300 pieces."""
    small = {**config, "hidden_size": 8 * config["num_attention_heads"],
             "num_hidden_layers": 2, "intermediate_size": 48,
             "vocab_size": 300}
    if scaling := config.get("rope_scaling"):
        # So that 40 tokens are a long text for it.
        small["rope_scaling"] = {
            **scaling, "original_max_position_embeddings": 32}
    return small


@pytest.mark.parametrize("name", LOADED)
def test_a_block_loads_and_means_what_transformers_takes_it_for(
        name: str, tmp_path: Path) -> None:
    small = shrunk(CONFIGS[name])
    torch.manual_seed(3)
    theirs = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(
            **small, initializer_range=0.2)).eval()
    theirs.save_pretrained(tmp_path)
    # In the spelling of the page, not in that of today's transformers.
    ours, _ = weights.load(written(small, tmp_path))
    text = torch.randint(300, (2, 40),
                         generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        torch.testing.assert_close(
            ours(text), theirs(text).logits, rtol=1e-4, atol=1e-4)
    # What a block says matters: without it the logits are others.
    scaling = ours.config.rope_scaling
    assert (scaling is None) == ("rope_scaling" not in CONFIGS[name])
    assert ours.config.tie_embeddings == CONFIGS[name]["tie_word_embeddings"]
    if scaling is not None:
        plain = dict(small)
        del plain["rope_scaling"]
        with torch.no_grad():
            other = weights.load(written(plain, tmp_path))[0](text)
            assert (other - ours(text)).abs().max() > 1e-2


def test_experts_are_refused_as_the_page_says(tmp_path: Path) -> None:
    said = re.search(r"refused with\n`([^`]+)`", PAGE)[1]
    with pytest.raises(ValueError, match=re.escape(said)):
        weights.load(written(CONFIGS[REFUSED], tmp_path))
    window = CONFIGS["Mistral 7B v0.3"] | {"sliding_window": 4096}
    assert '`"sliding_window": 4096` is refused' in PAGE
    with pytest.raises(ValueError, match="sliding_window=4096 is not LLaMA"):
        weights.load(written(window, tmp_path))


def test_the_commands_of_the_page_are_understood() -> None:
    lines = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.S)
             for line in block.splitlines()]
    own, further, out = (cli.parse(shlex.split(line)[1:]) for line in lines)
    assert own.model.n_kv_heads == 2 and own.model.tie_embeddings
    assert own.model.vocab_size == 2048
    assert further.init_from == Path("SmolLM-135M")
    assert further.model.max_seq_len == 512 and further.max_lr == 1e-4
    assert out.to == "hf" and out.source == Path("runs/mine")


def online_cell() -> str:
    """The source of chapter 11's cell with the switch."""
    chapter = ROOT / "notebooks" / "11_generation.ipynb"
    cells = json.loads(chapter.read_text(encoding="utf-8"))["cells"]
    found = ["".join(cell["source"]) for cell in cells
             if "online = False" in "".join(cell["source"])
             and cell["cell_type"] == "code"]
    assert len(found) == 1
    return found[0]


def test_the_cell_writes_with_a_model_fetched_by_name(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture) -> None:
    """A stand-in for the network: SmolLM's kinds of parts, trained by no one.
    """
    import huggingface_hub

    from minillama.generate import generate
    from minillama.model import Transformer

    small = shrunk(CONFIGS["SmolLM 135M"]) | {
        "vocab_size": 512, "max_position_embeddings": 64}
    model = Transformer(hf._config(
        written(small, tmp_path) / "config.json")).eval()
    model.init_weights(torch.Generator().manual_seed(2))
    weights.save_hf(model, tmp_path / "hub",
                    tokenizer=Tokenizer(samples.MINI / "tokenizer.model"))
    (tmp_path / "hub" / "tokenizer.model").unlink()
    asked = []

    def fetch(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(tmp_path / "hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    cell = online_cell()
    exec(cell.replace("online = False", "online = True"), {
        "torch": torch, "weights": weights, "generate": generate,
        "Transformer": Transformer})
    (name, patterns), = asked
    assert name == "HuggingFaceTB/SmolLM-135M"
    assert {"*.json", "*.safetensors"} <= set(patterns)
    out = capsys.readouterr().out
    ours, tokenizer = weights.load(tmp_path / "hub")
    want = generate(ours, tokenizer, ["Gravity is"], max_new_tokens=40,
                    generator=torch.Generator().manual_seed(1))[0]
    assert out == want + "\n" and out.startswith("Gravity is")
