"""SCLD: learn a labelled single-cell RNA-seq count matrix and write new cells.

Single-Cell Latent Diffusion (Wang, Li, Di, Chen, arXiv:2312.14220). The public names are the ones below; the modules
behind them load when they are first used, so that ``import scld`` and ``scld --help`` answer at once.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Read when torch is first imported: its threads else wait for work so busily that our own, beside them, get half a core (docs/speed.md).
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

_HOME = {  # public name -> the module it lives in; None: the module itself
    "CheckpointError": "errors",
    "Config": "config",
    "DataError": "errors",
    "Report": "report",
    "RequestError": "errors",
    "SCLDError": "errors",
    "Schema": "schema",
    "Synthesizer": "synthesizer",
    "data": None,
    "datasets": None,
    "evaluate": "report",
    "load": "synthesizer",
}

__all__ = ["CheckpointError", "Config", "DataError", "Report", "RequestError", "SCLDError", "Schema", "Synthesizer", "data", "datasets", "evaluate", "load"]

if TYPE_CHECKING:
    from scld import data, datasets
    from scld.config import Config
    from scld.errors import CheckpointError, DataError, RequestError, SCLDError
    from scld.report import Report, evaluate
    from scld.schema import Schema
    from scld.synthesizer import Synthesizer, load


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'scld' has no attribute {name!r}; public names: {', '.join(__all__)}")
    home = _HOME[name]
    module = importlib.import_module(f"scld.{home or name}")
    return module if home is None else getattr(module, name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
