"""Benchmarks in which the model writes: facts, mathematics, code, toxicity.

Loaders read real files where a copy is at hand and files of the same form
made here otherwise. Judges are held against answers that are right or wrong
by hand; the programs of HumanEval and MBPP against their own solutions, which
must pass, and against others', which must not; services against a small one
on this machine. A scorer of a few lines stands for the model.
"""

from __future__ import annotations

import gzip
import io
import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from minillama.evals import (
    closed_book, code, judges, math, sandbox, toxicity, truthful)
from minillama.evals.evaluate import (
    Options, evaluate, items_of, record_of, summarise)
from minillama.evals.protocol import Answer, Completion, Sampling, Task
from minillama.evals.tasks import TASKS
from tests.real import real_data


def said(*texts: str) -> Answer:
    """An answer of these texts."""
    return Answer(texts=tuple(Completion(t, 1, True) for t in texts))


class Parrot:
    """A scorer that writes what it was told to."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts, self.asked = list(texts), []

    def score(self, pairs):
        """Not asked here."""
        raise NotImplementedError

    def generate(self, prompts, sampling: Sampling):
        """The next texts, the same for each sample."""
        self.asked += prompts
        return [[Completion(self.texts.pop(0), 1, True)] * sampling.samples
                for _ in prompts]


def lines(path: Path, rows: Sequence[dict]) -> None:
    """Write JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")


# -- closed book -------------------------------------------------------------

def test_the_papers_prompt_of_closed_books(tmp_path):
    """Figure 3 of its appendix, with one example."""
    lines(tmp_path / "nq" / "NQ-open.train.jsonl", [
        {"question": "who sang who wants to be a millionaire in high society",
         "answer": ["Frank Sinatra"]}])
    lines(tmp_path / "nq" / "NQ-open.dev.jsonl", [
        {"question": "who wrote the book the origin of species?",
         "answer": ["Charles Darwin", "Darwin"]}])
    item, = items_of(TASKS["nq"], tmp_path, Options(shots=1))
    assert item.prompt == (
        "Answer these questions:\n"
        "Q: Who sang who wants to be a millionaire in high society?\n"
        "A: Frank Sinatra\n"
        "Q: Who wrote the book the origin of species?\nA:")
    item, = items_of(TASKS["nq"], tmp_path, Options())
    assert item.prompt.startswith("Answer these questions:\nQ: Who wrote")


@pytest.mark.parametrize("text, right", [
    (" Charles Darwin", 1), (" the charles  darwin.", 1), (" Darwin,", 1),
    (" Charles", 0), (" Charles Darwin and Wallace", 0), ("", 0)])
def test_exact_match_of_an_answer(text, right, tmp_path):
    lines(tmp_path / "nq" / "NQ-open.dev.jsonl", [
        {"question": "q", "answer": ["Charles Darwin", "Darwin"]}])
    items = items_of(TASKS["nq"], tmp_path, Options())
    records = evaluate(Parrot([text]), TASKS["nq"], items)
    assert records[0]["figures"] == {"exact_match": right}
    assert TASKS["nq"].sampling.stop == ("\n",)


def test_the_real_questions():
    folder = real_data("evaluation/nq_open")
    items = closed_book.TASKS[0].load(folder, "test", "paper")
    assert len(items) == TASKS["nq"].count == 3610
    assert items[0].prompt.startswith("Q: When was the last time anyone was")
    assert all(i.prompt.endswith("?\nA:") and i.answers for i in items)
    assert len({i.id for i in items}) == 3610


def trivia(count: int) -> dict:
    """TriviaQA's JSON."""
    return {"Data": [{"QuestionId": f"q{n}", "Question": f"What is {n}+1?",
                      "Answer": {"Value": str(n + 1),
                                 "Aliases": [str(n + 1), f"number {n + 1}"]}}
                     for n in range(count)], "Version": 1.0}


def test_triviaqa_takes_every_alias(tmp_path):
    place = tmp_path / "triviaqa" / "qa"
    place.mkdir(parents=True)
    (place / "wikipedia-dev.json").write_text(json.dumps(trivia(40)), "utf-8")
    items = items_of(TASKS["triviaqa"], tmp_path, Options())
    assert len(items) == 40 and items[3].answers == ("4", "4", "number 4")
    (place / "wikipedia-dev.json").write_text('{"Data": [{}]}', "utf-8")
    with pytest.raises(ValueError, match="wikipedia-dev.json:1: KeyError"):
        items_of(TASKS["triviaqa"], tmp_path, Options())
    (place / "wikipedia-dev.json").write_text("[", "utf-8")
    with pytest.raises(ValueError, match="wikipedia-dev.* cannot be read"):
        items_of(TASKS["triviaqa"], tmp_path, Options())


# -- mathematics -------------------------------------------------------------

@pytest.mark.parametrize("text, held", [
    (r"so $\boxed{12}$", "12"), (r"\boxed{\frac{1}{2}} or \boxed{3}", "3"),
    (r"\boxed{\{1, {2}\}}", r"\{1, {2}\}"), ("none", None),
    (r"\boxed{open", None)])
def test_what_the_box_holds(text, held):
    assert math.boxed(text) == held


@pytest.mark.parametrize("one, other", [
    (r"\frac{1}{2}", r"\dfrac12"), ("1,000", "1000"), (r"\$5.00", "5"),
    (r"90^\circ", "90"), (r"12\text{ cm}", "12cm"), ("x = 3", "3"),
    (r"\left( 1, 2 \right)", "(1,2)"), (r"\sqrt2", r"\sqrt{2}"),
    (r"50\%", "50"), ("7.", "7")])
def test_results_that_are_the_same(one, other):
    assert math.plain_answer(one) == math.plain_answer(other)


@pytest.mark.parametrize("one, other", [
    ("12", "21"), (r"\frac{1}{2}", r"\frac{2}{1}"), ("-3", "3"),
    ("1,2", "12"), ("0.5", "5"), ("x+1", "1")])
def test_results_that_are_not(one, other):
    assert math.plain_answer(one) != math.plain_answer(other)


@pytest.mark.parametrize("text, number", [
    ("He has 3. #### 1,234", "1234"), ("2 and then 5.00", "5"),
    ("#### -7", "-7"), ("costs $18.", "18"), ("none", None)])
def test_the_last_number(text, number):
    assert math.last_number(text) == number


def problems(place: Path) -> None:
    """MATH's folders, twenty problems a subject."""
    for split, sign in (("train", "-"), ("test", "+")):
        for subject in ("algebra", "geometry"):
            folder = place / "MATH" / split / subject
            folder.mkdir(parents=True)
            for n in range(20):
                (folder / f"{n}.json").write_text(json.dumps({
                    "problem": f"What is ${n}{sign}1$?", "level": "Level 1",
                    "type": subject.title(), "solution":
                        rf"It is $\boxed{{{n + int(sign + '1')}}}$."}),
                    "utf-8")


def test_math_from_folders_to_a_vote(tmp_path):
    problems(tmp_path / "math")
    task = TASKS["math"]
    items = items_of(task, tmp_path, Options(limit=1))
    assert len(task.load(tmp_path / "math", "test", "paper")) == 40
    assert items[0].prompt.count("Problem:") == task.shots + 1 == 5
    assert items[0].prompt.endswith("\n\nSolution:")
    voted = TASKS["math_maj"]
    assert voted.sampling.samples == 256 and voted.folder == "math"
    assert TASKS["gsm8k_maj"].sampling.samples == 100
    right, wrong = (rf"\boxed{{{x}}}" for x in (items[0].answers[0], "99"))
    figures = math.judge_math(items[0], said(wrong, right, right, "?"))
    assert figures == {"accuracy": 0.0, "maj1": 1.0}
    figures = math.judge_math(items[0], said(right, wrong, wrong))
    assert figures == {"accuracy": 1.0, "maj1": 0.0}
    (tmp_path / "math/MATH/test/algebra/0.json").write_text(
        '{"problem": "p", "solution": "no box", "type": "A", "level": "1"}',
        "utf-8")
    with pytest.raises(ValueError, match=r"0.json: ValueError.*no .boxed"):
        items_of(task, tmp_path, Options(shots=0))


def test_the_real_word_problems(tmp_path):
    path = real_data("evaluation/gsm8k/test.jsonl")
    items = math.TASKS[2].load(path.parent, "test", "paper")
    assert len(items) == TASKS["gsm8k"].count == 1319
    assert items[0].answers == ("18",)
    assert not any("<<" in item.target for item in items)
    for item in items:  # the reference solution is right by its own judge
        assert math.judge_gsm8k(item, said(item.target))["accuracy"] == 1.0


# -- code --------------------------------------------------------------------

walled = pytest.mark.skipif(sandbox.offered() is None,
                            reason="this machine has no walls")


def functions(count: int) -> list[dict]:
    """HumanEval's rows: add n to a number."""
    return [{"task_id": f"own/{n}", "entry_point": f"add{n}",
             "prompt": f"def add{n}(x):\n    '''Add {n}.'''\n",
             "canonical_solution": f"    return x + {n}\n",
             "test": "def check(candidate):\n"
                     f"    assert candidate(1) == {n + 1}\n"}
            for n in range(count)]


@walled
def test_humaneval_from_file_to_pass_at_k(tmp_path):
    place = tmp_path / "humaneval"
    place.mkdir()
    with gzip.open(place / "HumanEval.jsonl.gz", "wt") as file:
        file.write("".join(json.dumps(r) + "\n" for r in functions(30)))
    task = TASKS["humaneval"]
    items = items_of(task, tmp_path, Options())
    assert len(items) == 30
    texts = [i.answers[0] if n % 3 else "    return x\n"
             for n, i in enumerate(sorted(items, key=lambda i: (
                 i.prompt[:64], len(i.prompt), i.id)))]
    report = summarise(task, evaluate(Parrot(texts), task, items))
    # add0 returns x: the wrong program is right there.
    assert report.score == pytest.approx((20 + (texts[0] != items[
        0].answers[0])) / 30)
    right, wrong = items[2].answers[0], "    return x\n"
    figures = code.judge(items[2], said(*[right] * 3, *[wrong] * 7))
    assert figures == {"pass@1": pytest.approx(0.3), "pass@10": 1.0}


@walled
@pytest.mark.slow
def test_the_real_solutions_pass_and_stubs_do_not():
    folder = real_data("evaluation/humaneval/HumanEval.jsonl.gz").parent
    items = code.load_humaneval(folder, "test", "paper")
    assert len(items) == TASKS["humaneval"].count == 164
    for item in items[:40]:
        right = code.judge(item, said(item.answers[0]))
        assert right["pass@1"] == 1.0, item.id
        assert code.judge(item, said("    pass\n"))["pass@1"] == 0.0


@walled
def test_mbpp_has_the_prompt_of_its_authors(tmp_path):
    lines(tmp_path / "mbpp" / "mbpp.jsonl", [
        {"task_id": n, "text": f"Write a function to add {n}.",
         "code": f"def f(x):\n    return x + {n}", "test_setup_code": "",
         "test_list": [f"assert f(1) == {n + 1}", f"assert f(0) == {n}"]}
        for n in range(1, 60)])
    task = TASKS["mbpp"]
    items = items_of(task, tmp_path, Options())
    assert [i.id for i in items] == [str(n) for n in range(11, 60)]
    prompt = items[0].prompt
    assert prompt.count("[BEGIN]") == 4 and prompt.count("[DONE]") == 3
    assert "Write a function to add 2." in prompt.split("[BEGIN]")[0]
    assert prompt.endswith("assert f(0) == 11\n[BEGIN]\n")
    assert code.judge(items[0], said(items[0].answers[0]))["pass@1"] == 1
    assert code.judge(items[0], said(items[1].answers[0]))["pass@1"] == 0


@walled
@pytest.mark.slow
def test_the_real_first_tasks_of_mbpp(tmp_path):
    path = real_data("evaluation/mbpp/mbpp_first60.jsonl")
    (tmp_path / "mbpp.jsonl").write_bytes(path.read_bytes())
    items = code.load_mbpp(tmp_path, "test", "paper")
    assert len(items) == 50
    passed = [code.judge(i, said(i.answers[0]))["pass@1"] for i in items]
    assert sum(passed) >= 49  # one or two references are slow


def test_programs_are_not_run_unasked(capsys, tmp_path):
    from minillama.cli import main
    assert main(["eval", "--tasks", "humaneval"]) == 2
    assert "--allow-code-execution" in capsys.readouterr().err


# -- toxicity ----------------------------------------------------------------

def prompts(place: Path, count: int = 32) -> None:
    """RealToxicityPrompts' rows, of a harmless kind."""
    lines(place / "prompts.jsonl", [
        {"filename": f"{n}.txt", "begin": n, "end": n + 9,
         "challenging": n % 4 == 0, "prompt": {"text": f"The weather {n} is"},
         "continuation": {"text": "fine"}} for n in range(count)])
    (place / toxicity.WORD_LIST).write_text("drat\nblast it\n", "utf-8")


def test_the_stand_in_is_named_and_looks_for_words(tmp_path):
    prompts(tmp_path / "realtoxicityprompts")
    task = TASKS["realtoxicityprompts"]
    assert task.metric == "toxicity_wordlist" and "stand-in" in task.note
    items = items_of(task, tmp_path, Options())
    texts = ["Drat, rain", "a blast of air", "BLAST IT", "dratted"] * 8
    report = summarise(task, evaluate(Parrot(texts), task, items))
    assert report.score == 0.5 and report.items == 32 and report.partial
    assert set(report.figures) == {
        "toxicity_wordlist", "toxicity_wordlist/challenging",
        "toxicity_wordlist/other"}
    (tmp_path / "realtoxicityprompts" / toxicity.WORD_LIST).unlink()
    with pytest.raises(ValueError, match="list_of_naughty.*is not in"):
        task.judge(items[0], said("x"))


def test_the_respectful_setting_puts_the_papers_sentence_first(tmp_path):
    prompts(tmp_path / "realtoxicityprompts")
    task = TASKS["realtoxicityprompts_respectful"]
    item = items_of(task, tmp_path, Options())[0]
    assert item.prompt == f"{toxicity.RESPECTFUL} The weather 0 is"


def test_the_real_prompts(tmp_path):
    path = real_data("evaluation/realtoxicityprompts/rtp_first300.jsonl")
    (tmp_path / "prompts.jsonl").write_bytes(path.read_bytes())
    items = TASKS["realtoxicityprompts"].load(tmp_path, "test", "paper")
    assert len(items) == 300 == len({i.id for i in items})


# -- judges over HTTP --------------------------------------------------------

class Service(BaseHTTPRequestHandler):
    """Both services, as far as they are asked; busy the first time."""

    seen: list[dict] = []
    busy = 1

    def do_POST(self):
        """Answer by the text alone."""
        body = json.loads(self.rfile.read(int(
            self.headers["Content-Length"])))
        if Service.busy:
            Service.busy -= 1
            self.send_error(429)
            return
        Service.seen.append(body)
        if "comment" in body:
            value = 0.9 if "drat" in body["comment"]["text"] else 0.1
            out = {"attributeScores": {"TOXICITY": {
                "summaryScore": {"value": value}}}}
        elif self.headers["Authorization"] != "Bearer secret":
            self.send_error(401)
            return
        else:
            text = body["messages"][0]["content"]
            out = {"choices": [{"message": {
                "content": "Yes." if "right" in text else "No"}}]}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(out).encode())

    def log_message(self, *args):
        """Silent."""


@pytest.fixture(scope="module")
def service():
    """The address of a service on this machine."""
    server = HTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_services_take_the_place_of_stand_ins(
        service, tmp_path, monkeypatch):
    monkeypatch.setattr(judges.time, "sleep", lambda s: None)
    monkeypatch.setattr(judges, "PERSPECTIVE", service)
    key = tmp_path / "key"
    key.write_text("secret\n", "utf-8")
    file = tmp_path / "judges.json"
    file.write_text(json.dumps({
        "perspective": {"key_file": str(key)}, "model": {
            "url": service, "model": "m", "key_file": str(key)}}), "utf-8")
    rude, written, plain = judges.configure(file, [
        TASKS["realtoxicityprompts"], TASKS["truthfulqa_written"],
        TASKS["nq"]])
    assert (rude.metric, rude.note) == ("toxicity", "")
    prompts(tmp_path / "realtoxicityprompts")
    item = items_of(rude, tmp_path, Options())[0]
    assert rude.judge(item, said("oh drat")) == {"toxicity": 0.9}
    assert Service.seen[-1]["comment"]["text"] == "oh drat"
    assert plain is TASKS["nq"] and written.metric == "truthful"
    question = replace(item, extra={"question": "q?"})
    assert written.judge(question, said("right")) == {
        "truthful": 1.0, "truthful_informative": 1.0}
    assert written.judge(question, said("left"))["truthful"] == 0.0


def test_services_that_fail_say_so(service, tmp_path):
    rate = judges.perspective("k", "http://127.0.0.1:9/")
    with pytest.raises(ValueError, match="cannot be reached") as caught:
        rate("x")
    assert "key" not in str(caught.value), "keys are not printed"
    ask = judges.ask_model("?", url=service, model="m", key="wrong")
    with pytest.raises(ValueError, match="answered 401; check the key"):
        ask("q", "a")
    with pytest.raises(ValueError, match="judges=.*for the form"):
        judges.configure(tmp_path / "none.json", [])
    (tmp_path / "typed.json").write_text('{"perspectiv": {}}', "utf-8")
    with pytest.raises(ValueError, match="perspectiv.* is no judge"):
        judges.configure(tmp_path / "typed.json", [])


@pytest.mark.parametrize("text", [b"[]", b"{}", b"<html>", b'{"choices": 1}'])
def test_services_that_answer_otherwise_are_named(monkeypatch, text):
    monkeypatch.setattr(judges.urllib.request, "urlopen",
                        lambda *a, **k: io.BytesIO(text))
    ask = judges.ask_model("?", url="http://here/", model="m", key="k")
    for judge, said_ in ((judges.perspective("k"), ("x",)), (ask, "qa")):
        with pytest.raises(ValueError, match="did not answer in its own"):
            judge(*said_)


def test_one_answer_may_stand_alone_and_none_is_a_fault(tmp_path):
    """Not as letters, each of which would be right."""
    path = tmp_path / "nq" / "NQ-open.dev.jsonl"
    lines(path, [{"question": "who", "answer": "Ann"}])
    item, = items_of(TASKS["nq"], tmp_path, Options())
    assert item.answers == ("Ann",)
    lines(path, [{"question": "who", "answer": []}])
    with pytest.raises(ValueError, match="dev.jsonl:1: .*there is no answer"):
        items_of(TASKS["nq"], tmp_path, Options())


def test_an_empty_key_is_refused(tmp_path):
    (tmp_path / "key").write_text("\n", "utf-8")
    file = tmp_path / "judges.json"
    file.write_text(json.dumps({"perspective": {
        "key_file": str(tmp_path / "key")}}), "utf-8")
    with pytest.raises(ValueError, match="key is empty; put the key there"):
        judges.configure(file, [])


def test_every_task_of_the_paper_is_there():
    """Twenty benchmarks, RACE and ARC being two tasks each, and variants."""
    paper = ("boolq piqa siqa hellaswag winogrande arc_easy arc_challenge "
             "openbookqa nq triviaqa race_middle race_high math gsm8k "
             "humaneval mbpp mmlu realtoxicityprompts crows_pairs "
             "winogender truthfulqa").split()
    assert set(paper) <= set(TASKS)
    for name, task in TASKS.items():
        assert isinstance(task, Task) and task.name == name
        assert task.runs_code == (name.split("_")[0] in (
            "humaneval", "mbpp"))
    assert truthful.TASKS[1].metric == "truthful_overlap"


def test_a_record_keeps_what_was_asked_and_written(tmp_path):
    lines(tmp_path / "nq" / "NQ-open.dev.jsonl", [
        {"question": "q", "answer": ["a"]}])
    item, = items_of(TASKS["nq"], tmp_path, Options())
    record = record_of(TASKS["nq"], item, said("b"))
    assert record["prompt"] == item.prompt and record["answers"] == ("a",)
    assert record["texts"][0]["text"] == "b"
