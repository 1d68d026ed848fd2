"""Fitted networks -> counts, one page of cells at a time.

A page is a fixed number of cells, always computed together and by one thread, with noise keyed by
(seed, page). So the arithmetic of a cell, and every byte of it, does not depend on the batch size
or on the number of threads. On a GPU pages are larger, and counts are drawn there.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from scld.config import Config
from scld.errors import SCLDError
from scld.generation.changes import Changes, Rows
from scld.generation.latent_map import LatentMap
from scld.generation.latent_shift import CombinationMeans, LatentShifts
from scld.generation.options import SamplingOptions
from scld.generation.population import Population
from scld.generation.post_guidance import Discriminator, LabelledCells, select
from scld.generation.request import SamplingRequest
from scld.io.counts import LARGEST_COUNT
from scld.kernels.parallel import single_threaded_pool, thread_count
from scld.kernels.sampling import csr_of_device, sample_counts, sample_counts_on_device, thin
from scld.model.autoencoder import Autoencoder, Batch
from scld.model.denoiser import Denoiser
from scld.model.guidance import pre_guided
from scld.model.sampler import Denoise, solve
from scld.schema import MISSING, Schema

PAGE = 256
GPU_PAGE = 2048  # a GPU computes these about as fast as 256
_DECODED = 32  # cells decoded at a time: their dense means stay in the processor's cache
_MAX_REDRAWS = 100
_TOLERANCE = 1e-3  # of log library sizes in float32
Parts = dict[str, dict[str, Tensor]]  # name -> tensors of one part of a checkpoint


class Page(NamedTuple):
    """Cells that are computed together; the arrays after ``codes`` are padded to ``size`` rows."""

    number: int
    codes: np.ndarray  # labels [cells, labels]
    origin: np.ndarray  # labels to generate latent points of, `LatentShifts`
    origin_row: np.ndarray  # [size] their row in the table of combinations, -1 if not there
    shift: np.ndarray  # [size, dims], added to these
    decode_labels: np.ndarray  # labels that the decoder sees
    start: np.ndarray | None  # latent points [size, dims] to start from; None: pure noise
    changes: Changes | None = None  # of its cells
    population: Population | None = None  # of latent points, in place of the diffusion model
    with_mean: bool = False  # whether expected counts are wanted

    @property
    def size(self) -> int:
        """Rows, those of the padding included."""
        return len(self.origin_row)

    @property
    def first(self) -> int:
        """Position of its first cell."""
        return self.number * self.size

    @property
    def donor_shift(self) -> Tensor:
        """What new donors add to latent points: ``[size, dims]``, or zero."""
        if self.changes is None or self.changes.latent_shifts is None:
            return torch.zeros(1)
        return torch.from_numpy(_padded(self.changes.latent_shifts.dense(), self.size))


class Drawn(NamedTuple):
    """Counts of some cells."""

    counts: sp.csr_matrix  # [cells, genes]
    unchanged: sp.csr_matrix  # the same without changes of the request: often the same object
    mean: np.ndarray | None = None  # [cells, genes] the expected counts, if they are wanted


@dataclass(frozen=True)
class Generator:
    """What it takes to generate cells with given labels.

    Parameters
    ----------
    autoencoder, denoiser
        Fitted networks on one device, in evaluation mode.
    centre, scale
        ``[dims]``, which undo the standardisation of latents.
    library
        ``[2]`` smallest and largest log library size in training; generated ones are kept within.
    means
        Where combinations of labels lie in latent space.
    latent_map
        Of points that are generated from noise.
    discriminator
        For post-guidance; None in a model that was fitted without it.
    """

    autoencoder: Autoencoder
    denoiser: Denoiser
    centre: Tensor
    scale: Tensor
    library: Tensor
    means: CombinationMeans
    latent_map: LatentMap
    discriminator: Discriminator | None = None

    def parts(self) -> Parts:
        """As named tensors, for a checkpoint."""
        latents = {"centre": self.centre, "scale": self.scale, "library": self.library}
        latents["combination_means"] = torch.from_numpy(self.means.points)
        latents |= self.latent_map.tensors()
        parts = {
            "autoencoder": self.autoencoder.state_dict(),
            "denoiser": self.denoiser.state_dict(),
            "latents": latents,
        }
        if self.discriminator is not None:
            parts["discriminator"] = self.discriminator.tensors()
        return parts

    @classmethod
    def from_parts(
        cls, parts: Parts, schema: Schema, genes: int, config: Config, device: torch.device
    ) -> Generator:
        """The inverse of `parts`; `ValueError`, `KeyError` or `RuntimeError` if they do not fit."""
        names = ("autoencoder", "denoiser")
        with torch.device("meta"):  # nothing is allocated before shapes agree
            planned = build_networks(genes, schema.sizes, config)
            for network, name in zip(planned, names, strict=True):
                _check_tensors(name, network.state_dict(), parts[name])
        networks = build_networks(genes, schema.sizes, config)
        for network, name in zip(networks, names, strict=True):
            network.load_state_dict(parts[name])
            network.to(device).eval()
        dims, latents = config.autoencoder.latent + 1, parts["latents"]
        centre, scale = (latents[name].reshape(dims).to(device) for name in ("centre", "scale"))
        library = latents["library"].reshape(2).to(device)
        largest = math.log(genes * LARGEST_COUNT) + _TOLERANCE if genes else 0.0
        if not (scale > 0).all() or not library[0] <= library[1] < largest:
            raise ValueError("latents: a scale or a range of library sizes that cannot be")
        points = latents["combination_means"].reshape(len(schema.cells), dims).numpy()
        means = CombinationMeans(schema.combinations, schema.cells, points)
        latent_map = LatentMap.from_tensors(latents, len(schema.cells), dims, device)
        discriminator = None
        if "discriminator" in parts:
            tensors, labels = parts["discriminator"], len(schema.sizes)
            discriminator = Discriminator.from_tensors(tensors, genes, labels)
        return cls(*networks, centre, scale, library, means, latent_map, discriminator)

    @property
    def page_size(self) -> int:
        """Cells of a page where the networks are."""
        return PAGE if self.centre.device.type == "cpu" else GPU_PAGE

    def candidates(self, options: SamplingOptions) -> int:
        """Candidates that are generated for each cell."""
        active = self.discriminator is not None and self.discriminator.active
        return options.candidates if active else 1

    def pages(self, request: SamplingRequest, options: SamplingOptions) -> Iterator[Drawn]:
        """Counts ``[cells, genes]`` of the cells requested, one page at a time, in order.

        Pages are computed in parallel by as many threads as torch uses; only a few wait to be
        taken.
        """
        threads = thread_count()
        waiting: deque[Future[Drawn]] = deque()
        with single_threaded_pool(threads) as pool:
            for page in self.split(request):
                waiting.append(pool.submit(self.generate, page, options))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def split(self, request: SamplingRequest) -> Iterator[Page]:
        """The cells requested as pages, in order."""
        shifts = self._shifts(request)
        rows = self.means.rows(shifts.origin)[shifts.row_of]
        size, before = self.page_size, request.first // self.page_size
        padded = partial(_padded, size=size)
        for number in range(-(-len(request.codes) // size)):
            cells = slice(number * size, (number + 1) * size)
            origin, shift, decode_labels = map(padded, shifts.of_cells(cells))
            start = None if request.start is None else padded(request.start[cells])
            row, codes = np.resize(rows[cells], size), request.codes[cells]
            changes = None if request.changes is None else request.changes.some(cells)
            population = None if request.population is None else request.population.some(cells)
            extra = (changes, population, request.with_mean)
            yield Page(before + number, codes, origin, row, shift, decode_labels, start, *extra)

    def _shifts(self, request: SamplingRequest) -> LatentShifts:
        """Of the labels; those of cells with an origin are added to the shift from it."""
        if request.origin is None:
            return self.means.shifts(request.codes)
        return self.means.shifts_from(request.origin, request.codes)

    def generate(self, page: Page, options: SamplingOptions) -> Drawn:
        """Counts ``[cells, genes]`` of one page, post-guided."""
        number, codes = self.candidates(options), page.codes
        if self.discriminator is None or number == 1:
            return self._candidate(page, options, 0)
        candidates = [self._candidate(page, options, i) for i in range(number)]
        cells = [LabelledCells(drawn.unchanged, codes) for drawn in candidates]
        log_odds = [self.discriminator.log_odds(some) for some in cells]
        quantiles = _random(options.seed, page.number, number).random(page.size)[: len(codes)]
        selected = select(np.stack(log_odds), quantiles)
        # the discriminator sees labels, and was trained on cells that have them
        selected[(codes == MISSING).any(axis=1)] = 0
        return _selected(candidates, selected)

    @torch.no_grad()
    def _candidate(self, page: Page, options: SamplingOptions, number: int) -> Drawn:
        """Counts of one candidate for each cell of a page."""
        points = self.points(page, options, number)
        return self.draw(page, points, self.logits(page, points), options, number)

    def points(self, page: Page, options: SamplingOptions, number: int = 0) -> Tensor:
        """Latent points ``[size, dims]`` as the decoder takes them, not standardised."""
        points = self.latents(page, options, number) * self.scale + self.centre
        points[:, -1].clamp_(*self.library)
        return points

    def logits(self, page: Page, points: Tensor) -> Tensor:
        """Logits ``[size, genes]`` of the expression proportions at latent points of a page."""
        labels = torch.from_numpy(page.decode_labels).to(points.device)
        logits = self.autoencoder.logits(points, labels)
        if page.changes is None or page.changes.donor_weights is None:
            return logits
        return logits + self._of_new_donors(page, page.changes.donor_weights, points, labels)

    def _of_new_donors(self, page: Page, weights: Rows, points: Tensor, labels: Tensor) -> Tensor:
        """What changes in logits if profiles of donors have these weights, and not memberships.

        Memberships are those before the shift between donors; in them, the weights of the new one
        take the place of the fitted donor that it starts from.
        """
        column = page.changes.donor_column if page.changes is not None else 0
        sizes = self.autoencoder.sizes
        own = slice(sum(sizes[:column]), sum(sizes[: column + 1]))
        before = points - page.donor_shift.to(points) * self.scale
        usual, unshifted = (
            self.autoencoder.memberships(some[:, :-1], labels)[:, own] for some in (points, before)
        )
        start = torch.from_numpy(page.origin[:, column]).to(points.device).clamp(min=0)[:, None]
        of_start = torch.zeros_like(usual).scatter_(1, start, 1.0)
        of_new = torch.from_numpy(_padded(weights.dense(), page.size)).to(points)
        wanted = unshifted + unshifted.gather(1, start) * (of_new - of_start)
        difference = torch.where(of_new.isnan(), 0.0, wanted - usual)
        return difference @ self.autoencoder.profiles[own]

    def draw(
        self, page: Page, points: Tensor, logits: Tensor, options: SamplingOptions, number: int = 0
    ) -> Drawn:
        """Counts ``[cells, genes]`` at latent points of a page; another number, other counts."""
        seed = _seed(options.seed, number)
        dispersions = (
            self.autoencoder.log_dispersion.sum() + self.autoencoder.dispersion_slope.sum()
        )
        if not torch.isfinite(logits.sum() + dispersions):  # cheaper than to test each value
            advice = "training diverged, or the model is damaged: fit again"
            raise SCLDError(f"model: its networks give non-finite expression values; {advice}")
        cells = len(page.codes)
        if logits.device.type != "cpu":
            return self._draw_on_device(page, points[:cells], logits[:cells], seed)
        drawn = []
        for first in range(0, cells, _DECODED):
            some = slice(first, min(first + _DECODED, cells))
            parameters = self.autoencoder.nb_parameters(logits[some], points[some, -1:])
            mean, dispersion = (part.exp_().numpy() for part in parameters)
            expected = self._expected(page, mean, points[some, -1].numpy(), some)
            at = page.first + first
            counts, changed = _sample_non_empty(mean, expected.drawn, dispersion, seed, at)
            drawn.append(expected.finished(counts, changed, seed, at))
        return _stacked(drawn)

    def _draw_on_device(self, page: Page, points: Tensor, logits: Tensor, seed: int) -> Drawn:
        """The same on a GPU; where expected counts are changed, counts are drawn on the CPU."""
        parameters = self.autoencoder.nb_parameters(logits, points[:, -1:])
        counts = _sample_non_empty_on_device(*parameters, seed, page.number)
        if page.changes is None and not page.with_mean:
            return Drawn(counts, counts)
        mean, dispersion = (part.exp_().cpu().numpy() for part in parameters)
        log_library = points[:, -1].cpu().numpy()
        expected = self._expected(page, mean, log_library, slice(0, len(mean)))
        changed = counts
        if expected.drawn is not mean:
            others = sample_counts(expected.drawn, dispersion, seed, page.first).toarray()
            same = expected.drawn == mean
            changed = sp.csr_matrix(np.where(same, counts.toarray(), others))
        return expected.finished(counts, changed, seed, page.first)

    def _expected(
        self, page: Page, mean: np.ndarray, log_library: np.ndarray, cells: slice
    ) -> _Expected:
        """The expected counts of some cells of a page, after its changes."""
        changes = None if page.changes is None else page.changes.some(cells)
        if changes is None:
            return _Expected(mean, None, page.with_mean)
        changed, shares = changes.expected(mean), None
        if changes.depth is not None:
            usual = (float(self.autoencoder.library_mean), float(self.autoencoder.library_sd))
            factors = changes.depth.factors(log_library, *usual)
            shares = factors.clip(max=1.0)
            if (factors > 1).any():
                changed = changed * factors.clip(min=1.0).astype(np.float32)[:, None]
        return _Expected(changed, shares, page.with_mean)

    @torch.no_grad()
    def latents(self, page: Page, options: SamplingOptions, number: int = 0) -> Tensor:
        """Standardised latent points ``[size, dims]`` of one candidate for each cell of a page."""
        device, dims = self.centre.device, len(self.centre)
        labels, shift = (torch.from_numpy(part).to(device) for part in (page.origin, page.shift))
        random = _random(options.seed, page.number, number)
        noise = torch.from_numpy(random.standard_normal((page.size, dims), dtype=np.float32)).to(
            device
        )
        shift = shift + page.donor_shift.to(device)
        if page.population is not None:
            return page.population.points(noise) + page.donor_shift.to(device)
        library = 1  # the last dimension; guidance would change the depth of cells
        denoise = pre_guided(self.denoiser, labels, options.weights, options.interval, library)
        sigmas = options.sigmas
        if page.start is None:  # latents are standardised: this is their sd at the first level
            points = solve(denoise, noise * float((1 + sigmas[0] ** 2).sqrt()), sigmas)
            return self.latent_map(points, torch.from_numpy(page.origin_row).to(device)) + shift
        points = torch.from_numpy(page.start).to(device)
        origin = points - shift
        keeping = _keeping_last(denoise, origin[:, -1])
        ends = solve(keeping, origin + noise * float(sigmas[0]), sigmas) + shift
        return torch.cat([ends[:, :-1], points[:, -1:]], dim=1)

    def encode(self, counts: sp.csr_matrix) -> np.ndarray:
        """Standardised posterior means ``[cells, dims]`` of real cells ``[cells, genes]``."""
        with single_threaded_pool(1) as pool:  # for the same bytes with any number of threads
            return pool.submit(self._encode, counts).result()

    @torch.inference_mode()
    def _encode(self, counts: sp.csr_matrix) -> np.ndarray:
        pieces = [counts[start : start + PAGE] for start in range(0, counts.shape[0], PAGE)]
        unlabelled = [np.zeros((piece.shape[0], 0), np.int64) for piece in pieces]
        device = self.centre.device
        batches = (Batch.of(*pair, device) for pair in zip(pieces, unlabelled, strict=True))
        latent = torch.cat([self.autoencoder.encode(batch)[0] for batch in batches])
        points: np.ndarray = ((latent - self.centre) / self.scale).cpu().numpy()
        return points


def _check_tensors(part: str, expected: Mapping[str, Tensor], found: dict[str, Tensor]) -> None:
    """`ValueError` if names, shapes or types differ."""
    if expected.keys() != found.keys():
        raise ValueError(f"{part}: other tensors than its settings say")
    for name, tensor in expected.items():
        if tensor.shape != found[name].shape or tensor.dtype != found[name].dtype:
            seen = f"{tuple(found[name].shape)} {found[name].dtype}"
            raise ValueError(f"{part}: {name} is {seen}, not {tuple(tensor.shape)} {tensor.dtype}")


def build_networks(
    genes: int, sizes: Sequence[int], config: Config
) -> tuple[Autoencoder, Denoiser]:
    """The networks of a model of so many genes and labels, untrained."""
    autoencoder = Autoencoder(genes, sizes, config.autoencoder)
    return autoencoder, Denoiser(config.autoencoder.latent + 1, sizes, config.denoiser)


def _random(seed: int, page: int, candidate: int) -> np.random.Generator:
    """The random numbers of one candidate of one page."""
    key = np.array([seed, page], dtype=np.uint64)
    counter = np.array([0, 0, 0, candidate], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def _seed(seed: int, candidate: int, redraw: int = 0) -> int:
    """The seed of the counts of a candidate."""
    return (seed + (candidate * _MAX_REDRAWS + redraw) * 0x5851F42D4C957F2D) & 2**63 - 1


def _padded(rows: np.ndarray, size: int) -> np.ndarray:
    return np.resize(rows, (size, rows.shape[1]))


def _keeping_last(denoise: Denoise, last: Tensor) -> Denoise:
    """A denoiser of points whose last dimension is known."""

    def kept(x: Tensor, sigma: Tensor) -> Tensor:
        return torch.cat([denoise(x, sigma)[:, :-1], last[:, None]], dim=1)

    return kept


class _Expected(NamedTuple):
    """Expected counts of some cells, and the share of molecules that are kept of them."""

    drawn: np.ndarray  # [cells, genes]
    shares: np.ndarray | None  # [cells], at most 1; None: all
    wanted: bool

    def finished(
        self, counts: sp.csr_matrix, changed: sp.csr_matrix, seed: int, first: int
    ) -> Drawn:
        """Counts without and with changes, thinned."""
        mean = self.drawn if self.wanted else None
        if self.shares is not None:
            changed = thin(changed, self.shares, seed, first)
            mean = None if mean is None else mean * self.shares.astype(np.float32)[:, None]
        return Drawn(changed, counts, mean)


def _stacked(parts: Sequence[Drawn]) -> Drawn:
    """Parts of a page, one below another."""
    unchanged = sp.csr_matrix(sp.vstack([part.unchanged for part in parts], format="csr"))
    counts = unchanged
    if any(part.counts is not part.unchanged for part in parts):
        counts = sp.csr_matrix(sp.vstack([part.counts for part in parts], format="csr"))
    means = [part.mean for part in parts if part.mean is not None]
    return Drawn(counts, unchanged, np.concatenate(means) if means else None)


def _selected(candidates: Sequence[Drawn], selected: np.ndarray) -> Drawn:
    """One candidate ``[cells]`` of each cell."""
    whole = _stacked(candidates)
    rows = selected * len(selected) + np.arange(len(selected))
    mean = None if whole.mean is None else whole.mean[rows]
    return Drawn(sp.csr_matrix(whole.counts[rows]), sp.csr_matrix(whole.unchanged[rows]), mean)


def _sample_non_empty(
    mean: np.ndarray, changed: np.ndarray, dispersion: np.ndarray, seed: int, first: int
) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Sample counts at two means; cells without any, as shallow ones can be, again.

    No real cell is empty. Whether a cell is sampled again depends on its counts at the first mean,
    so that where both means agree the counts do.
    """
    same = changed is mean
    counts = sample_counts(mean, dispersion, seed, first)
    others = counts if same else sample_counts(changed, dispersion, seed, first)
    for redraw in range(1, _MAX_REDRAWS):
        empty = np.diff(counts.indptr) == 0
        if not empty.any():
            break
        again = _seed(seed, 0, redraw)
        counts = _replaced(counts, sample_counts(mean, dispersion, again, first), empty)
        if not same:
            others = _replaced(others, sample_counts(changed, dispersion, again, first), empty)
    return counts, counts if same else others


def _replaced(counts: sp.csr_matrix, others: sp.csr_matrix, rows: np.ndarray) -> sp.csr_matrix:
    kept, replaced = (sp.diags_array(mask.astype(np.float32)) for mask in (~rows, rows))
    return sp.csr_matrix(kept @ counts + replaced @ others)


def _sample_non_empty_on_device(
    log_mean: Tensor, log_dispersion: Tensor, seed: int, page: int
) -> sp.csr_matrix:
    """The same where the parameters are."""
    generator = torch.Generator(log_mean.device)
    generator.manual_seed(int(_random(seed, page, 0).integers(2**63)))
    counts = sample_counts_on_device(log_mean, log_dispersion, generator)
    for _ in range(1, _MAX_REDRAWS):
        empty = counts.sum(dim=1) == 0
        if not empty.any():
            break
        again = sample_counts_on_device(log_mean[empty], log_dispersion[empty], generator)
        counts[empty] = again
    return csr_of_device(counts)
