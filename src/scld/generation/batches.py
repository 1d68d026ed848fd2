"""Pages of generated counts -> AnnData."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scld.generation.request import SamplingRequest
from scld.schema import Schema

if TYPE_CHECKING:
    from anndata import AnnData


def resized(pages: Iterable[sp.csr_matrix], size: int) -> Iterator[sp.csr_matrix]:
    """The same rows in batches of ``size``, the last one smaller.

    Examples
    --------
    >>> pages = [sp.csr_matrix(np.ones((3, 2))), sp.csr_matrix(np.ones((4, 2)))]
    >>> [batch.shape[0] for batch in resized(pages, 5)]
    [5, 2]
    """
    parts: list[sp.csr_matrix] = []
    rows = 0
    for page in pages:
        start = 0
        while start < page.shape[0]:
            part = page[start : start + size - rows]
            parts.append(part)
            start, rows = start + part.shape[0], rows + part.shape[0]
            if rows == size:
                yield sp.csr_matrix(sp.vstack(parts, format="csr"))
                parts, rows = [], 0
    if parts:
        yield sp.csr_matrix(sp.vstack(parts, format="csr"))


@dataclass(frozen=True)
class Assembly:
    """Turns counts of the genes seen in training into AnnData of all genes.

    Parameters
    ----------
    genes
        Columns ``gene`` and ``seen``, one row per gene of the model.
    schema
        The labels.
    settings
        What goes into ``uns["scld"]``.
    """

    genes: pd.DataFrame
    schema: Schema
    settings: dict[str, Any]

    def assemble(self, counts: sp.csr_matrix, request: SamplingRequest, first: int) -> AnnData:
        """The cells from ``first`` on of a request, with these counts ``[cells, seen genes]``."""
        import anndata as ad

        cells = slice(first, first + counts.shape[0])
        columns = np.flatnonzero(self.genes["seen"]).astype(np.int32)
        shape = (counts.shape[0], len(self.genes))
        matrix = sp.csr_matrix((counts.data, columns[counts.indices], counts.indptr), shape=shape)
        var = pd.DataFrame(index=self.genes["gene"].to_numpy())
        obs = request.obs(cells, self.schema)
        return ad.AnnData(X=matrix, obs=obs, var=var, uns={"scld": deepcopy(self.settings)})
