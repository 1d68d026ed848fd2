"""A sparse matrix times a dense one, and the gradient of that product."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from scld.compiled import loose
from scld.threads import side_by_side, takes

_BLOCK = 1024  # genes at a time, whose weights stay in a processor's cache


def product(values: Tensor, genes: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    """Sparse ``[cells, genes]`` times ``weights [genes, width]``.

    On a processor, in single precision, the weights are gone through in blocks of genes, and their gradient is gathered in such
    blocks, from the same layout by cells. Anywhere else the products are torch's.

    Parameters
    ----------
    values, genes, starts
        The entries that are not zero, cell after cell, as in CSR; ``genes`` ascend within each cell.
    weights
        What gradients reach.

    Examples
    --------
    >>> import torch
    >>> values, genes, starts = torch.tensor([2.0, 3.0]), torch.tensor([0, 1], dtype=torch.int32), torch.tensor([0, 1, 2], dtype=torch.int32)
    >>> product(values, genes, starts, torch.ones(2, 1)).tolist()
    [[2.0], [3.0]]
    """
    result: Tensor = _Product.apply(values, genes, starts, weights)  # type: ignore[no-untyped-call]
    return result


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, genes: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(values, genes, starts)
        ctx.genes = len(weights)
        if not takes(weights):
            return _csr(starts, genes, values, len(weights)) @ weights
        entries, factor = _arrays(values, genes, starts), weights.detach().contiguous().numpy()
        result = np.empty((len(starts) - 1, weights.shape[1]), np.float32)
        side_by_side(lambda part, span: _product(*entries, factor, result, *span), len(result))
        return torch.from_numpy(result)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None, Tensor]:
        values, genes, starts = ctx.saved_tensors
        if not takes(gradient):
            return None, None, None, _transposed(values, genes, starts, ctx.genes) @ gradient
        entries, factor = _arrays(values, genes, starts), gradient.contiguous().numpy()
        result = np.empty((ctx.genes, gradient.shape[1]), np.float32)
        side_by_side(lambda part, span: _transposed_product(*entries, factor, result, *span), len(result))
        return None, None, None, torch.from_numpy(result)


def _arrays(*parts: Tensor) -> list[Any]:
    return [part.numpy() for part in parts]


def _transposed(values: Tensor, genes: Tensor, starts: Tensor, number: int) -> Tensor:
    """Laid out by genes, without asking a GPU for any number."""
    order = genes.argsort(stable=True)
    cells = torch.repeat_interleave(starts.diff(), output_size=len(values))
    gene_starts = torch.searchsorted(genes[order].long(), torch.arange(number + 1, device=genes.device))
    return _csr(gene_starts, cells[order], values[order], len(starts) - 1)


def _csr(starts: Tensor, columns: Tensor, values: Tensor, width: int) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(starts, columns, values, size=(len(starts) - 1, width), check_invariants=False)


@loose
def _product(values: np.ndarray, genes: np.ndarray, starts: np.ndarray, weights: np.ndarray, out: np.ndarray, first: int, stop: int) -> None:
    """The product's rows from ``first`` to ``stop``, written to ``out``."""
    out[first:stop] = 0
    at = starts[first:stop].copy()
    for top in range(_BLOCK, len(weights) + _BLOCK, _BLOCK):
        for cell in range(first, stop):
            begin = at[cell - first]
            end = begin + np.searchsorted(genes[begin : starts[cell + 1]], top)
            at[cell - first] = end
            _add_rows(values[begin:end], genes[begin:end], weights, out[cell])


@loose
def _add_rows(values: np.ndarray, genes: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    """Weighted rows, added to one; four at a time, or most of the time would go to reading and writing it."""
    fours = len(values) // 4 * 4
    for i in range(0, fours, 4):
        a, b, c, d = values[i], values[i + 1], values[i + 2], values[i + 3]
        of_a, of_b, of_c, of_d = weights[genes[i]], weights[genes[i + 1]], weights[genes[i + 2]], weights[genes[i + 3]]
        for j in range(len(out)):
            out[j] += a * of_a[j] + b * of_b[j] + c * of_c[j] + d * of_d[j]
    for i in range(fours, len(values)):
        _add_row(values[i], weights[genes[i]], out)


@loose
def _transposed_product(values: np.ndarray, genes: np.ndarray, starts: np.ndarray, factor: np.ndarray, out: np.ndarray, first: int, stop: int) -> None:
    """The rows from ``first`` to ``stop`` of the transposed matrix's product, written to ``out``; few at a time, which then stay in the cache."""
    at = starts[:-1].copy()
    for cell in range(len(at)):
        at[cell] += np.searchsorted(genes[starts[cell] : starts[cell + 1]], first)
    for bottom in range(first, stop, _BLOCK // 4):
        top = min(bottom + _BLOCK // 4, stop)
        out[bottom:top] = 0
        for cell in range(len(at)):
            i, end = at[cell], starts[cell + 1]
            while i < end and genes[i] < top:
                _add_row(values[i], factor[cell], out[genes[i]])
                i += 1
            at[cell] = i


@loose
def _add_row(value: float, row: np.ndarray, out: np.ndarray) -> None:
    for j in range(len(out)):
        out[j] += value * row[j]
