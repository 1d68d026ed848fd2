"""Every gene within each type, in synthetic and real test cells: the tables behind the metrics.

A pair is a gene in a type. Metrics compare equally many cells; these tables use every test cell
and every synthetic cell that was read, because a gene that is wrong is found with more of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from scld.evaluation.cells import Cells, Reference
from scld.evaluation.metrics.labels import PSEUDOCOUNT
from scld.evaluation.metrics.type_genes import (
    MIN_DETECTED_MEAN,
    MIN_DETECTED_VARIANCE,
    MIN_TYPE_CELLS,
    TypeMoments,
    detected_in_both,
    gene_quantiles,
    mean_z,
    outside_means,
    spread_z,
    type_moments,
    variance_ratio,
)

# A pair is off if it is wrong by enough to matter, and beyond chance among so many pairs: real
# cells exceed 5 standard errors less than once in 100,000 pairs. There are few identity genes,
# so that 4 are enough for them.
LEVEL_TOLERANCE, VARIANCE_FACTOR = 1.15, 2.0
CERTAIN, CERTAIN_OF_IDENTITY = 5.0, 4.0  # standard errors
LEVEL, LEAK, SPREAD = "level", "leak", "spread"  # what is off: in the type, in other types, ...
QUANTILES = {"q05": 0.05, "q50": 0.5, "q95": 0.95}


def gene_pairs(
    reference: Reference, test: Cells, cells: Cells, types: Sequence[str], genes: Sequence[str]
) -> pd.DataFrame:
    """Every pair with enough cells and detections; see `Results.type_genes`.

    Parameters
    ----------
    reference
        Fitted on the training cells.
    test, cells
        Real test cells, and a synthetic dataset.
    types, genes
        Name of each code and of each column.
    """
    codes = reference.types
    log = (test.log, cells.log)
    both = type_moments(test.log, test.codes, codes), type_moments(cells.log, cells.codes, codes)
    spread = spread_z(log, (test.codes, cells.codes), both, codes)
    detected = detected_in_both(*both)
    large = np.minimum(both[0].cells, both[1].cells) >= MIN_TYPE_CELLS
    row, gene = np.nonzero((detected >= MIN_DETECTED_MEAN) & large[:, None])
    varied = detected[row, gene] >= MIN_DETECTED_VARIANCE
    table = pd.DataFrame(
        {
            "type": np.array(types, dtype=object)[codes[row]],
            "gene": np.array(genes, dtype=object)[gene],
            "identity": _is_identity(reference)[row, gene],
            "identity_of": _identity_of(reference, types)[gene],
            "marker": _is_marker(reference)[row, gene],
            **_level(both, row, gene),
            **_outside(both, row, gene),
            "variance_ratio": np.where(varied, variance_ratio(*both)[row, gene], np.nan),
            "spread_z": np.where(varied, spread[row, gene], np.nan),
        }
    )
    return table.assign(off=_off(table))


def _level(
    both: tuple[TypeMoments, TypeMoments], row: np.ndarray, gene: np.ndarray
) -> dict[str, np.ndarray]:
    real, synthetic = (moments.mean[row, gene] for moments in both)
    return {
        "cells_real": both[0].cells[row],
        "cells": both[1].cells[row],
        "mean_real": real,
        "mean": synthetic,
        "ratio": (synthetic + PSEUDOCOUNT) / (real + PSEUDOCOUNT),
        "z": mean_z(*both)[row, gene],
    }


def _outside(
    both: tuple[TypeMoments, TypeMoments], row: np.ndarray, gene: np.ndarray
) -> dict[str, np.ndarray]:
    """Of all other types; nan where too few of their cells have the gene."""
    outside = outside_means(*both)
    real, synthetic = outside.real[row, gene], outside.synthetic[row, gene]
    ratio = (synthetic + PSEUDOCOUNT) / (real + PSEUDOCOUNT)
    enough = outside.detected[row, gene] >= MIN_DETECTED_MEAN
    return {
        "outside_real": np.where(enough, real, np.nan),
        "outside": np.where(enough, synthetic, np.nan),
        "outside_ratio": np.where(enough, ratio, np.nan),
        "outside_z": np.where(enough, outside.z[row, gene], np.nan),
    }


def _is_marker(reference: Reference) -> np.ndarray:
    """Markers by effect, and identity genes."""
    found = _is_identity(reference)
    if reference.markers is not None:
        np.put_along_axis(found, reference.markers, True, axis=1)
    return found


def _is_identity(reference: Reference) -> np.ndarray:
    found = np.zeros(reference.moments.mean.shape, dtype=bool)
    for code, genes in reference.identity_genes.items():
        found[reference.row(code), genes] = True
    return found


def _identity_of(reference: Reference, types: Sequence[str]) -> np.ndarray:
    """For each gene, the type that it is an identity gene of and most abundant in; "" if none."""
    level = np.where(_is_identity(reference), reference.moments.mean, 0)
    names = np.array(types, dtype=object)[reference.types[level.argmax(axis=0)]]
    return np.where(level.max(axis=0) > 0, names, "")


def _off(table: pd.DataFrame) -> np.ndarray:
    """What is off: level, leak (of a marker into other types), spread, or nothing ("")."""
    certain = np.where(table["identity"], CERTAIN_OF_IDENTITY, CERTAIN)
    wrong_level = np.abs(np.log(table["ratio"])) > np.log(LEVEL_TOLERANCE)
    wrong_spread = np.abs(np.log(table["variance_ratio"])) > np.log(VARIANCE_FACTOR)
    leaks = table["marker"] & (table["outside_ratio"] > LEVEL_TOLERANCE)
    level = wrong_level & (table["z"].abs() > certain)
    leak = leaks & (table["outside_z"] > certain)
    spread = wrong_spread & (table["spread_z"].abs() > certain)
    return np.select([level, leak, spread], [LEVEL, LEAK, SPREAD], "")


def worst_pairs(table: pd.DataFrame) -> pd.DataFrame:
    """The pairs that are off: identity genes in their type first, then by standard errors."""
    rows = table[table["off"] != ""]
    distance = np.select(
        [rows["off"] == LEVEL, rows["off"] == LEAK],
        [rows["z"].abs(), rows["outside_z"]],
        rows["spread_z"].abs(),
    )
    return rows.iloc[np.lexsort((-distance, ~rows["identity"].to_numpy(bool)))]


def with_quantiles(
    rows: pd.DataFrame, test: Cells, cells: Cells, types: Sequence[str], genes: Sequence[str]
) -> pd.DataFrame:
    """Pairs with the 5, 50 and 95% quantiles of real (``_real``) and of synthetic cells."""
    at, columns = tuple(QUANTILES.values()), {name: i for i, name in enumerate(genes)}
    found = np.empty((len(rows), 2, len(at)))
    for i, (cell_type, gene) in enumerate(zip(rows["type"], rows["gene"], strict=True)):
        code, column = types.index(cell_type), np.array([columns[gene]])
        for side, source in enumerate((test, cells)):
            found[i, side] = gene_quantiles(source.log[source.codes == code], column, at)[:, 0]
    of_real = {f"{name}_real": found[:, 0, i] for i, name in enumerate(QUANTILES)}
    return rows.assign(**of_real, **{name: found[:, 1, i] for i, name in enumerate(QUANTILES)})
