"""Driver of a Gaussian copula with negative binomial margins, fitted to each type apart.

Settings: ``offset``, whether means are proportional to the total count of a cell; ``most_zeros``,
the fraction of zeros from which on a gene is independent of all others; ``shrinkage``, whether
correlations are shrunk by the rule of Ledoit and Wolf (J. Multivar. Anal. 88:365, 2004).

The defaults follow scDesign2 (Sun et al., Genome Biol. 22:163, 2021): no offset, genes with less
than 80 % zeros in the copula, sample correlations. Margins are fitted by moments.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from job import Job
from scipy.stats import nbinom, norm

LEAST_R, MOST_R = 1e-3, 1e5  # dispersions; the largest is a Poisson distribution for our purposes
EDGE = 1e-6  # probabilities this near to 0 or 1 are moved away from it


class Margins(NamedTuple):
    """Negative binomial distribution of each gene of a type."""

    rate: np.ndarray  # [genes] mean count of a cell of size 1
    r: np.ndarray  # [genes] dispersion

    @classmethod
    def of(cls, counts: np.ndarray, sizes: np.ndarray) -> Margins:
        """Fitted by moments to ``[cells, genes]`` counts of cells of some sizes."""
        rate = counts.sum(axis=0) / sizes.sum()
        mean = np.outer(sizes, rate)
        excess = ((counts - mean) ** 2 - mean).sum(axis=0)
        r = (mean**2).sum(axis=0) / np.maximum(excess, EDGE)
        return cls(rate, r.clip(LEAST_R, MOST_R))

    def law(self, sizes: np.ndarray, genes: np.ndarray) -> Any:
        """The distributions ``[cells, genes]`` of some genes in cells of some sizes."""
        r = self.r[genes]
        return nbinom(r, r / (r + np.outer(sizes, self.rate[genes])))


def normal_scores(law: Any, counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Standardised normal scores of counts; ties are broken at random within their step."""
    below = law.cdf(counts - 1)
    level = below + rng.random(counts.shape) * law.pmf(counts)
    scores = norm.ppf(level.clip(EDGE, 1 - EDGE))
    return np.asarray((scores - scores.mean(axis=0)) / scores.std(axis=0).clip(EDGE))


def correlated(
    scores: np.ndarray, cells: int, shrinkage: float, rng: np.random.Generator
) -> np.ndarray:
    """Normal values ``[cells, genes]`` with the correlations of the scores, shrunk towards 0.

    Random sums of the scores have their sample correlations: no matrix of genes by genes is needed.
    """
    shared = rng.standard_normal((cells, len(scores))) @ scores / np.sqrt(len(scores))
    own = rng.standard_normal(shared.shape)
    return np.asarray(np.sqrt(1 - shrinkage) * shared + np.sqrt(shrinkage) * own)


def ledoit_wolf(scores: np.ndarray) -> float:
    """How much to shrink sample correlations."""
    from sklearn.covariance import ledoit_wolf_shrinkage

    return float(ledoit_wolf_shrinkage(scores, assume_centered=True))


def generate(
    known: np.ndarray, sizes: np.ndarray, wanted: np.ndarray, job: Job, rng: np.random.Generator
) -> np.ndarray:
    """Counts ``[cells, genes]`` of one type, for cells of the ``wanted`` sizes."""
    margins = Margins.of(known, sizes)
    often = (known == 0).mean(axis=0) < job.settings["most_zeros"]
    joint, alone = np.flatnonzero(often), np.flatnonzero(~often & (known.sum(axis=0) > 0))
    counts = np.zeros((len(wanted), known.shape[1]), np.float32)
    counts[:, alone] = margins.law(wanted, alone).rvs(random_state=rng)
    if len(joint) > 0:
        scores = normal_scores(margins.law(sizes, joint), known[:, joint], rng)
        shrinkage = ledoit_wolf(scores) if job.settings["shrinkage"] else 0.0
        level = norm.cdf(correlated(scores, len(wanted), shrinkage, rng))
        counts[:, joint] = margins.law(wanted, joint).ppf(level.clip(EDGE, 1 - EDGE))
        np.savez(
            job.folder / f"model-{len(list(job.folder.glob('model-*')))}.npz", scores, *margins
        )
    return counts


def main() -> None:
    job = Job.of_arguments()
    matrix, rng = sp.csr_matrix(job.train.X), np.random.default_rng(job.seed)
    counts: dict[int, sp.csr_matrix] = {}
    for kind, rows in job.wanted_types():
        known = matrix[job.types == kind].toarray().astype(float)
        sizes, wanted = known.sum(axis=1), job.libraries(rows)
        if not job.settings["offset"]:
            sizes, wanted = np.ones_like(sizes), np.ones_like(wanted)
        made = sp.csr_matrix(generate(known, sizes, wanted, job, rng))
        counts |= dict(zip(rows, made, strict=True))
    job.write_cells(sp.vstack([counts[row] for row in range(len(job.wanted))]))
    job.write_info(sorted(job.folder.glob("model-*.npz")), ["scipy", "scikit-learn"])


if __name__ == "__main__":
    main()
