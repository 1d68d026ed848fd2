"""What is designed into generated cells: labels, new donors, effects, depth, artefacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypedDict

import numpy as np
import pandas as pd
import torch

from scld.errors import RequestError
from scld.generation.artefacts import Artefacts, Droplets, with_droplets
from scld.generation.changes import Changes, Depth
from scld.generation.donors import DonorVariation
from scld.generation.editing import check_transfer
from scld.generation.effects import (
    IN_EFFECTS,
    Effect,
    check_effects,
    effects_table,
    fold_changes,
    gene_columns,
)
from scld.generation.generator import Generator
from scld.generation.options import SamplingKeywords, SamplingOptions
from scld.generation.population import Population
from scld.generation.request import (
    SamplingRequest,
    digest_of,
    request,
    seen_column,
    seen_name,
)
from scld.schema import Schema, unique_rows

_POINTS = 1024  # generated of each combination of labels, to estimate their mean and covariance


class DesignKeywords(TypedDict, total=False):
    """The keywords of a design: see `Synthesizer.sample`."""

    effects: Sequence[Effect] | None
    fixed_depth: bool
    to: Mapping[str, object] | None
    depth: Any
    new_donors: str | None
    one_population: bool
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

    def changed(self, changes: Changes | None, **record: Any) -> Design:
        """With other changes of its cells."""
        changed = replace(self.request, changes=changes)
        return replace(self, request=changed, record=self.record | record)

    @property
    def changes(self) -> Changes:
        """Those of its cells."""
        return self.request.changes or Changes()


class Parts(NamedTuple):
    """The parts of a fitted model that a design needs."""

    schema: Schema
    genes: pd.DataFrame  # columns gene and seen
    generator: Generator


def designed(
    n: Any,
    where: Any,
    obs: Any,
    unseen: bool,
    keywords: Mapping[str, Any],
    model: Parts,
    options: SamplingOptions,
) -> Design:
    """The cells that `Synthesizer.sample` is asked for, with all that is designed into them.

    ``keywords`` are those of `DesignKeywords`.

    Raises
    ------
    RequestError
        A label, an effect or a value that cannot be used.
    """
    given = {name: value for name, value in keywords.items() if value is not None}
    for name in ("fixed_depth", "one_population", "mean"):
        if not isinstance(given.get(name, False), bool | np.bool_):
            raise RequestError(f"{name}: got {given[name]!r}; allowed are True and False")
    table, seed = obs, options.seed
    if "new_donors" in given:
        variation = DonorVariation(model.schema, model.generator.means, given["new_donors"])
        table, peers = variation.starts(obs, seed)
    cells = request(n, where, table, unseen, model.schema, seed)
    cells = replace(cells, with_mean=bool(given.get("mean", False)))
    design = Design(cells, {"where": model.schema.described(where)})
    if "to" in given:
        design = _relabelled(design, given["to"], model, options)
    if "new_donors" in given:
        design = _with_new_donors(design, variation, obs, peers, model, seed)
    if given.get("one_population", False):
        population = _population(design.request, model.generator, options)
        cells = replace(design.request, population=population)
        design = replace(design, request=cells, record=design.record | {"one_population": True})
    effects = check_effects(given.get("effects", []))
    if effects:
        design = _with_effects(design, effects, given.get("fixed_depth", False), model)
    if "depth" in given:
        depth = replace(design.changes, depth=Depth.of(given["depth"]))
        design = design.changed(depth, depth=np.asarray(given["depth"], dtype=float))
    if "artefacts" in given:
        design = _with_artefacts(design, given["artefacts"], model, seed)
    return design


def _relabelled(design: Design, to: Any, model: Parts, options: SamplingOptions) -> Design:
    """The same cells under other labels: their latent points are shifted by what these change."""
    fixed, schema, cells = check_transfer(to, model.schema), model.schema, design.request
    if model.generator.candidates(options) > 1:
        advice = "add post='off' (--post off)"
        raise RequestError(f"to: not with post-guidance, which would select other cells; {advice}")
    codes = cells.codes.copy()
    codes[:, list(fixed)] = list(fixed.values())
    others = {name: v for name, v in cells.columns.items() if name != seen_name(schema)}
    columns = {**others, **seen_column(codes, schema)}
    cells = replace(cells, codes=codes, origin=cells.codes, columns=columns)
    return replace(design, request=cells, record=design.record | {"to": schema.described(to)})


def _with_new_donors(
    design: Design,
    variation: DonorVariation,
    obs: pd.DataFrame,
    peers: Mapping[str, np.ndarray],
    model: Parts,
    seed: int,
) -> Design:
    cells, label, known = design.request, variation.label, variation.known(obs)
    if label in design.record.get("to", {}):
        raise RequestError(f"to: {label!r} is the label of the new donors; leave it out")
    texts = obs[label].astype(object).map(str, na_action="ignore").to_numpy()
    names = np.where(known, "", texts.astype(str))
    changes = replace(
        design.changes,
        latent_shifts=variation.latent_shifts(cells.codes, names, peers, seed),
        donor_weights=variation.profile_weights(names, peers, seed),
        donor_column=variation.column,
    )
    drawn = model.schema.frame(cells.codes)[label].astype(str).to_numpy()
    columns = {**cells.columns, label: pd.Categorical(np.where(known, drawn, texts))}
    key = digest_of(cells.key, list(names))
    cells = replace(cells, columns=columns, key=key)
    return replace(design, request=cells).changed(changes, new_donors=label)


def _population(
    cells: SamplingRequest, generator: Generator, options: SamplingOptions
) -> Population:
    """Normal distributions with the moments of latent points that are generated."""
    origin = cells.codes if cells.origin is None else cells.origin
    rows, of = unique_rows(np.concatenate([origin, cells.codes], axis=1))
    points = []
    for row in rows:
        before, after = (np.tile(part, (_POINTS, 1)) for part in np.split(row, 2))
        pages = generator.split(SamplingRequest(after, origin=before))
        latents = [generator.latents(page, options)[: len(page.codes)] for page in pages]
        points.append(torch.cat(latents).cpu().numpy())
    return Population.like(points, of)


def _with_effects(design: Design, effects: Any, fixed: bool, model: Parts) -> Design:
    obs = design.request.obs(slice(0, len(design.request.codes)), model.schema)
    found = fold_changes(effects, obs, model.genes)
    changes = replace(design.changes, effects=found.factors, fixed_depth=bool(fixed))
    columns = {**design.request.columns, IN_EFFECTS: found.numbers}
    cells = replace(design.request, columns=columns)
    design = replace(design, request=cells, gene_columns=gene_columns(effects, model.genes["gene"]))
    record = {"effects": effects_table(effects), "fixed_depth": bool(fixed)}
    return design.changed(changes, **record, genes=len(model.genes))


def _with_artefacts(design: Design, artefacts: Any, model: Parts, seed: int) -> Design:
    if not isinstance(artefacts, Artefacts):
        advice = "pass scld.Artefacts(doublets=0.05)"
        raise RequestError(f"artefacts: got {type(artefacts).__name__}; {advice}")
    profile = model.generator.autoencoder.mean_log_p.cpu().numpy()
    parts = (model.schema, model.genes, profile, seed)
    cells, droplets = with_droplets(artefacts, design.request, *parts)
    record = design.record | {"artefacts": artefacts.record()}
    return replace(design, request=cells, record=record, droplets=droplets)
