"""SCLD: learn a labelled single-cell RNA-seq count matrix and generate synthetic cells.

Single-Cell Latent Diffusion (Wang, Li, Di, Chen, arXiv:2312.14220). The public names are listed
below. Their modules load on first use, so that ``import scld`` and ``scld --help`` are fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from scld._version import __version__ as __version__

_MODULES = {  # public name -> its module
    "Artefacts": "generation.artefacts",
    "CheckpointError": "errors",
    "Config": "config",
    "DataError": "errors",
    "Effect": "generation.effects",
    "NotFittedError": "errors",
    "PowerStudy": "power_analysis.study",
    "PrivacyAudit": "privacy_audit.study",
    "Report": "evaluation.report",
    "RequestError": "errors",
    "SCLDError": "errors",
    "Schema": "schema",
    "Synthesizer": "synthesizer",
    "audit": "privacy_audit.study",
    "evaluate": "evaluation.report",
    "generate_shards": "generation.cluster",
    "load": "synthesizer",
    "power": "power_analysis.study",
    "set_threads": "machine",
    "split": "io.split",
    "truth": "generation.truth",
}
_PACKAGES = {"data": "io", "datasets": "datasets"}  # public name -> the package that it stands for

__all__ = [
    "Artefacts",
    "CheckpointError",
    "Config",
    "DataError",
    "Effect",
    "NotFittedError",
    "PowerStudy",
    "PrivacyAudit",
    "Report",
    "RequestError",
    "SCLDError",
    "Schema",
    "Synthesizer",
    "audit",
    "data",
    "datasets",
    "evaluate",
    "generate_shards",
    "load",
    "power",
    "set_threads",
    "split",
    "truth",
]

if TYPE_CHECKING:
    from scld import datasets
    from scld import io as data
    from scld.config import Config
    from scld.errors import CheckpointError, DataError, NotFittedError, RequestError, SCLDError
    from scld.evaluation.report import Report, evaluate
    from scld.generation.artefacts import Artefacts
    from scld.generation.cluster import generate_shards
    from scld.generation.effects import Effect
    from scld.generation.truth import truth
    from scld.io.split import split
    from scld.machine import set_threads
    from scld.power_analysis.study import PowerStudy, power
    from scld.privacy_audit.study import PrivacyAudit, audit
    from scld.schema import Schema
    from scld.synthesizer import Synthesizer, load


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"scld.{_PACKAGES[name]}")
    if name in _MODULES:
        return getattr(importlib.import_module(f"scld.{_MODULES[name]}"), name)
    known = ", ".join(__all__)
    raise AttributeError(f"module 'scld' has no attribute {name!r}; public names: {known}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
