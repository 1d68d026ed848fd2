"""Raw counts, validated once: what every module behind this one may rely on.

`count_matrix` promises CSR, float32, finite, integer-valued and non-negative counts, unique gene
names, and at least one count per cell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scld.errors import DataError, listed, one_line, unwritable
from scld.io.read import ORIGIN, Source, layers_and_raw, native, read

if TYPE_CHECKING:
    from anndata import AnnData


LARGEST_COUNT = 2**24 - 1  # float32 holds every integer up to here
LOOKED_AT = 1000  # cells whose counts are checked, where not all are


class TransformedCountsError(DataError):
    """The values are not integers: normalised or otherwise transformed."""


def count_matrix(adata: AnnData, place: str | None = None) -> sp.csr_matrix:
    """Return the raw counts of some cells, validated: CSR ``[cells, genes]``, float32.

    Parameters
    ----------
    adata
        Cells, as `read` returns them; not modified.
    place
        How errors call the matrix; where it was read from if None.

    Raises
    ------
    DataError
        Negative, non-finite or non-integer values, duplicate gene names, a cell without counts, no
        cells, a damaged matrix.

    Examples
    --------
    >>> import scld
    >>> scld.data.count_matrix(scld.datasets.pbmc()).dtype
    dtype('float32')
    """
    origin = adata.uns.get(ORIGIN)
    if not isinstance(origin, dict):
        origin = {"place": "X", "layers": layers_and_raw(adata)}
    place = place or origin["place"]
    layers = listed(origin["layers"]) or "none"
    hint = f"pass raw counts, or name the layer that holds them with layer= (layers here: {layers})"
    if adata.X is None:
        raise DataError(f"{place}: there is no matrix; {hint}")
    _check_genes(adata.var_names, place)
    matrix = _as_csr(adata.X, place)
    _check_values(matrix.data, place, hint)
    matrix = matrix.astype(np.float32)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    _check_no_empty_cells(matrix, adata.obs_names, place)
    return matrix


def layer_of_counts(adata: AnnData) -> str | None:
    """The first of X, the layers and raw that holds raw counts; None if X does, or none of them."""
    names = (None, *layers_and_raw(adata))
    return next((name for name in names if why_no_counts(adata, name) is None), None)


def why_no_counts(source: Source, layer: str | None) -> str | None:
    """Why a matrix cannot be used as raw counts, as far as a sample of the cells shows."""
    try:
        count_matrix(read(source, layer, at_most=LOOKED_AT))
    except DataError as error:
        return str(error)
    return None


def _check_genes(names: pd.Index, place: str) -> None:
    if names.hasnans:
        first = int(names.isna().argmax()) + 1
        raise DataError(
            f"{place}: gene {first} of {len(names):,} has no name in var_names; name it"
        )
    check_unique(names, place)


def check_unique(names: pd.Index, place: str) -> None:
    """Raise `DataError` if a gene name occurs twice, or cannot be written."""
    repeated = names[names.duplicated()]
    if len(repeated):
        times = int((names == repeated[0]).sum())
        seen = f"gene {str(repeated[0])!r} occurs {times} times in var_names"
        advice = "gene names must be unique: call adata.var_names_make_unique()"
        raise DataError(f"{place}: {seen}; {advice}")
    for name in map(str, names):
        why = unwritable(name)
        if why:
            seen = f"gene {one_line(repr(name))} in var_names {why}, so no file can hold it"
            raise DataError(f"{place}: {seen}; rename it")


def _as_csr(matrix: Any, place: str) -> sp.csr_matrix:
    """Dense, CSR, CSC or Dask -> CSR of the same dtype; indices are validated first."""
    if 0 in matrix.shape:
        cells, genes = matrix.shape
        raise DataError(f"{place}: holds {cells} cells x {genes} genes; pass at least one of each")
    if matrix.dtype.kind not in "biuf":
        advice = "pass raw counts as integers or floats"
        raise DataError(f"{place}: holds {matrix.dtype}, not real numbers; {advice}")
    if hasattr(matrix, "compute"):
        matrix = matrix.compute()
    check_indices(matrix, place)
    return sp.csr_matrix(native(matrix))


def check_indices(matrix: Any, place: str) -> None:
    """Raise `DataError` if a sparse matrix points outside itself: to use it would crash."""
    check = getattr(matrix, "check_format", None)  # of CSR and CSC
    if check is None:
        return
    try:
        check(full_check=True)
        _check_pointers(matrix.indptr, len(matrix.indices))
    except ValueError as error:
        advice = "copy, download or write it again"
        seen = f"a damaged sparse matrix ({one_line(error)})"
        raise DataError(f"{place}: {seen}; {advice}") from error


def _check_pointers(pointers: np.ndarray, stored: int) -> None:
    """What scipy leaves out if the last one is negative."""
    within = (pointers >= 0).all() and (pointers <= stored).all()
    if not within or (np.diff(pointers) < 0).any():
        raise ValueError("index pointers must not decrease, nor point outside the matrix")


def _check_values(values: np.ndarray, place: str, hint: str) -> None:
    allowed = f"allowed are counts 0, 1, 2, ...: {hint}"
    infinite = values[~np.isfinite(values)]
    if len(infinite):
        seen = f"(first: {infinite[0]}; {len(infinite):,} in all)"
        raise DataError(f"{place}: holds non-finite values {seen}; {allowed}")
    if len(values) and values.min() < 0:
        seen = f"negative values (smallest: {values.min():.4g})"
        raise DataError(f"{place}: {seen}, so these are scaled data, not counts; {allowed}")
    fractions = values[values != np.rint(values)]
    if len(fractions):
        small = values.max() < 50
        kind = "log-normalised or otherwise transformed" if small else "normalised"
        seen = f"values such as {fractions[0]:.4g} are not integers, so these look {kind}"
        raise TransformedCountsError(f"{place}: {seen}; {allowed}")
    if len(values) and values.max() > LARGEST_COUNT:
        seen = f"the largest count is {values.max():.4g}"
        allowed = f"allowed are counts below {LARGEST_COUNT + 1:,}: check that these are UMI counts"
        raise DataError(f"{place}: {seen}; {allowed}")


def _check_no_empty_cells(matrix: sp.csr_matrix, names: pd.Index, place: str) -> None:
    empty = np.diff(matrix.indptr) == 0
    if empty.any():
        first = str(names[empty][0])
        seen = f"{int(empty.sum()):,} of {len(empty):,} cells have no counts (first: {first!r})"
        advice = "drop them, for example with scanpy.pp.filter_cells(adata, min_counts=1)"
        raise DataError(f"{place}: {seen}; {advice}")
