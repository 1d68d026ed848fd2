"""The memory that a fit needs, from the sizes of its arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
import torch

from scld.config import Config
from scld.errors import RequestError
from scld.generation.generator import GPU_PAGE, PAGE, build_networks
from scld.io.disk import DiskCounts
from scld.kernels.parallel import thread_count
from scld.machine import memory_left, size_text
from scld.training.stages import Fit

_STATES = 6  # per weight: itself, gradient, two moments of Adam, average, best
_BATCH_ARRAYS = 10  # dense [cells, genes] arrays of a training step
_VALIDATION_ARRAYS = 8  # of a validation batch
_PAGE_ARRAYS = 10  # of a page of generated cells, in each thread
_REAL_BYTES = 36  # per non-zero count, for the principal components of the real cells
_GENERATED_BYTES = 32  # per non-zero count of generated cells
_STORED_BYTES = 16  # per stored value of a matrix as it is read and validated
_GPU_BYTES = 8  # per non-zero count there
_DRAWS = 2  # of each generated cell, to calibrate the spread


_SHARES = tuple(share / 20 for share in range(19, 0, -1))  # tried, of the cells or the genes


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory that a fit will add, and memory that is left.

    Parameters
    ----------
    needed
        Bytes, of the process or of the GPU where the networks are.
    left
        Bytes, or None where the system does not say.
    advice
        What would fit.
    """

    needed: int
    left: int | None
    advice: str = "use a larger machine"

    def check(self) -> None:
        """Raise `RequestError` if the fit cannot have as much memory as it needs.

        Examples
        --------
        >>> MemoryEstimate(9_000_000_000, 8_000_000_000).check()
        Traceback (most recent call last):
        scld.errors.RequestError: fit: needs about 9.0 GB of memory, and 8.0 GB are left; use a
        larger machine
        """
        if self.left is not None and self.needed > self.left:
            seen = f"needs about {size_text(self.needed)} of memory"
            raise RequestError(f"fit: {seen}, and {size_text(self.left)} are left; {self.advice}")

    def __str__(self) -> str:
        return f"about {size_text(self.needed)} of memory"


@dataclass(frozen=True)
class _Size:
    """Size of the matrix of a fit."""

    cells: float
    genes: float
    non_zeros: float
    on_disk: bool

    @classmethod
    def of(cls, fit: Fit) -> _Size:
        return cls(*fit.counts.shape, fit.counts.nnz, isinstance(fit.counts, DiskCounts))

    def part(self, cells: float = 1, genes: float = 1) -> _Size:
        """With a share of its cells and of its genes."""
        non_zeros = self.non_zeros * cells * genes
        return _Size(self.cells * cells, self.genes * genes, non_zeros, self.on_disk)


def estimate_memory(fit: Fit) -> MemoryEstimate:
    """What a fit will add to the memory in use.

    The largest of four stages counts: the training of the autoencoder, the principal components of
    the real cells, the cells that calibrate the spread, and those that the discriminator is trained
    on. A GPU holds the networks and the counts.
    """
    on_gpu = fit.device.type == "cuda"
    left = torch.cuda.mem_get_info(fit.device)[0] if on_gpu else memory_left()
    needed = _needed(fit, _Size.of(fit))
    if left is None or needed <= left:
        return MemoryEstimate(needed, left)
    return MemoryEstimate(needed, left, _advice(fit, left))


def estimate_for(
    cells: int, genes: int, stored: int, on_disk: bool, config: Config
) -> MemoryEstimate:
    """What a fit of a matrix of this size would add to the memory in use, on a CPU."""
    fit = Fit(sp.csr_matrix((0, genes)), np.empty((0, 0), int), (), config, 0, torch.device("cpu"))
    return MemoryEstimate(_needed(fit, _Size(cells, genes, stored, on_disk)), memory_left())


def larger_than_memory(stored: int) -> bool:
    """Whether a matrix of so many stored values is to be streamed from disk.

    If to load it, and to compute with it, would take more than half of what is left.
    """
    left = memory_left()
    return left is not None and (_STORED_BYTES + _REAL_BYTES) * stored > left / 2


def check_loading(stored: int) -> None:
    """Raise `RequestError` if a matrix of so many stored values cannot be read into memory."""
    left, needed = memory_left(), _STORED_BYTES * stored
    if left is not None and needed > left:
        advice = "leave stream=False (--load) out, and they are read from disk"
        seen = f"the counts take about {size_text(needed)} of memory"
        raise RequestError(f"fit: {seen}, and {size_text(left)} are left; {advice}")


def _advice(fit: Fit, left: int) -> str:
    """What would fit in so many bytes."""
    size, parts = _Size.of(fit), []
    if not size.on_disk and _needed(fit, replace(size, on_disk=True)) <= left:
        parts.append("read the counts from disk with stream=True (--stream)")
    for name, number in (("genes", size.genes), ("cells", size.cells)):
        fitting = (share for share in _SHARES if _needed(fit, size.part(**{name: share})) <= left)
        for share in fitting:
            example = ", for example highly variable ones" if name == "genes" else ""
            parts.append(f"pass at most {int(share * number):,} {name}{example}")
            break
    return ", or ".join([*parts, "use a larger machine"])


def _needed(fit: Fit, size: _Size) -> int:
    networks = _network_bytes(fit, size)
    if fit.device.type == "cuda":
        counts = 0 if size.on_disk else _GPU_BYTES * size.non_zeros
        return round(max(networks + counts, _page_bytes(GPU_PAGE, size)))
    return round(max(networks, _cell_bytes(fit, size)))


def _page_bytes(page: int, size: _Size) -> float:
    """Of pages of generated cells, one in each thread."""
    return 4 * _PAGE_ARRAYS * page * size.genes * thread_count()


def _network_bytes(fit: Fit, size: _Size) -> float:
    """Weights, what training keeps of them, and the dense arrays of a batch."""
    settings = fit.config.autoencoder_training
    fixed, per_gene = _weight_bytes(fit)
    weights = fixed + per_gene * size.genes
    held_out = round(fit.config.held_out * size.cells) * settings.validation_repeats
    validation = min(4 * settings.batch, held_out)
    rows = max(_BATCH_ARRAYS * settings.batch, _VALIDATION_ARRAYS * validation)
    return _STATES * weights + 4 * size.genes * rows


def _weight_bytes(fit: Fit) -> tuple[int, int]:
    """Bytes of the weights that do not depend on the number of genes, and of those of a gene."""
    with torch.random.fork_rng():
        sizes = [
            sum(parameter.nbytes for network in networks for parameter in network.parameters())
            for networks in (build_networks(genes, fit.sizes, fit.config) for genes in (1, 2))
        ]
    return 2 * sizes[0] - sizes[1], sizes[1] - sizes[0]


def _cell_bytes(fit: Fit, size: _Size) -> float:
    """The principal components of real cells, or generated cells: two draws, or many more."""
    settings, non_zeros = fit.config.autoencoder, size.non_zeros
    if size.on_disk:  # the cells that are read at a time
        most = max(settings.component_cells, settings.spread_cells)
        non_zeros = non_zeros * min(1, most / size.cells)
    generated = _DRAWS * min(1, settings.spread_cells / size.cells) * size.non_zeros
    if fit.post_guided:
        discriminator = fit.config.discriminator
        share = min(1, discriminator.max_cells / size.cells)
        generated = max(generated, (discriminator.generated + 1) * share * size.non_zeros)
    return max(_REAL_BYTES * non_zeros, _GENERATED_BYTES * generated + _page_bytes(PAGE, size))
