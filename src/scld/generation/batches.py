"""Pages of generated counts -> AnnData."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scld.generation.generator import Drawn
from scld.generation.request import SamplingRequest, synthetic_name
from scld.generation.truth import MEAN
from scld.schema import Schema

if TYPE_CHECKING:
    from anndata import AnnData


class Cells(NamedTuple):
    """Counts of generated cells, and their expected counts if these are wanted."""

    counts: sp.csr_matrix  # [cells, genes]
    mean: np.ndarray | None  # [cells, genes]

    @classmethod
    def joined(cls, pages: Iterable[Drawn | Cells]) -> Cells:
        """Pages one below another."""
        pages = list(pages)
        counts = sp.csr_matrix(sp.vstack([page.counts for page in pages], format="csr"))
        means = [page.mean for page in pages if page.mean is not None]
        return cls(counts, np.concatenate(means) if means else None)


def resized(pages: Iterable[Drawn], size: int) -> Iterator[Cells]:
    """The same rows in batches of ``size``, the last one smaller.

    Examples
    --------
    >>> one, two = (sp.csr_matrix(np.ones((rows, 2))) for rows in (3, 4))
    >>> [batch.counts.shape[0] for batch in resized([Drawn(one, one), Drawn(two, two)], 5)]
    [5, 2]
    """
    parts: list[Cells] = []
    rows = 0
    for page in pages:
        start = 0
        while start < page.counts.shape[0]:
            some = slice(start, start + size - rows)
            parts.append(Cells(page.counts[some], None if page.mean is None else page.mean[some]))
            taken = parts[-1].counts.shape[0]
            start, rows = start + taken, rows + taken
            if rows == size:
                yield Cells.joined(parts)
                parts, rows = [], 0
    if parts:
        yield Cells.joined(parts)


@dataclass(frozen=True)
class Assembly:
    """Turns counts of the genes seen in training into AnnData of all genes.

    Parameters
    ----------
    genes
        Columns ``gene``, ``seen`` and those of var, one row per gene of the model.
    schema
        The labels.
    settings
        What goes into ``uns["scld"]``.
    columns
        Further var columns.
    """

    genes: pd.DataFrame
    schema: Schema
    settings: dict[str, Any]
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)

    def assemble(self, some: Cells, request: SamplingRequest, first: int) -> AnnData:
        """The cells from ``first`` on of a request, with these counts ``[cells, seen genes]``."""
        import anndata as ad

        counts = some.counts
        cells = slice(first, first + counts.shape[0])
        columns = np.flatnonzero(self.genes["seen"]).astype(np.int32)
        shape = (counts.shape[0], len(self.genes))
        matrix = sp.csr_matrix((counts.data, columns[counts.indices], counts.indptr), shape=shape)
        annotation = self.genes.drop(columns=["gene", "seen"])
        var = annotation.set_axis(self.genes["gene"].to_numpy()).assign(**self.columns)
        obs = request.obs(cells, self.schema)
        obs[synthetic_name(self.schema)] = True
        adata = ad.AnnData(X=matrix, obs=obs, var=var, uns={"scld": deepcopy(self.settings)})
        if some.mean is not None:
            adata.layers[MEAN] = np.zeros(shape, np.float32)
            adata.layers[MEAN][:, columns] = some.mean
        return adata
