"""`minillama plan` as a user meets it, and what its numbers have to be.

The fastest layout of LLaMA 65B on 2,048 A100s is held against the training
speed that the paper reports; energy and carbon against their formula; every
kind of bad input ends in exit code 2 and one line.
"""

from __future__ import annotations

import json
import re
import shlex

import pytest

from minillama.cli import main, parse
from minillama.planner import carbon, page
from tools.shell import ROOT

SMALL = ["plan", "--preset", "15M", "--gpus", "2", "--gpu", "t4-16gb"]


def told(capsys, *argv, code=0):
    """The JSON object that a command prints."""
    assert main([*argv, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def refused(capsys, *argv):
    """The one line of a command that is refused."""
    assert main(list(argv)) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    return err


@pytest.fixture(scope="module")
def paper():
    """The plan of the paper's run, as printed and as numbers."""
    found = page.plan(parse(["plan", "--preset", "65B", "--gpus", "2048",
                               "--gpu", "a100-80gb"]))
    return page.text(found), json.loads(json.dumps(found))


def test_the_papers_run_comes_out_near_what_the_paper_measured(paper):
    """380 tokens a second and GPU, 21 days. The planner's 55 % of the peak
    is an assumption that was not fitted to this; 10 % off is near."""
    _, found = paper
    assert found["parameters"] == 65_285_660_672
    cost = found["cost"]
    assert cost["tokens_per_s_per_gpu"] == pytest.approx(380, rel=0.1)
    assert cost["days"] == pytest.approx(20.8, rel=0.1)
    assert found["fits"]
    layout = found["best"]["layout"]
    assert layout["tensor_parallel"] > 1, "as the paper, section 2.4"


def test_days_hours_energy_and_carbon_follow_from_the_speed(paper):
    _, found = paper
    cost = found["cost"]
    hours = 1.4e12 / cost["tokens_per_s_per_gpu"] / 3600
    assert cost["gpu_hours"] == pytest.approx(hours, rel=1e-5)
    assert cost["days"] == pytest.approx(hours / 2048 / 24, rel=1e-5)
    assert cost["kwh"] == pytest.approx(hours * 400 * 1.1 / 1000, rel=1e-5)
    assert cost["tonnes_co2"] == pytest.approx(cost["kwh"] * 0.385e-3)
    batch = found["batch_size"] * found["seq_len"]
    assert batch / found["best"]["seconds"] / 2048 == pytest.approx(
        cost["tokens_per_s_per_gpu"])


def test_every_refused_layout_says_by_how_much(paper):
    _, found = paper
    lacks = [row["excess_gib"] for row in found["refused"]]
    assert len(lacks) > 50 and min(lacks) > 0 and lacks == sorted(lacks)
    for row in found["refused"]:
        assert row["excess_gib"] == pytest.approx(
            row["gib"]["total"] - (79.1 - 4))


def test_the_page_says_what_the_numbers_say(paper):
    shown, found = paper
    best, cost = found["best"], found["cost"]
    assert f"{-best['excess_gib']:.2f} GiB to spare" in shown
    assert f"{cost['tokens_per_s_per_gpu']:,.0f} tokens/s/GPU" in shown
    assert f"{cost['gpu_hours']:,.0f} GPU hours" in shown
    assert f"{len(found['refused'])} layouts do not fit" in shown
    flags = re.search(r"fastest: (.*)", shown)[1].split()
    assert flags[1::2] == [str(best["layout"][name.removeprefix(
        "--").replace("-", "_")]) for name in flags[::2]]


def test_the_flags_of_the_fastest_plan_the_same(capsys, paper):
    shown, found = paper
    flags = re.search(r"fastest: (.*)", shown)[1].split()
    again = told(capsys, "plan", *flags)
    assert again["best"] == found["best"]


def test_a_layout_that_does_not_fit_names_the_nearest(capsys):
    argv = ["plan", "--preset", "1.1B", "--gpus", "2", "--gpu", "t4-16gb",
            "--dp-replicate", "2", "--dp-shard", "1", "--batch-size", "8"]
    found = told(capsys, *argv, code=2)
    assert not found["fits"] and found["best"]["excess_gib"] > 0
    assert found["nearest"]["excess_gib"] <= 0
    assert main(argv) == 2
    shown = capsys.readouterr().out
    assert f"{found['best']['excess_gib']:.2f} GiB too much" in shown
    assert "nearest that fits: --dp-replicate" in shown


def test_too_few_gpus_name_how_many_would_do(capsys):
    argv = ["plan", "--preset", "1.1B", "--gpu", "t4-16gb", "--batch-size",
            "8", "--memory-gib", "8", "--gpus"]
    found = told(capsys, *argv, "1", code=2)
    enough = found["enough_gpus"]
    assert enough > 2 and told(capsys, *argv, str(enough))["fits"]
    assert not told(capsys, *argv, str(enough // 2), code=2)["fits"]
    assert f"try --gpus {enough}" in page.text(found)
    found = told(capsys, "plan", "--preset", "toy", "--gpus", "2",
                 "--memory-gib", "1", code=2)
    assert "try GPUs with more memory each" in page.text(found)


def test_a_dry_run_is_of_the_length_that_was_asked_for(capsys):
    argv = ["plan", "--preset", "mini", "--gpus", "2", "--dp-shard", "2",
            "--dry-run", "--seq-len"]
    peaks = [told(capsys, *argv, length)["dry_run"]["peak_bytes"]
             for length in ("16", "64")]
    assert peaks[1] > 2 * peaks[0]


def test_a_dry_run_is_printed_as_it_was_counted(capsys):
    """Message by message; and what needs no word gets none."""
    argv = ["plan", "--preset", "mini", "--gpus", "2", "--tensor-parallel",
            "2", "--micro-batch-size", "1", "--dry-run"]
    run = told(capsys, *argv)["dry_run"]
    assert main(argv) == 0
    shown = capsys.readouterr().out
    assert f"run on paper: {run['shard']:,} parameters on a GPU" in shown
    assert f"{run['peak_bytes'] / 2**30:.2f} GiB when fullest" in shown
    for one in run["traffic"]:
        assert (f"  {one['kind']} over {one['axis']}, 2 GPUs: "
                f"{one['calls']:,} messages, {one['bytes'] / 1e9:.3g} GB"
                ) in shown
    assert "do not fit" not in shown  # none


def test_without_sequence_parallelism_a_gpu_keeps_more(capsys):
    """The formula and the dry run agree on both, within 2 %."""
    argv = ["plan", "--preset", "110M", "--gpus", "8", "--tensor-parallel",
            "4", "--dp-shard", "2", "--micro-batch-size", "4", "--recompute",
            "none", "--dry-run"]
    found = [told(capsys, *argv, *more)
             for more in ([], ["--no-sequence-parallel"])]
    for one, dealt in zip(found, (True, False)):
        assert one["best"]["layout"]["sequence_parallel"] is dealt
        assert one["best"]["gib"]["total"] * 2**30 == pytest.approx(
            one["dry_run"]["peak_bytes"], rel=0.02)
        assert {t["kind"] for t in one["dry_run"]["traffic"]
                if t["axis"] == "tensor"} == (
            {"all-gather", "reduce-scatter", "all-reduce"} if dealt else
            {"all-gather", "all-reduce"})  # gathered: the embedding
    kept = [one["best"]["gib"]["activations"] for one in found]
    assert kept[1] > 1.3 * kept[0]
    assert "--no-sequence-parallel" in page.text(found[1])
    assert "--no-sequence-parallel" not in page.text(found[0])


def test_knobs_change_what_they_say(capsys):
    """Half the carbon a kWh, twice the tokens, half the peak."""
    base = told(capsys, *SMALL)
    greener = told(capsys, *SMALL, "--grid", str(carbon.grid("opt")))
    assert greener["cost"]["tonnes_co2"] / base["cost"][
        "tonnes_co2"] == pytest.approx(0.231 / 0.385)
    longer = told(capsys, *SMALL, "--tokens", str(2 * base["tokens"]))
    assert longer["cost"]["days"] == pytest.approx(2 * base["cost"]["days"])
    slower = told(capsys, *SMALL, "--peak-flops", "32.5e12")
    assert slower["cost"]["days"] > 1.5 * base["cost"]["days"]
    tighter = told(capsys, *SMALL, "--memory-gib", "13.6")
    assert tighter["best"]["excess_gib"] == pytest.approx(
        base["best"]["excess_gib"] + 1)


def test_writing_13b_on_one_v100(capsys):
    argv = ["plan", "--preset", "13B", "--gpus", "1", "--gpu"]
    found = told(capsys, *argv, "v100-32gb", "--serve", "1")
    assert found["fits"]
    assert found["gib"]["weights"] == pytest.approx(26.03e9 / 2**30, rel=1e-3)
    found = told(capsys, *argv, "v100-16gb", "--serve", "1", code=2)
    assert found["excess_gib"] > 0
    assert main([*argv, "v100-32gb", "--serve", "1"]) == 0
    assert "GiB to spare" in capsys.readouterr().out


@pytest.mark.parametrize("argv, message", [
    (["--gpu", "abacus"], "known|table; try one of .*a100-80gb"),
    (["--grid", "mars"], "grid='mars'"),
    (["--preset", "33B", "--gpus", "8", "--batch-size", "8",
      "--tensor-parallel", "8"],
     r"does not divide n_heads=52; try one of \[1, 2, 4\]"),
    (["--preset", "toy", "--gpus", "2", "--dp-shard", "3"],
     "dp_shard.: 3.* leave one of them out"),
    (["--preset", "toy", "--gpus", "7"], "no layout of gpus=7"),
    (["--preset", "toy", "--gpus", "1000000000000"], "no layout of gpus=1000"),
    (["--recompute", "half"], "recompute"),
    (["--gpus", "0"], "gpus=0 must be a finite number above 0"),
    (["--seq-len", "-3", "--tokens", "nan"], "seq_len=-3 .*; tokens=nan must"),
    (["--peak-flops", "0"], "peak_flops=0.0 must"),
    (["--link-gb-s", "inf"], "link_gb_s=inf must"),
    (["--serve", "0"], "serve=0 must"),
    (["--reserve-gib", "-1"], "reserve_gib=-1.0 must"),
    (["--grid", "nan"], "grid=nan must"),
    (["--efficiency", "0"], "efficiency=0.0 must"),
    (["--efficiency", "1.5"], "efficiency=1.5 is a share .* above 1"),
    (["--pue", "0.9"], "pue=0.9 .* cannot be below 1"),
])
def test_bad_input_ends_in_one_line(capfd, argv, message):
    assert re.search(message, refused(capfd, "plan", *argv))


RECIPES = (ROOT / "book" / "recipes.md").read_text(encoding="utf-8")
ROWS = re.findall(
    r"^\| ([\d.]+[MB]) \| ([\d,]+) [^|]*\| (\d+) x (\d+) x (\d+) \| (\d+) "
    r"\| (\w+) \| ([\d.]+) \|([^|]*)\|([^|]*)\|", RECIPES, re.MULTILINE)


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_the_recipes_are_what_the_planner_says(capsys, row):
    preset, gpus, copies, shards, parts, batch, recompute, gib, days, hours = (
        word.replace(",", "").strip() for word in row)
    found = told(
        capsys, "plan", "--preset", preset, "--gpus", gpus, "--gpu",
        "t4-16gb" if preset == "15M" else "a100-80gb", "--dp-replicate",
        copies, "--dp-shard", shards, "--tensor-parallel", parts,
        "--micro-batch-size", batch, "--recompute", recompute)
    assert found["fits"]
    assert f"{found['best']['gib']['total']:.1f}" == gib
    if hours:
        assert abs(found["cost"]["gpu_hours"] - float(hours)) < 1
        assert f"{found['cost']['days']:.3g}" == f"{float(days):.3g}"


def test_the_launch_lines_of_the_recipes_are_those_of_the_table():
    lines = re.findall(r"^    (torchrun(?:.*\\\n)*.*)", RECIPES, re.MULTILINE)
    starts = [shlex.split(line.replace("\\\n", " ")) for line in lines]
    assert len(ROWS) == 6 and len(starts) == 5
    for row, words in zip(ROWS[1:], starts):
        at = words.index("minillama")
        run = parse(words[at + 1:])
        flags = dict(zip(words[:at], words[1:at]))
        processes = int(flags["--nproc-per-node"]) * int(
            flags.get("--nnodes", 1))
        assert str(processes) == row[1].replace(",", "")
        assert [str(x) for x in (
            run.dp_shard, run.tensor_parallel,
            run.micro_batch_size, run.recompute)] == [
                row[3], row[4], row[5], row[6]], row[0]
