"""Counts on disk that are read a few rows at a time, and what they share with a CSR in memory.

Rows are read where they lie, in any order: the same rows give the same batches, and so the same
model, from disk as from memory. Two plain files hold the values and the genes of all counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp

_BLOCK = 4096  # rows that a pass over a matrix holds at a time
_VALUES, _GENES = "values", "genes"  # files, 4 bytes for each count
_BYTES = 4


@dataclass(frozen=True)
class DiskCounts:
    """Counts ``[cells, genes]`` whose values are in two files.

    Parameters
    ----------
    folder
        Of the files.
    first, stop
        ``[cells]`` positions of the counts of each cell in the files.
    column
        ``[genes of the files]`` the gene here, -1 for one that is left out: it has no count.
    """

    folder: Path
    first: np.ndarray
    stop: np.ndarray
    column: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """Cells and genes."""
        return len(self.first), int(self.column.max(initial=-1)) + 1

    @property
    def nnz(self) -> int:
        """Number of counts that are not zero."""
        return int((self.stop - self.first).sum())

    def rows(self, rows: np.ndarray) -> DiskCounts:
        """Some of the cells; nothing is read."""
        return DiskCounts(self.folder, self.first[rows], self.stop[rows], self.column)

    def genes(self, kept: np.ndarray) -> DiskCounts:
        """Some of the genes: the others, which have no count, are left out."""
        column = np.full(len(self.column), -1, np.int32)
        column[np.flatnonzero(self.column >= 0)[kept]] = np.arange(kept.sum(), dtype=np.int32)
        return DiskCounts(self.folder, self.first, self.stop, column)

    def __getitem__(self, rows: np.ndarray | slice) -> sp.csr_matrix:
        """Some of the cells, in memory: CSR, float32."""
        first, stop = self.first[rows], self.stop[rows]
        values = _read(self.folder / _VALUES, first, stop).view(np.float32)
        genes = _read(self.folder / _GENES, first, stop).view(np.int32)
        starts = np.concatenate([[0], np.cumsum(stop - first)]).astype(np.int32)
        shape = (len(first), self.shape[1])
        return sp.csr_matrix((values, self.column[genes], starts), shape=shape)

    @classmethod
    def write(cls, blocks: Iterable[sp.csr_matrix], folder: Path) -> DiskCounts:
        """Write blocks of cells ``[cells, genes]`` one after another."""
        lengths, genes = [], 0
        with (folder / _VALUES).open("wb") as values, (folder / _GENES).open("wb") as places:
            for block in blocks:
                block.sort_indices()
                block.data.astype(np.float32).tofile(values)
                block.indices.astype(np.int32).tofile(places)
                lengths.append(np.diff(block.indptr).astype(np.int64))
                genes = block.shape[1]
        stop = np.cumsum(np.concatenate(lengths))
        first = np.concatenate([[0], stop[:-1]])
        return cls(folder, first, stop, np.arange(genes, dtype=np.int32))


Counts = sp.csr_matrix | DiskCounts


def row_blocks(counts: Counts) -> Iterator[tuple[slice, sp.csr_matrix]]:
    """All cells, a block at a time: where they are, and their counts."""
    for start in range(0, counts.shape[0], _BLOCK):
        cells = slice(start, min(start + _BLOCK, counts.shape[0]))
        yield cells, counts[cells]


def some_rows(counts: Counts, rows: np.ndarray) -> Counts:
    """Some of the cells: on disk nothing is read, in memory they are copied."""
    return counts.rows(rows) if isinstance(counts, DiskCounts) else counts[rows]


def some_genes(counts: Counts, kept: np.ndarray) -> Counts:
    """The genes of a mask; those left out have no count."""
    return counts.genes(kept) if isinstance(counts, DiskCounts) else counts[:, kept]


def library_sizes(counts: Counts) -> np.ndarray:
    """Total count of each cell, ``[cells]``."""
    return np.concatenate([_sums(block, 1) for _, block in row_blocks(counts)])


def gene_totals(counts: Counts) -> np.ndarray:
    """Total count of each gene, ``[genes]``."""
    total = np.zeros(counts.shape[1])
    for _, block in row_blocks(counts):
        total += _sums(block, 0)
    return total


def gene_variances(counts: Counts) -> np.ndarray:
    """Variance of the count of each gene, ``[genes]``."""
    cells = counts.shape[0]
    squares = np.zeros(counts.shape[1])
    for _, block in row_blocks(counts):
        squares += _sums(block.power(2, dtype=np.float64), 0)
    variances: np.ndarray = squares / cells - (gene_totals(counts) / cells) ** 2
    return variances.clip(min=0.0)  # rounding can leave less


def _sums(block: sp.csr_matrix, axis: int) -> np.ndarray:
    # scipy before 1.18 adds float32 in float32, whatever dtype it is asked for
    sums: np.ndarray = np.asarray(block.astype(np.float64).sum(axis=axis)).ravel()
    return sums


def _read(path: Path, first: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """The bytes of these spans one after another; neighbouring spans are read together."""
    if not len(first):
        return np.zeros(0, np.uint8)
    apart = np.flatnonzero(first[1:] != stop[:-1]) + 1
    begins, ends = first[np.append(0, apart)], stop[np.append(apart, 0) - 1]
    with path.open("rb") as file:
        parts = [
            os.pread(file.fileno(), int(end - begin) * _BYTES, int(begin) * _BYTES)
            for begin, end in zip(begins, ends, strict=True)
        ]
    return np.frombuffer(bytearray(b"".join(parts)), np.uint8)
