"""Evaluate anybody's synthetic cells: `evaluate` reads and checks, `Report` holds the figures and writes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scld import data, judge, metrics
from scld.errors import DataError, RequestError
from scld.judge import BASELINES, COUNTS_ONLY, FIGURES, FLOOR, OVERALL, Cells, Judgement

if TYPE_CHECKING:
    from anndata import AnnData

Source = "AnnData | str | Path"
FEWEST_CELLS = 50
PRIVACY = ("nearer_training", "membership_auc", "donor_membership_auc")
BY_NAME = {figure.name: figure for figure in FIGURES}


def evaluate(
    train: AnnData | str | Path,
    test: AnnData | str | Path | None,
    synthetic: AnnData | str | Path | Mapping[str, AnnData | str | Path],
    label: str | None = None,
    *,
    donor: str | None = None,
    layer: str | None = None,
    log_normalised: bool | Sequence[str] = False,
    genes: Literal["same", "intersection"] = "same",
    costs: Mapping[str, Mapping[str, float]] | None = None,
    baselines: bool = True,
    max_cells: int = 2000,
    halvings: int = 3,
    seed: int = 0,
    progress: bool = True,
) -> Report:
    """Score synthetic cells, from any tool, beside real cells and trivial fakes.

    Parameters
    ----------
    train
        The real cells that the synthetic ones were learnt from: raw counts, an AnnData, ``.h5ad`` or ``.zarr``.
    test
        Real cells that no maker of synthetic cells saw. None: part of ``train`` is set aside for the floors, and the figures that need
        held-out cells are left out.
    synthetic
        One set, or several by name.
    label
        The obs column of cell types, in every set. None: overall figures only.
    donor
        The obs column of donors in ``train`` and ``test``, for membership inference by donor.
    layer
        The layer of raw counts, in every set; ``X`` if None.
    log_normalised
        True, or the names of the synthetic sets whose matrix is log(1 + counts per 10,000) rather than counts. Figures that need counts
        are left out for them.
    genes
        What to do where gene names differ: ``"same"`` stops, ``"intersection"`` scores the shared genes.
    costs
        What making each set took, to be shown with its figures: ``{"name": {"seconds": 12, "peak_memory_mb": 900, "network_evaluations": 35}}``.
    baselines
        Whether to score the trivial fakes too; without them a verdict has no worst case.
    max_cells
        The most cells a side in one comparison.
    halvings
        How many random halves of the test cells to average over.
    seed
        Same seed, same figures.
    progress
        Whether to show a progress bar.

    Returns
    -------
    Report
        `Report.table`, `Report.summary`, `Report.to_json`, `Report.to_html`.

    Raises
    ------
    DataError
        Cells that cannot be compared: a label that is missing in one file, other genes, fewer than 50 cells, another normalisation.

    Examples
    --------
    >>> import scld
    >>> cells = scld.data.read(scld.datasets.pbmc())
    >>> report = scld.evaluate(cells[::2], cells[1::2], cells[1::2], halvings=1, max_cells=100, baselines=False, progress=False)
    >>> bool(report.table.query("figure == 'exact_copies' and set == 'synthetic'").value.item() == 0)
    True
    """
    bench = _Bench.of(train, test, _named(synthetic), label, donor, layer, log_normalised, genes, max_cells, seed)
    steps = halvings * (1 + len(bench.sets)) + (len(BASELINES) if baselines else 0) + 1
    with _progress(progress, steps) as tick:
        judgement = judge.judge(
            bench.train, bench.test, bench.sets, max_cells=max_cells, baselines=baselines, halvings=halvings, held_out=test is not None, seed=seed, tick=tick
        )
    table = _tabulate(judgement, bench, costs or {})
    return Report(table=table, notes=bench.notes, label=label, types=bench.types, genes=bench.genes, judgement=judgement, seed=seed)


def _named(synthetic: Any) -> dict[str, Any]:
    sets = dict(synthetic) if isinstance(synthetic, Mapping) else {"synthetic": synthetic}
    if not sets:
        raise RequestError("synthetic: no set; pass an AnnData, a path, or a mapping of names to these")
    taken = {FLOOR, "real", *BASELINES} & set(sets)
    if taken:
        raise RequestError(f"synthetic: the name {sorted(taken)[0]!r} is kept for the report itself; choose another")
    return sets


@dataclass
class _Bench:
    """Every set, checked and on the same genes and types."""

    train: Cells
    test: Cells
    sets: dict[str, Cells]
    types: list[str]
    genes: list[str]
    notes: list[str]
    validity: dict[str, dict[str, bool]]

    @classmethod
    def of(
        cls,
        train: Any,
        test: Any,
        synthetic: dict[str, Any],
        label: str | None,
        donor: str | None,
        layer: str | None,
        log_normalised: bool | Sequence[str],
        genes: str,
        max_cells: int,
        seed: int,
    ) -> _Bench:
        notes: list[str] = []
        logs = _log_names(log_normalised, list(synthetic))
        real = {"train": _real("train", train, layer)} | ({} if test is None else {"test": _real("test", test, layer)})
        made = {name: data.read(source, layer) for name, source in synthetic.items()}
        shared = _shared_genes({**real, **made}, genes, notes)
        labels = {name: _labels(name, adata, label) for name, adata in {**real, **made}.items()}
        types = sorted(set(labels["train"]))
        checks = {name: _validity(adata, labels[name], real["train"], labels["train"], name in logs) for name, adata in made.items()}
        cells = {name: _cells(name, adata, shared, labels[name], types, donor if name in real else None, name in logs, genes, notes) for name, adata in {**real, **made}.items()}
        for name, of_set in cells.items():
            _enough(name, of_set)
        rng = np.random.default_rng(seed)
        train_cells, test_cells = (cells["train"], cells["test"]) if test is not None else _split(cells["train"], rng, notes)
        _say(notes, label, types, sorted(logs), donor, real)
        most = 10 * max_cells
        train_cells, test_cells = _thin("train", train_cells, most, rng, notes), _thin("test", test_cells, most, rng, notes)
        sets = {name: _thin(name, cells[name], most, rng, notes) for name in made}
        _say_missing(notes, types, test_cells, sets)
        return cls(train_cells, test_cells, sets, types, shared, notes, checks)


def _log_names(log_normalised: bool | Sequence[str], names: list[str]) -> set[str]:
    if isinstance(log_normalised, bool):
        return set(names) if log_normalised else set()
    asked = [log_normalised] if isinstance(log_normalised, str) else list(log_normalised)
    unknown = [name for name in asked if name not in names]
    if unknown:
        raise RequestError(f"log_normalised: {unknown[0]!r} is not a synthetic set; sets: {', '.join(map(repr, names))}{data.nearest(unknown[0], names)}")
    return set(asked)


def _real(place: str, source: Any, layer: str | None) -> AnnData:
    try:
        return data.read(source, layer)
    except DataError as error:
        raise DataError(f"{place}: {error}") from error


def _shared_genes(sets: Mapping[str, AnnData], genes: str, notes: list[str]) -> list[str]:
    """The genes of training, in their order, that every set has."""
    if genes not in ("same", "intersection"):
        raise RequestError(f"genes: got {genes!r}; allowed: 'same', 'intersection'")
    for name, adata in sets.items():
        repeated = adata.var_names[adata.var_names.duplicated()]
        if len(repeated):
            raise DataError(f"{name}: var_names: {repeated[0]!r} stands more than once; gene names must be unique: call adata.var_names_make_unique()")
    train = sets["train"].var_names
    shared = train[np.logical_and.reduce([train.isin(adata.var_names) for adata in sets.values()])]
    for name, adata in sets.items():
        missing, extra = len(train.difference(adata.var_names)), len(adata.var_names.difference(train))
        if (missing or extra) and (genes == "same" or not len(shared)):
            step = f"pass genes='intersection' to score the {len(shared):,} genes that all sets share" if len(shared) else "no gene is shared: check that both use the same kind of names, symbols or Ensembl ids"
            raise DataError(f"{name}: lacks {missing:,} of the {len(train):,} genes of train and has {extra:,} others; {step}")
    if len(shared) < len(train):
        notes.append(f"Scored on the {len(shared):,} genes that all sets share, of {len(train):,} in the training cells.")
    return list(shared)


def _labels(name: str, adata: AnnData, label: str | None) -> np.ndarray:
    if label is None:
        return np.repeat("all cells", adata.n_obs)
    columns = list(map(str, adata.obs.columns))
    if label not in adata.obs:
        known = ", ".join(map(repr, columns)) or "none"
        raise DataError(f"{name}: no obs column {label!r}; columns: {known}; name the column of cell types with label=, the same in every set{data.nearest(label, columns)}")
    missing = int(adata.obs[label].isna().sum())
    if missing:
        raise DataError(f"{name}: obs[{label!r}] is missing for {missing:,} of {adata.n_obs:,} cells; every cell needs a label: drop these cells or fill it in")
    return adata.obs[label].astype(str).to_numpy()


def _validity(adata: AnnData, labels: np.ndarray, train: AnnData, train_labels: np.ndarray, is_log: bool) -> dict[str, bool]:
    libraries = np.asarray(train.X.sum(axis=1)).ravel()
    checks = metrics.validity(sp.csr_matrix(adata.X), list(adata.var_names), list(labels), libraries, list(train.var_names), list(train_labels))
    return {name: ok for name, ok in checks.items() if not (is_log and name in ("integers", "library_range"))}


def _cells(
    name: str, adata: AnnData, genes: list[str], labels: np.ndarray, types: list[str], donor: str | None, is_log: bool, how: str, notes: list[str]
) -> Cells:
    kept = _usable(name, adata, labels, types, notes)
    adata, labels = adata[kept], labels[kept]
    if genes != list(adata.var_names):
        adata = adata[:, genes]
        empty = np.asarray((adata.X != 0).sum(axis=1)).ravel() == 0
        if empty.any():
            notes.append(f"{name}: {int(empty.sum()):,} cells have no counts on the shared genes and are left out.")
            adata, labels = adata[~empty], labels[~empty]
    codes = pd.Categorical(labels, categories=types).codes.astype(np.int64)
    donors = _donors(name, adata, donor)
    if is_log:
        return Cells(_log_matrix(name, adata, how == "intersection"), codes, None, donors)
    try:
        return Cells.of_counts(data.count_matrix(adata, name), codes, donors)
    except DataError as error:
        hint = "" if name in ("train", "test") or "not whole numbers" not in str(error) else "; or, if they are log(1 + counts per 10,000), say so with log_normalised"
        raise DataError(f"{error}{hint}") from error


def _usable(name: str, adata: AnnData, labels: np.ndarray, types: list[str], notes: list[str]) -> np.ndarray:
    """Cells that can be scored: of a type that training has, and for synthetic sets not empty."""
    known = np.isin(labels, types)
    if not known.all():
        others = ", ".join(map(repr, sorted(set(labels[~known]))[:5]))
        notes.append(f"{name}: {int((~known).sum()):,} cells of types that the training cells lack ({others}) are left out.")
    empty = np.asarray((sp.csr_matrix(adata.X) != 0).sum(axis=1)).ravel() == 0
    if name not in ("train", "test") and empty.any():
        notes.append(f"{name}: {int(empty.sum()):,} cells without any count are left out.")
        return known & ~empty
    return known


def _donors(name: str, adata: AnnData, donor: str | None) -> np.ndarray | None:
    if donor is None:
        return None
    if donor not in adata.obs:
        columns = list(map(str, adata.obs.columns))
        raise DataError(f"{name}: no obs column {donor!r}; columns: {', '.join(map(repr, columns)) or 'none'}; name the column of donors with donor={data.nearest(donor, columns)}")
    return adata.obs[donor].astype(str).to_numpy()


def _log_matrix(name: str, adata: AnnData, rescale: bool) -> sp.csr_matrix:
    """A log-normalised matrix, checked to be on the scale of log(1 + counts per 10,000)."""
    log = sp.csr_matrix(adata.X, dtype=np.float32, copy=True)
    if not np.isfinite(log.data).all():
        raise DataError(f"{name}: {int((~np.isfinite(log.data)).sum()):,} values are not finite; allowed are values of log(1 + counts per 10,000): mend or drop these cells")
    log.sum_duplicates()
    log.eliminate_zeros()
    linear = log.copy()
    linear.data = np.expm1(np.minimum(linear.data, 50))
    totals = np.asarray(linear.sum(axis=1)).ravel()
    if not rescale:
        _check_scale(name, float(np.median(totals)))
        return log
    linear.data *= np.repeat(metrics.space.TARGET / np.maximum(totals, 1e-9), np.diff(linear.indptr))
    return sp.csr_matrix((np.log1p(linear.data), linear.indices, linear.indptr), shape=linear.shape)


def _check_scale(name: str, total: float) -> None:
    if not metrics.space.TARGET / 2 <= total <= metrics.space.TARGET * 2:
        raise DataError(
            f"{name}: exp(values) - 1 sums to {total:.4g} in the median cell, so it is normalised otherwise; allowed is log(1 + counts per 10,000), "
            "a sum near 10,000: use scanpy.pp.normalize_total(target_sum=1e4) and log1p (natural logarithm), or pass raw counts"
        )


def _enough(name: str, cells: Cells) -> None:
    if len(cells) < FEWEST_CELLS:
        raise DataError(f"{name}: {len(cells)} cells that can be scored; at least {FEWEST_CELLS} are needed for a figure that means anything: pass more")


def _split(train: Cells, rng: np.random.Generator, notes: list[str]) -> tuple[Cells, Cells]:
    """Without test cells: half of the training cells of each type stand in for them."""
    if len(train) < 2 * FEWEST_CELLS:
        raise DataError(f"train: {len(train)} cells and no test set; at least {2 * FEWEST_CELLS} are needed to set half aside: pass test=, or more cells")
    rows = [rng.permutation(np.flatnonzero(train.codes == t)) for t in np.unique(train.codes)]
    kept = np.sort(np.concatenate([of_type[: (len(of_type) + 1) // 2] for of_type in rows]))
    aside = np.sort(np.concatenate([of_type[(len(of_type) + 1) // 2 :] for of_type in rows]))
    notes.append(
        f"No test set was given: {len(aside):,} of the {len(train):,} training cells, half of each type, stand in for it. The makers of the synthetic cells saw them, "
        "so the figures flatter a set that copies, and memorisation and membership inference cannot be measured and are left out."
    )
    return train[kept], train[aside]


def _thin(name: str, cells: Cells, most: int, rng: np.random.Generator, notes: list[str]) -> Cells:
    if len(cells) <= most:
        return cells
    notes.append(f"{name}: {most:,} of {len(cells):,} cells, drawn at random, are used.")
    return cells[np.sort(rng.choice(len(cells), most, replace=False))]


def _say(notes: list[str], label: str | None, types: list[str], logs: list[str], donor: str | None, real: Mapping[str, AnnData]) -> None:
    if label is None:
        notes.append("No label was given: overall figures only.")
    elif len(types) == 1:
        notes.append(f"All training cells are of one type ({types[0]!r}): figures that compare types (markers, label accuracy, train on synthetic) are left out.")
    if logs:
        notes.append(f"Log-normalised: {', '.join(logs)}. Library size is left out for these sets, since log-normalised cells carry none, and log depth is left out of the boosting classifier for every set, so that all stay comparable.")
    if donor is not None and "test" in real and donor in real["train"].obs and donor in real["test"].obs:
        unseen = set(real["test"].obs[donor].astype(str)) - set(real["train"].obs[donor].astype(str))
        if len(unseen) < 2:
            notes.append(f"Membership by donor is left out: it needs at least two donors of {donor!r} in the test cells alone, and there are {len(unseen)}. Split train and test by donor to have it.")


def _say_missing(notes: list[str], types: list[str], test: Cells, sets: Mapping[str, Cells]) -> None:
    for name, cells in {"test": test, **sets}.items():
        counts = np.bincount(cells.codes, minlength=len(types))
        few = [types[t] for t in np.flatnonzero(counts < (2 if name == "test" else 1))]
        if few:
            notes.append(f"{name}: no cells, or too few, of {', '.join(map(repr, few))}: such a type is left out of every comparison, for every set.")


@contextmanager
def _progress(show: bool, steps: int) -> Iterator[Callable[[str], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not show) as bar:
        task = bar.add_task("evaluating", total=steps)
        started = False

        def tick(text: str) -> None:
            nonlocal started
            bar.update(task, description=text, advance=int(started))
            started = True

        yield tick
        bar.update(task, completed=steps)


def _tabulate(judgement: Judgement, bench: _Bench, costs: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Every score beside its floor, averaged over halvings: one row a set, scope and figure."""
    long = pd.DataFrame([vars(record) for record in judgement.records])
    long["scope"] = [scope if isinstance(scope, str) else bench.types[scope] for scope in long["scope"]]
    table = long.groupby(["set", "scope", "figure"], sort=False)["value"].agg(value="mean", sd="std", lower="min", upper="max").reset_index()
    floor = table[table["set"] == FLOOR].rename(columns={"value": "floor", "sd": "floor_sd"})[["scope", "figure", "floor", "floor_sd"]]
    table = table.merge(floor, how="left", on=["scope", "figure"])
    table["better"] = [BY_NAME[name].better for name in table["figure"]]
    ideal = pd.Series([BY_NAME[name].ideal for name in table["figure"]])
    table["ideal"] = ideal.fillna(table["floor"])
    table["group"] = [BY_NAME[name].group for name in table["figure"]]
    table["position"] = _positions(table)
    order = {name: i for i, name in enumerate([*bench.sets, FLOOR, *BASELINES])}
    table = pd.concat([part for part in (table, _pass_or_fail(bench), _costs(costs, list(bench.sets))) if len(part)], ignore_index=True)
    table = table.sort_values("set", key=lambda names: names.map(order), kind="stable", ignore_index=True)
    return table[["set", "scope", "group", "figure", "value", "sd", "lower", "upper", "floor", "floor_sd", "better", "ideal", "position"]]


def gap(value: pd.Series, better: pd.Series, ideal: pd.Series) -> pd.Series:
    """How far a value is on the wrong side: the larger the worse."""
    signed = value.where(better == "lower", -value)
    return signed.where(better != "target", (value - ideal).abs())


def _positions(table: pd.DataFrame) -> pd.Series:
    """0: where real cells lie. 1: where the worst trivial fake lies. nan: the figure does not tell that fake from real cells."""
    here = gap(table["value"], table["better"], table["ideal"])
    floor = gap(table["floor"], table["better"], table["ideal"])
    worst = here.where(table["set"].isin(list(BASELINES))).groupby([table["scope"], table["figure"]]).transform("max")
    span = worst - floor
    tells = span > np.maximum(2 * table["floor_sd"].fillna(0), 1e-6)
    return ((here - floor) / span.where(tells)).where(table["set"] != FLOOR, 0.0)


def _pass_or_fail(bench: _Bench) -> pd.DataFrame:
    rows = [(name, OVERALL, "Validity", check, float(ok), "higher", 1.0) for name, checks in bench.validity.items() for check, ok in checks.items()]
    return pd.DataFrame(rows, columns=["set", "scope", "group", "figure", "value", "better", "ideal"])


def _costs(costs: Mapping[str, Mapping[str, float]], names: list[str]) -> pd.DataFrame:
    unknown = [name for name in costs if name not in names]
    if unknown:
        raise RequestError(f"costs: {unknown[0]!r} is not a synthetic set; sets: {', '.join(map(repr, names))}{data.nearest(unknown[0], names)}")
    rows = [(name, OVERALL, "Cost", figure, float(value), "lower") for name, of_set in costs.items() for figure, value in of_set.items()]
    return pd.DataFrame(rows, columns=["set", "scope", "group", "figure", "value", "better"])


@dataclass(frozen=True, repr=False)
class Report:
    """The figures of one evaluation.

    Parameters
    ----------
    table
        One row a set, scope and figure: ``value`` (mean over halvings), ``sd``, ``lower`` and ``upper`` (smallest and largest halving), ``floor``
        (real cells), ``better`` (lower, higher, or target: nearest to ``ideal``), ``position`` (0 as real, 1 as the worst trivial fake).
        ``set`` is a synthetic set, ``floor``, ``poisson``, ``shuffle`` or ``bootstrap``; ``scope`` is ``overall`` or a type.
    notes
        What was left out and why, one sentence each.
    """

    table: pd.DataFrame
    notes: list[str]
    label: str | None
    types: list[str]
    genes: list[str]
    judgement: Judgement
    seed: int
    _cache: dict[str, Any] = field(default_factory=dict)

    @property
    def sets(self) -> list[str]:
        """The names of the synthetic sets."""
        return [name for name in self.table["set"].unique() if name not in {FLOOR, *BASELINES}]

    def to_json(self, path: str | Path | None = None) -> str:
        """The table and the notes as JSON, also written to ``path`` if one is given."""
        rows = json.loads(self.table.to_json(orient="records", double_precision=8))
        text = json.dumps({"label": self.label, "seed": self.seed, "genes": len(self.genes), "notes": self.notes, "figures": rows}, indent=1)
        if path is not None:
            Path(path).write_text(text)
        return text

    def summary(self) -> str:
        """The overall figures as a text table: every set beside the floor and the trivial fakes."""
        from rich.console import Console
        from rich.table import Table

        wide = self.table[(self.table["scope"] == OVERALL) & ~self.table["group"].isin(["Validity", "Cost"])].pivot(index="figure", columns="set", values="value")
        columns = [*self.sets, FLOOR, *(name for name in BASELINES if name in wide)]
        drawn = Table(*["", "better", *columns], box=None, pad_edge=False)
        for figure in (figure for figure in FIGURES if figure.name in wide.index):
            cells = ["" if np.isnan(value) else f"{value:.4g}" for value in wide.loc[figure.name, columns]]
            drawn.add_row(figure.title, {"target": f"near {figure.ideal:g}" if figure.ideal == figure.ideal else "at floor"}.get(figure.better, figure.better), *cells)
        console = Console(width=60 + 14 * len(columns), color_system=None)
        with console.capture() as capture:
            console.print(drawn)
            for note in self.notes:
                console.print(f"- {note}", highlight=False)
        return capture.get().rstrip()

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        return f"Report({', '.join(self.sets)}: {self.table['figure'].nunique()} figures, {self.table['scope'].nunique()} scopes)"
