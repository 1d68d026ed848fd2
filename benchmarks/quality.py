"""How good are the cells? One table a data set: SCLD beside the real floor and the trivial fakes.

    python benchmarks/quality.py --data-dir DIR [--sets teaseq_pbmc pbmc3k ...] [--json results/quality.json]

DIR holds .h5ad files of raw counts with obs["cell_type"]. Each is split 70/30 within type (seed 0); SCLD is fitted on the
training part at default settings and asked for cells with the test part's types; `scld.evaluate` scores them.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import pandas as pd

import scld

LABEL = "cell_type"
FIGURES = [  # the columns of the table; the reports hold all figures, also within each type
    "c2st_forest",
    "c2st_linear",
    "c2st_boosting",
    "c2st",
    "w2",
    "mmd2",
    "tstr_f1",
    "label_accuracy",
    "marker_slope",
    "nearer_training",
]


def benchmark(path: Path, seed: int, guidance: float | None) -> scld.Report:
    """Split, fit, sample and score one data set."""
    train, test = scld.data.split(scld.data.read(path), LABEL, seed=seed)
    started = time.perf_counter()
    synth = scld.Synthesizer([LABEL], seed=seed).fit(train)
    fitted = time.perf_counter()
    cells = synth.sample(obs=test.obs[[LABEL]], guidance=guidance, seed=seed)
    sampled = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{path.stem}: {train.n_obs:,} training cells x {train.n_vars:,} genes")
    print(f"fit {fitted - started:.0f} s, {test.n_obs:,} cells in {sampled - fitted:.1f} s, peak memory {peak:,.0f} MB")
    costs = {"SCLD": {"seconds": sampled - started, "peak_memory_mb": peak}}
    return scld.evaluate(train, test, {"SCLD": cells}, LABEL, costs=costs, seed=seed)


def overview(report: scld.Report) -> pd.DataFrame:
    """One row a set, one column a figure, overall."""
    rows = report.table[report.table["scope"] == "overall"]
    wide = rows.pivot(index="set", columns="figure", values="value")
    wide.loc["real floor"] = rows.drop_duplicates("figure").set_index("figure")["floor"]
    return wide.loc[["real floor", "SCLD", "poisson", "shuffle", "bootstrap"], FIGURES]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=["teaseq_pbmc", "pbmc3k", "mouse_endocrinogenesis", "mouse_ens"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--reports", type=Path, help="folder for an HTML and a JSON report a set")
    arguments = parser.parse_args()
    pd.set_option("display.width", 200, "display.max_columns", 20, "display.float_format", "{:.4f}".format)
    for name in arguments.sets:
        report = benchmark(arguments.data_dir / f"{name}.h5ad", arguments.seed, arguments.guidance)
        print(overview(report).to_string(), "\n", flush=True)
        if arguments.reports:
            arguments.reports.mkdir(parents=True, exist_ok=True)
            report.to_html(arguments.reports / f"{name}.html")
            report.to_json(arguments.reports / f"{name}.json")


if __name__ == "__main__":
    main()
