"""Fitted networks -> counts, page by page.

A page is a fixed number of cells, always computed together and by one thread, with noise keyed by (seed, page). So the
arithmetic of a cell, and with it every byte, is the same for any batch size and any number of threads.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import scipy.sparse as sp
import torch

from scld.autoencoder import Autoencoder, Batch
from scld.counts import draw
from scld.critic import Critic
from scld.denoiser import Denoiser
from scld.guidance import post_guided, pre_guided
from scld.sampler import Denoise, solve
from scld.schema import MISSING
from scld.selector import Selector, choose
from scld.shift import Means, Way

PAGE = 256
_DECODED = 32  # cells decoded at a time: their dense means stay in the processor's cache
_MOST_REDRAWS = 100
T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """How to sample: the noise levels to visit, the guidance weight of each label and where it holds, the seed, and post-guidance."""

    sigmas: torch.Tensor  # [steps + 1]
    weights: tuple[float, ...]
    seed: int
    interval: tuple[float, float] = (0.0, math.inf)
    correction: float = 0.0  # weight of the critic's gradient
    candidates: int = 1  # finished cells that the selector chooses one of


@dataclass(frozen=True)
class Start:
    """Where cells begin, if not in pure noise: latent points, which noise of the plan's first level is added to."""

    points: np.ndarray  # [cells, dims], standardised, float32
    keep_library: bool  # whether a cell's library size stays that of its point

    def page(self, page: int) -> Start:
        """The part of one page, filled up."""
        return Start(_filled(self.points[page * PAGE : (page + 1) * PAGE]), self.keep_library)


@dataclass(frozen=True)
class Generator:
    """What it takes to write cells with given labels.

    Parameters
    ----------
    autoencoder, denoiser
        Fitted networks on one device, in evaluation mode.
    centre, scale
        ``[dims]``, which undo the standardisation of latents.
    library
        Smallest and largest log library size in training; cells are kept within.
    critic, selector
        What post-guidance goes by; None before it is trained.
    means
        Where combinations of labels lie, by which those that training never saw are made; if None, they are left to the networks.
    """

    autoencoder: Autoencoder
    denoiser: Denoiser
    centre: torch.Tensor
    scale: torch.Tensor
    library: tuple[float, float]
    critic: Critic | None = None
    selector: Selector | None = None
    means: Means | None = None

    def pages(self, codes: np.ndarray, plan: Plan, start: Start | None = None) -> Iterator[sp.csr_matrix]:
        """Counts ``[cells, genes]`` of cells with these label codes ``[cells, labels]``, a page at a time, in order.

        Pages are computed side by side by as many threads as torch was told to use; only a few wait to be taken.
        """
        count, threads = -(-len(codes) // PAGE), torch.get_num_threads()
        waiting: deque[Future[sp.csr_matrix]] = deque()
        with _one_thread_each(threads) as pool:
            for page in range(count):
                begin = None if start is None else start.page(page)
                waiting.append(pool.submit(self.page, page, codes[page * PAGE : (page + 1) * PAGE], plan, begin))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def page(self, page: int, codes: np.ndarray, plan: Plan, start: Start | None = None) -> sp.csr_matrix:
        """Counts of one page; fewer codes than a page are filled up, for the same arithmetic, and cut off again."""
        if self.selector is None or self.selector.silent or plan.candidates == 1:
            return self._candidate(0, page, codes, plan, start)
        made = [self._candidate(number, page, codes, plan, start) for number in range(plan.candidates)]
        log_odds = np.stack([self.selector.log_odds(counts, codes) for counts in made])
        chosen = choose(log_odds, _stream(plan.seed, page, plan.candidates).random(PAGE)[: len(codes)])
        chosen[(codes == MISSING).any(axis=1)] = 0  # the selector goes by labels, and learnt from cells that have them
        return sp.csr_matrix(sp.vstack(made, format="csr")[chosen * len(codes) + np.arange(len(codes))])

    @torch.no_grad()
    def _candidate(self, number: int, page: int, codes: np.ndarray, plan: Plan, start: Start | None) -> sp.csr_matrix:
        latent = self.latents(page, codes, plan, start, number) * self.scale + self.centre
        latent[:, -1].clamp_(*self.library)
        labels, seed = torch.from_numpy(_filled(self._way(codes).decoded)).to(latent.device), _other_seed(plan.seed, number * _MOST_REDRAWS)
        scores, drawn = self.autoencoder.scores(latent, labels), []
        for first in range(0, len(codes), _DECODED):
            some = slice(first, min(first + _DECODED, len(codes)))
            parts = self.autoencoder.laws(scores[some], latent[some, -1:])
            mean, dispersion = (part.exp_().cpu().numpy() for part in parts)
            drawn.append(_no_empty_cells(mean, dispersion, seed, page * PAGE + first))
        return sp.csr_matrix(sp.vstack(drawn, format="csr"))

    @torch.no_grad()
    def latents(self, page: int, codes: np.ndarray, plan: Plan, start: Start | None = None, number: int = 0) -> torch.Tensor:
        """Standardised latent points ``[PAGE, dims]`` of one page of cells; of a candidate of this number for each."""
        device = self.centre.device
        way = self._way(codes)
        labels, shift = (torch.from_numpy(_filled(part)).to(device) for part in (way.origin, way.shift))
        noise = torch.from_numpy(_stream(plan.seed, page, number).standard_normal((PAGE, len(self.centre)), dtype=np.float32)).to(device)
        denoise = pre_guided(self.denoiser, labels, plan.weights, plan.interval)
        if self.critic is not None and plan.correction:
            denoise = post_guided(denoise, self.critic, labels, plan.correction, self.critic.config.clip)
        sigmas = plan.sigmas.to(device)
        if start is None:  # the whole population at the first level: latents come standardised
            return solve(denoise, noise * (1 + sigmas[0] ** 2).sqrt(), sigmas) + shift
        points = torch.from_numpy(start.points).to(device)
        begin = points - shift + noise * sigmas[0]
        if not start.keep_library:
            return solve(denoise, begin, sigmas) + shift
        ends = solve(_keeping_last(denoise, (points - shift)[:, -1]), begin, sigmas) + shift
        return torch.cat([ends[:, :-1], points[:, -1:]], dim=1)

    def _way(self, codes: np.ndarray) -> Way:
        """A combination that was never seen is the nearest one that was, shifted, which shifts every posterior mean: D(x) = D_origin(x - shift) + shift."""
        if self.means is None:
            return Way(codes, np.zeros((len(codes), len(self.centre)), np.float32), codes)
        return self.means.ways(codes)

    @torch.inference_mode()
    def encode(self, counts: sp.csr_matrix) -> np.ndarray:
        """Standardised latent points ``[cells, dims]`` of real cells ``[cells, genes]``: the means of their posteriors."""
        pieces = [counts[start : start + PAGE] for start in range(0, counts.shape[0], PAGE)]
        batches = (Batch.of(piece, np.zeros((piece.shape[0], 0), np.int64), self.centre.device) for piece in pieces)
        latent = torch.cat([self.autoencoder.encode(batch)[0] for batch in batches])
        points: np.ndarray = ((latent - self.centre) / self.scale).cpu().numpy()
        return points


def alone(work: Callable[[], T]) -> T:
    """The outcome of some work that one thread computes, so that it does not depend on how many there are."""
    with _one_thread_each(1) as pool:
        return pool.submit(work).result()


def _stream(seed: int, page: int, number: int) -> np.random.Generator:
    """The random numbers of one candidate of one page."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, page], dtype=np.uint64), counter=np.array([0, 0, 0, number], dtype=np.uint64)))


def _other_seed(seed: int, number: int) -> int:
    return (seed + number * 0x5851F42D4C957F2D) & 2**63 - 1


def _filled(rows: np.ndarray) -> np.ndarray:
    return np.resize(rows, (PAGE, rows.shape[1]))


def _keeping_last(denoise: Denoise, last: torch.Tensor) -> Denoise:
    def kept(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return torch.cat([denoise(x, sigma)[:, :-1], last[:, None]], dim=1)

    return kept


def _no_empty_cells(mean: np.ndarray, dispersion: np.ndarray, seed: int, first: int) -> sp.csr_matrix:
    """Draw counts; a cell that comes out without any, as shallow ones can, is drawn again, as no real cell is empty."""
    drawn = draw(mean, dispersion, seed, first)
    for again in range(1, _MOST_REDRAWS):
        empty = np.diff(drawn.indptr) == 0
        if not empty.any():
            break
        another = draw(mean, dispersion, _other_seed(seed, again), first)
        drawn = sp.csr_matrix(sp.diags_array((~empty).astype(np.float32)) @ drawn + sp.diags_array(empty.astype(np.float32)) @ another)
    return drawn


@contextmanager
def _one_thread_each(threads: int) -> Iterator[Executor]:
    """So many threads, each of which computes alone; torch keeps its number everywhere else."""
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(torch.get_num_threads())  # this thread's own; what the initializer set holds for threads to come
