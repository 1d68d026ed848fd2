"""Make the data set that ships with scld: src/scld/datasets/pbmc.h5ad.

    pip download --no-deps --no-binary :all: matilda_sc==0.1
    python scripts/make_pbmc.py matilda_sc-0.1.tar.gz

The sdist of matilda_sc 0.1 holds a TEA-seq experiment on human PBMC (Swanson et al. 2021, eLife
10:e63632, GSE158013): 6,310 cells x 9,855 genes, with cell types. This keeps every cell of the rare
types, a stratified sample of the others, the genes that vary most, and known markers of blood
cells. Counts are not changed. The same sdist gives the same file.
"""

from __future__ import annotations

import argparse
import io
import tarfile
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

HOME = Path(__file__).parents[1] / "src" / "scld" / "datasets"
FOLDER = "matilda_sc-0.1/data/TEAseq"
CELLS, GENES, RARE = 2_500, 2_000, 50  # RARE: a type with fewer cells keeps them all

PLAIN_NAME = {
    "B.Activated": "activated B cell",
    "B.Naive": "naive B cell",
    "DC.Myeloid": "myeloid dendritic cell",
    "Mono.CD14": "CD14+ monocyte",
    "Mono.CD16": "CD16+ monocyte",
    "NK": "NK cell",
    "Platelets": "platelet",
    "T.CD4.Memory": "memory CD4 T cell",
    "T.CD4.Naive": "naive CD4 T cell",
    "T.CD8.Effector": "effector CD8 T cell",
    "T.CD8.Naive": "naive CD8 T cell",
}
# fmt: off
MARKERS = {
    # T cells
    "CD3D", "CD3E", "CD4", "IL7R", "CCR7", "SELL", "LEF1", "S100A4", "CD8A", "CD8B", "GZMK",
    # cytotoxic cells
    "NKG7", "GNLY", "GZMB", "GZMH", "PRF1", "KLRD1", "KLRF1",
    # B cells, antigen presentation
    "MS4A1", "CD79A", "CD79B", "BANK1", "IGHM", "IGHD", "IGKC", "CD74", "HLA-DRA",
    # monocytes
    "LYZ", "CD14", "VCAN", "FCN1", "S100A8", "S100A9", "CST3", "TYROBP", "FCGR3A", "MS4A7",
    # dendritic cells, platelets: not measured here
    "FCER1A", "CD1C", "CLEC10A", "PPBP", "PF4",
    # other
    "MALAT1",
}
# fmt: on


def read_half(sdist: tarfile.TarFile, half: str) -> ad.AnnData:
    """The cells of one of the two halves that the sdist splits the experiment into."""
    with h5py.File(io.BytesIO(member(sdist, f"{half}_rna.h5"))) as file:
        matrix = file["matrix"]
        counts, genes, barcodes = (
            matrix["data"][:].T,
            matrix["features"][:].astype(str),
            matrix["barcodes"][:].astype(str),
        )
    types = pd.read_csv(io.BytesIO(member(sdist, f"{half}_cty.csv")))["x"].map(PLAIN_NAME)
    return ad.AnnData(
        sp.csr_matrix(counts),
        pd.DataFrame({"cell_type": types.to_numpy()}, index=barcodes),
        pd.DataFrame(index=genes),
    )


def member(sdist: tarfile.TarFile, name: str) -> bytes:
    file = sdist.extractfile(f"{FOLDER}/{name}")
    assert file is not None
    return file.read()


def choose_cells(types: pd.Series, rng: np.random.Generator) -> np.ndarray:
    """Rows to keep: rare types whole, the others in proportion, in their first order."""
    sizes = types.value_counts().sort_index()
    common = sizes[sizes >= RARE]
    share = (CELLS - sizes[sizes < RARE].sum()) / common.sum()
    wanted = sizes.where(sizes < RARE, (sizes * share).round().astype(int))
    rows = [
        rng.choice(np.flatnonzero(types == name), size=n, replace=False)
        for name, n in wanted.items()
    ]
    return np.sort(np.concatenate(rows))


def choose_genes(cells: ad.AnnData) -> np.ndarray:
    """Columns to keep: the markers, then those of largest variance of Pearson residuals.

    In their first order. Lause et al. 2021, Genome Biol 22:258.
    """
    counts = cells.X.toarray()
    mean = counts.sum(axis=1, keepdims=True) * (counts.sum(axis=0) / counts.sum())
    bound = np.sqrt(len(counts))
    with np.errstate(invalid="ignore"):
        residuals = np.nan_to_num((counts - mean) / np.sqrt(mean + mean**2 / 100)).clip(
            -bound, bound
        )
    score = np.where(cells.var_names.isin(list(MARKERS)), np.inf, residuals.var(axis=0))
    return np.sort(np.argsort(-score, kind="stable")[:GENES])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sdist", type=Path, help="matilda_sc-0.1.tar.gz")
    parser.add_argument("-o", "--output", type=Path, default=HOME / "pbmc.h5ad")
    arguments = parser.parse_args()

    with tarfile.open(arguments.sdist) as sdist:
        every = ad.concat([read_half(sdist, "train"), read_half(sdist, "test")])
    cells = every[choose_cells(every.obs["cell_type"], np.random.default_rng(0))].copy()
    cells = cells[:, choose_genes(cells)].copy()
    assert (cells.X.sum(axis=1) > 0).all()
    assert cells.obs["cell_type"].notna().all()

    cells.X = sp.csr_matrix(cells.X, dtype=np.uint16)
    cells.obs["cell_type"] = cells.obs["cell_type"].astype("category")
    cells.uns["source"] = (
        "TEA-seq PBMC; Swanson et al. 2021, eLife 10:e63632; GSE158013; "
        "from PyPI matilda_sc 0.1; subset by scripts/make_pbmc.py"
    )
    cells.write_h5ad(arguments.output, compression="gzip", compression_opts=9)
    megabytes = arguments.output.stat().st_size / 1e6
    size = f"{cells.n_obs:,} cells x {cells.n_vars:,} genes, {megabytes:.2f} MB"
    print(f"{arguments.output}: {size}")
    print(cells.obs["cell_type"].value_counts().to_string())


if __name__ == "__main__":
    main()
