"""A fitted model: the generator, its labels and genes, and how it was trained."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from scld._version import __version__
from scld.config import Config
from scld.errors import RequestError, check_int, shown
from scld.generation.artefacts import with_artefacts
from scld.generation.batches import Assembly, Cells, resized
from scld.generation.design import Design, DesignKeywords, Parts, designed
from scld.generation.generator import Drawn, Generator
from scld.generation.options import SamplingKeywords, SamplingOptions, check_names
from scld.generation.request import SamplingRequest, digest_of
from scld.io import checkpoint
from scld.io.counts import LARGEST_COUNT, check_unique
from scld.machine import memory_left, size_text
from scld.progress import progress_bars
from scld.schema import Schema

if TYPE_CHECKING:
    from anndata import AnnData

_LONGEST_FIT = 1e10  # seconds: three hundred years
_COPIES = 2  # pages, and the matrix that they are joined to


@dataclass(frozen=True)
class FittedModel:
    """What a fit gives, and a checkpoint holds.

    Parameters
    ----------
    generator
        Labels to counts.
    schema
        The labels, their categories and frequencies in training.
    genes
        Columns ``gene``, ``seen`` (whether training saw a count of it), and text columns of var.
    history
        What training did, as plain values.
    config, seed
        Of the fit.
    """

    generator: Generator
    schema: Schema
    genes: pd.DataFrame
    history: dict[str, Any]
    config: Config
    seed: int

    @property
    def size(self) -> str:
        """Cells and genes of training, in words."""
        return f"{self.history['cells']:,} cells x {len(self.genes):,} genes"

    def options(self, keywords: Mapping[str, Any], strength: float = 1.0) -> SamplingOptions:
        """Validated keywords of `Synthesizer.sample`, for this model."""
        names, settings = self.schema.names, self.config.sampling
        options = SamplingOptions.of(keywords, names, settings, strength)
        if options.candidates > 1 and self.generator.discriminator is None:
            advice = "leave post out, or fit again with it (docs/method.md: scld fit --post select)"
            raise RequestError(f"post: this model was fitted without post-guidance; {advice}")
        return options

    def expected_counts(self, where: Mapping[str, object]) -> pd.Series:
        """Expected counts by seen gene, in a mean cell of the categories of labels in ``where``."""
        autoencoder, sizes = self.generator.autoencoder, self.schema.sizes
        log_p = autoencoder.mean_log_p.cpu().numpy().astype(float)
        profiles = autoencoder.profiles.cpu().numpy()
        labels = {name: values for name, values in where.items() if name in self.schema.names}
        for column, codes in self.schema.fixed(labels).items():
            own = profiles[sum(sizes[:column]) :][codes]
            log_p = log_p + np.log(np.exp(own).mean(axis=0))
        shares = np.exp(log_p) / np.exp(log_p).sum()
        counts = shares * float(autoencoder.library_mean.exp())
        return pd.Series(counts, index=self.genes["gene"][self.genes["seen"]])

    def save(self, path: Path, overwrite: bool) -> None:
        """Write a checkpoint directory: see `scld.io.checkpoint`."""
        manifest = {
            "scld_version": __version__,
            "config": self.config.to_dict(),
            "seed": self.seed,
            "training": self.history,
        }
        parts = self.generator.parts()
        content = checkpoint.Checkpoint(manifest, self.schema.to_json(), self.genes, parts)
        checkpoint.write(path, content, overwrite)

    @classmethod
    def load(cls, path: Path, device: torch.device) -> FittedModel:
        """Read a checkpoint directory; `CheckpointError` if its parts do not fit each other."""
        saved = checkpoint.read(path)
        try:
            schema = Schema.from_json(saved.schema)
            config = Config.from_dict(saved.manifest["config"])
            seen = int(saved.genes["seen"].sum())
            generator = Generator.from_parts(saved.parts, schema, seen, config, device)
            history = _validated_history(saved.manifest["training"])
            check_unique(pd.Index(saved.genes["gene"]), checkpoint.GENES)
            seed = check_int("seed", saved.manifest["seed"], 0)
            return cls(generator, schema, saved.genes, history, config, seed)
        except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise checkpoint.damaged(path, str(error)) from error

    def design(
        self,
        n: Any,
        where: Mapping[str, object] | None,
        obs: Any,
        unseen: bool,
        keywords: Mapping[str, Any],
    ) -> tuple[Design, SamplingOptions]:
        """What `Synthesizer.sample` is asked for, validated."""
        names = list(DesignKeywords.__annotations__)
        check_names(keywords, [*SamplingKeywords.__annotations__, *names])
        own = {name: keywords[name] for name in names if name in keywords}
        options = self.options({k: v for k, v in keywords.items() if k not in own})
        model = Parts(self.schema, self.genes, self.generator)
        return designed(n, where, obs, unseen, own, model, options), options

    @cached_property
    def digest(self) -> str:
        """Distinguishes models: by what they learnt from, and what their training found."""
        losses = [self.history[name]["validation"] for name in ("autoencoder", "denoiser")]
        learnt = [self.schema.to_json(), self.genes["gene"].tolist(), self.genes["seen"].tolist()]
        settings = {k: v for k, v in self.config.to_dict().items() if k != "sampling"}
        return digest_of(learnt, list(map(list, losses)), settings, self.seed)

    def _named(self, design: Design, options: SamplingOptions) -> Design:
        """With names that no cell of another model, seed or request has.

        Twins, and the first cells of a larger request, are the same cells, and named the same.
        """
        how = [options.weights, options.interval, options.sigmas.tolist()]
        device = self.generator.centre.device.type
        candidates = self.generator.candidates(options)
        digest = digest_of(self.digest, design.request.key, how, candidates, device)
        request = replace(design.request, prefix=f"scld_{digest[:8]}_{options.seed}")
        return replace(design, request=request)

    def sample(self, design: Design, options: SamplingOptions) -> AnnData:
        """All cells of a request in one AnnData."""
        self._warn_of_memory(design)
        design = self._named(design, options)
        cells = Cells.joined(self._pages(design, options))
        return self._assembly(design, options).assemble(cells, design.request, 0)

    def _warn_of_memory(self, design: Design) -> None:
        """Say so before cells are generated that would fill half of the memory that is left."""
        expected = 1 - np.exp(-self.expected_counts({}))  # counts that are not zero, at most
        each = _COPIES * 8 * float(expected.sum())
        each += 4 * len(self.genes) * design.request.with_mean * _COPIES
        size, left = each * len(design.request.codes), memory_left()
        if left is not None and size > left / 2:
            seen = f"the cells take about {size_text(size)} of {size_text(left)} of memory"
            advice = "stream(...) gives them in batches, scld.generate_shards writes them to disk"
            warnings.warn(f"{seen}; {advice}", stacklevel=4)

    def stream(
        self, design: Design, options: SamplingOptions, batch_size: int
    ) -> Iterator[AnnData]:
        """The same cells in batches."""
        design = self._named(design, options)
        assembly, first = self._assembly(design, options), 0
        for cells in resized(self._pages(design, options), batch_size):
            yield assembly.assemble(cells, design.request, first)
            first += cells.counts.shape[0]

    def _pages(self, design: Design, options: SamplingOptions) -> Iterator[Drawn]:
        def pages(request: SamplingRequest) -> Iterator[Drawn]:
            return self.generator.pages(request, options)

        droplets, cells = design.droplets, design.request
        every = pages(cells) if droplets is None else with_artefacts(cells, droplets, pages)
        with progress_bars(options.progress) as bar:
            update, done = bar("sample", len(cells.codes)), 0
            for page in every:
                done += page.counts.shape[0]
                update(done, "")
                yield _capped(page)

    def _assembly(self, design: Design, options: SamplingOptions) -> Assembly:
        settings = {
            "version": __version__,
            "seed": options.seed,
            "steps": len(options.sigmas) - 1,
            "guidance": dict(zip(self.schema.names, options.weights, strict=True)),
            "guidance_interval": list(options.interval),
            "candidates": self.generator.candidates(options),
        }
        return Assembly(self.genes, self.schema, settings | design.record, design.gene_columns)


def _capped(page: Drawn) -> Drawn:
    """With counts that are read again: of larger ones float32 does not hold every integer."""
    values = page.counts.data
    if not len(values) or values.max() <= LARGEST_COUNT:
        return page
    parts = (np.minimum(values, LARGEST_COUNT), page.counts.indices, page.counts.indptr)
    return page._replace(counts=sp.csr_matrix(parts, shape=page.counts.shape))


def _validated_history(history: dict[str, Any]) -> dict[str, Any]:
    """The training history; `KeyError`, `TypeError` or `ValueError` if something is wrong."""
    check_int("cells", history["cells"], 1)
    for network in ("autoencoder", "denoiser"):
        part = history[network]
        intervals, seconds = len(part["validation"]), part["seconds"]
        check_int("steps", part["steps"], 0)
        check_int("best_interval", part["best_interval"], 0, intervals - 1)
        if not isinstance(seconds, int | float) or not 0 <= seconds < _LONGEST_FIT:
            raise ValueError(f"seconds: got {shown(seconds)}")
    return history


def torch_device(name: str) -> torch.device:
    """``"auto"``, ``"cpu"`` or ``"cuda"`` -> a device that works here; else `RequestError`."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    allowed = "allowed are 'auto', 'cpu' and, with a GPU and a torch built for it, 'cuda'"
    try:
        device = torch.device(name)
        if device.type in ("cpu", "cuda"):
            return torch.zeros(1, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:
        raise RequestError(f"device: {name!r} cannot be used here; {allowed}") from error
    raise RequestError(f"device: {name!r} is not supported; {allowed}")
