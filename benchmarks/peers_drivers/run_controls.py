"""Driver of the negative controls of `scld.evaluate`. Settings: ``control``."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from job import Job

from scld.evaluation.controls import CONTROLS


def main() -> None:
    job = Job.of_arguments()
    counts: dict[int, sp.csr_matrix] = {}
    make, rng = CONTROLS[job.settings["control"]], np.random.default_rng(job.seed)
    matrix = sp.csr_matrix(job.train.X)
    for kind, rows in job.wanted_types():
        of_type = make(sp.csr_matrix(matrix[job.types == kind]), len(rows), rng)
        counts |= dict(zip(rows, of_type, strict=True))
    job.write_cells(sp.vstack([counts[row] for row in range(len(job.wanted))]))
    job.write_info([], ["scld"])


if __name__ == "__main__":
    main()
