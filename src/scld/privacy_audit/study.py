"""`audit` attacks synthetic cells; `PrivacyAudit` holds what the attacks find and writes it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from scld.config import Config
from scld.errors import RequestError, check_int
from scld.io.read import Source
from scld.io.text import records, write_csv, write_json, write_text
from scld.privacy_audit import results
from scld.privacy_audit.donors import RealCells
from scld.privacy_audit.replicate import Generate, Replicate
from scld.privacy_audit.results import Results
from scld.privacy_audit.success import DRAWS, interval
from scld.progress import progress_bars

_CERTAIN, _CHANCE = 0.9, 0.5  # AUC that copies should reach, and that other donors should have


def audit(
    cells: Source,
    donor: str = "donor",
    label: str = "cell_type",
    *,
    generate: Generate | None = None,
    config: Config | None = None,
    layer: str | None = None,
    replicates: int = 5,
    cells_per_donor: Sequence[int] = (1, 10, 100),
    seed: int = 0,
    progress: bool = True,
) -> PrivacyAudit:
    """Can someone tell from synthetic cells which donors a generator was fitted on?

    Each replicate splits the donors into three disjoint sets: training, non-member and auxiliary. A
    generator is fitted on the training donors. Attackers get its cells and the auxiliary donors,
    and decide for random cells of a donor whether that donor was in training. Controls in place of
    the synthetic cells show what the attacks can find: see ``PrivacyAudit.table``.

    Parameters
    ----------
    cells
        Raw counts of five donors or more: an AnnData, ``.h5ad`` or ``.zarr``.
    donor, label
        obs columns of donors and of cell types.
    generate
        The generator to audit: a function from an AnnData of the training donors to an AnnData of
        synthetic cells with raw counts, the same genes and the column ``label``. None: a
        `Synthesizer` of the label alone, which generates as many cells as it was fitted on.
    config
        Settings of that `Synthesizer`.
    layer
        The layer of raw counts; ``X`` if None.
    replicates
        Number of splits of the donors, each with a fit of its own.
    cells_per_donor
        How many cells of a donor an attacker has.
    seed
        Same seed, same results, if ``generate`` does the same each time.
    progress
        Whether to show progress on standard error.

    Returns
    -------
    PrivacyAudit
        `PrivacyAudit.table`, `PrivacyAudit.summary`, `PrivacyAudit.to_html`,
        `PrivacyAudit.to_json`, `PrivacyAudit.to_csv`.

    Raises
    ------
    DataError
        Fewer than five donors, a missing label, counts that cannot be used, cells from
        ``generate`` with other genes.
    RequestError
        An argument out of range.

    Examples
    --------
    >>> import scld
    >>> cells = scld.datasets.pbmc()[:600].copy()
    >>> cells.obs["donor"] = [f"donor_{i % 5}" for i in range(cells.n_obs)]
    >>> quick = {"replicates": 1, "cells_per_donor": [50], "progress": False}
    >>> found = scld.audit(cells, generate=lambda training: training, **quick)
    >>> found.value("synthetic", "copula", 50) > 0.9
    True
    """
    numbers = _checked_numbers(cells_per_donor)
    if generate is not None and config is not None:
        raise RequestError("config: got settings and generate=; allowed is one of them")
    if generate is not None and not callable(generate):
        seen = f"got {type(generate).__name__}"
        raise RequestError(f"generate: {seen}; pass a function from AnnData to AnnData")
    number, start = check_int("replicates", replicates, 1), check_int("seed", seed, 0)
    real, rows = RealCells.of(cells, donor, label, layer), []
    with progress_bars(progress) as bar:
        update = bar("audit", number)
        for i in range(number):
            update(i, f"replicate {i + 1}")
            rows += list(Replicate(real, generate, config, numbers, start, i).rows())
        update(number, "")
    table = _tabulated(rows)
    notes = tuple(_notes(table, number, generate is None))
    return PrivacyAudit(table, notes, len(real.donors), number, start)


def _checked_numbers(cells_per_donor: Any) -> tuple[int, ...]:
    single = not pd.api.types.is_list_like(cells_per_donor)
    several = [cells_per_donor] if single else list(cells_per_donor)
    if not several:
        raise RequestError("cells_per_donor: an empty list; name at least one number, such as 100")
    return tuple(sorted({check_int("cells_per_donor", number, 1) for number in several}))


def _tabulated(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Means over replicates with intervals, in the order of the rows."""
    groups = pd.DataFrame(rows).groupby(list(results.KEYS), sort=False)["value"]
    found = []
    for key, values in groups:
        known = int(values.notna().sum())
        found.append([*key, *interval(values.to_list()), known])
    return pd.DataFrame(found, columns=list(results.COLUMNS))


def _notes(table: pd.DataFrame, replicates: int, default: bool) -> Iterator[str]:
    """What limits the results, one sentence each."""
    yield (
        f"intervals: 95% over {replicates} splits of the same donors; sets of cells of one donor "
        "are not independent, so they say nothing about other donors"
    )
    if not default:
        yield "likelihood: left out, since it needs the fitted model of the default generator"
    aucs = table[(table["metric"] == results.AUC) & (table["attack"] == results.COPULA)]
    for row in aucs.to_dict("records"):
        where, known = f"{row['released']}, {row['cells_per_donor']:,} cells", row["replicates"]
        if not known:
            yield f"{where}: a dash, since too few donors have so many"
        elif known < replicates:
            yield f"{where}: from {known} of {replicates} splits, as few donors have so many"
    yield from _about_controls(aucs.dropna(subset=["value"]).to_dict("records"))
    yield from _about_rates(table[table["attack"] == results.COPULA])


def _about_rates(table: pd.DataFrame) -> Iterator[str]:
    """Why true-positive rates of synthetic cells are missing."""
    rows = table[table["released"] == results.SYNTHETIC]
    values = rows.pivot(index="cells_per_donor", columns="metric", values="value")
    values = values.dropna(subset=[results.AUC])
    for metric, rate in results.RATES.items():
        if metric in values and values[metric].isna().any():
            seen = f"fewer than {round(1 / rate)} sets of cells of non-member donors"
            advice = f"{DRAWS} of each donor with enough cells"
            yield f"true positives at {rate:.0%}: a dash, since there are {seen} ({advice})"


def _about_controls(aucs: Sequence[dict[Any, Any]]) -> Iterator[str]:
    """Whether the copula attack finds copies, and nothing in cells of other donors."""
    most = {row["released"]: row for row in aucs}  # those with the most cells come last
    copies, other = most.get(results.COPIES), most.get(results.OTHER)
    if copies and copies["value"] < _CERTAIN:
        seen = f"the attack has an AUC of {copies['value']:.2f}"
        yield f"copies: {seen} even here, so a low one for synthetic cells shows nothing"
    if other and (other["lower"] > _CHANCE or other["upper"] < _CHANCE):
        seen = f"an AUC of {other['value']:.2f} where nothing can be found"
        yield f"other donors: {seen}: with so few donors, take that as the error of the others"


class PrivacyAudit(Results):
    """The results of `scld.audit`.

    Attributes
    ----------
    table
        One row per kind of released cells, attack, number of cells and metric. ``released``:
        ``synthetic``, or a control: ``copies`` (training cells, sampled with replacement: the
        attack must succeed), ``same donors`` (half of the cells of the training donors, and the
        other half is attacked: what cells of these donors tell that copy no cell), ``other
        donors`` (of half of the auxiliary donors, or half of the cells of one: the attack must
        fail). ``attack``: ``copula``, ``DOMIAS``, ``distance``, or ``likelihood``, which needs the
        model. ``cells_per_donor``: 1 is an attack on single cells. ``metric``: ``auc`` (0.5:
        nothing is found, 1: every member), ``tpr_10`` and ``tpr_1`` (share of members found with
        10% and 1% false positives); ``c2st``, fidelity: the AUC of a classifier between synthetic
        and training cells, with its ``baseline`` between training cells. ``value``: mean over
        replicates, with a 95% interval from ``lower`` to ``upper``.
    notes
        What limits the results, one sentence each.
    donors, replicates, seed
        Number of donors, of splits, and the seed.
    """

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """Notes and table as JSON, also written to ``path`` if one is given."""
        values = {"seed": self.seed, "donors": self.donors, "replicates": self.replicates}
        found = {"notes": self.notes, "results": records(self.table)}
        return write_json(path, {**values, **found})

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the table."""
        write_csv(Path(path), self.table)

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write a page: a figure, the table, notes and methods. One file, offline."""
        from scld.privacy_audit.report import render

        write_text(Path(path), render(self))

    def summary(self) -> str:
        """A text table: AUC of every attack and of the controls, rates, fidelity and notes."""
        from rich.console import Console
        from rich.table import Table

        columns, rows = self.shown()
        text = Table(box=None, pad_edge=False)
        for position, column in enumerate(columns):
            text.add_column(column, justify="left" if not position else "right", no_wrap=True)
        for row in rows:
            text.add_row(*row)
        console = Console(width=160, color_system=None, markup=False)
        with console.capture() as capture:
            console.print("AUC of attacks: was this donor in training?", highlight=False)
            console.print(text)
            for line in (self.fidelity(), *(f"- {note}" for note in self.notes)):
                console.print(line, highlight=False, soft_wrap=True)
        return "\n".join(line.rstrip() for line in capture.get().splitlines()).rstrip()

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        found = self.values(released=results.SYNTHETIC, attack=results.COPULA, metric=results.AUC)
        aucs = ", ".join(f"{row.value:.2f}" for row in found.itertuples())
        return f"PrivacyAudit({self.donors} donors, {self.replicates} replicates: copula {aucs})"
