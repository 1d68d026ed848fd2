"""The real cells that ship with scld; README.md beside this file says where they come from."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from anndata import AnnData


def pbmc() -> AnnData:
    """Human blood cells (PBMC) of a TEA-seq experiment: raw counts and a cell type each.

    A subset of Swanson et al. 2021, eLife 10:e63632 (GSE158013): every cell of the rare types, a
    stratified sample of the others, the most variable genes and the known markers.

    Returns
    -------
    AnnData
        ``X``: counts ``[2501 cells, 2000 genes]``, CSR, float32; ``obs["cell_type"]``: 11
        categories.

    Examples
    --------
    >>> import scld
    >>> cells = scld.datasets.pbmc()
    >>> cells.shape, (cells.obs["cell_type"] == "platelet").sum().item()
    ((2501, 2000), 15)
    """
    import anndata as ad

    with resources.as_file(resources.files(__name__) / "pbmc.h5ad") as path:
        cells = ad.read_h5ad(path)
    cells.X = cells.X.astype(np.float32)
    return cells
