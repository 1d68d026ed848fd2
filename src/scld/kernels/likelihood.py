"""The negative log-likelihood of sparse counts, compiled for CPUs and in plain torch.

`scld.model.likelihood` defines it. The compiled version computes value and gradients in one pass
over cells and genes, where torch would go over the same arrays some thirty times. Its loops over
genes have no branches, so that they are vectorised; Gamma functions are needed at counts above one
only.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import factorial
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus

from scld.kernels.jit import FMA, njit
from scld.kernels.parallel import PARTS, parallel_for
from scld.kernels.sparse import PaddedCounts, SparseCounts
from scld.kernels.special import (
    SHORT,
    fast_exp,
    fast_log1p,
    log_factorial,
    log_gamma_ratio,
    short_gamma_ratio,
)

LEAST_OUTLIER = 5  # smaller counts are common: an outlier could not be recognised
LIMITS = (-4.6, 9.2)  # of the log-dispersion: 0.01 to 10,000
_LOW, _HIGH = np.float32(LIMITS[0]), np.float32(LIMITS[1])
_INVERSE_FACTORIALS = 1 / factorial(np.arange(SHORT + 1.0))
_NEGLIGIBLE = -16.0  # log-odds of an outlier that float32 cannot resolve
_CELLS, _GENES = 16, 2048  # of a block, whose arrays stay in the first cache
_ONE, _ZERO = np.float32(1), np.float32(0)


def log_dispersion(log_p: Tensor, offset: Tensor, slope: Tensor) -> Tensor:
    """``offset + slope * log_p``, ``[cells, genes]``, kept between the log of 0.01 and of 10,000.

    Gradients ignore these limits, so that no gene is stuck there.
    """
    log_r = torch.addcmul(offset, slope, log_p)
    log_r.detach().clamp_(*LIMITS)
    return log_r


def nll_plain(
    logits: Tensor,
    log_library: Tensor,
    offset: Tensor,
    slope: Tensor,
    counts: SparseCounts | PaddedCounts,
    outlier_rate: float,
) -> Tensor:
    """Negative log-likelihood, mean over cells, on any device and in any precision."""
    log_p, n = torch.log_softmax(logits, dim=1), counts.values.double()
    log_r = log_dispersion(log_p, offset, slope)
    ratio = log_p + log_library.detach()[:, None] - log_r  # log(mu / r)
    at_zero = log_r.exp() * softplus(ratio)
    # the Gamma functions cancel badly in float32
    zero, ratio, log_r = (counts.pick(part).double() for part in (at_zero, ratio, log_r))
    r = log_r.exp()
    log_binomial = torch.lgamma(n + r) - torch.lgamma(1 + r) - torch.lgamma(n + 1)
    at_counts = n * (ratio - softplus(ratio)) + log_r + log_binomial
    if outlier_rate:
        outlier = (outlier_rate * LEAST_OUTLIER / (n * (n + 1)).clamp_min(1)).log()
        mixture = torch.logaddexp(at_counts - zero, outlier) + zero
        at_counts = torch.where(n >= LEAST_OUTLIER, mixture, at_counts)
    return (at_zero.sum(1) - counts.sum(at_counts.to(at_zero.dtype))).mean()


def nll_compiled(
    logits: Tensor,
    log_library: Tensor,
    offset: Tensor,
    slope: Tensor,
    counts: SparseCounts,
    outlier_rate: float,
) -> Tensor:
    """The same in float32 on a CPU, with its gradients in one pass."""
    arguments = (logits, log_library, offset, slope, *counts, outlier_rate)
    result: Tensor = _Compiled.apply(*arguments)  # type: ignore[no-untyped-call]
    return result


class _Compiled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, *arguments: Any) -> Tensor:
        log_library, offset, slope, values, genes, starts, outlier_rate = arguments
        floats = (logits, logits.amax(dim=1), log_library, offset, slope, values)
        contiguous = (part.detach().to(torch.float32).contiguous() for part in floats)
        arrays: list[Any] = [part.numpy() for part in (*contiguous, genes, starts)]
        cells, weight = len(logits), np.float32(-1 / len(logits))
        of_cells, of_logits = np.empty(cells, np.float32), np.empty_like(arrays[0])
        of_genes = np.zeros((PARTS, 2, logits.shape[1]), np.float32)

        def work(part: int, first: int, stop: int) -> None:
            outputs = (of_cells, of_logits, of_genes[part])
            _log_likelihoods(*arrays, outlier_rate, weight, *outputs, first, stop)

        parallel_for(work, cells)
        of_offset, of_slope = weight * of_genes.sum(axis=0)
        gradients = (of_logits, of_offset, of_slope)
        ctx.save_for_backward(*(torch.from_numpy(gradient) for gradient in gradients))
        nan = 0 * (arrays[3].sum() + arrays[4].sum())  # a non-finite dispersion; limits hide it
        return torch.tensor(nan - of_cells.mean(dtype=np.float64), dtype=torch.float32)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        scaled = saved if gradient == 1 else [gradient * part for part in saved]
        of_logits, of_offset, of_slope = scaled
        return of_logits, None, of_offset, of_slope, None, None, None, None


class _Block(NamedTuple):
    """Some genes ``[genes]``: inputs, what is computed for one cell, and gradients."""

    offset: np.ndarray  # of the log-dispersion
    slope: np.ndarray
    log_p: np.ndarray  # log of the expression proportion
    r: np.ndarray  # dispersion
    log_term: np.ndarray  # log(1 + mu / r)
    prob: np.ndarray  # mu / (mu + r)
    row: np.ndarray  # gradient by log_p
    of_offset: np.ndarray
    of_slope: np.ndarray


@njit(fastmath=FMA)
def _log_likelihoods(
    logits: np.ndarray,
    maxima: np.ndarray,
    log_libraries: np.ndarray,
    offset: np.ndarray,
    slope: np.ndarray,
    x: np.ndarray,
    genes: np.ndarray,
    starts: np.ndarray,
    outlier_rate: float,
    weight: float,
    values: np.ndarray,
    of_logits: np.ndarray,
    of_genes: np.ndarray,
    first: int,
    stop: int,
) -> None:
    """Write the log-likelihoods of the cells from ``first`` to ``stop`` to ``values [cells]``.

    The gradients of their sum by logit, times ``weight``, are written to ``of_logits``; those by
    offset and slope are added to ``of_genes [2, genes]``. ``maxima`` are the largest logits.
    """
    scratch = np.empty((4, _GENES), np.float32)
    log_sum, total = np.empty(_CELLS, np.float32), np.empty(_CELLS, np.float32)
    at = np.empty(_CELLS, np.int64)
    for start in range(first, stop, _CELLS):
        for cell in range(start, min(start + _CELLS, stop)):
            log_sum[cell - start] = _log_sum(logits[cell], maxima[cell], scratch[0])
            total[cell - start], values[cell], at[cell - start] = 0, 0, starts[cell]
        for low in range(0, logits.shape[1], _GENES):
            some = slice(low, min(low + _GENES, logits.shape[1]))
            size = some.stop - low
            for cell in range(start, min(start + _CELLS, stop)):
                i, end, log_library = cell - start, starts[cell + 1], log_libraries[cell]
                log_p, r, log_term, prob = (
                    scratch[0, :size],
                    scratch[1, :size],
                    scratch[2, :size],
                    scratch[3, :size],
                )
                block = _Block(
                    offset[some],
                    slope[some],
                    log_p,
                    r,
                    log_term,
                    prob,
                    of_logits[cell, some],
                    of_genes[0, some],
                    of_genes[1, some],
                )
                _at_zero(logits[cell, some], log_sum[i], log_library, block)
                begin = at[i]
                at[i] += np.searchsorted(genes[begin:end], some.stop)
                counted = slice(begin, at[i])
                values[cell] += _at_counts(
                    x[counted], genes[counted], low, outlier_rate, log_library, block
                ) - _dot(r, log_term)
                total[i] += _sum(block.row)
        for cell in range(start, min(start + _CELLS, stop)):
            i = cell - start
            _through_softmax(logits[cell], log_sum[i], total[i], weight, of_logits[cell])


@njit(fastmath=FMA)
def _log_sum(logit: np.ndarray, maximum: float, exps: np.ndarray) -> np.float32:
    """log of the sum of exps, given the largest logit."""
    total = np.float32(0)
    for low in range(0, len(logit), _GENES):
        some = logit[low : low + _GENES]
        for gene in range(len(some)):
            exps[gene] = fast_exp(some[gene] - maximum)
        total += _sum(exps[: len(some)])
    return maximum + np.float32(math.log(total))


@njit(fastmath=FMA)
def _at_zero(logit: np.ndarray, log_sum: float, log_library: float, block: _Block) -> None:
    """Gradients of the term that every gene has, -r log(1 + mu / r), and what others need."""
    offset, slope, log_p, r, log_term, prob, row, of_offset, of_slope = block
    for gene in range(len(logit)):
        log_p[gene] = logit[gene] - log_sum
        log_r = _limited(offset[gene] + slope[gene] * log_p[gene])
        ratio = log_p[gene] + log_library - log_r  # log(mu / r)
        small = fast_exp(-abs(ratio))
        r[gene] = fast_exp(log_r)
        log_term[gene] = (ratio if ratio > _ZERO else _ZERO) + fast_log1p(small)
        prob[gene] = (_ONE if ratio > _ZERO else small) / (_ONE + small)
        by_dispersion = r[gene] * (prob[gene] - log_term[gene])
        row[gene] = slope[gene] * by_dispersion - r[gene] * prob[gene]
        of_offset[gene] += by_dispersion
        of_slope[gene] += by_dispersion * log_p[gene]


@njit(fastmath=FMA)
def _through_softmax(
    logit: np.ndarray, log_sum: float, total: float, weight: float, row: np.ndarray
) -> None:
    """From the gradient by log_p to the one by logit."""
    for gene in range(len(logit)):
        row[gene] = weight * (row[gene] - total * fast_exp(logit[gene] - log_sum))


@njit(fastmath=FMA)
def _at_counts(
    x: np.ndarray,
    genes: np.ndarray,
    low: int,
    outlier_rate: float,
    log_library: float,
    block: _Block,
) -> float:
    """What a cell's counts add to the term that every gene has; gradients are added in place."""
    offset, slope, log_p, r, log_term, prob, row, of_offset, of_slope = block
    above_one, number = np.empty(len(x), np.int64), 0
    total, product = 0.0, 1.0
    for i in range(len(x)):
        gene = genes[i] - low
        log_r = _limited(offset[gene] + slope[gene] * log_p[gene])
        total += log_r + x[i] * (log_p[gene] + log_library - log_r - log_term[gene])
        by_mean = x[i] * (_ONE - prob[gene])
        row[gene] += by_mean + slope[gene] * (_ONE - by_mean)
        of_offset[gene] += _ONE - by_mean
        of_slope[gene] += (_ONE - by_mean) * log_p[gene]
        above_one[number] = i
        number += x[i] > _ONE
    for i in above_one[:number]:
        gene, count = genes[i] - low, np.float64(x[i])
        if count <= SHORT:
            binomial, by_r = short_gamma_ratio(np.float64(r[gene]), int(count))
            binomial *= _INVERSE_FACTORIALS[int(count)]
            product *= binomial  # one logarithm for many counts
            if not 1e-200 < product < 1e200:
                total += math.log(product)
                product = 1.0
            log_binomial = math.log(binomial) if count >= LEAST_OUTLIER else 0.0
        else:
            log_binomial, by_r = log_gamma_ratio(np.float64(r[gene]), count)
            log_binomial -= log_factorial(count)
            total += log_binomial
        by_mean, by_dispersion = 0.0, r[gene] * by_r
        if outlier_rate > 0 and count >= LEAST_OUTLIER:
            log_r = _limited(offset[gene] + slope[gene] * log_p[gene])
            log_mean_term = count * (log_p[gene] + log_library - log_r - log_term[gene])
            log_nb = log_binomial + log_r + log_mean_term - r[gene] * log_term[gene]
            log_outlier = math.log(outlier_rate * LEAST_OUTLIER / (count * (count + 1)))
            against = log_outlier - log_nb
            if not against < _NEGLIGIBLE:
                total += max(against, 0.0) + math.log1p(math.exp(-abs(against)))
                outlier = 1 / (1 + math.exp(min(-against, 700.0)))  # its posterior probability
                of_mean = count * (1 - prob[gene])
                of_r = 1 - of_mean + by_dispersion + r[gene] * (prob[gene] - log_term[gene])
                by_mean = -outlier * (of_mean - r[gene] * prob[gene])
                by_dispersion -= outlier * of_r
        row[gene] += np.float32(by_mean + slope[gene] * by_dispersion)
        of_offset[gene] += np.float32(by_dispersion)
        of_slope[gene] += np.float32(by_dispersion * log_p[gene])
    return total + math.log(product)


@njit(fastmath=True)
def _sum(a: np.ndarray) -> np.float32:
    total = np.float32(0)
    for i in range(len(a)):
        total += a[i]
    return total


@njit(fastmath=True)
def _dot(a: np.ndarray, b: np.ndarray) -> np.float32:
    total = np.float32(0)
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


@njit(inline=True)
def _limited(log_r: np.float32) -> np.float32:
    above = log_r if log_r > _LOW else _LOW
    return above if above < _HIGH else _HIGH
