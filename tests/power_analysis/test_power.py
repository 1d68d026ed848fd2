"""Simulated studies: laws of power, cost and rare types; the cache; what is written."""

from __future__ import annotations

import json
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.stats import binom
from toy import make_cells

import scld
from scld.errors import RequestError
from scld.power_analysis import simulate
from scld.power_analysis.cache import Cache, digest
from scld.power_analysis.design import Point, PowerDesign
from scld.power_analysis.simulate import Simulator
from scld.power_analysis.study import power

FEW = {"rare": {"replicates": 5}, "composition": {"replicates": 5}}
LABELS_ONLY = {"expression": None, **FEW}
EXPRESSION_ONLY = {"rare": None, "composition": None}
LEFT_OUT = "the largest fold change would make a share above 1"
WILCOXON = {"genes": 4, "tests": "wilcoxon", "min_expression": 30}
SMALL = {
    "donors": [2, 3],
    "cells": 40,
    "log2fc": [0, 2],
    "replicates": 2,
    "types": ["B", "T"],
    "expression": {**WILCOXON, "min_cells": 3},
    **FEW,
}


@pytest.fixture(scope="module")
def pilot(config):
    """Fitted on four donors, whose genes and composition differ; read only."""
    cells, random, donor = make_cells(240), np.random.default_rng(0), np.arange(240) // 3 % 4
    factors = random.choice([0.5, 1.0, 2.0], (4, cells.n_vars))
    cells.X = sp.csr_matrix(random.poisson(cells.X.toarray() * factors[donor]).astype(np.float32))
    cells.obs["donor"] = [f"donor_{i}" for i in donor]
    some = (np.arange(240) % 3 > 0) | (donor > 0) | (np.arange(240) < 60)
    some &= np.asarray(cells.X.sum(axis=1)).ravel() > 0
    labels = ["cell_type", "donor"]
    return scld.Synthesizer(labels, config=config).fit(cells[some].copy(), progress=False)


@pytest.fixture(scope="module")
def without_donors(config):
    return scld.Synthesizer("cell_type", config=config).fit(make_cells(), progress=False)


@pytest.fixture(scope="module")
def study(pilot):
    return power(pilot, SMALL, progress=False)


def run(model, design, **options):
    """A study without progress, and without the warning about donors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return power(model, design, progress=False, **options)


def rows(study, **values):
    found = study.table
    for name, value in values.items():
        found = found[found[name] == value]
    return found


def test_one_row_per_point_type_test_and_metric(study):
    assert len(rows(study, analysis="expression")) == 2 * 2 * 3 * 3
    assert len(rows(study, analysis="rare")) == 2 * 2
    assert len(rows(study, analysis="composition")) == 2 * 2
    keys = ["analysis", "type", "test", "metric", "donors", "cells", "depth", "log2fc", "fold"]
    assert not study.table.duplicated(keys).any()
    known = study.table.dropna(subset=["value", "lower"])
    assert (known["lower"] <= known["value"] + 1e-9).all()
    assert (known["value"] <= known["upper"] + 1e-9).all()
    assert rows(study, metric="power", log2fc=0.0)["value"].isna().all()


def test_power_grows_with_the_effect(pilot):
    design = {**SMALL, **EXPRESSION_ONLY, "donors": 3, "log2fc": [0.3, 4]}
    found = rows(power(pilot, design, progress=False), type="overall", metric="power")
    weak, strong = found["value"]
    assert weak < strong
    assert strong > 0.8


def test_cells_are_no_replicates_if_donors_differ(pilot, without_donors):
    """Without effect, the rank-sum test is right only where donors do not differ."""
    design = {**SMALL, **EXPRESSION_ONLY, "donors": 4, "cells": 150, "log2fc": 0, "replicates": 3}
    design["types"] = ["B", "NK", "T"]
    one, other = (
        rows(run(model, design), type="overall", metric="false_positive_rate")["value"].item()
        for model in (pilot, without_donors)
    )
    assert other < 0.12
    assert one > 2 * other


def test_pseudobulk_of_a_whole_study(pilot):
    pytest.importorskip("pydeseq2")
    expression = {**WILCOXON, "tests": ["pseudobulk", "wilcoxon"]}
    design = {**SMALL, **EXPRESSION_ONLY, "donors": 4, "cells": 60, "log2fc": 4, "replicates": 1}
    found = power(pilot, {**design, "expression": expression}, progress=False)
    values = rows(found, type="overall", metric="power").set_index("test")["value"]
    assert values["pseudobulk"] > 0.5
    assert rows(found, test="pseudobulk", type="overall", metric="fdr")["value"].item() < 0.5


def test_planted_genes_are_expressed_and_half_of_them_up(pilot):
    simulator = Simulator(pilot, PowerDesign.of(SMALL).for_model(pilot.schema), 0)
    for name in ("B", "T"):
        genes, signs = simulator.planted(name, 0)
        assert len(set(genes)) == 4
        assert signs.sum() == 0
        assert (simulator.expression[name][genes] >= 30).all()
        assert not np.array_equal(genes, simulator.planted(name, 1).genes)


def test_effects_are_in_treated_cells_of_their_type_only(pilot, monkeypatch):
    simulator = Simulator(pilot, PowerDesign.of(SMALL).for_model(pilot.schema), 0)
    sampled = {}

    def record(self, table, seed, **keywords):
        sampled.update(keywords, table=table)
        return pilot.sample(obs=table, seed=seed, new_donors="donor", progress=False, **keywords)

    monkeypatch.setattr(Simulator, "_sample", record)
    simulator.expression_study(Point(2, 40, 0.5, 2.0), 0)
    assert sampled["depth"] == 0.5
    assert [effect.where for effect in sampled["effects"]] == [
        {"cell_type": name, "group": "treated"} for name in ("B", "T")
    ]
    assert set(np.abs(list(sampled["effects"][0].log2fc.values()))) == {2.0}
    assert set(sampled["table"]["cell_type"]) == {"B", "T"}
    by_donor = sampled["table"].groupby("donor", observed=True)["group"].nunique()
    assert (by_donor == 1).all()


def test_types_with_too_few_cells_are_untested(pilot):
    design = {**SMALL, **EXPRESSION_ONLY, "expression": {**WILCOXON, "min_cells": 1000}}
    found = power(pilot, design, progress=False)
    assert (found.table["untested"] == 2).all()
    assert (rows(found, metric="power", log2fc=2.0)["value"] == 0).all()


def test_the_probability_of_a_rare_type_is_binomial_without_donors(without_donors):
    """Thirds of each type: cells of a type are binomial, in the study and in each donor."""
    for per, chance in (
        ("study", binom.sf(13, 40, 1 / 3)),
        ("donor", binom.sf(2, 10, 1 / 3) ** 4),
    ):
        cells = 14 if per == "study" else 3
        rare = {"cells": cells, "per": per, "replicates": 200, "types": ["B"]}
        design = {"donors": 2, "cells": 10, "expression": None, "composition": None, "rare": rare}
        found = run(without_donors, design).table.iloc[0]
        assert abs(found["value"] - chance) < 4 * np.sqrt(chance * (1 - chance) / 200)


def test_composition_without_change_is_found_at_the_level_alpha(without_donors):
    composition = {"fold": [1, 2], "replicates": 100, "types": ["B"]}
    design = {"donors": 4, "cells": 60, **LABELS_ONLY, "rare": None, "composition": composition}
    none, double = run(without_donors, design).table["value"]
    assert none < 0.14
    assert double > 0.9


@pytest.mark.parametrize("fold", [0.4, 1, 1.8])
def test_the_share_is_multiplied_as_asked(without_donors, monkeypatch, fold):
    design = PowerDesign.of({"donors": 2, "cells": 3000, "donor": None})
    simulator = Simulator(without_donors, design.for_model(without_donors.schema), 0)
    seen = {}
    monkeypatch.setattr(
        simulate.detection,
        "share_test",
        lambda cells, totals, treated: seen.update(shares=cells / totals, totals=totals) or 1.0,
    )
    simulator.composition_p(2, 3000, "T", fold, 0)
    assert (seen["totals"] == 3000).all()
    np.testing.assert_allclose(seen["shares"][::2], 1 / 3, atol=0.04)
    np.testing.assert_allclose(seen["shares"][1::2], fold / 3, atol=0.04)


def test_larger_studies_contain_the_donors_of_smaller_ones(pilot):
    simulator = Simulator(pilot, PowerDesign.of(SMALL).for_model(pilot.schema), 0)
    small, large = simulator.table(2, 10, 5), simulator.table(4, 10, 5)
    pd.testing.assert_frame_equal(small, large.iloc[:40])
    assert set(small["group"][small["donor"] == "new_2"]) == {"treated"}


def test_the_cost_is_that_of_donors_cells_and_counts(pilot):
    prices = {"donor": 100, "cell": 2, "million_counts": 1000}
    design = {**SMALL, **EXPRESSION_ONLY, "depth": 0.5, "prices": prices}
    found = power(pilot, {**design, "donors": 3, "replicates": 1}, progress=False)
    simulator = Simulator(pilot, found.design, 0)
    counts = 6 * 40 * 0.5 * simulator.counts_per_cell
    assert found.table["cost"].unique() == pytest.approx([600 + 480 + counts * 1000 / 1e6])
    typical = np.asarray(make_cells().X.sum(axis=1)).mean()
    assert 0.3 < simulator.counts_per_cell / typical < 3


def test_the_cache_is_used_and_changes_nothing(pilot, study, tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    first = power(pilot, SMALL, cache=folder, progress=False)
    pd.testing.assert_frame_equal(first.table, study.table)
    files = set(folder.iterdir())
    monkeypatch.setattr(Simulator, "table", None)  # calling it would be an error
    again = power(pilot, SMALL, cache=str(folder), progress=False)
    pd.testing.assert_frame_equal(again.table, study.table)
    assert set(folder.iterdir()) == files


def test_a_finer_grid_keeps_what_is_known(pilot, tmp_path, monkeypatch):
    design = {**SMALL, **EXPRESSION_ONLY, "log2fc": 2}
    power(pilot, {**design, "donors": 2}, cache=tmp_path, progress=False)
    studies, original = [], Simulator.expression_study

    def counted(self, point, replicate):
        studies.append((point.donors, replicate))
        return original(self, point, replicate)

    monkeypatch.setattr(Simulator, "expression_study", counted)
    power(pilot, {**design, "donors": [2, 3], "replicates": 3}, cache=tmp_path, progress=False)
    assert studies == [(2, 2), (3, 0), (3, 1), (3, 2)]
    power(pilot, {**design, "donors": 2}, cache=tmp_path, seed=1, progress=False)
    assert len(studies) == 6


def test_a_damaged_file_of_the_cache_is_computed_again(tmp_path):
    cache = Cache(tmp_path)
    assert cache.get({"a": 1}, lambda: [1]) == [1]
    (file,) = tmp_path.iterdir()
    file.write_text("{")
    assert cache.get({"a": 1}, lambda: [2]) == [2]
    assert cache.get({"a": 1}, lambda: [3]) == [2]
    with pytest.raises(RequestError, match="cannot be a folder"):
        Cache(file)


def test_the_digest_is_that_of_the_checkpoint(pilot, without_donors, tmp_path):
    pilot.save(tmp_path / "a.scld")
    assert digest(scld.load(tmp_path / "a.scld")) == digest(pilot) != digest(without_donors)


def test_same_seed_same_results_from_a_path(pilot, study, tmp_path):
    pilot.save(tmp_path / "a.scld")
    again = power(str(tmp_path / "a.scld"), SMALL, progress=False)
    pd.testing.assert_frame_equal(again.table, study.table)
    design = {**SMALL, **EXPRESSION_ONLY, "donors": 3, "log2fc": 2}
    one, other = (power(pilot, design, seed=i, progress=False).table["value"] for i in range(2))
    assert not one.equals(other)


def test_without_donors_a_warning_says_that_power_is_too_high(without_donors, pilot):
    design = {"donors": 2, "cells": 10, **LABELS_ONLY}
    with pytest.warns(UserWarning, match=r"no label 'donor'.*too optimistic"):
        found = power(without_donors, design, progress=False)
    assert "too optimistic" in found.summary()
    with pytest.warns(UserWarning, match="the design ignores donors"):
        power(pilot, {**design, "donor": None}, progress=False)


def test_other_labels_can_be_fixed(config):
    cells = make_cells()
    labels = ["cell_type", "treated"]
    synth = scld.Synthesizer(labels, config=config).fit(cells, progress=False)
    design = PowerDesign.of({"donors": 2, "cells": 20, "where": {"treated": True}})
    simulator = Simulator(synth, design.for_model(synth.schema), 0)
    assert simulator.table(2, 20, 0)["treated"].astype(bool).all()
    with pytest.raises(RequestError, match="design: where"):
        PowerDesign.of({"donors": 2, "cells": 20, "where": {"treat": 1}}).for_model(synth.schema)


def test_too_few_expressed_genes_are_refused(pilot):
    design = {**SMALL, **EXPRESSION_ONLY, "expression": {"genes": 200, "tests": "wilcoxon"}}
    with pytest.raises(RequestError, match=r"genes of type 'B' have min_expression.*lower one"):
        power(pilot, design, progress=False)


def test_without_pydeseq2_the_extra_is_named(pilot, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydeseq2.dds", None)
    with pytest.raises(RequestError, match=r"pip install 'scld\[power\]'"):
        power(pilot, {"donors": 2, "cells": 10}, progress=False)
    assert len(power(pilot, {**SMALL, **LABELS_ONLY}, progress=False).table)


def test_only_a_model_or_its_path_can_be_a_pilot():
    with pytest.raises(RequestError, match="pilot: got dict; pass a fitted Synthesizer"):
        power({}, SMALL)


def test_a_study_of_labels_alone_is_written_and_types_left_out_are_named(pilot, tmp_path):
    found = power(pilot, {**SMALL, **LABELS_ONLY, "composition": {"fold": 4}}, progress=False)
    assert found.notes == ("composition: 'B', 'T' left out: " + LEFT_OUT,)
    found.to_html(tmp_path / "a.html")
    assert (tmp_path / "a.html").read_text().count("<svg") == 1


def test_everything_is_written(study, tmp_path):
    study.to_html(tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text()
    body = page.split("<tbody>")[1].split("</tbody>")[0]
    assert body.count("<tr>") == len(study.table)
    assert page.count("<svg") == page.count("<figure>") == 7
    assert "http" not in page.replace("http://www.w3.org", "")
    assert ">nan<" not in page
    study.to_csv(tmp_path / "a.csv")
    assert len(pd.read_csv(tmp_path / "a.csv")) == len(study.table)
    values = json.loads(study.to_json(tmp_path / "a.json"))
    assert values == json.loads((tmp_path / "a.json").read_text())
    assert len(values["results"]) == len(study.table)
    assert PowerDesign.of(values["design"]) == study.design
    for text in ("Differential expression", "Rare types: at least 10", "Change of composition"):
        assert text in study.summary()
    assert str(study) == study.summary()
    assert repr(study) == f"PowerStudy({len(study.table)} results of 4 designs)"


def test_progress_is_shown_only_if_asked(without_donors, capfd):
    design = {"donors": 2, "cells": 10, **LABELS_ONLY}
    with pytest.warns(UserWarning, match="too optimistic"):
        power(without_donors, design)
    assert "power" in capfd.readouterr().err
