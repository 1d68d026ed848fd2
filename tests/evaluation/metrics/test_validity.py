"""Each validity check fails on what it is for."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from scld.evaluation.metrics import validity


@pytest.mark.parametrize(
    ("check", "change"),
    [
        ("integers", {"cells": sp.csr_matrix([[1.5, 1], [1, 1]])}),
        ("non_negative", {"cells": sp.csr_matrix([[-1.0, 3], [1, 1]])}),
        ("finite", {"cells": sp.csr_matrix([[np.nan, 1], [1, 1]])}),
        ("gene_order", {"genes": ["B", "A"]}),
        ("known_labels", {"labels": ["x", "y", "z"]}),
        ("every_label", {"labels": ["x", "x"]}),
        ("no_empty_cell", {"cells": sp.csr_matrix([[0.0, 0], [1, 1]])}),
        ("library_range", {"cells": sp.csr_matrix([[90.0, 1], [1, 1]])}),
    ],
)
def test_each_validity_check_fails_on_what_it_is_for(check, change):
    sound = {
        "cells": sp.csr_matrix([[1.0, 1], [2, 1]]),
        "genes": ["A", "B"],
        "labels": ["x", "y"],
        "train_libraries": np.array([2.0, 3]),
        "train_genes": ["A", "B"],
        "train_labels": ["x", "y"],
    }
    assert all(validity(**sound).values())
    assert not validity(**{**sound, **change})[check]
