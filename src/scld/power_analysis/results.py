"""What a power analysis finds: names of analyses, metrics and columns, and the values."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from scld.power_analysis.design import PowerDesign

OVERALL = "overall"  # all types together
EXPRESSION, RARE, COMPOSITION = "expression", "rare", "composition"  # analyses
POWER, FDR, FALSE_POSITIVES, PROBABILITY = "power", "fdr", "false_positive_rate", "probability"
COLUMNS = (
    *("analysis", "type", "test", "metric", "donors", "cells", "depth", "log2fc", "fold"),
    *("value", "lower", "upper", "replicates", "untested", "cost"),
)


@dataclass(frozen=True)
class Results:
    """The table of a power analysis, and what it belongs to: see `PowerStudy`."""

    table: pd.DataFrame
    design: PowerDesign
    notes: tuple[str, ...]
    seed: int
