"""Driver of scDesigner's `NegBinCopula`, a Python implementation of scDesign3.

Settings: arguments of `NegBinCopula`. Formulas may use ``cell_type`` and ``log_library``, the log
of the total count of a cell.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from job import LIBRARY, Job
from scdesigner.data import loader
from scdesigner.simulators import NegBinCopula

CHANGES = (
    "types are numbered as in the training cells when cells are sampled, too: scdesigner 0.0.25 "
    "numbers them by their frequency in the table that it is given, which swaps types",
)


def keep_order_of_types(train: pd.DataFrame) -> None:
    """Number types by their frequency in the training cells, always."""
    levels = loader.categories(train)
    loader.categories = lambda _: levels


def main() -> None:
    job = Job.of_arguments()
    torch.manual_seed(job.seed)
    np.random.seed(job.seed)  # noqa: NPY002, scDesigner draws from it
    train, wanted = job.train.copy(), job.wanted.copy()
    train.X = sp.csr_matrix(train.X)
    train.obs["log_library"] = np.log(np.asarray(train.X.sum(axis=1)).ravel())
    wanted["log_library"] = np.log(wanted[LIBRARY])
    keep_order_of_types(train.obs)
    simulator = NegBinCopula(**job.settings)
    simulator.fit(train)
    job.write_cells(simulator.sample(wanted).X)
    model = job.folder / "model.pt"
    torch.save(simulator.parameters, model)
    epochs = len(simulator.marginal.fit_history)
    job.write_info([model], ["scdesigner", "torch"], CHANGES, epochs=epochs)


if __name__ == "__main__":
    main()
