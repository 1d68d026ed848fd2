"""What C2ST can an ideal generator reach that knows a training set, and nothing beyond it?

    python benchmarks/finite.py --data-dir DIR [--sets teaseq_pbmc pbmc3k ...] [--seeds 0 1 2]

A generator that writes any number of independent cells has to estimate each gene's distribution from the training cells, and carries the error
of that estimate into every cell; a classifier with thousands of genes adds these small errors up. To see how much that makes, real test cells are
compared with training cells in a world without dependence between genes: all genes of both are shuffled within type, each apart.

    set aside      training values, each used once: as independent of the test cells as other real cells are
    drawn anew     training values, drawn with replacement: what an ideal generator writes that learnt each gene's distribution exactly

The second row is a bound for generators that learn each type's genes apart; to do better is to share strength between genes and types.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from common import LABEL, arguments, begin, judged, spread

import scld
from scld.judge import Cells, Reference, c2st_scores, common_sizes, halve, make_baseline, told_apart

FIGURES = ["c2st_forest", "c2st_linear"]  # boosting sees components, which were fitted to the training cells


def drawn_anew(train: Cells, sizes: dict[int, int], rng: np.random.Generator) -> Cells:
    """Each gene of each type drawn with replacement from the training cells of that type."""
    parts = []
    for code, n in sizes.items():
        known = train.counts[train.codes == code].tocsc()
        rows = [known[:, gene].toarray().ravel()[rng.integers(0, known.shape[0], n)] for gene in range(known.shape[1])]
        parts.append(sp.csr_matrix(np.stack(rows, axis=1)))
    return Cells.of_counts(sp.csr_matrix(sp.vstack(parts, format="csr")), np.repeat(list(sizes), list(sizes.values())))


def main() -> None:
    given = begin(arguments(__doc__, ["teaseq_pbmc", "pbmc3k", "mouse_endocrinogenesis", "mouse_ens"]))
    for name in given.sets:
        rows = []
        for seed in given.seeds:
            train, test = scld.data.split(scld.data.read(given.data_dir / f"{name}.h5ad"), LABEL, seed=seed)
            types, rng = sorted(set(train.obs[LABEL])), np.random.default_rng(seed)
            known, held_out = judged(train, types), judged(test, types)
            reference = Reference.of(known, True, seed)
            sizes = common_sizes([np.bincount(held_out.codes) // 2, np.bincount(known.codes)], 2000)
            half = held_out[halve(held_out.codes, sizes, rng)[0]]
            real = reference.view(make_baseline("shuffle", half, sizes, rng))
            for how, cells in (("set aside", make_baseline("shuffle", known, sizes, rng)), ("drawn anew", drawn_anew(known, sizes, rng))):
                scores = c2st_scores(told_apart(real, reference.view(cells), reference.space, seed))
                about = {"seed": seed, "set": name, "training values": how, "training cells": str(len(known))}
                rows.append(about | {figure: scores[figure] for figure in FIGURES})
        print(spread(rows, ["set", "training cells", "training values"]).to_string(), "\n", flush=True)


if __name__ == "__main__":
    main()
