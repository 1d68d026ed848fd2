"""Artefacts of droplets with their truth: doublets, ambient RNA, empty droplets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scld.errors import RequestError, check_int, listed, nearest
from scld.generation.generator import GPU_PAGE, Drawn
from scld.generation.request import SamplingRequest, random_numbers
from scld.schema import MISSING, Schema

IS_DOUBLET, DOUBLET_OF = "is_doublet", "doublet_of"  # obs columns
AMBIENT, IS_EMPTY = "ambient_fraction", "is_empty"
_PARTNERS = GPU_PAGE * 2**32  # position of the first partner: no request has so many cells
_DOUBLET_STREAM, _DROPLET_STREAM = 2**64 - 2, 2**64 - 3  # in place of a page
_EMPTY_PAGE = 4096


@dataclass(frozen=True)
class Artefacts:
    """What goes wrong in a droplet experiment, with the truth in obs. Nothing by default.

    Parameters
    ----------
    doublets
        Share of the cells that are doublets: the counts of a second cell are added. It is generated
        for this alone, with the labels of a random cell of the request. obs columns ``is_doublet``
        and ``doublet_of``, the labels of the second cell.
    doublets_within, doublets_between
        obs columns in which the two cells agree (``["donor"]``: doublets form within a donor), and
        in which they differ (``["cell_type"]``: between types only).
    ambient
        Expected share of ambient counts in the total of a cell: a number, or the ends of an
        interval that the cells are spread over. They are added to the counts. obs column
        ``ambient_fraction``.
    ambient_profile
        Weight of each gene in ambient RNA; the mean expression of the training cells if None.
    empty
        Number of empty droplets, which hold ambient RNA alone. They come last, without labels. obs
        column ``is_empty``.
    empty_counts
        Their expected total counts.

    Raises
    ------
    RequestError
        A value out of range.

    Examples
    --------
    >>> Artefacts(doublets=0.05, doublets_within=["donor"], ambient=(0.02, 0.1), empty=1000).empty
    1000
    """

    doublets: float = 0.0
    doublets_within: Sequence[str] = ()
    doublets_between: Sequence[str] = ()
    ambient: float | tuple[float, float] = 0.0
    ambient_profile: Mapping[str, float] | None = None
    empty: int = 0
    empty_counts: float = 50.0

    def __post_init__(self) -> None:
        _check_number("doublets", self.doublets, 0, 1)
        check_int("artefacts: empty", self.empty, 0)
        _check_number("empty_counts", self.empty_counts, 1, 1e6)
        for name in ("doublets_within", "doublets_between"):
            got = getattr(self, name)
            if isinstance(got, str) or not isinstance(got, Sequence):
                raise RequestError(f"artefacts: {name}: got {got!r}; pass a list, ['donor']")
        profile = self.ambient_profile
        if profile is not None and not isinstance(profile, Mapping):
            got = type(profile).__name__
            raise RequestError(f"artefacts: ambient_profile: got {got}; pass a dict of weights")
        low, high = self.interval
        _check_number("ambient", low, 0, 0.9)
        _check_number("ambient", high, low, 0.9)

    def record(self) -> dict[str, Any]:
        """As plain values, for ``uns``."""
        profile = self.ambient_profile
        return {
            "doublets": float(self.doublets),
            "doublets_within": list(self.doublets_within),
            "doublets_between": list(self.doublets_between),
            "ambient": list(map(float, self.interval)),
            "ambient_profile": _table(profile),
            "empty": self.empty,
            "empty_counts": float(self.empty_counts),
        }

    @property
    def interval(self) -> tuple[float, float]:
        """Smallest and largest ambient share."""
        if isinstance(self.ambient, Real):
            return self.ambient, self.ambient
        if not isinstance(self.ambient, Sequence) or len(self.ambient) != 2:
            allowed = "a number or an interval (low, high)"
            raise RequestError(f"artefacts: ambient: got {self.ambient!r}; allowed are {allowed}")
        return self.ambient[0], self.ambient[1]


@dataclass(frozen=True)
class Droplets:
    """The artefacts of the cells of one request.

    Parameters
    ----------
    partners
        The second cells of doublets, in the order of the doublets.
    is_doublet
        ``[cells]``.
    fraction
        ``[cells]`` of ambient counts.
    profile
        ``[genes]`` of ambient RNA; adds up to one.
    empty, empty_counts
        Number of empty droplets, and their expected counts.
    seed
        Of the ambient counts.
    """

    partners: SamplingRequest | None
    is_doublet: np.ndarray
    fraction: np.ndarray
    profile: np.ndarray
    empty: int
    empty_counts: float
    seed: int


def with_droplets(
    artefacts: Artefacts,
    request: SamplingRequest,
    schema: Schema,
    genes: pd.DataFrame,
    mean_log_p: np.ndarray,
    seed: int,
) -> tuple[SamplingRequest, Droplets]:
    """The request with its empty droplets and the truth in obs, and what to do to its cells."""
    cells = len(request.codes)
    random = random_numbers(seed, _DOUBLET_STREAM, cells, 4)
    obs = request.obs(slice(0, cells), schema)
    is_doublet = random[:, 0] < artefacts.doublets
    partner = _partners(artefacts, obs, np.flatnonzero(is_doublet), random[:, 1:3])
    second = request.take(partner, _PARTNERS) if len(partner) else None
    low, high = artefacts.interval
    fraction = low + (high - low) * random[:, 3]
    profile = _profile(artefacts.ambient_profile, genes, mean_log_p)
    droplets = (artefacts.empty, float(artefacts.empty_counts), seed)
    truth: dict[str, Any] = {}
    if artefacts.doublets:
        names = np.full(cells, None, object)
        names[is_doublet] = _described(obs.iloc[partner][schema.names])
        truth |= {IS_DOUBLET: is_doublet, DOUBLET_OF: pd.Categorical(names)}
    if high or artefacts.empty:
        truth[AMBIENT] = fraction
    if artefacts.empty:
        truth[IS_EMPTY] = np.zeros(cells, bool)
    request = replace(request, columns={**request.columns, **truth})
    request = _with_empty(request, artefacts.empty) if artefacts.empty else request
    return request, Droplets(second, is_doublet, fraction, profile, *droplets)


def with_artefacts(
    request: SamplingRequest,
    droplets: Droplets,
    pages: Callable[[SamplingRequest], Iterator[Drawn]],
) -> Iterator[Drawn]:
    """The pages of a request, then those of its empty droplets."""
    cells = len(droplets.is_doublet)
    partners = None if droplets.partners is None else _Rows(pages(droplets.partners))
    first = 0
    for page in pages(replace(request, codes=request.codes[:cells])):
        rows = slice(first, first + page.counts.shape[0])
        is_doublet = droplets.is_doublet[rows]
        if partners is not None and is_doublet.any():
            page = _summed(page, partners.take(int(is_doublet.sum())), is_doublet)
        yield _with_ambient(page, droplets, rows)
        first = rows.stop
    for start in range(0, droplets.empty, _EMPTY_PAGE):
        number = min(_EMPTY_PAGE, droplets.empty - start)
        totals = np.full(number, droplets.empty_counts)
        counts = _ambient_counts(totals, droplets, cells + start, least=1)
        no_cell = np.zeros(counts.shape, np.float32) if request.with_mean else None
        yield Drawn(counts, counts, no_cell)


class _Rows:
    """Takes the rows of pages, some at a time."""

    def __init__(self, pages: Iterator[Drawn]) -> None:
        self.pages, self.waiting = pages, next(pages).counts

    def take(self, number: int) -> sp.csr_matrix:
        """The counts of the next rows."""
        while self.waiting.shape[0] < number:
            both = [self.waiting, next(self.pages).counts]
            self.waiting = sp.csr_matrix(sp.vstack(both, format="csr"))
        taken, self.waiting = self.waiting[:number], self.waiting[number:]
        return sp.csr_matrix(taken)


def _summed(page: Drawn, second: sp.csr_matrix, is_doublet: np.ndarray) -> Drawn:
    rows = np.flatnonzero(is_doublet)
    places = (np.ones(len(rows), np.float32), (rows, np.arange(len(rows))))
    to_rows = sp.csr_matrix(places, shape=(len(is_doublet), len(rows)))
    return page._replace(counts=sp.csr_matrix(page.counts + to_rows @ second))


def _with_ambient(page: Drawn, droplets: Droplets, rows: slice) -> Drawn:
    fraction = droplets.fraction[rows]
    if not fraction.any():
        return page
    odds = fraction / (1 - fraction)
    totals = np.asarray(page.counts.sum(axis=1)).ravel() * odds
    ambient = _ambient_counts(totals, droplets, rows.start)
    return page._replace(counts=sp.csr_matrix(page.counts + ambient))


def _ambient_counts(
    totals: np.ndarray, droplets: Droplets, first: int, least: int = 0
) -> sp.csr_matrix:
    """Poisson counts ``[cells, genes]`` of these expected totals; each cell has its own stream."""
    cumulative = np.cumsum(droplets.profile)
    drawn = []
    for position, total in enumerate(totals, first):
        key = np.array([droplets.seed, _DROPLET_STREAM], dtype=np.uint64)
        counter = np.array([0, 0, 0, position], dtype=np.uint64)
        random = np.random.Generator(np.random.Philox(key=key, counter=counter))
        uniforms = random.random(max(least, random.poisson(total))) * cumulative[-1]
        drawn.append(np.searchsorted(cumulative, uniforms, side="right"))
    indptr = np.array([0, *accumulate(map(len, drawn))])
    genes = np.concatenate([*drawn, np.empty(0, int)])
    shape = (len(totals), len(cumulative))
    counts = sp.csr_matrix((np.ones(len(genes), np.float32), genes, indptr), shape=shape)
    counts.sum_duplicates()
    return counts


def _partners(
    artefacts: Artefacts, obs: pd.DataFrame, doublets: np.ndarray, random: np.ndarray
) -> np.ndarray:
    """The row of a random cell for each doublet, that agrees and differs in the columns asked."""
    for column in (*artefacts.doublets_within, *artefacts.doublets_between):
        if column not in obs:
            known = list(map(str, obs.columns))
            seen = f"doublets: no column {column!r} in the table of cells"
            near = nearest(str(column), known)
            raise RequestError(f"artefacts: {seen}; columns: {listed(known) or 'none'}{near}")
    within, between = (
        pd.factorize(_described(obs[list(columns)]))[0]
        for columns in (artefacts.doublets_within, artefacts.doublets_between)
    )
    partners = np.empty(len(doublets), np.int64)
    for group in np.unique(within[doublets]):
        members = np.flatnonzero(within == group)
        for kind in np.unique(between[doublets][within[doublets] == group]):
            chosen = (within[doublets] == group) & (between[doublets] == kind)
            others = members[between[members] != kind] if artefacts.doublets_between else members
            if not len(others):
                example = _described(obs.iloc[doublets[chosen][:1]])[0]
                seen = f"no cell of the request can form a doublet with one of {example}"
                advice = "relax doublets_within or doublets_between"
                raise RequestError(f"artefacts: {seen}; {advice}")
            which = (random[doublets[chosen], 0] * len(others)).astype(int)
            partners[chosen] = others[which]
    return partners


def _described(table: pd.DataFrame) -> np.ndarray:
    """The values of each row as one text."""
    texts: np.ndarray = table.astype(object).astype(str).agg(", ".join, axis=1).to_numpy(object)
    return texts if table.shape[1] else np.full(len(table), "", object)


def _profile(
    weights: Mapping[str, float] | None, genes: pd.DataFrame, mean_log_p: np.ndarray
) -> np.ndarray:
    """Shares of the seen genes in ambient RNA."""
    if weights is None:
        profile = np.exp(mean_log_p.astype(float))
    else:
        seen = genes["gene"][genes["seen"]]
        known = set(seen)
        unknown = [gene for gene in dict(weights) if gene not in known]
        if unknown:
            where = f"gene {unknown[0]!r} is unknown, or without counts in training"
            near = nearest(str(unknown[0]), seen.tolist())
            raise RequestError(f"artefacts: ambient_profile: {where}{near}")
        given = seen.map(dict(weights)).fillna(0.0)
        profile = pd.to_numeric(given, errors="coerce").to_numpy(float)
        if not (np.isfinite(profile).all() and (profile >= 0).all() and profile.sum() > 0):
            allowed = "weights of 0 or more, not all 0"
            raise RequestError(f"artefacts: ambient_profile: allowed are {allowed}")
    shares: np.ndarray = profile / profile.sum()
    return shares


def _with_empty(request: SamplingRequest, number: int) -> SamplingRequest:
    """The request with empty droplets as its last rows, without labels."""
    cells = len(request.codes)
    codes = np.vstack([request.codes, np.full((number, request.codes.shape[1]), MISSING)])
    usual = {IS_DOUBLET: False, AMBIENT: 1.0, IS_EMPTY: True}
    columns: dict[str, Any] = {}
    for name, values in request.columns.items():
        if name in usual:
            columns[name] = np.append(values, np.full(number, usual[name]))
        else:
            column = pd.Series(values)
            column = column.convert_dtypes() if column.dtype.kind in "iub" else column
            columns[name] = column.reindex(range(cells + number)).array
    return replace(request, codes=codes, columns=columns, empty=number)


def _table(profile: Mapping[str, float] | None) -> pd.DataFrame | str:
    """A profile for the record."""
    if profile is None:
        return "training cells"
    table = pd.DataFrame({"gene": list(profile), "weight": list(profile.values())})
    return table.set_axis(table.index.astype(str))


def _check_number(name: str, value: Any, least: float, most: float) -> None:
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not least <= value <= most:
        allowed = f"numbers from {least:g} to {most:g}"
        raise RequestError(f"artefacts: {name}: got {value!r}; allowed are {allowed}")
