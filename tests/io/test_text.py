"""Reports and tables as text files."""

import csv
import io

import pandas as pd
import pytest

from scld.errors import printable
from scld.io.text import write_csv, write_text

HOSTILE = ["=1+1", "+1", "@SUM(A1)", '=HYPERLINK("http://a.b";"B cell")']


def test_control_characters_are_left_out_and_lines_stay(tmp_path):
    write_text(tmp_path / "a.txt", "B\x1b[31m cell\x00\x07\n\tT\x9b cell é \ud800")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "B[31m cell\n\tT cell é \ufffd"
    assert printable("αβ – 漢字 🧬\n") == "αβ – 漢字 🧬\n"


def test_no_spreadsheet_takes_a_name_for_a_formula(tmp_path):
    table = pd.DataFrame({"type": [*HOSTILE, "B cell", "-1 cell"], "value": [1.5, -2, 3, 4, 5, 6]})
    write_csv(tmp_path / "a.csv", table)
    rows = list(csv.reader(io.StringIO((tmp_path / "a.csv").read_text())))
    assert [row[0] for row in rows[1:]] == [*(f"'{name}" for name in HOSTILE), "B cell", "-1 cell"]
    assert [float(row[1]) for row in rows[1:]] == table["value"].tolist()


def test_a_file_is_whole_or_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "a.csv"
    write_csv(path, pd.DataFrame({"a": [1]}))
    monkeypatch.setattr("pathlib.Path.write_text", lambda *args, **more: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_csv(path, pd.DataFrame({"a": [2]}))
    assert path.read_text() == "a\n1\n"
    assert [file.name for file in tmp_path.iterdir()] == ["a.csv"]
