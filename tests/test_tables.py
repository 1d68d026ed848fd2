"""The docs' tables are printed from the files of results: no number is typed by hand."""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

FOLDER = Path(__file__).parents[1] / "benchmarks"
MOST_BYTES = 300_000  # of a file of results: they are committed
BLOCK = "# Title\n\n<!-- {}: starts -->\n{}<!-- end -->\n\nText.\n"


@pytest.fixture
def common(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import common

    monkeypatch.setattr(sys, "argv", ["/some/where/growth.py", "--data-dir", "/my/cells"])
    return common


@pytest.fixture
def tables(common):
    import tables

    return tables


@pytest.fixture
def given(tmp_path):
    return argparse.Namespace(results=tmp_path / "results", data_dir=Path("/my/cells"))


def record(seed, value, **others):
    return {"dataset": "a", "seed": seed, "metric": "w2", "value": value, **others}


def written(given, name="test"):
    return (given.results / f"{name}.json").read_text()


def test_the_docs_have_what_the_results_print(tables):
    """If this fails: python benchmarks/tables.py --write."""
    results = tables.Results(tables.RESULTS)
    for page in tables.DOCS:
        assert tables.updated(page.read_text(), results) == page.read_text(), page.name


def test_the_docs_name_known_tables(tables):
    names = list(tables.names_in_docs())
    assert {name.split()[0] for name in names} <= set(tables.TABLES)
    assert len(names) == len(set(names))


def test_committed_results_are_small(tables):
    assert [p.name for p in tables.RESULTS.glob("*.json") if p.stat().st_size > MOST_BYTES] == []


def start_results(common, given, seconds=0.25):
    row = {"dataset": "a", "part": "starts", "start": "scld", "metric": "seconds"}
    common.write_results("growth", [row | {"value": seconds}], given, ("part", "dataset"))


def test_a_number_typed_by_hand_is_found(common, tables, given):
    start_results(common, given)
    results = tables.Results(given.results)
    page = tables.updated(BLOCK.format("table", ""), results)
    assert "| scld | 0.25 |" in page
    assert tables.updated(page, results) == page
    assert tables.updated(page.replace("0.25", "0.24"), results) == page


def test_a_table_to_run_waits_for_its_results_with_a_note(common, tables, given):
    page = BLOCK.format("table to run", "| old | table |\n")
    page = tables.updated(page, tables.Results(given.results))
    assert f"{tables.EARLIER}\n\n| old | table |" in page
    assert tables.updated(page, tables.Results(given.results)) == page
    start_results(common, given)
    page = tables.updated(page, tables.Results(given.results))
    assert "<!-- table: starts -->" in page
    assert "old" not in page
    assert tables.EARLIER not in page


def test_a_table_needs_its_results(tables, given):
    with pytest.raises(tables.NotRunError, match=r"growth\.json"):
        tables.updated(BLOCK.format("table", ""), tables.Results(given.results))


def test_results_are_written_only_where_asked(common, tmp_path):
    common.write_results("test", [record(0, 1.0)], argparse.Namespace(results=None))
    assert list(tmp_path.iterdir()) == []


def test_results_of_a_unit_are_replaced_and_others_kept(common, given):
    common.write_results("test", [record(1, 3.0), record(1, 4.0, group="B")], given)
    common.write_results("test", [record(0, 1.0)], given)
    common.write_results("test", [record(1, 2.0)], given)
    found = common.read_results(given.results / "test.json")
    assert found[["seed", "value"]].to_numpy().tolist() == [[0, 1.0], [1, 2.0]]


def test_writing_again_changes_nothing(common, given):
    rows = [record(seed, seed / 3) for seed in (2, 0, 1)]
    common.write_results("test", rows, given)
    once = written(given)
    for row in rows:
        common.write_results("test", [row], given)
    assert written(given) == once


def test_results_are_plain_and_rounded(common, given):
    values = pd.DataFrame([record(0, np.float32(1 / 3)), record(0, np.nan)])
    common.write_results("test", values, given)
    assert '["a",0,"w2",0.33333]' in written(given)
    assert '["a",0,"w2",null]' in written(given)


def test_results_name_command_and_versions_but_no_path(common, given):
    common.write_results("test", [record(0, 1.0)], given)
    assert "python benchmarks/growth.py --data-dir DIR" in written(given)
    assert '"scld"' in written(given)
    assert "/my" not in written(given)
    assert "/some" not in written(given)


def test_quick_results_do_not_go_to_the_docs(common, monkeypatch, capsys):
    folder = str(common.RESULTS)
    monkeypatch.setattr(sys, "argv", ["quality.py", "--quick", "--results", folder])
    with pytest.raises(SystemExit):
        common.begin(common.arguments("", ["a"]))
    assert "--quick mean nothing" in capsys.readouterr().err


def test_types_of_few_cells_are_removed(common):
    obs = pd.DataFrame({"cell_type": ["B"] * 10 + ["T"] * 9}, index=[str(i) for i in range(19)])
    cells = common.without_small_types(AnnData(np.ones((19, 2), np.float32), obs=obs))
    assert set(cells.obs["cell_type"]) == {"B"}
