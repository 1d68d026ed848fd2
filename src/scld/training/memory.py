"""The memory that a fit needs, from the sizes of its arrays, and the memory there is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from scld.errors import RequestError
from scld.generation.generator import GPU_PAGE, PAGE, build_networks
from scld.kernels.parallel import thread_count
from scld.training.stages import Fit

_STATES = 6  # per weight: itself, gradient, two moments of Adam, average, best
_BATCH_ARRAYS = 10  # dense [cells, genes] arrays of a training step
_VALIDATION_ARRAYS = 8  # of a validation batch
_PAGE_ARRAYS = 10  # of a page of generated cells, in each thread
_REAL_BYTES = 36  # per non-zero count, for the principal components of the real cells
_GENERATED_BYTES = 32  # per non-zero count of generated cells
_GPU_BYTES = 8  # per non-zero count there
_DRAWS = 2  # of each generated cell, to calibrate the spread
_CGROUP = Path("/sys/fs/cgroup")


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
            seen = f"needs about {_gigabytes(self.needed)} of memory"
            advice = "pass fewer cells or genes, for example highly variable ones"
            left = f"{_gigabytes(self.left)} are left"
            raise RequestError(f"fit: {seen}, and {left}; {advice}, or use a larger machine")

    def __str__(self) -> str:
        return f"about {_gigabytes(self.needed)} of memory"


def estimate_memory(fit: Fit) -> MemoryEstimate:
    """What a fit will add to the memory in use.

    The largest of four stages counts: the training of the autoencoder, the principal components of
    the real cells, the cells that calibrate the spread, and those that the discriminator is trained
    on. A GPU holds the networks and the counts.
    """
    networks = _network_bytes(fit)
    if fit.device.type == "cuda":
        page = 4 * _PAGE_ARRAYS * GPU_PAGE * fit.counts.shape[1] * thread_count()
        needed = max(networks + _GPU_BYTES * fit.counts.nnz, page)
        return MemoryEstimate(needed, torch.cuda.mem_get_info(fit.device)[0])
    return MemoryEstimate(max(networks, _cell_bytes(fit)), memory_left())


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
    generated = _DRAWS * min(cells, fit.config.autoencoder.spread_cells) / cells * non_zeros
    if fit.post_guided:
        settings = fit.config.discriminator
        many = (settings.generated + 1) * min(cells, settings.max_cells)
        generated = max(generated, many / cells * non_zeros)
    page = 4 * _PAGE_ARRAYS * PAGE * fit.counts.shape[1] * thread_count()
    return max(_REAL_BYTES * non_zeros, round(_GENERATED_BYTES * generated) + page)


def memory_left() -> int | None:
    """Bytes that this process can still have: the least of the machine's and its cgroup's."""
    known = [left for left in (_machine_left(), _cgroup_left()) if left is not None]
    return min(known, default=None)


def _machine_left() -> int | None:
    """Available memory; all of the machine's where the system does not say; None if neither."""
    meminfo = Path("/proc/meminfo")
    lines = meminfo.read_text().splitlines() if meminfo.exists() else []
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _cgroup_left() -> int | None:
    """Limit less use of this process's control group, version 2 or 1; None without a limit."""
    left = [
        limit - max(0, used - cache)
        for folder in _cgroup_folders()
        for limit, used, cache in [_limit_and_use(folder)]
        if limit is not None
    ]
    return max(0, min(left)) if left else None


def _cgroup_folders() -> list[Path]:
    """The folders of this process's control group and of those above it."""
    membership = Path("/proc/self/cgroup")
    lines = membership.read_text().splitlines() if membership.exists() else []
    folders = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            own = _CGROUP / controllers / path.lstrip("/")
            folders += [own, *own.parents]
    return [folder for folder in folders if folder.is_relative_to(_CGROUP)]


def _limit_and_use(folder: Path) -> tuple[int | None, int, int]:
    """Limit, use, and the part of the use that is file cache and can be dropped, in bytes."""
    names = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
    for limit, used in names:
        try:
            text = (folder / limit).read_text().strip()
            if text.isdecimal() and int(text) < 2**60:  # version 1 has a huge number for no limit
                return int(text), int((folder / used).read_text()), _file_cache(folder)
        except (OSError, ValueError):
            continue
    return None, 0, 0


def _file_cache(folder: Path) -> int:
    """Bytes of file cache that can be dropped; 0 where the system does not say."""
    file = folder / "memory.stat"
    lines = file.read_text().splitlines() if file.exists() else []
    stat = dict(line.split() for line in lines)
    return int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
