"""Cells in, cells out: AnnData, .h5ad or .zarr -> counts, genes and labels, checked once at the door.

Everything behind this file may rely on what it promises: ``X`` is CSR, finite, integer-valued and non-negative, every
cell has counts, gene names are unique, and labels are codes into the categories of a `Schema`.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scld.errors import DataError, listed, nearest, one_line
from scld.schema import Schema

if TYPE_CHECKING:
    from anndata import AnnData


def read(source: AnnData | str | Path, layer: str | None = None, *, at_most: int | None = None, seed: int = 0) -> AnnData:
    """Read cells: the matrix, ``obs`` and the gene names, and nothing else that a file may hold.

    Parameters
    ----------
    source
        An AnnData in memory (returned as it is where ``layer`` is None), or the path of an ``.h5ad`` file or ``.zarr`` store.
    layer
        The layer to take as the matrix; ``X`` if None.
    at_most
        Take so many cells at random where there are more; of a file only their rows are read.
    seed
        Of the choice of cells.

    Returns
    -------
    AnnData
        ``X`` is the chosen matrix, unchecked: see `count_matrix`.

    Raises
    ------
    DataError
        No such file, not an AnnData file, damaged, or without that layer.

    Examples
    --------
    >>> import scld
    >>> scld.data.read(scld.datasets.pbmc()).n_vars
    2000
    """
    import anndata as ad

    if isinstance(source, str | Path):
        return _read_path(Path(source).expanduser(), layer, at_most, seed)
    if not isinstance(source, ad.AnnData):
        raise DataError(f"source: got {type(source).__name__}; pass an AnnData, or the path of an .h5ad file or .zarr store")
    cells = source.to_memory() if source.isbacked else source
    _check_layer(layer, list(cells.layers), "the AnnData")
    rows = _chosen(cells.n_obs, at_most, seed)
    cells = cells if rows is None else cells[rows]
    return cells if layer is None else _bare(cells.layers[layer], cells.obs, cells.var_names, f"layer {layer!r}", list(cells.layers))


def _chosen(cells: int, at_most: int | None, seed: int) -> np.ndarray | None:
    """Rows to take, in order; None for all."""
    return None if at_most is None or cells <= at_most else np.sort(np.random.default_rng(seed).choice(cells, at_most, replace=False))


def _read_path(path: Path, layer: str | None, at_most: int | None, seed: int) -> AnnData:
    import anndata as ad

    if not path.exists():
        raise DataError(f"{one_line(path)}: no such file; check the path{_nearest_file(path)}")
    if path.suffix.lower() not in {".h5ad", ".zarr"}:
        raise DataError(f"{one_line(path)}: unknown ending {path.suffix!r}; pass an .h5ad file or a .zarr store (AnnData.write_h5ad makes one)")
    try:
        with _opened(path) as store:
            layers = list(store["layers"]) if "layers" in store else []
            _check_layer(layer, layers, one_line(path))
            parts = ["X" if layer is None else f"layers/{layer}", "obs", "var"]
            _check_parts(parts, store, one_line(path), layers)
            obs, var = (ad.io.read_elem(store[part]) for part in parts[1:])
            rows = _chosen(len(obs), at_most, seed)
            matrix = ad.io.read_elem(store[parts[0]]) if rows is None else _rows_of(store[parts[0]], rows)
            obs = obs if rows is None else obs.iloc[rows]
            return _bare(matrix, obs, var.index, f"{one_line(path)}: {'X' if layer is None else f'layer {layer!r}'}", layers)
    except DataError:
        raise
    except Exception as error:  # HDF5, zarr and anndata each raise their own
        advice = "it is damaged, cut short, or not an AnnData file: copy, download or write it again"
        raise DataError(f"{one_line(path)}: cannot be read ({one_line(error)}); {advice}") from error


def _rows_of(stored: Any, rows: np.ndarray) -> Any:
    """Some rows of a stored matrix; only one stored by columns has to be read whole for it."""
    import anndata as ad

    if not hasattr(stored, "keys"):
        return stored.oindex[rows] if hasattr(stored, "oindex") else stored[rows]  # zarr or HDF5
    if stored.attrs["encoding-type"] == "csr_matrix":
        return ad.io.sparse_dataset(stored)[rows]
    return ad.io.read_elem(stored).tocsr()[rows]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import h5py
    import zarr

    if path.suffix.lower() == ".h5ad":
        with h5py.File(path, "r") as store:
            yield store
    else:
        yield zarr.open_group(path, mode="r", use_consolidated=False)  # the summary would hide that parts are gone


def _check_parts(parts: Sequence[str], store: Any, place: str, layers: Sequence[str]) -> None:
    missing = [part for part in parts if part not in store]
    if missing:
        known = f"(layers here: {listed(layers) or 'none'})"
        raise DataError(f"{place}: holds no {missing[0]!r}; pass what AnnData.write_h5ad or write_zarr wrote, or name a layer with layer= {known}")
    values: Any = store[parts[0]]["data"] if hasattr(store[parts[0]], "keys") else None
    if hasattr(values, "nchunks_initialized") and values.nchunks_initialized < values.nchunks:  # zarr would read them as zeros, which none of these are
        raise DataError(f"{place}: {values.nchunks - values.nchunks_initialized} of {values.nchunks} chunks of the counts are lost; copy or download it again")


_ORIGIN = "scld_origin"  # where a matrix was read from, for the errors of count_matrix


def _bare(matrix: Any, obs: pd.DataFrame, genes: pd.Index, place: str, layers: list[str]) -> AnnData:
    import anndata as ad

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # repeated gene names: an error in count_matrix; repeated cell names: no harm
        return ad.AnnData(X=matrix, obs=obs, var=pd.DataFrame(index=genes.astype(str)), uns={_ORIGIN: {"place": place, "layers": layers}})


def _check_layer(layer: str | None, layers: Sequence[str], place: str) -> None:
    if layer is not None and layer not in layers:
        known = listed(layers) or "none"
        raise DataError(f"layer {layer!r}: not in {place}; its layers: {known}; name one of them, or leave layer out to use X{nearest(layer, layers)}")


def count_matrix(adata: AnnData, place: str | None = None) -> sp.csr_matrix:
    """The raw counts of some cells, checked: CSR ``[cells, genes]``, float32, integer-valued, non-negative.

    Parameters
    ----------
    adata
        Cells, as `read` returns them; left as they are.
    place
        What to call the matrix in an error; where it was read from if None.

    Raises
    ------
    DataError
        Negative, non-finite or non-integer values, duplicate gene names, a cell without counts, no cells, a damaged matrix.

    Examples
    --------
    >>> import scld
    >>> scld.data.count_matrix(scld.datasets.pbmc()).dtype
    dtype('float32')
    """
    origin = adata.uns.get(_ORIGIN, {"place": "X", "layers": list(adata.layers)})
    place = place or origin["place"]
    hint = f"pass raw counts, or name the layer that holds them with layer= (layers here: {listed(origin['layers']) or 'none'})"
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


def _check_genes(names: pd.Index, place: str) -> None:
    repeated = names[names.duplicated()]
    if names.hasnans:
        raise DataError(f"{place}: gene {int(names.isna().argmax()) + 1} of {len(names):,} has no name in var_names; give it one")
    if len(repeated):
        times = int((names == repeated[0]).sum())
        raise DataError(f"{place}: gene {str(repeated[0])!r} stands {times} times in var_names; names must be unique: call adata.var_names_make_unique()")


def _as_csr(matrix: Any, place: str) -> sp.csr_matrix:
    """Dense, CSR, CSC or Dask -> CSR, in its own number type; indices are checked before scipy trusts them."""
    if 0 in matrix.shape:
        raise DataError(f"{place}: holds {matrix.shape[0]} cells x {matrix.shape[1]} genes; pass at least one of each")
    if matrix.dtype.kind not in "biuf":
        raise DataError(f"{place}: holds {matrix.dtype}, not real numbers; pass raw counts as integers or floats")
    if hasattr(matrix, "compute"):
        matrix = matrix.compute()
    if isinstance(matrix, np.ndarray):
        known = np.float32 if matrix.dtype == np.float16 else matrix.dtype.newbyteorder("=")  # to scipy: neither float16 nor a foreign order of bytes
        return sp.csr_matrix(matrix.astype(known, copy=False))
    try:
        matrix.check_format(full_check=True)
    except ValueError as error:
        raise DataError(f"{place}: a damaged sparse matrix ({one_line(error)}); copy, download or write it again") from error
    return sp.csr_matrix(matrix)


def _check_values(values: np.ndarray, place: str, hint: str) -> None:
    allowed = f"allowed are counts 0, 1, 2, ...: {hint}"
    infinite = values[~np.isfinite(values)]
    if len(infinite):
        raise DataError(f"{place}: holds values that are not finite (first: {infinite[0]}; {len(infinite):,} in all); {allowed}")
    if len(values) and values.min() < 0:
        raise DataError(f"{place}: negative values (smallest: {values.min():.4g}), so these are scaled data, not counts; {allowed}")
    fractions = values[values != np.rint(values)]
    if len(fractions):
        kind = "log-normalised or otherwise transformed" if values.max() < 50 else "normalised"
        raise DataError(f"{place}: values such as {fractions[0]:.4g} are not whole numbers, so these look {kind}; {allowed}")
    if len(values) and values.max() >= 2**24:  # float32 holds every integer below
        raise DataError(f"{place}: the largest count is {values.max():.4g}; allowed are counts below {2**24:,}: check that these are UMI counts")


def _check_no_empty_cells(matrix: sp.csr_matrix, names: pd.Index, place: str) -> None:
    empty = np.diff(matrix.indptr) == 0
    if empty.any():
        seen = f"{int(empty.sum()):,} of {len(empty):,} cells have no counts (first: {str(names[empty][0])!r})"
        raise DataError(f"{place}: {seen}; a cell needs at least one: drop them, for example with scanpy.pp.filter_cells(adata, min_counts=1)")


def split(adata: AnnData, label: str, test_share: float = 0.3, seed: int = 0) -> tuple[AnnData, AnnData]:
    """Split cells within each category of a label into training and test cells.

    Examples
    --------
    >>> import scld
    >>> train, test = scld.data.split(scld.datasets.pbmc(), "cell_type")
    >>> train.n_obs, test.n_obs
    (1752, 749)
    """
    codes = Schema.of(adata.obs, [label]).codes(adata.obs)[:, 0]
    random, test = np.random.default_rng(seed), np.zeros(len(codes), dtype=bool)
    for code in np.unique(codes):
        cells = random.permutation(np.flatnonzero(codes == code))
        test[cells[: round(test_share * len(cells))]] = True
    return adata[~test].copy(), adata[test].copy()


def _nearest_file(path: Path) -> str:
    folder = path.parent
    return nearest(path.name, [entry.name for entry in folder.iterdir()]) if folder.is_dir() else ""
