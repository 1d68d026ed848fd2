"""Cells of three types, and settings that fit them badly but in no time."""

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

QUICK = {
    "intervals": 2,
    "steps": 20,
    "epochs": 1,
    "batch": 32,
    "learning_rate": 0.1,  # so high that post-guidance has something to mend
    "average": 0.5,
}
TINY = {
    "autoencoder": {"latent": 3, "width": 16},
    "autoencoder_training": QUICK,
    "denoiser": {"width": 16},
    "denoiser_training": QUICK,
    "discriminator": {"components": 4, "generated": 1, "trees": 3},
    "sampling": {"steps": 4, "guidance": 1.0, "post": "select"},
}


def make_cells(n: int = 120, genes: int = 30, seed: int = 0) -> ad.AnnData:
    """Three types with means of their own; no count of gene 4; text, integer and boolean labels."""
    random = np.random.default_rng(seed)
    cell = np.arange(n)
    counts = random.poisson(random.gamma(1.0, 2.0, (3, genes))[cell % 3]).astype(np.float32)
    counts[:, 4 % genes] = 0
    counts[:, 0] += 1
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical(np.array(["B", "T", "NK"])[cell % 3]),
            "donor": cell // 3 % 2,
            "treated": cell % 4 == 0,
        },
        index=[f"real_{i}" for i in cell],
    )
    var = pd.DataFrame(index=[f"gene_{i}" for i in range(genes)])
    return ad.AnnData(sp.csr_matrix(counts), obs=obs, var=var)
