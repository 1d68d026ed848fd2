"""The memory that a fit needs, from the sizes of its arrays."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from scld.errors import RequestError
from scld.generation.generator import GPU_PAGE, PAGE, build_networks
from scld.io.disk import DiskCounts
from scld.kernels.parallel import thread_count
from scld.machine import gigabytes, memory_left
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


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory that a fit will add, and memory that is left.

    Parameters
    ----------
    needed
        Bytes, of the process or of the GPU where the networks are.
    left
        Bytes, or None where the system does not say.
    """

    needed: int
    left: int | None

    def check(self) -> None:
        """Raise `RequestError` if the fit cannot have as much memory as it needs.

        Examples
        --------
        >>> MemoryEstimate(9_000_000_000, 8_000_000_000).check()
        Traceback (most recent call last):
        scld.errors.RequestError: fit: needs about 9.0 GB of memory, and 8.0 GB are left; pass fewer
        cells or genes, for example highly variable ones, or use a larger machine
        """
        if self.left is not None and self.needed > self.left:
            seen = f"needs about {gigabytes(self.needed)} of memory"
            advice = "pass fewer cells or genes, for example highly variable ones"
            left = f"{gigabytes(self.left)} are left"
            raise RequestError(f"fit: {seen}, and {left}; {advice}, or use a larger machine")

    def __str__(self) -> str:
        return f"about {gigabytes(self.needed)} of memory"


def estimate_memory(fit: Fit) -> MemoryEstimate:
    """What a fit will add to the memory in use.

    The largest of four stages counts: the training of the autoencoder, the principal components of
    the real cells, the cells that calibrate the spread, and those that the discriminator is trained
    on. A GPU holds the networks and the counts.
    """
    networks = _network_bytes(fit)
    if fit.device.type == "cuda":
        page = 4 * _PAGE_ARRAYS * GPU_PAGE * fit.counts.shape[1] * thread_count()
        on_disk = isinstance(fit.counts, DiskCounts)
        needed = max(networks + _GPU_BYTES * fit.counts.nnz * (not on_disk), page)
        return MemoryEstimate(needed, torch.cuda.mem_get_info(fit.device)[0])
    return MemoryEstimate(max(networks, _cell_bytes(fit)), memory_left())


def larger_than_memory(stored: int) -> bool:
    """Whether a matrix of so many stored values is to be streamed from disk.

    If to load it, and to compute with it, would take more than half of what is left.
    """
    left = memory_left()
    return left is not None and (_STORED_BYTES + _REAL_BYTES) * stored > left / 2


def _network_bytes(fit: Fit) -> int:
    """Weights, what training keeps of them, and the dense arrays of a batch."""
    genes, settings = fit.counts.shape[1], fit.config.autoencoder_training
    fixed, per_gene = _weight_bytes(fit)
    weights = fixed + per_gene * genes
    held_out = round(fit.config.held_out * len(fit.codes)) * settings.validation_repeats
    validation = min(4 * settings.batch, held_out)
    rows = max(_BATCH_ARRAYS * settings.batch, _VALIDATION_ARRAYS * validation)
    return _STATES * weights + 4 * genes * rows


def _weight_bytes(fit: Fit) -> tuple[int, int]:
    """Bytes of the weights that do not depend on the number of genes, and of those of a gene."""
    with torch.random.fork_rng():
        sizes = [
            sum(parameter.nbytes for network in networks for parameter in network.parameters())
            for networks in (build_networks(genes, fit.sizes, fit.config) for genes in (1, 2))
        ]
    return 2 * sizes[0] - sizes[1], sizes[1] - sizes[0]


def _cell_bytes(fit: Fit) -> int:
    """The principal components of real cells, or generated cells: two draws, or many more."""
    cells, non_zeros = len(fit.codes), fit.counts.nnz
    if isinstance(fit.counts, DiskCounts):  # the cells that are read at a time
        autoencoder = fit.config.autoencoder
        most = max(autoencoder.component_cells, autoencoder.spread_cells)
        non_zeros = round(non_zeros * min(1, most / cells))
    generated = _DRAWS * min(cells, fit.config.autoencoder.spread_cells) / cells * fit.counts.nnz
    if fit.post_guided:
        settings = fit.config.discriminator
        many = (settings.generated + 1) * min(cells, settings.max_cells)
        generated = max(generated, many / cells * fit.counts.nnz)
    page = 4 * _PAGE_ARRAYS * PAGE * fit.counts.shape[1] * thread_count()
    return max(_REAL_BYTES * non_zeros, round(_GENERATED_BYTES * generated) + page)
