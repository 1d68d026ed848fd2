"""The report: the table, and the files that it writes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from simulated import NO_CONTROLS, TYPES
from test_inputs import PathOf

import scld
from scld.evaluation.controls import CONTROLS
from scld.evaluation.table import COLUMNS


def test_the_table_is_tidy(report):
    table = report.table
    datasets = {"other real", "noise-free", "shuffled", "copies", "baseline", *CONTROLS}
    assert list(table.columns) == COLUMNS
    assert not table.duplicated(["dataset", "group", "metric"]).any()
    assert set(table["dataset"]) == datasets
    assert set(table["group"]) == {"overall", *TYPES}
    assert set(table["better"]) == {"lower", "higher", "target"}
    averaged = table[table["lower"].notna()]
    assert (averaged["lower"] <= averaged["value"] + 1e-12).all()
    assert (averaged["value"] <= averaged["upper"] + 1e-12).all()


def test_positions_run_from_the_baseline_to_the_worst_control(report):
    table = report.table
    controls = table[(table["group"] == "overall") & table["dataset"].isin(list(CONTROLS))]
    worst = controls.groupby("metric")["position"].max().dropna()
    np.testing.assert_allclose(worst, 1)
    assert (table.loc[table["dataset"] == "baseline", "position"] == 0).all()


def test_json_holds_the_table(report, tmp_path):
    path = tmp_path / "report.json"
    assert report.to_json() == report.to_json(PathOf(path))
    read = json.loads(path.read_text())
    assert len(read["metrics"]) == len(report.table)
    assert read["metrics"][0]["value"] == pytest.approx(report.table["value"][0], abs=1e-7)


def test_the_full_summary_shows_every_dataset_beside_the_baseline(report):
    text = report.summary(full=True)
    for name in ("other real", "copies", "baseline", "poisson", "C2ST AUC, largest of three"):
        assert name in text
    assert text.startswith(str(report)[:500])
    assert repr(report).startswith("Report(other real, noise-free, shuffled, copies: ")
    shown = report._repr_html_()
    for words in ("<th>other real</th>", "<th>c2st</th>", "two sets of real cells", "to_html("):
        assert words in shown


def test_the_short_summary_says_what_the_results_mean(report):
    """At most seven lines a dataset, and no table."""
    text = str(report)
    parts = text.split("\n\n")
    assert [part.split(":")[0] for part in parts[:4]] == report.datasets
    assert all(len(part.splitlines()) <= 7 for part in parts[:4])
    assert "exact copies" in parts[3]
    assert "Privacy:" in parts[0]
    assert "C2ST AUC, random forest" not in text


def test_the_report_says_what_was_evaluated_and_how(report):
    assert report.about["scld"] == scld.__version__
    assert report.about["train"] == "AnnData in memory, 600 cells x 150 genes"
    assert report.about["labels"] == "cell_type"
    assert json.loads(report.to_json())["about"] == report.about


def test_costs_are_shown(train, test, fresh):
    costs = {"a": {"seconds": 3.5}}
    found = scld.evaluate(train, test, {"a": fresh}, costs=costs, **NO_CONTROLS)
    assert found.value("a", "seconds") == 3.5


def test_umap_of_a_named_dataset(report, tmp_path):
    path = tmp_path / "map.png"
    report.to_png(PathOf(path), "shuffled")
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(scld.RequestError, match="did you mean 'shuffled'"):
        report.to_png(tmp_path / "none.png", "shufled")


def test_worst_genes_are_rows_of_type_genes_in_order(report):
    pairs, worst = report.type_genes, report.worst_genes
    assert not pairs.duplicated(["dataset", "type", "gene"]).any()
    assert set(pairs["dataset"]) == {"other real", "noise-free", "shuffled", "copies"}
    spread = worst[worst["dataset"] == "noise-free"]
    assert len(spread) == 20
    assert set(spread["off"]) == {"spread"}
    own = spread["identity"].to_numpy(bool)
    assert (np.diff(own.astype(int)) <= 0).all()
    assert (np.diff(spread["spread_z"].abs()[own]) <= 0).all()
    assert (spread["q95"] - spread["q05"] < spread["q95_real"] - spread["q05_real"]).all()


def test_levels_are_those_of_every_test_and_synthetic_cell(report, test, fresh):
    rows = report.type_genes
    row = rows[(rows["dataset"] == "other real") & (rows["type"] == TYPES[1])].iloc[5]
    column = int(row["gene"][1:])
    for adata, key in ((test, "_real"), (fresh, "")):
        inside = (adata.obs["cell_type"] == TYPES[1]).to_numpy()
        counts = adata.X.toarray()[inside].astype(float)
        expected = (1e4 * counts / counts.sum(axis=1, keepdims=True))[:, column].mean()
        assert row[f"mean{key}"] == pytest.approx(expected, rel=1e-5)
        assert row[f"cells{key}"] == inside.sum()


def test_json_holds_the_worst_genes(report):
    read = json.loads(report.to_json())["worst_genes"]
    assert len(read) == len(report.worst_genes)
    assert read[0]["gene"] == report.worst_genes["gene"][0]


def test_files_are_written_whole_or_not_at_all(report, tmp_path, monkeypatch):
    for name, write in {"a.html": report.to_html, "a.csv": report.to_csv}.items():
        write(PathOf(tmp_path / name))
    assert (tmp_path / "a.csv").read_text() == report.table.to_csv(index=False)

    def full(self, *args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(scld.RequestError, match="no space left"):
        report.to_csv(tmp_path / "b.csv")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.csv", "a.html"]
