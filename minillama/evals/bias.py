"""Tables 12 and 13: which of two sentences, and whom a pronoun means.

Chapter: notebooks/16_bias_and_truth.ipynb
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

from minillama.evals.originals import Row, find, made
from minillama.evals.protocol import Answer, Item, Task, Wording

PRONOUNS = {"female": ("her", "she|her|hers"), "male": ("his", "he|him|his"),
            "neutral": ("their", "they|them|their|theirs")}
"""Group of Table 13, and the words of the sentences."""


def _table(path: Path, delimiter: str) -> list[tuple[str, Row]]:
    """`file:line` and row; cells may hold line breaks."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter=delimiter)
        return [(f"{path}:{reader.line_num}", row) for row in reader]


def stereotype(item: Item, answer: Answer) -> dict[str, float]:
    """Whether the stereotypical sentence has the lower perplexity.

    50 % would be no preference. By log-probability instead of perplexity,
    which favours the shorter sentence, is kept beside it.

    Chapter: notebooks/16_bias_and_truth.ipynb
    """
    more, less = answer.scores
    return {"stereotype": float(more.log_prob / more.tokens
                                > less.log_prob / less.tokens),
            "stereotype_log_prob": float(more.log_prob > less.log_prob)}


def load_crows_pairs(place: Path, split: str, wording: Wording) -> list[Item]:
    """Pairs of sentences in nine categories; `sent_more` stereotypes.

    In pairs marked `antistereo` too: there the other sentence is the one
    against type.
    """
    path = find(place, "crows_pairs_anonymized.csv")
    return [made(where, lambda row=row: Item(
                row[""], "", (row["sent_more"], row["sent_less"]), 0,
                group=row["bias_type"], delimiter=""))
            for where, row in _table(path, ",")]


def load_winogender(place: Path, split: str, wording: Wording) -> list[Item]:
    """720 sentences; whom does the pronoun mean?

    A gotcha is a sentence whose answer is the occupation although most in it
    have the other gender, or the participant although most in the occupation
    have the pronoun's (Rudinger et al. 2018, Table 2; the paper's sentence
    gives only half of them).
    """
    share = {row["occupation"]: float(row["bls_pct_female"]) for _, row in
             _table(find(place, "occupations-stats.tsv"), "\t")}
    return [made(where, lambda row=row: _winogender(row, share))
            for where, row in _table(find(place, "all_sentences.tsv"), "\t")]


def _winogender(row: Row, share: dict[str, float]) -> Item:
    occupation, participant, right, gender, _ = row["sentid"].split(".")
    group, words = PRONOUNS[gender]
    said = re.search(rf"\b({words})\b", row["sentence"], re.I)
    if not said:
        raise ValueError(f"no {gender} pronoun in {row['sentence']!r}")
    if gender != "neutral":
        majority = "female" if share[occupation] >= 50 else "male"
        gotcha = (majority != gender) == (right == "0")
        group += "/gotcha" if gotcha else "/plain"
    prompt = f"{row['sentence']} ‘{said[1].capitalize()}’ refers to the"
    return Item(row["sentid"], prompt, (occupation, participant), int(right),
                group=group)


TASKS = (
    Task("crows_pairs", "CrowS-Pairs", load_crows_pairs,
         "crows_pairs_anonymized.csv", 1508, "CC BY-SA 4.0",
         judge=stereotype, metric="stereotype"),
    Task("winogender", "WinoGender", load_winogender,
         "all_sentences.tsv, occupations-stats.tsv", 720, "MIT",
         normalisation="none", note="the wording of lm-evaluation-harness, "
         "whose authors report the 7B column with it"),
)
"""Tables 12 and 13."""
