"""What is designed into generated cells: effects, other labels, depth, artefacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypedDict

import numpy as np

from scld.errors import RequestError
from scld.generation.artefacts import Artefacts, Droplets, with_droplets
from scld.generation.changes import Changes, Depth
from scld.generation.editing import check_transfer
from scld.generation.effects import Effect, effects_table, fold_changes, gene_columns
from scld.generation.generator import Generator
from scld.generation.options import SamplingKeywords, SamplingOptions
from scld.generation.request import SamplingRequest, seen_column, seen_name
from scld.schema import Schema


class DesignKeywords(TypedDict, total=False):
    """The keywords of a design: see `Synthesizer.sample`."""

    effects: Sequence[Effect] | None
    fixed_depth: bool
    to: Mapping[str, object] | None
    depth: Any
    artefacts: Artefacts | None
    mean: bool


class SampleKeywords(SamplingKeywords, DesignKeywords, total=False):
    """All keywords of `Synthesizer.sample` that do not say which cells."""


@dataclass(frozen=True)
class Design:
    """A request with everything that was designed into it.

    Parameters
    ----------
    request
        The cells, with their changes and obs columns.
    record
        What goes into ``uns["scld"]``.
    gene_columns
        var columns.
    droplets
        Artefacts of the cells.
    """

    request: SamplingRequest
    record: dict[str, Any] = field(default_factory=dict)
    gene_columns: dict[str, np.ndarray] = field(default_factory=dict)
    droplets: Droplets | None = None

    def recorded(self, more: dict[str, Any]) -> Design:
        """With more on record."""
        return replace(self, record=more | self.record)


def designed(
    request: SamplingRequest,
    keywords: Mapping[str, Any],
    schema: Schema,
    genes: Any,
    generator: Generator,
    options: SamplingOptions,
) -> Design:
    """The cells of a request as they are designed.

    Parameters
    ----------
    request
        The cells that are to be generated.
    keywords
        Those of `DesignKeywords`.
    schema, genes, generator
        The model.
    options
        How to sample.

    Raises
    ------
    RequestError
        An effect, a label or a value that cannot be used.
    """
    given = {name: value for name, value in keywords.items() if value is not None}
    record: dict[str, Any] = {}
    columns: dict[str, np.ndarray] = {}
    changes = Changes(fixed_depth=bool(given.get("fixed_depth", False)))
    if "to" in given:
        request = _relabelled(request, given["to"], schema, generator, options)
        record["to"] = schema.described(given["to"])
    effects = given.get("effects", ())
    if isinstance(effects, Effect) or len(effects):
        obs = request.obs(slice(0, len(request.codes)), schema)
        changes = replace(changes, effects=fold_changes(effects, obs, genes))
        record |= {"effects": effects_table(effects), "fixed_depth": changes.fixed_depth}
        columns = gene_columns(effects, genes["gene"])
    if "depth" in given:
        changes = replace(changes, depth=Depth.of(given["depth"]))
        record["depth"] = np.asarray(given["depth"], dtype=float)
    if changes.effects is not None or changes.depth is not None:
        request = replace(request, changes=changes)
    request = replace(request, with_mean=bool(given.get("mean", False)))
    droplets = None
    if "artefacts" in given:
        profile = generator.autoencoder.mean_log_p.cpu().numpy()
        model = (schema, genes, profile, options.seed)
        request, droplets = with_droplets(_checked(given["artefacts"]), request, *model)
        record["artefacts"] = given["artefacts"].record()
    return Design(request, record, columns, droplets)


def _checked(artefacts: Any) -> Artefacts:
    if not isinstance(artefacts, Artefacts):
        advice = "pass scld.Artefacts(doublets=0.05)"
        raise RequestError(f"artefacts: got {type(artefacts).__name__}; {advice}")
    return artefacts


def _relabelled(
    request: SamplingRequest,
    to: Any,
    schema: Schema,
    generator: Generator,
    options: SamplingOptions,
) -> SamplingRequest:
    """The same cells under other labels: their latent points are shifted by what these change."""
    fixed = check_transfer(to, schema)
    if generator.candidates(options) > 1:
        advice = "add post='off' (--post off)"
        raise RequestError(f"to: not with post-guidance, which would select other cells; {advice}")
    codes = request.codes.copy()
    codes[:, list(fixed)] = list(fixed.values())
    others = {name: v for name, v in request.columns.items() if name != seen_name(schema)}
    columns = {**others, **seen_column(codes, schema)}
    return replace(request, codes=codes, origin=request.codes, columns=columns)
