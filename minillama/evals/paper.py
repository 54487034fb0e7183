"""What the paper printed, as data (`samples/paper_tables.csv`).

Columns: table, model, size, column, value; `group` is the domain of an MMLU
subject, or billions of tokens in a figure; `count` the items behind a value.

Chapter: notebooks/14_evaluation.ipynb
"""

from __future__ import annotations

import csv

from minillama.samples import FOLDER


def printed(column: str = "", table: str = "") -> list[dict[str, str]]:
    """The rows of one column, of one table, or all.

    Chapter: notebooks/14_evaluation.ipynb
    """
    with open(FOLDER / "paper_tables.csv", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file)
                if row["column"] == (column or row["column"])
                and row["table"] == (table or row["table"])]


def nearest_size(parameters: int) -> str:
    """The size of the paper's that is closest by ratio.

    Chapter: notebooks/14_evaluation.ipynb
    """
    sizes = {"7B": 6.7e9, "13B": 13.0e9, "33B": 32.5e9, "65B": 65.2e9}
    return min(sizes, key=lambda s: max(sizes[s], parameters)
               / min(sizes[s], parameters))
