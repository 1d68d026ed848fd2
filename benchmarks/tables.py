"""Print the tables of the docs from the files of results, and write them into the docs.

    python benchmarks/tables.py [TABLE ...] [--results FOLDER] [--write]

A table is named like `quality teaseq_pbmc`: a function below, and what it takes. Without a name,
every table that the docs name is printed. In the docs a table stands between

    <!-- table: quality teaseq_pbmc -->
    <!-- end -->

and --write replaces what is between by what is printed. A block that begins with "table to run"
keeps its former table, with a note that it is of an earlier version, until its results are there,
and then becomes a "table". A benchmark writes its
results with `--results benchmarks/results`. Numbers are mean ± sd over seeds and replicates. Names
and numbers are written as in the text of the docs, whatever the results call them: scld, 0.05, 10%.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd
from ablation import DEFAULT
from ablation import METRICS as ABLATED
from audit import VARIANTS as AUDITED
from common import RESULTS, read_results, shown
from designed_parts import KEYS as DESIGNED
from guidance import MEDIAN_COUNTS
from peers import COSTS as PEER_COSTS
from peers import PUBLISHED, one_table
from quality import (
    DATASETS,
    SCLD,
    TARGETS,
    TEST_CELLS,
    TRAINING_CELLS,
    Target,
    above_chance,
    bounds_in_words,
    measure,
)
from sizes import COSTS

from scld.evaluation.cells import OVERALL
from scld.evaluation.controls import BASELINE, CONTROLS
from scld.io.text import with_interval
from scld.privacy_audit.results import ATTACKS, RELEASED

ROOT = Path(__file__).resolve().parents[1]
DOCS = (*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md")
BLOCK = re.compile(r"<!-- (table|table to run): (.+?) -->\n(.*?)<!-- end -->", re.DOTALL)
EARLIER = (  # the note on former tables
    "> Measured with an earlier version, whose decoder had no expression profiles; "
    "not repeated yet."
)
DASH = "–"
TITLES = {  # metric -> its column
    "c2st": "**C2ST largest**",
    "c2st_forest": "C2ST forest",
    "c2st_linear": "C2ST linear",
    "c2st_boosting": "C2ST boosting",
    "w2": "W2",
    "mmd2": "MMD²",
    "tstr_f1": "F1",
    "label_accuracy": "label accuracy",
    "effect_slope": "effect slope",
    "effect_slope_t": "effect slope, t",
    "marker_inside": "markers inside",
    "marker_outside": "markers outside",
    "identity_level": "identity level",
    "identity_range": "identity range",
    "type_means_off": "type means off",
    "nearer_training": "nearer to training",
    "precision": "precision",
    "coverage": "coverage",
    "library_ks": "library size KS",
    "fit_seconds": "fit, s",
    "peak_memory_mb": "peak MB",
    "cpu_seconds": "CPU seconds",
    "model_mb": "model, MB",
    "autoencoder_steps": "steps, autoencoder",
    "denoiser_steps": "steps, denoiser",
}
DIGITS = {"w2": 2, "W2": 2, "mmd2": 4, "type_means_off": 4, **dict.fromkeys(COSTS, 0)}
DIGITS |= {
    ", zeros": 4,
    ", s": 1,
    " MB": 0,
    ", %": 0,
    "cells/s": 0,
    "SCVI": 2,
    "PyTorch": 2,
    "CSR": 2,
}
# of metrics that end so; else 3
DIGITS |= {"donors": 0, "cells": 0, "genes": 0, "seconds": 0, "/ added": 2}
NAMES = {BASELINE: "real-vs-real baseline", SCLD: "**SCLD**", "augment": "**augment**"}
OVERVIEW = ["c2st_forest", "c2st_linear", "c2st_boosting", "c2st", "w2", "mmd2", "tstr_f1"]
OVERVIEW += ["label_accuracy", "effect_slope", "nearer_training"]
PEERS = {  # part -> metrics, decimal places; None: of each metric
    "scores": (OVERVIEW, None),
    "published": (PUBLISHED, 4),
    "costs": (PEER_COSTS, 0),
}
BIOLOGY = ["effect_slope", "effect_slope_t", "marker_inside", "marker_outside"]
BIOLOGY += ["identity_level", "identity_range", "type_means_off"]
OF_TYPES = ["c2st", "effect_slope", "marker_inside", "marker_outside", "identity_level"]
OF_TYPES += ["type_means_off", "label_accuracy"]
GUIDED = ["precision", "coverage", "tstr_f1", "label_accuracy", "library_ks"]
GUIDED += ["c2st", "c2st_forest", "c2st_linear", "c2st_boosting"]
OWN = "own controls"
SELECTED = ["c2st", "c2st_forest", "c2st_linear", "c2st_boosting", "tstr_f1", "label_accuracy"]
ON_GPU = ["fit, s", "autoencoder, cells/s", "denoiser, cells/s", "sampling, cells/s", "busy, %"]
ON_GPU += ["GPU memory, MB", "c2st", "w2", "tstr_f1", "label_accuracy", "effect_slope"]
NEEDED = ["c2st", "tstr_f1", "label_accuracy", "effect_slope"]
SIZED = ["c2st", "w2", "tstr_f1", "label_accuracy", "effect_slope", "nearer_training", *COSTS]


class NotRunError(Exception):
    """The results of a table are not there yet."""


class Results:
    """The files of results in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def of(self, name: str, **where: object) -> pd.DataFrame:
        """The records of a file with these values; `NotRunError` if there are none."""
        path = self.folder / f"{name}.json"
        found = read_results(path) if path.exists() else pd.DataFrame(columns=list(where))
        for column, value in where.items():
            found = found[found[column] == value]
        if found.empty:
            raise NotRunError(f"{name}.json has no results of {where or 'anything'}")
        return found

    def datasets(self, name: str) -> list[str]:
        """The datasets of a file, those that quality.py names first."""
        found = list(self.of(name)["dataset"].unique())
        return sorted(found, key=lambda each: DATASETS.index(each) if each in DATASETS else 99)


# from records to texts


def means(
    rows: pd.DataFrame, by: Sequence[str], metrics: Sequence[str], digits: int | None = None
) -> pd.DataFrame:
    """One row per group in the order of the rows, one column per metric: mean ± sd."""
    rows = rows[rows["metric"].isin(metrics)]
    order = pd.MultiIndex.from_frame(rows[list(by)].drop_duplicates())
    found = rows.groupby([*by, "metric"], sort=False)["value"].agg(["mean", "std"])
    places = [digits_of(key[-1]) if digits is None else digits for key in found.index]
    texts = [shown(*pair, n) for pair, n in zip(found.to_numpy(), places, strict=True)]
    wide = pd.Series(texts, found.index).unstack("metric").reindex(columns=list(metrics))
    wide.index = pd.MultiIndex.from_frame(wide.index.to_frame())
    return wide.loc[order].fillna(DASH).rename(columns=TITLES).reset_index()


def digits_of(metric: str) -> int:
    """Decimal places of a metric."""
    return next((n for end, n in DIGITS.items() if metric.endswith(end)), 3)


def mean_alone(value: float) -> str:
    """A mean without its sd."""
    return shown(value, float("nan"))


def with_baseline(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows after rows of the method `BASELINE`, from the column of that name."""
    first = rows[rows["baseline"].notna() & ~rows["method"].isin(list(CONTROLS))]
    first = first.drop_duplicates([c for c in rows if c not in ("method", "value", "baseline")])
    return pd.concat([first.assign(value=first["baseline"], method=BASELINE), rows])


def named(table: pd.DataFrame, column: str, title: str) -> pd.DataFrame:
    """The table with the names of methods as the docs have them, under a title."""
    return table.assign(**{column: table[column].replace(NAMES)}).rename(columns={column: title})


def seeds_of(rows: pd.DataFrame) -> str:
    """The number of seeds in words."""
    number = rows["seed"].nunique()
    return "1 seed" if number == 1 else f"{number} seeds"


def as_markdown(table: pd.DataFrame) -> str:
    """The table as GitHub writes tables."""
    lines = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    rows = ["| " + " | ".join(in_style(str(cell)) for cell in line) + " |" for line in lines]
    return "\n".join([rows[0], rows[1].replace(" ", ""), *rows[2:]])


def in_style(text: str) -> str:
    """A text of the results as the docs write it: scld, 0.05, 10%."""
    with_zero = re.sub(r"(?<![\w.])\.(?=\d)", "0.", text.replace(SCLD, "scld"))
    return re.sub(r"(?<=\d) %", "%", with_zero)


# quality


def quality(results: Results, dataset: str) -> pd.DataFrame:
    """Overall scores, with the baseline and the negative controls."""
    rows = results.of("quality", dataset=dataset, group=OVERALL)
    table = means(with_baseline(rows), ["method"], OVERVIEW)
    return named(table, "method", f"{dataset}, {seeds_of(rows)}")


def targets(results: Results) -> pd.DataFrame:
    """What was measured on each dataset, the target, and where it is missed."""
    columns: dict[str, list[str]] = {"": [target.title for target in TARGETS]}
    for dataset in results.datasets("quality"):
        rows = results.of("quality", dataset=dataset)
        columns[dataset] = [_measured(rows, target, dataset) for target in TARGETS]
    return pd.DataFrame(columns | {"target": [_bounds(target) for target in TARGETS]})


def _measured(rows: pd.DataFrame, target: Target, dataset: str) -> str:
    found = measure(rows, target, dataset)
    if found is None:
        return DASH
    group = f" ({found.group})" if target.by_type else ""
    return f"{found.measure}{group}{'' if found.met else ' ✗'}"


def _bounds(target: Target) -> str:
    words = bounds_in_words(*target.bounds)
    return words + (f"; teaseq_pbmc {bounds_in_words(*target.strict)}" if target.strict else "")


def biology(results: Results) -> pd.DataFrame:
    """Effects, markers and identity genes on each dataset, with the baseline."""
    rows = results.of("quality", method=SCLD, group=OVERALL)
    return named(means(with_baseline(rows), ["dataset", "method"], BIOLOGY), "method", "cells")


def types(results: Results, dataset: str) -> pd.DataFrame:
    """One row per type, each score with its baseline."""
    found = results.of("quality", dataset=dataset, method=SCLD)
    rows = found[found["group"] != OVERALL]
    by = ["group", "metric"]
    rows = rows.groupby(by, sort=False)[["value", "baseline"]].mean().reset_index()
    sizes = means(rows, ["group"], [TRAINING_CELLS, TEST_CELLS], 0).set_index("group")
    scores, baselines = (
        means(rows.assign(value=rows[column]), ["group"], OF_TYPES).set_index("group")
        for column in ("value", "baseline")
    )
    both = scores + " (" + baselines + ")"
    table = sizes.join(both).fillna(DASH).replace("– (–)", DASH)
    titles = {TRAINING_CELLS: "training cells", TEST_CELLS: "test cells"}
    return table.rename(columns=titles).rename_axis(f"{dataset}, {seeds_of(found)}").reset_index()


def limit(results: Results) -> pd.DataFrame:
    """The rise in AUC that no generator can avoid, and that of SCLD: all cells, mean of types."""
    of_scld = set(results.datasets("quality"))
    known = [name for name in results.datasets("finite") if name in of_scld]
    return pd.DataFrame([_limit(results, dataset) for dataset in known])


def _limit(results: Results, dataset: str) -> dict[str, str]:
    found = results.of("finite", dataset=dataset)
    row = {f"dataset, {seeds_of(found)}": dataset}
    of_scld = results.of("quality", dataset=dataset, method=SCLD)
    for metric in ("c2st_forest", "c2st_linear"):
        name = metric.removeprefix("c2st_")
        row[f"{name}: limit"] = mean_alone(_cost(found[found["metric"] == metric])[OVERALL])
        row[f"{name}: **SCLD**"] = mean_alone(_gap(of_scld, metric)[OVERALL])
    of_types = pd.DataFrame({"limit": _cost(found), "reached": _gap(of_scld, "c2st")})
    of_types = of_types.drop(OVERALL).dropna().mean()
    row["types: limit"] = mean_alone(of_types["limit"])
    return row | {"types: **SCLD**": mean_alone(of_types["reached"])}


def _cost(found: pd.DataFrame) -> pd.Series:
    """By how much the AUC rises if training values are sampled with replacement, by group."""
    largest = found.groupby(["method", "group", "seed"])["value"].max()
    mean = largest.groupby(level=["method", "group"]).mean().unstack("method")
    rise: pd.Series = mean["with replacement"] - mean["without replacement"]
    return rise


def _gap(of_scld: pd.DataFrame, metric: str) -> pd.Series:
    """The AUC of synthetic cells less that of real ones, by group."""
    rows = of_scld[of_scld["metric"] == metric]
    gap: pd.Series = (rows["value"] - rows["baseline"]).groupby(rows["group"]).mean()
    return gap


def selection(results: Results) -> pd.DataFrame:
    """Post-guidance off and on: overall scores, and the excess of the worst type."""
    off = results.of("quality-post-off", method=SCLD)
    on = results.of("quality-post-select", method=SCLD)
    rows = pd.concat([off.assign(post="off"), on.assign(post="select")])
    rows = rows[rows["dataset"].isin(set(off["dataset"]) & set(on["dataset"]))]
    rows = rows.sort_values(["dataset", "post"], kind="stable")
    by = ["dataset", "post"]
    table = means(rows[rows["group"] == OVERALL], by, SELECTED)
    of_types = rows[(rows["group"] != OVERALL) & (rows["metric"] == "c2st")]
    excess = of_types.assign(excess=above_chance(of_types["value"], of_types["baseline"]))
    worst = excess.groupby([*by, "group"])["excess"].mean().groupby(level=by).max()
    texts = [mean_alone(each) for each in worst.reindex(pd.MultiIndex.from_frame(table[by]))]
    return table.assign(**{"C2ST largest - baseline, worst type": texts})


def guidance(results: Results, dataset: str) -> pd.DataFrame:
    """Scores at each guidance weight, with and without post-guidance."""
    rows = results.of("guidance", dataset=dataset, group=OVERALL)
    table = means(rows, ["method"], GUIDED)
    return named(table, "method", f"{dataset}, {seeds_of(rows)}")


def counts(results: Results, dataset: str) -> pd.DataFrame:
    """Median counts per cell of each type at each guidance weight, without post-guidance."""
    rows = results.of("guidance", dataset=dataset, metric=MEDIAN_COUNTS)
    rows = rows[~rows["method"].str.endswith(", select")]
    rows = rows.assign(metric=rows["method"].str.removesuffix(", off"))
    table = means(rows, ["group"], list(rows["metric"].unique()), 0)
    return table.rename(columns={"group": f"{dataset}, median counts per cell"})


def combinations(results: Results, dataset: str) -> pd.DataFrame:
    """Predictions of stimulated cells of types that were left out."""
    rows = results.of("combinations", dataset=dataset)
    table = means(rows, ["group", "method"], ["correlation", "slope", "top 50", "W2", OWN])
    titles = {"group": f"left-out type, {seeds_of(rows)}", "top 50": "overlap of top 50"}
    titles |= {OWN: "correlation, own controls"}
    return named(table.rename(columns=titles), "method", "cells")


def rare(results: Results, dataset: str, file: str = "rare") -> pd.DataFrame:
    """Means of the rare types: one row per classifier, score and number of cells left."""
    rows = results.of(file, dataset=dataset, group="mean of these")
    rows = rows.assign(method=rows["method"].replace("all real cells", "all real"))
    methods = list(rows["method"].unique())
    rows = rows.assign(score=rows["classifier"] + ", " + rows["metric"], metric=rows["method"])
    rows = rows.assign(
        place=rows["score"].map({s: i for i, s in enumerate(rows["score"].unique())})
    )
    rows = rows.sort_values(["place", "left"], kind="stable")
    table = means(rows, ["score", "left"], methods)
    titles = {"score": f"{dataset}, mean of the types, {seeds_of(rows)}", "left": "cells left"}
    titles["all real"] = "all real cells"
    return table.rename(columns=titles | NAMES)


def donors(results: Results, part: str, dataset: str) -> pd.DataFrame:
    """Two labels: both fixed, one unspecified, or one combination left out."""
    rows = results.of("donors", part=part, dataset=dataset)
    if part == "unspecified":
        rows = rows.assign(metric=rows["method"] + ": " + rows["metric"])
        by = ["group", "unspecified"]
        table = means(rows, by, list(rows["metric"].unique()))
        return table.rename(columns={"group": f"fixed, {seeds_of(rows)}"})
    by = ["method"] if part == "fixed" else ["group", "method"]
    table = means(rows, by, list(rows["metric"].unique()))
    first = table.rename(columns={"group": "left-out combination"})
    return named(first, "method", f"cells, {seeds_of(rows)}")


def designed(results: Results, part: str, dataset: str) -> pd.DataFrame:
    """A part of designed.py: real and synthetic cells; by type where types differ in kind."""
    rows = results.of("designed", part=part, dataset=dataset)
    if part in ("effects", "power"):
        rows = rows[rows["group"] == OVERALL]
    rows = rows.sort_values("group", key=lambda kind: kind.replace(OVERALL, ""), kind="stable")
    known = [key for key in DESIGNED[part] if key != "group" or rows["group"].nunique() > 1]
    for key in known:
        if rows[key].dtype.kind == "f":  # missing in other parts
            rows = rows.astype({key: int})
    table = means(rows, known, list(rows["metric"].unique()))
    titles = {"group": "doublet of a cell and one of" if part == "doublets" else "type"}
    titles |= {"donors": "donors in each group"} if part == "power" else {}
    return named(table.rename(columns=titles), "method", f"{dataset}, {seeds_of(rows)}")


def ablation(results: Results, dataset: str) -> pd.DataFrame:
    """One row per variant, with the baseline."""
    rows = results.of("ablation", dataset=dataset)
    table = means(with_baseline(rows), ["method"], ABLATED)
    return named(table, "method", f"{dataset}, {seeds_of(rows)}")


def audit(results: Results, dataset: str) -> pd.DataFrame:
    """AUC of every attack and its controls, with intervals, and fidelity."""
    rows = results.of("audit", dataset=dataset, method=DEFAULT)
    size = f"{rows['donors'].iloc[0]} donors, {rows['replicates'].max()} splits"
    title = f"{dataset}, {size}: attack"
    columns = {"synthetic, AUC": ("synthetic", "auc"), "TPR at 10%": ("synthetic", "tpr_10")}
    columns |= {"TPR at 1%": ("synthetic", "tpr_1")}
    columns |= {name: (name, "auc") for name in RELEASED if name != "synthetic"}
    lines = []
    for attack in ATTACKS:
        for cells in sorted(set(rows["cells_per_donor"]) - {0}):
            where = {"attack": attack, "cells_per_donor": cells}
            texts = {c: audited(rows, **where, **of_column(*k)) for c, k in columns.items()}
            lines.append({title: attack, "cells per donor": f"{int(cells)}"} | texts)
    fidelity = {"C2ST largest (fidelity)": "synthetic", "C2ST largest, real cells": BASELINE}
    for name, released in fidelity.items():
        found = audited(rows, released=released, metric="c2st")
        lines.append({title: name, "synthetic, AUC": found})
    return pd.DataFrame(lines).fillna("")


def of_column(released: str, metric: str) -> dict[str, object]:
    """The rows of an audit that a column shows."""
    return {"released": released, "metric": metric}


def audited(rows: pd.DataFrame, **where: object) -> str:
    """A value of an audit with its interval; a dash where it is missing."""
    for column, value in where.items():
        rows = rows[rows[column] == value]
    return with_interval(rows.iloc[0].fillna(float("nan")).to_dict()) if len(rows) else DASH


def audit_variants(results: Results, dataset: str) -> pd.DataFrame:
    """One row per variant: AUC of attacks, and fidelity."""
    found = results.of("audit", dataset=dataset)
    attacked = [("copula", 1), ("copula", 10), ("copula", 100), ("distance", 1), ("likelihood", 1)]
    lines = []
    for variant, rows in found.groupby("method", sort=False):
        line = {f"{dataset}: variant": str(variant)}
        for attack, cells in attacked:
            where = {"attack": attack, "cells_per_donor": cells, "metric": "auc"}
            text = audited(rows, **where, released="synthetic")
            line[f"{attack}, {cells} {'cell' if cells == 1 else 'cells'}"] = text
        line["C2ST largest"] = audited(rows, released="synthetic", metric="c2st")
        line["C2ST largest, real cells"] = audited(rows, released=BASELINE, metric="c2st")
        lines.append(line)
    in_order = list(AUDITED)
    return pd.DataFrame(lines).sort_values(
        f"{dataset}: variant", key=lambda names: names.map(in_order.index)
    )


def sizes(results: Results, dataset: str) -> pd.DataFrame:
    """One row per number of training cells, each with the baseline."""
    rows = results.of("sizes", dataset=dataset, group=OVERALL)
    rows = with_baseline(rows).sort_values("cells", kind="stable")
    table = means(rows, ["cells", "method"], SIZED)
    table["cells"] = [f"{cells:,}" for cells in table["cells"]]
    table = table.rename(columns={"cells": f"{dataset}, training cells, {seeds_of(rows)}"})
    return named(table, "method", "cells")


def cells_needed(results: Results, dataset: str) -> pd.DataFrame:
    """How scores grow with the number of training cells, the baseline in parentheses."""
    rows = results.of("sizes", dataset=dataset, group=OVERALL, method=SCLD)
    rows = rows[rows["metric"].isin(NEEDED)].sort_values("cells", kind="stable")
    scores, baselines = (
        means(rows.assign(value=rows[column]), ["cells"], NEEDED).set_index("cells")
        for column in ("value", "baseline")
    )
    table = (scores + " (" + baselines + ")").reset_index()
    table["cells"] = [f"{cells:,}" for cells in table["cells"]]
    return table.rename(columns={"cells": f"{dataset}, training cells, {seeds_of(rows)}"})


def peers(results: Results, part: str, dataset: str) -> pd.DataFrame:
    """Other methods and scld: scores, published protocols, or costs."""
    metrics, digits = PEERS[part]
    rows = results.of("peers", dataset=dataset)
    places = {metric: digits_of(metric) if digits is None else digits for metric in metrics}
    of_places = {n: one_table(rows, metrics, n) for n in set(places.values())}
    table = next(iter(of_places.values()))
    shown_with = {name: of_places[places[name]][name] for name in table if name in places}
    table = table.assign(**shown_with).reset_index().rename(columns=TITLES)
    return named(table, "method", f"{dataset}, {seeds_of(rows)}")


# speed


def speed(results: Results, part: str, dataset: str = "") -> pd.DataFrame:
    """A part of speed.py, of all datasets or of one."""
    where = {"part": part} | ({"dataset": dataset} if dataset else {})
    rows = results.of("speed", **where).dropna(axis=1, how="all")
    known = ("dataset", "method", "budget", "precision", "setting")
    keys = [key for key in known if key in rows]
    rows = rows.fillna(dict.fromkeys(keys, ""))
    table = means(rows, keys, list(rows["metric"].unique()))
    return table.replace({BASELINE: NAMES[BASELINE]})


def growth(results: Results) -> pd.DataFrame:
    """Time and memory of a fit and of a sample, by size."""
    rows = results.of("growth", part="growth")
    size = [f"{int(c):,} x {int(g):,}" for c, g in zip(rows["cells"], rows["genes"], strict=True)]
    rows = rows.assign(size=size)
    table = means(rows, ["growing", "size"], list(rows["metric"].unique()))
    return table.rename(columns={"size": "cells x genes"})


def starts(results: Results) -> pd.DataFrame:
    """Seconds to start."""
    return means(results.of("growth", part="starts"), ["start"], ["seconds"], 2)


def memory(results: Results) -> pd.DataFrame:
    """The estimate of memory and the measured peak."""
    rows = results.of("memory")
    return means(rows, ["dataset"], list(rows["metric"].unique()))


def gpu(results: Results, dataset: str) -> pd.DataFrame:
    """Rates and scores on a GPU and on the CPU of the same machine, compared with SCVI."""
    rows = with_baseline(results.of("gpu", dataset=dataset))
    return named(means(rows, ["method"], ON_GPU), "method", dataset)


def scale(results: Results, part: str) -> pd.DataFrame:
    """Cells in shards, and fits from them: the measurements whose name begins with the part."""
    rows = results.of("scale")
    rows = rows[rows["method"].str.startswith(part)]
    metrics = [name for name in rows["metric"].unique() if name != "genes"]
    rows = rows.assign(whole=[f"{int(cells):,}" for cells in rows["whole"]])
    table = means(rows, ["whole", "method"], metrics, 0)
    titles = {"whole": "dataset, cells", "method": "", "of one worker's rate, %": "efficiency, %"}
    return table.rename(columns=titles)


def loaders(results: Results) -> pd.DataFrame:
    """Rates of loaders, one column per file."""
    rows = results.of("loaders")
    table = rows.pivot_table(index="method", columns="file", values="value", sort=False)
    texts = table.map(lambda value: f"{value:,.0f}").add_suffix(", cells/s")
    return texts.reset_index().rename(columns={"method": ""})


def hostile(results: Results) -> pd.DataFrame:
    """How often each kind of fault was tried, and how often scld failed."""
    rows = results.of("hostile")
    table = rows.pivot_table(index="area", columns="metric", values="value", sort=False)
    texts = table[["tried", "bad"]].map(lambda value: f"{value:,.0f}")
    return texts.reset_index().rename(columns={"area": "fault", "bad": "failures"})


def evaluation_cost(results: Results) -> pd.DataFrame:
    """Time and memory of an evaluation, by the number of synthetic cells."""
    rows = results.of("evaluation_cost")
    rows = rows.assign(cells=[f"{int(cells):,}" for cells in rows["cells"]])
    table = means(rows, ["dataset", "cells"], list(rows["metric"].unique()))
    return table.rename(columns={"cells": "synthetic cells"})


# the first page


def overview(results: Results) -> pd.DataFrame:
    """What scld can do, in words."""
    rows = with_baseline(results.of("quality", dataset="teaseq_pbmc", group=OVERALL))
    of_dataset = "`quality.py`, teaseq_pbmc"

    def mean(method: str, metric: str, digits: str = ".3f") -> str:
        found = rows["value"][(rows["method"] == method) & (rows["metric"] == metric)]
        return f"{found.mean():{digits}}"

    lines = [
        (
            "the whole population",
            f"C2ST AUC, largest of three classifiers: {mean(SCLD, 'c2st')} (real cells: "
            f"{mean(BASELINE, 'c2st')}; Poisson cells: {mean('poisson', 'c2st')}; chance: 0.5)",
            of_dataset,
        ),
        (
            "marker genes",
            "slope of their log2 fold changes on those of real cells: "
            f"{mean(SCLD, 'effect_slope')} (real cells: {mean(BASELINE, 'effect_slope')})",
            of_dataset,
        ),
        (
            "targeted subpopulations",
            "a classifier trained on real cells assigns the requested type to "
            f"{mean(SCLD, 'label_accuracy', '.0%')} of synthetic cells "
            f"(real cells: {mean(BASELINE, 'label_accuracy', '.0%')})",
            of_dataset,
        ),
        (
            "rare types, unseen combinations, two labels",
            "`augment`, `sample(unseen=True)` and `transfer`, compared with simpler methods",
            "[quality](quality.md)",
        ),
        (
            "simulating known ground truth",
            "planted effects, paired cells, doublets, ambient RNA, new donors; `scld power` "
            "simulates planned studies with them",
            "[truth](truth.md), [power](power.md)",
        ),
        (
            "evaluating the cells of any tool",
            "`scld.evaluate` compares them with real cells and negative controls",
            "[evaluation](evaluation.md), [other methods](peers.md)",
        ),
        (
            "privacy",
            f"exact copies of training cells: {mean(SCLD, 'exact_copies', '.0%')}; nearer to a "
            f"training cell than to a test cell: {mean(SCLD, 'nearer_training', '.0%')} (real "
            f"cells: {mean(BASELINE, 'nearer_training', '.0%')}; copies: "
            f"{mean('bootstrap', 'nearer_training', '.0%')}). But training donors can be "
            f"identified: AUC {_auc_of_donors(results, 1)} from one cell of a donor, "
            f"{_auc_of_donors(results, 100)} from 100 (`scld.audit`)",
            f"{of_dataset}; `audit.py`, [three datasets](privacy.md)",
        ),
    ]
    return pd.DataFrame(lines, columns=["task", "result", "script"])


def _auc_of_donors(results: Results, cells: int) -> str:
    """The range over datasets of the AUC of the copula attack, from so many cells of a donor."""
    of_attack = {"attack": "copula", "released": "synthetic", "cells_per_donor": cells}
    found = results.of("audit", method=DEFAULT, metric="auc", **of_attack)["value"]
    return f"{found.min():.2f} to {found.max():.2f}"


TABLES: dict[str, Callable[..., pd.DataFrame]] = {
    "quality": quality,
    "targets": targets,
    "biology": biology,
    "types": types,
    "limit": limit,
    "selection": selection,
    "guidance": guidance,
    "counts": counts,
    "combinations": combinations,
    "rare": rare,
    "donors": donors,
    "designed": designed,
    "ablation": ablation,
    "audit": audit,
    "audit_variants": audit_variants,
    "sizes": sizes,
    "cells_needed": cells_needed,
    "peers": peers,
    "speed": speed,
    "growth": growth,
    "starts": starts,
    "memory": memory,
    "gpu": gpu,
    "scale": scale,
    "loaders": loaders,
    "evaluation_cost": evaluation_cost,
    "hostile": hostile,
    "overview": overview,
}


def printed(name: str, results: Results) -> str:
    """A table by its name, as Markdown."""
    function, *given = name.split()
    return as_markdown(TABLES[function](results, *given))


def updated(page: str, results: Results) -> str:
    """A page with every table printed anew; `NotRunError` if one has lost its results."""

    def block(found: re.Match[str]) -> str:
        kind, name, former = found.groups()
        try:
            return f"<!-- table: {name} -->\n\n{printed(name, results)}\n\n<!-- end -->"
        except NotRunError:
            if kind == "table":
                raise
            table = in_style(former.replace(EARLIER, "").strip())
            noted = f"{EARLIER}\n\n{table}\n\n" if table else ""
            return f"<!-- table to run: {name} -->\n\n{noted}<!-- end -->"

    return BLOCK.sub(block, page)


def names_in_docs() -> Iterator[str]:
    """The names of all tables in the docs."""
    for page in DOCS:
        yield from (name for _, name, _ in BLOCK.findall(page.read_text()))


def main() -> None:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help="default: those of the docs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--write", action="store_true", help="write the tables into the docs")
    given = parser.parse_args()
    results = Results(given.results)
    for name in given.tables or names_in_docs():
        try:
            print(f"{name}\n\n{printed(name, results)}\n")
        except NotRunError as reason:
            print(f"{name}: not run yet: {reason}\n")
    if given.write:
        for page in DOCS:
            former = page.read_text()
            if (new := updated(former, results)) != former:
                page.write_text(new)


if __name__ == "__main__":
    main()
