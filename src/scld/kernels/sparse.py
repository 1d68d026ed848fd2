"""Sparse counts of some cells in two layouts: for a CPU as in CSR, for a GPU padded.

On a GPU every array of a training step has the same shape in each step, and no value is needed by
the host, so that the step can be recorded once and replayed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class SparseCounts(NamedTuple):
    """Counts of some cells as in CSR: no zeros, genes ascending within each cell."""

    values: Tensor  # [non-zeros]
    genes: Tensor  # [non-zeros]
    starts: Tensor  # [cells + 1]

    def per_count(self, of_cells: Tensor) -> Tensor:
        """Values ``[cells]`` repeated for each count of a cell, ``[non-zeros]``."""
        return torch.repeat_interleave(of_cells, self.starts.diff(), output_size=len(self.values))

    def pick(self, dense: Tensor) -> Tensor:
        """The elements of ``[cells, genes]`` at the counts, ``[non-zeros]``."""
        cells = torch.arange(len(self.starts) - 1, device=dense.device)
        return dense[self.per_count(cells), self.genes.long()]

    def sum(self, of_counts: Tensor) -> Tensor:
        """Sum of one value per count ``[non-zeros]`` over the counts of each cell, ``[cells]``."""
        cells = torch.arange(len(self.starts) - 1, device=of_counts.device)
        return of_counts.new_zeros(len(cells)).index_add(0, self.per_count(cells), of_counts)

    def product(self, of_counts: Tensor, dense: Tensor) -> Tensor:
        """Sparse ``[cells, genes]``, one value per count, times dense ``[genes, n]``."""
        arguments = (of_counts, self.genes, self.starts, dense)
        product: Tensor = _SparseProduct.apply(*arguments)  # type: ignore[no-untyped-call]
        return product


class PaddedCounts(NamedTuple):
    """Counts of some cells, each with the same number of places; in places not needed, zeros.

    The methods are those of `SparseCounts`, with ``[cells, places]`` for ``[non-zeros]``.
    """

    values: Tensor  # [cells, places]
    genes: Tensor  # [cells, places] int64; a place not needed has its own number, below `genes`

    @classmethod
    def gather(cls, counts: SparseCounts, cells: Tensor, places: int) -> PaddedCounts:
        """The counts of some cells of a larger matrix; none may have more than so many places."""
        first = counts.starts[cells][:, None]
        place = torch.arange(places, device=first.device)
        needed = place < counts.starts[cells + 1][:, None] - first
        index = torch.where(needed, first + place, 0)
        values = torch.where(needed, counts.values[index].float(), 0.0)
        return cls(values, torch.where(needed, counts.genes[index].long(), place))

    def per_count(self, of_cells: Tensor) -> Tensor:
        """Values ``[cells]``, to be broadcast over the counts of a cell."""
        return of_cells[:, None]

    def pick(self, dense: Tensor) -> Tensor:
        """The elements of ``[cells, genes]`` at the counts."""
        return dense.gather(1, self.genes)

    def sum(self, of_counts: Tensor) -> Tensor:
        """Sum of one value per count over the counts of each cell, ``[cells]``."""
        return torch.where(self.values > 0, of_counts, 0.0).sum(1)

    def product(self, of_counts: Tensor, dense: Tensor) -> Tensor:
        """Sparse ``[cells, genes]``, one value per count, times dense ``[genes, n]``."""
        matrix = of_counts.new_zeros(len(of_counts), len(dense))
        return matrix.scatter_add(1, self.genes, of_counts) @ dense


class _SparseProduct(torch.autograd.Function):
    """Sparse ``[cells, genes]`` times dense ``[genes, n]``, differentiable by the second.

    The gradient is a product with the transposed matrix, which is laid out by genes for it. The
    gradient of `embedding_bag` itself takes about twice as long.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, genes: Tensor, starts: Tensor, dense: Tensor) -> Tensor:
        ctx.save_for_backward(values, genes, starts)
        ctx.genes = len(dense)
        return _weighted_sums(values, genes, starts, dense)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None, Tensor]:
        values, genes, starts = ctx.saved_tensors
        order = genes.argsort(stable=True)
        counts = SparseCounts(values, genes, starts)
        cells = counts.per_count(torch.arange(len(starts) - 1, device=starts.device))
        bounds = torch.arange(ctx.genes + 1, device=genes.device, dtype=genes.dtype)
        gene_starts = torch.searchsorted(genes[order], bounds)
        return None, None, None, _weighted_sums(values[order], cells[order], gene_starts, gradient)


def _weighted_sums(values: Tensor, columns: Tensor, starts: Tensor, dense: Tensor) -> Tensor:
    """A matrix in CSR times a dense one."""
    return F.embedding_bag(
        columns, dense, starts, mode="sum", per_sample_weights=values, include_last_offset=True
    )
