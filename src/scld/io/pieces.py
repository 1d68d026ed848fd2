"""The training cells: one or several sources, genes aligned by name, in memory or on disk.

The checks of `count_matrix` run block by block, in the same pass that copies the counts to disk.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scld.errors import DataError, RequestError, listed, unwritable
from scld.io.counts import check_unique, count_matrix
from scld.io.disk import DiskCounts
from scld.io.read import Source, blocks_of, outline, read
from scld.progress import Update

_BLOCK = 8192  # cells that are read at a time
GENES = ("same", "intersection")
_OWN = ("gene", "seen", "_index")  # of the table of genes, and of AnnData
_MATRIX = "X"  # how errors call an AnnData that is the only source


@dataclass(frozen=True)
class Piece:
    """One source of cells, not read yet but for its tables.

    Parameters
    ----------
    source, layer
        As `read` takes them.
    place
        How errors call it.
    obs
        Its table.
    var
        Its table of genes.
    stored
        Number of values that its matrix stores.
    """

    source: Source
    layer: str | None
    place: str
    obs: pd.DataFrame
    var: pd.DataFrame
    stored: int

    @classmethod
    def of(cls, source: Source, layer: str | None) -> Piece:
        """Read the tables of a source."""
        place, obs, var, stored = outline(source, layer)
        check_unique(var.index, place)
        return cls(source, layer, place, obs, var, stored)

    @property
    def genes(self) -> pd.Index:
        """Names of its genes."""
        return self.var.index

    @property
    def matrix(self) -> str | None:
        """How errors call its matrix, if they would not know: one of several AnnData."""
        if self.place == _MATRIX or isinstance(self.source, str | os.PathLike):
            return None
        return f"{self.place}: {'X' if self.layer is None else f'layer {self.layer!r}'}"

    def check_not_transposed(self, labels: Sequence[str]) -> None:
        """Raise `DataError` if a label is a column of var."""
        missing = [label for label in labels if label not in self.obs]
        found = [label for label in missing if label in self.var]
        if found:
            seen = f"label {found[0]!r} is a column of var, not of obs"
            advice = "if the matrix is genes x cells, pass adata.T"
            raise DataError(f"{self.place}: {seen}; {advice}")

    def numbered(self, number: int) -> Piece:
        """One of several: an AnnData in memory has no name of its own."""
        is_path = isinstance(self.source, str | os.PathLike)
        return self if is_path else replace(self, place=f"source {number}")


@dataclass(frozen=True)
class Pieces:
    """All sources of a fit, and the genes that it takes from them.

    Parameters
    ----------
    pieces
        In the order given.
    genes
        Names, in the order of the first piece.
    """

    pieces: tuple[Piece, ...]
    genes: pd.Index

    @classmethod
    def of(cls, source: Any, layer: str | None, genes: str) -> Pieces:
        """Read the tables of all sources, and align their genes.

        Parameters
        ----------
        source
            One source, or a list of them.
        layer
            The layer that holds the counts.
        genes
            ``"same"``: all must have the same genes, in any order. ``"intersection"``: the genes
            that all of them have.

        Raises
        ------
        DataError
            A source that cannot be read, or genes that differ.
        """
        if genes not in GENES:
            raise RequestError(f"genes: got {genes!r}; allowed are {listed(GENES)}")
        sources = list(source) if isinstance(source, list | tuple) else [source]
        if not sources:
            raise RequestError("source: got an empty list; pass at least one AnnData or path")
        pieces = tuple(Piece.of(one, layer) for one in sources)
        if len(pieces) > 1:
            pieces = tuple(piece.numbered(number) for number, piece in enumerate(pieces, 1))
        return cls(pieces, _common_genes(pieces, genes))

    @property
    def cells(self) -> int:
        """Number of cells."""
        return sum(len(piece.obs) for piece in self.pieces)

    @property
    def stored(self) -> int:
        """Number of values that the matrices store."""
        return sum(piece.stored for piece in self.pieces)

    @property
    def gene_annotation(self) -> pd.DataFrame:
        """The text columns of the first source's var, such as gene ids, as text.

        Numbers are left out: most are statistics of the training cells.
        """
        var = self.pieces[0].var.loc[self.genes]
        texts = {name: _as_text(column) for name, column in var.items() if _is_name(name)}
        return pd.DataFrame(
            {name: column for name, column in texts.items() if column is not None}, index=var.index
        )

    @property
    def place(self) -> str:
        """How errors call them together."""
        return self.pieces[0].place if len(self.pieces) == 1 else f"{len(self.pieces)} sources"

    def obs(self, labels: Sequence[str]) -> pd.DataFrame:
        """The label columns of all cells.

        Raises
        ------
        DataError
            A label that a piece lacks, or whose categories are of different kinds.
        """
        for piece in self.pieces:
            piece.check_not_transposed(labels)
        if len(self.pieces) == 1:
            return self.pieces[0].obs
        tables = [piece.obs for piece in self.pieces]
        for label in labels:
            for piece in self.pieces:
                if list(piece.obs.columns).count(label) > 1:
                    advice = "drop all but one"
                    raise DataError(f"{piece.place}: several columns are named {label!r}; {advice}")
                if label not in piece.obs:
                    columns = listed(list(map(str, piece.obs.columns))) or "none"
                    known = f"obs columns there: {columns}"
                    raise DataError(f"{piece.place}: no obs column {label!r}; {known}")
            _check_kinds(label, self.pieces)
        return pd.concat([table[list(labels)].astype(object) for table in tables])

    def in_memory(self) -> sp.csr_matrix:
        """The counts of all cells, validated."""
        parts = [self._aligned(piece, read(piece.source, piece.layer)) for piece in self.pieces]
        return parts[0] if len(parts) == 1 else sp.csr_matrix(sp.vstack(parts, format="csr"))

    def on_disk(self, folder: Path, progress: Update) -> DiskCounts:
        """The same in a folder, with one block in memory at a time."""
        return DiskCounts.write(self._blocks(progress), folder)

    def _blocks(self, progress: Update) -> Iterator[sp.csr_matrix]:
        done = 0
        for piece in self.pieces:
            for block in blocks_of(piece.source, piece.layer, _BLOCK):
                yield self._aligned(piece, block)
                done += block.n_obs
                progress(done, "")

    def _aligned(self, piece: Piece, cells: Any) -> sp.csr_matrix:
        """Validated counts of some cells of a piece, of the genes of all."""
        counts = count_matrix(cells, piece.matrix)
        if piece.genes.equals(self.genes):
            return counts
        aligned = sp.csr_matrix(counts[:, piece.genes.get_indexer(self.genes)])
        aligned.sort_indices()
        empty = np.diff(aligned.indptr) == 0
        if empty.any():
            seen = f"{int(empty.sum()):,} cells have no counts in the {len(self.genes):,} genes"
            raise DataError(f"{piece.place}: {seen} that all sources have; drop these cells")
        return aligned


def _common_genes(pieces: Sequence[Piece], genes: str) -> pd.Index:
    first = pieces[0]
    common = first.genes
    for piece in pieces[1:]:
        common = common[common.isin(piece.genes)]
    if not len(common):
        raise DataError("source: the sources have no gene in common; use the same gene names")
    if genes == "intersection":
        return common
    for piece in pieces[1:]:
        missing, extra = first.genes.difference(piece.genes), piece.genes.difference(first.genes)
        if len(missing) or len(extra):
            named = {
                f"lacks {len(missing):,} genes of {first.place}": list(missing),
                f"has {len(extra):,} genes that {first.place} lacks": list(extra),
            }
            seen = ", ".join(f"{text} ({listed(part, 3)})" for text, part in named.items() if part)
            advice = f"genes='intersection' (--genes intersection) takes the {len(common):,} shared"
            raise DataError(f"{piece.place}: {seen}; {advice}")
    return first.genes


def _is_name(name: Any) -> bool:
    """Whether files can hold a column of this name; gene and seen are columns of a model's own."""
    return isinstance(name, str) and name not in _OWN and "/" not in name and not unwritable(name)


def _as_text(column: pd.Series) -> pd.Series | None:
    """A column of text, empty where a value is missing; None for any other."""
    values = column.astype(object)
    if not values.notna().any() or not values.dropna().map(_is_text).all():
        return None
    return values.where(values.notna(), "")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and (not value or not unwritable(value))


def _check_kinds(label: str, pieces: Sequence[Piece]) -> None:
    """Categories such as 1 and "1" would become two."""
    found = {piece.place: _kind(piece.obs[label].dropna()) for piece in pieces}
    kinds = {place: kind for place, kind in found.items() if kind != "empty"}
    if len(set(kinds.values())) > 1:
        seen = ", ".join(f"{kind} in {place}" for place, kind in kinds.items())
        raise DataError(f"label {label!r}: categories of different types ({seen}); make them alike")


def _kind(column: pd.Series) -> str:
    if not len(column):
        return "empty"
    values = column.cat.categories if isinstance(column.dtype, pd.CategoricalDtype) else column
    return str(pd.api.types.infer_dtype(values, skipna=True))
