"""What benchmarks share: arguments, cells, a fit, mean ± sd over seeds, and files of results."""

from __future__ import annotations

import argparse
import fcntl
import json
import math
import multiprocessing
import os
import platform
import resource
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

import scld
from scld.config import PRESETS
from scld.evaluation.cells import Cells
from scld.io.atomic import atomic_write
from scld.preprocessing import log_normalise

LABEL = "cell_type"
LABELS = {  # to fit on; else the cell type alone
    "kang_ifnb_small": [LABEL, "condition"],
    "kang_5donors": [LABEL, "donor"],
}
SHIPPED = "pbmc"  # the cells that ship with scld
MADE_UP = {
    "condition": ("ctrl", "stim"),
    "donor": ("A", "B", "C"),
    "batch": ("1", "2"),
}  # labels that these lack
QUICK_CELLS, QUICK_GENES = 80, 500  # cells of each type, and genes, with --quick
RESULTS = Path(__file__).resolve().parent / "results"  # committed; the docs' tables come from these
LEAST_CELLS = 10  # types with fewer are removed before the split
_PACKAGES = ("anndata", "numpy", "scipy", "scikit-learn", "torch")
_DIGITS = 5  # significant ones, of a number in a file of results
_WIDTH = {"display.width": 250, "display.max_columns": 40, "display.max_colwidth": 60}


def arguments(
    doc: str | None,
    datasets: Sequence[str],
    seeds: Sequence[int] = (0, 1, 2),
    results: bool = True,
) -> argparse.ArgumentParser:
    """The arguments that every benchmark takes; ``results``: whether it writes a file of them."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=doc, formatter_class=layout)
    parser.add_argument(
        "--data-dir",
        type=Path,
        help="folder of .h5ad files of raw counts; the cells that ship with scld if left out",
    )
    parser.add_argument("--datasets", nargs="+", help=f"default: {' '.join(datasets)}")
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        default=list(seeds),
        help="one split, one fit and one sample each",
    )
    parser.add_argument("--models", type=Path, help="folder to save fitted models in and reuse")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="few cells and genes, a short training, one seed: only shows that the script runs",
    )
    if results:
        parser.add_argument(
            "--results",
            type=Path,
            help="folder of JSON files to add results to; benchmarks/results for those of the docs",
        )
    parser.set_defaults(known_datasets=list(datasets), results=None)
    return parser


def begin(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the arguments, and print what runs with which versions."""
    for option, value in {**_WIDTH, "display.max_rows": 500}.items():
        pd.set_option(option, value)
    given = parser.parse_args()
    if given.datasets is None:
        given.datasets = given.known_datasets if given.data_dir else [SHIPPED]
    if given.data_dir is None and given.datasets != [SHIPPED]:
        parser.error(f"--datasets: without --data-dir the only dataset is {SHIPPED}")
    if given.quick:
        given.seeds = given.seeds[:1]
        if given.results and given.results.resolve() == RESULTS:
            parser.error("--results: numbers of --quick mean nothing; choose another folder")
    if given.models:
        given.models.mkdir(parents=True, exist_ok=True)
    _print_versions(given)
    return given


def _print_versions(given: argparse.Namespace) -> None:
    print(f"python {' '.join(sys.argv)}")
    print(", ".join(f"{name} {number}" for name, number in versions().items()), flush=True)
    if given.quick:
        print("--quick: the numbers below mean nothing; they only show that the script runs")
    print(flush=True)


def versions() -> dict[str, str]:
    """The versions of scld, Python and the libraries that matter."""
    own = {"scld": scld.__version__, "Python": platform.python_version()}
    return own | {name: version(name) for name in _PACKAGES}


def load_cells(name: str, given: argparse.Namespace, labels: Sequence[str] = ()) -> AnnData:
    """The cells of a dataset; of the cells that ship with scld also labels that are made up."""
    if name == SHIPPED:
        cells = with_made_up_labels(scld.datasets.pbmc(), labels)
    else:
        cells = scld.data.read(given.data_dir / f"{name}.h5ad")
    cells = without_small_types(cells)
    return few_cells(cells) if given.quick else cells


def without_small_types(cells: AnnData, least: int = LEAST_CELLS) -> AnnData:
    """The cells of the types that have enough of them to be split and scored."""
    sizes = cells.obs[LABEL].value_counts()
    small = sorted(str(kind) for kind, n in sizes.items() if 0 < n < least)
    if not small:
        return cells
    print(f"types with fewer than {least} cells, removed: {', '.join(small)}", flush=True)
    kept: AnnData = cells[~cells.obs[LABEL].astype(str).isin(small).to_numpy()].copy()
    return kept


def split_cells(
    name: str, seed: int, given: argparse.Namespace, labels: Sequence[str] = ()
) -> tuple[AnnData, AnnData]:
    """Training and test cells of a dataset, 70/30 within type."""
    return scld.split(load_cells(name, given, labels), LABEL, seed=seed)


def with_made_up_labels(cells: AnnData, labels: Sequence[str]) -> AnnData:
    """The cells with a random category, always the same, for each label that they lack."""
    for label in labels:
        if label not in cells.obs:
            rng = np.random.default_rng(0)
            cells.obs[label] = pd.Categorical(rng.choice(MADE_UP[label], cells.n_obs))
            print(f"{label}: made up at random, so the results below mean nothing", flush=True)
    return cells


def few_cells(cells: AnnData, seed: int = 0) -> AnnData:
    """Some cells of each type, and some genes."""
    genes = np.linspace(0, cells.n_vars - 1, min(QUICK_GENES, cells.n_vars)).astype(int)
    counts = sp.csr_matrix(cells.X)[:, genes]
    not_empty = np.flatnonzero(np.diff(counts.indptr))
    shuffled = np.random.default_rng(seed).permutation(not_empty)
    place = cells.obs.iloc[shuffled].groupby(LABEL, observed=True).cumcount()
    rows = np.sort(shuffled[(place < QUICK_CELLS).to_numpy()])
    some: AnnData = cells[rows, genes].copy()
    return some


def settings(given: argparse.Namespace, post: str | None = None) -> scld.Config:
    """The settings of a fit: the defaults, or with ``--quick`` a short training.

    With ``post`` "select" the discriminator of post-guidance is trained as well.
    """
    preset = PRESETS["quick" if given.quick else "default"]
    return scld.Config.from_dict({**preset, "sampling": {"post": post} if post else {}})


def evaluation_options(given: argparse.Namespace) -> dict[str, Any]:
    """Options of `scld.evaluate`: its defaults, or with ``--quick`` few cells, once."""
    quick = {"max_cells": 200, "replicates": 1}
    return {"progress": False} | (quick if given.quick else {})


def fitted(
    train: AnnData,
    labels: Sequence[str],
    seed: int,
    given: argparse.Namespace,
    name: str,
    config: scld.Config | None = None,
) -> scld.Synthesizer:
    """A model of some cells: fitted now, or loaded from ``--models``."""
    config = config or settings(given)
    selecting = "-select" if config.sampling.post == "select" else ""
    file = f"{name}-{seed}{selecting}{'-quick' if given.quick else ''}.scld"
    path = given.models / file if given.models else None
    if path and (path / "manifest.json").exists():
        print(f"{name}, seed {seed}: model loaded from {path}", flush=True)
        return scld.load(path)
    started = time.monotonic()
    synth = scld.Synthesizer(labels, config=config, seed=seed)
    synth.fit(train, checkpoint=path, progress=False)
    size = f"{train.n_obs:,} training cells x {train.n_vars:,} genes"
    seconds = time.monotonic() - started
    print(f"{name}, seed {seed}: {size}, labels {', '.join(labels)}, fitted in {seconds:.0f} s")
    sys.stdout.flush()
    return synth


def training_costs(synth: scld.Synthesizer) -> dict[str, float]:
    """Steps and seconds of the training of the networks; of a loaded model, those of its fit."""
    histories = {name: part for name, part in synth.summary.items() if isinstance(part, Mapping)}
    steps = {f"{name}_steps": float(part["steps"]) for name, part in histories.items()}
    return steps | {"training_seconds": sum(part["seconds"] for part in histories.values())}


def resized(adata: AnnData, genes: int, label: str = LABEL) -> AnnData:
    """The same cells with another number of genes.

    Fewer: evenly picked ones. More: all of them, then copies, each copy taken from other cells of
    the type, with numbered names.
    """
    counts, names = scld.data.count_matrix(adata), adata.var_names.to_numpy()
    if genes <= len(names):
        picked: AnnData = adata[:, np.linspace(0, len(names) - 1, genes).astype(int)].copy()
        return picked
    types, rng = pd.Categorical(adata.obs[label]).codes, np.random.default_rng(0)
    by_type = np.argsort(types, kind="stable")
    copies, copied_names = [counts], [names]
    for number in range(1, -(-genes // len(names))):
        others = np.empty(len(types), int)
        others[by_type] = np.lexsort((rng.random(len(types)), types))
        copies.append(counts[others])
        copied_names.append(np.array([f"{name} ({number})" for name in names]))
    matrix = sp.csr_matrix(sp.hstack(copies, format="csr")[:, :genes])
    var = pd.DataFrame(index=np.concatenate(copied_names)[:genes])
    return AnnData(matrix, obs=adata.obs, var=var)


def log_counts(adata: AnnData) -> sp.csr_matrix:
    """Log-normalised values ``[cells, genes]``."""
    return log_normalise(scld.data.count_matrix(adata))


def as_cells(adata: AnnData, types: Sequence[str], label: str = LABEL) -> Cells:
    """Cells as the evaluation takes them; codes are positions in ``types``."""
    codes = pd.Categorical(adata.obs[label], categories=list(types)).codes.astype(np.int64)
    return Cells.of_counts(scld.data.count_matrix(adata), codes)


def spread(
    rows: Sequence[dict[str, Any]] | pd.DataFrame, by: Sequence[str], digits: int = 3
) -> pd.DataFrame:
    """Mean ± sd over seeds and replicates of every score, one row per group, in their order."""
    rows = pd.DataFrame(rows).drop(columns=["seed", "replicate"], errors="ignore")
    groups = rows.groupby(list(by), sort=False)
    mean, sd = groups.mean(), groups.std()
    columns = {
        name: [shown(*pair, digits) for pair in zip(mean[name], sd[name], strict=True)]
        for name in mean
    }
    return pd.DataFrame(columns, index=mean.index)


def shown(mean: float, sd: float, digits: int = 3) -> str:
    """A mean with its sd; without for a single value, a dash where there is none."""
    if np.isnan(mean):
        return "–"
    return f"{mean:,.{digits}f}" + ("" if np.isnan(sd) else f" ± {sd:,.{digits}f}")


def in_own_process(work: Callable[..., Any], *given: Any) -> Any:
    """The result of some work in a process of its own, for its `peak_memory`.

    This process must stay small: a new one starts with its peak.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *given).result()


def peak_memory() -> int:
    """Bytes of this process at its peak."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def long_records(
    rows: Sequence[dict[str, Any]] | pd.DataFrame, keys: Sequence[str]
) -> pd.DataFrame:
    """One record per score of each row: the keys, the metric and its value."""
    table = pd.DataFrame(rows).reset_index(drop=True)
    long = table.melt(id_vars=list(keys), var_name="metric", ignore_index=False)
    return long.sort_index(kind="stable").dropna(subset="value")


def write_results(
    name: str,
    records: pd.DataFrame | Iterable[Mapping[str, Any]],
    given: argparse.Namespace,
    unit: Sequence[str] = ("dataset", "seed"),
) -> None:
    """Add records to ``<name>.json`` in the folder ``--results``; nothing without it.

    They replace all former records of the same units, so that datasets and seeds can be run one by
    one, and again. The file says which command and versions each unit is from.

    Parameters
    ----------
    name
        The file, without ".json".
    records
        One per number: texts and numbers by column. The usual columns are dataset, seed, method,
        group, metric, value and baseline.
    given
        The arguments.
    unit
        The columns that name a piece of work.
    """
    if given.results is None:
        return
    rows = records.to_dict("records") if isinstance(records, pd.DataFrame) else records
    new = [{column: _plain(value) for column, value in row.items()} for row in rows]
    given.results.mkdir(parents=True, exist_ok=True)
    path = given.results / f"{name}.json"
    with _one_at_a_time(given.results):
        runs, former = _read(path) if path.exists() else ([], [])
        done = list(dict.fromkeys(_unit(row, unit) for row in new))
        kept = [row for row in former if _unit(row, unit) not in done]
        merged = sorted([*kept, *new], key=lambda row: _in_order(_unit(row, unit)))
        with atomic_write(path) as temporary:
            temporary.write_text(_as_json(unit, _merged_runs(runs, done, given), merged))


def read_results(path: Path) -> pd.DataFrame:
    """The records of a file that `write_results` wrote."""
    return pd.DataFrame(_read(path)[1])


def _read(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The runs and the records of a file."""
    found = json.loads(path.read_text())
    columns = found["columns"]
    return found["runs"], [dict(zip(columns, row, strict=True)) for row in found["records"]]


def _unit(row: Mapping[str, Any], unit: Sequence[str]) -> tuple[Any, ...]:
    return tuple(row[column] for column in unit)


def _in_order(unit: Sequence[Any]) -> list[tuple[bool, Any]]:
    return [(isinstance(value, str), value) for value in unit]


def _merged_runs(
    former: list[dict[str, Any]], done: list[tuple[Any, ...]], given: argparse.Namespace
) -> list[dict[str, Any]]:
    """The former runs without the units that are new, and the run of these."""
    about = {"command": command(given), "versions": versions(), "threads": _threads()}
    runs = [about | {"units": [list(unit) for unit in done]}]
    for run in former:
        units = [unit for unit in run["units"] if tuple(unit) not in done]
        if {key: run[key] for key in about} == about:
            runs[0]["units"] += units
        elif units:
            runs.append(run | {"units": units})
    for run in runs:
        run["units"].sort(key=_in_order)
    return sorted(runs, key=lambda run: _in_order(run["units"][0]))


def command(given: argparse.Namespace) -> str:
    """The command that runs, with the names of options in place of paths."""
    paths = {value for value in vars(given).values() if isinstance(value, Path)}
    words, option = ["python", f"benchmarks/{Path(sys.argv[0]).name}"], ""
    for word in sys.argv[1:]:
        option = word if word.startswith("--") else option
        is_path = Path(word) in paths or word.startswith((".", "~", os.sep))
        place = "DIR" if option == "--data-dir" else option.strip("-").replace("-", "_").upper()
        words.append(place if is_path else shlex.quote(word))
    return " ".join(words)


def _threads() -> int:
    """Threads of compiled code."""
    return int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)


def _as_json(
    unit: Sequence[str], runs: Sequence[dict[str, Any]], records: Sequence[dict[str, Any]]
) -> str:
    """One run or record per line, so that differences between versions are easy to read."""
    columns = list(dict.fromkeys(column for row in records for column in row))
    values = [[row.get(column) for column in columns] for row in records]
    short = {"ensure_ascii": False, "separators": (",", ":")}
    of_runs = ",\n".join(json.dumps(run, ensure_ascii=False) for run in runs)
    of_records = ",\n".join(json.dumps(row, **short) for row in values)
    about = f'"unit": {json.dumps(list(unit))},\n"runs": [\n{of_runs}\n],\n'
    return f'{{\n{about}"columns": {json.dumps(columns)},\n"records": [\n{of_records}\n]\n}}\n'


def _plain(value: Any) -> Any:
    """A value for JSON: rounded, and None where it is not a number."""
    value = value.item() if isinstance(value, np.generic) else value
    if not isinstance(value, float):
        return value
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Other benchmarks wait to write to the folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
