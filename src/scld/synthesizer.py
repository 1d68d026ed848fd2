"""The Synthesizer: fit, sample, stream, encode, augment, transfer, save, load."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import pandas as pd

from scld.config import Config
from scld.errors import NotFittedError, check_int, listed
from scld.generation import editing
from scld.generation.design import Design, SampleKeywords
from scld.generation.donors import DonorVariation
from scld.generation.effects import Effect, random_effect
from scld.generation.fitted import FittedModel, torch_device
from scld.generation.options import SamplingKeywords
from scld.generation.request import request_table
from scld.io.read import Source, read
from scld.schema import Schema, label_names
from scld.training.fit import fit_model

if TYPE_CHECKING:
    from anndata import AnnData


class Synthesizer:
    """Learns labelled cells and generates synthetic ones.

    Parameters
    ----------
    labels
        obs columns to condition on: any number, or none.
    config
        Settings; the defaults if None.
    seed
        Seed of the fit.
    device
        ``"auto"`` (a GPU if there is one), ``"cpu"`` or ``"cuda"``.

    Examples
    --------
    >>> import scld
    >>> synth = scld.Synthesizer("cell_type", config=scld.Config.preset("quick"))
    >>> synth.fit(scld.datasets.pbmc(), progress=False)
    Synthesizer(labels=['cell_type'], fitted on 2,501 cells x 2,000 genes)
    >>> synth.sample(5, where={"cell_type": "NK cell"}, progress=False).shape
    (5, 2000)
    """

    def __init__(
        self,
        labels: Sequence[str] | str = (),
        *,
        config: Config | None = None,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        self.labels = label_names(labels)
        self.config = config or Config()
        self.seed = check_int("seed", seed, 0)
        self.device = torch_device(device)
        self._model: FittedModel | None = None

    def __repr__(self) -> str:
        fitted = "not fitted" if self._model is None else f"fitted on {self._model.size}"
        return f"Synthesizer(labels={self.labels}, {fitted})"

    def _repr_html_(self) -> str:
        """What it is, what it was fitted on, and the next step, for a notebook."""
        if self._model is None:
            about = f"Synthesizer, not fitted; labels: {listed(self.labels) or 'none'}."
            return _in_html(about, [], "synth.fit(adata)")
        about = f"Synthesizer, fitted on {self._model.size} with seed {self.seed}."
        labels = self.schema.labels
        cells = {label.name: self.schema.category_cells(label.name) for label in labels}
        rows = [
            (name, listed([f"{c} ({n:,})" for c, n in of.items()])) for name, of in cells.items()
        ]
        where = f", where={{{labels[0].name!r}: {labels[0].categories[0]!r}}}" if labels else ""
        return _in_html(about, rows, f"synth.sample(1000{where})")

    @property
    def schema(self) -> Schema:
        """The labels, their categories and frequencies in training."""
        return self._fitted.schema

    @property
    def genes(self) -> pd.DataFrame:
        """Columns ``gene``, ``seen`` (whether training saw a count), and text columns of var."""
        return self._fitted.genes

    @property
    def summary(self) -> dict[str, Any]:
        """What training did: number of cells, and the history of each network."""
        return self._fitted.history

    def fit(
        self,
        source: Source | Sequence[Source],
        *,
        layer: str | None = None,
        genes: str = "same",
        stream: bool | None = None,
        devices: int = 1,
        nodes: int = 1,
        checkpoint: str | Path | None = None,
        overwrite: bool = False,
        progress: bool = True,
    ) -> Synthesizer:
        """Learn from raw counts; return itself.

        Parameters
        ----------
        source
            An AnnData, the path of an ``.h5ad`` file, of a ``.zarr`` store or of shards, or a list
            of these: an atlas in pieces, whose genes are aligned by name.
        layer
            The layer that holds the raw counts, or ``"raw"`` for ``adata.raw``; ``X`` if None.
        genes
            If the genes of several sources differ: ``"same"`` refuses them, ``"intersection"``
            takes those that all have.
        stream
            Whether the counts are copied to disk and read from there, so that memory does not grow
            with the number of counts. The model is the same. None: if they would take more than
            half of the memory that is left. The copy lies beside ``checkpoint``, or in the folder
            for temporary files, and takes 8 bytes for each count that is not zero.
        devices, nodes
            Processes on each machine, one per GPU if there are GPUs, and machines. They share every
            batch (docs/scale.md). Processes that are not there yet are started, and run the script
            from its beginning.
        checkpoint
            Where to save the model. An interrupted fit continues when it is called again.
        overwrite
            Whether what is already there may be replaced.
        progress
            Whether to show progress and the memory needed on standard error.

        Raises
        ------
        DataError
            The source, its counts or its labels cannot be used.
        RequestError
            Too little memory is left, or ``checkpoint`` cannot be written.
        """
        target = None if checkpoint is None else Path(checkpoint).expanduser()
        cells = (source, layer, genes, stream, devices, nodes)
        settings = (self.labels, self.config, self.seed, self.device)
        self._model = fit_model(*cells, *settings, target, overwrite, progress)
        return self

    def sample(
        self,
        n: int | None = None,
        *,
        where: Mapping[str, object] | None = None,
        obs: pd.DataFrame | None = None,
        unseen: bool = False,
        **options: Unpack[SampleKeywords],
    ) -> AnnData:
        """Generate synthetic cells.

        Parameters
        ----------
        n
            Number of cells; not with ``obs``.
        where
            Labels to condition on: ``{"cell_type": "plasma cell"}``, or a list of categories.
            Unspecified labels follow their training frequencies given these.
        obs
            A table with one row per cell and one column per label. What is missing is drawn as
            above. Unseen combinations are always allowed here. Other columns are kept, and an
            index of text as names of the cells.
        unseen
            Whether ``where`` may ask for a combination of labels that training did not have: the
            nearest one is shifted in latent space (docs/method.md).
        guidance
            Classifier-free guidance weight, one number or one per label; 1 conditions on the
            labels, more exaggerates them. Library sizes are not guided.
        guidance_interval
            Noise levels ``(low, high)`` between which that weight holds; outside it is 1
            (Kynkaanniemi et al., arXiv:2404.07724).
        post
            Post-guidance: ``"select"`` generates several candidates per cell and selects one by its
            odds of being real, ``"off"`` does not. A model selects if it was fitted with
            ``Config.from_dict({"sampling": {"post": "select"}})``.
        steps
            Steps of the solver.
        seed
            Same seed, same cells, for any number of threads. None: a new seed each time, recorded
            in ``uns["scld"]["seed"]``.
        progress
            Whether to show progress on standard error.
        effects
            A list of `Effect`: log2 fold changes of chosen genes in the cells that match. The
            effects are recorded in ``uns["scld"]["effects"]`` and in var.
        fixed_depth
            Whether effects leave the total expected counts of a cell as they are. Otherwise they
            leave those of every other gene as they are.
        to
            Labels to change after latent points were generated: the same cells under
            another donor, batch or condition. Points are shifted as by `transfer`.
        depth
            Another sequencing depth: a factor, or the total counts of cells to be like. Up to a
            factor of 1, each molecule is kept with this probability.
        new_donors
            The label of donors: categories of ``obs`` that training did not have are new donors,
            drawn from the variation between those of training (docs/truth.md).
        one_population
            Whether the latent points of each combination of labels come from one normal
            distribution: a population that a clustering should not split.
        artefacts
            `Artefacts`: doublets, ambient RNA, empty droplets, with their truth in obs.
        mean
            Whether the expected counts of each cell, without artefacts, go into ``layers["mean"]``,
            dense float32. `truth` reads them.

        Returns
        -------
        AnnData
            Raw counts (CSR) in all genes of training, with the text columns of var, labels as
            categoricals, a column ``synthetic``, and settings in ``uns["scld"]``. A column
            ``seen_in_training`` if any combination is unseen. Cells of different calls have
            different names.

        Notes
        -----
        With the same seed and cells, calls with other ``effects``, ``to`` and ``depth`` give twins:
        the same cells, by name. Genes whose expected counts agree have the same counts.

        Raises
        ------
        RequestError
            An unknown label or category, a combination without training cells unless ``unseen``,
            a value out of range.
        """
        return self._fitted.sample(*self._fitted.design(n, where, obs, unseen, options))

    def random_effect(
        self,
        n: int,
        size: float | tuple[float, float] = (0.5, 2.0),
        *,
        where: Mapping[str, object] | None = None,
        least: float = 0.1,
        seed: int = 0,
    ) -> Effect:
        """An `Effect` on random genes, every other one down.

        Parameters
        ----------
        n
            Number of genes.
        size
            Absolute log2 fold change, or the ends of an interval that sizes are spread over.
        where
            As for `Effect`.
        least
            Only genes with at least so many expected counts in a cell with the mean library size of
            training, and the mean expression of the categories in ``where``.
        seed
            Same seed and ``where``, same genes and sizes.

        Raises
        ------
        RequestError
            More genes than there are, a size out of range.

        Examples
        --------
        >>> effect = synth.random_effect(3, 1.0, where={"cell_type": "NK cell"})
        >>> list(effect.log2fc.values())
        [1.0, -1.0, 1.0]
        """
        expected = self._fitted.expected_counts(where or {})
        options: dict[str, Any] = {"where": where or {}, "sizes": size, "least": least}
        return random_effect(n, expected, **options, seed=check_int("seed", seed, 0))

    def donor_table(
        self,
        donors: int,
        cells: int,
        *,
        label: str = "donor",
        where: Mapping[str, object] | None = None,
        name: str = "new",
        seed: int = 0,
    ) -> pd.DataFrame:
        """A table for ``sample(obs=..., new_donors=label)``: the cells of new donors.

        The composition of each donor, that is, the shares of the other labels, is drawn from the
        variation between the donors of training.

        Parameters
        ----------
        donors
            Number of donors.
        cells
            Cells of each.
        label
            The label of donors.
        where
            Categories of other labels to stay within. If each donor of training has only one
            condition, name it here, and make a table of each condition.
        name
            Of the donors: ``new_1``, ``new_2``, ...
        seed
            The same as that of `sample`, for donors whose composition and expression go together.

        Raises
        ------
        RequestError
            Fewer than three donors in training, or fewer than two with the same other labels; an
            unknown label or category.
        """
        model = self._fitted
        variation = DonorVariation(model.schema, model.generator.means, label)
        return variation.table(donors, cells, where, name, check_int("seed", seed, 0))

    def stream(
        self,
        n: int | None = None,
        *,
        where: Mapping[str, object] | None = None,
        obs: pd.DataFrame | None = None,
        unseen: bool = False,
        batch_size: int = 4096,
        **options: Unpack[SampleKeywords],
    ) -> Iterator[AnnData]:
        """Generate the cells of `sample` in batches of ``batch_size``, in bounded memory.

        >>> [batch.n_obs for batch in synth.stream(5, batch_size=2, progress=False)]
        [2, 2, 1]
        """
        size = check_int("batch_size", batch_size, 1)
        return self._fitted.stream(*self._fitted.design(n, where, obs, unseen, options), size)

    def encode(self, source: Source, *, layer: str | None = None) -> np.ndarray:
        """Latent points ``[cells, latent]`` of real cells, for ``adata.obsm["X_scld"]``.

        They are standardised posterior means, float32, without the library size. ``source`` has raw
        counts with the genes of training, in any order.

        >>> synth.encode(scld.datasets.pbmc()[:3]).shape
        (3, 32)
        """
        counts = editing.matched_counts(read(source, layer), self.genes)
        return self._fitted.generator.encode(counts)[:, :-1]

    def augment(
        self,
        source: Source,
        label: str,
        to: int | str | Mapping[Any, int],
        *,
        layer: str | None = None,
        **options: Unpack[SamplingKeywords],
    ) -> AnnData:
        """Oversample rare categories of real cells with synthetic ones.

        Parameters
        ----------
        source, layer
            As for `fit`, with the genes of training in any order.
        label
            The label whose categories are oversampled. Other labels are drawn as by `sample`.
        to
            Smallest number of cells of every category in ``source``; ``"balance"`` for that of the
            largest; or a dict of category and number.
        **options
            As for `sample`: guidance, guidance_interval, post, steps, seed, progress.

        Returns
        -------
        AnnData
            The real cells, then the synthetic ones, marked in the boolean column ``synthetic``.
            Their other obs columns are missing; layers, raw, embeddings and uns are not kept.

        Examples
        --------
        >>> more = synth.augment(scld.datasets.pbmc(), "cell_type", to=100, progress=False)
        >>> int(more.obs["cell_type"].value_counts().min())
        100
        """
        checked, adata = self._fitted.options(options), read(source, layer)
        editing.matched_counts(adata, self.genes)
        table = editing.shortfall(adata, label, to, self.schema)
        if not len(table):
            return editing.appended(adata, None, self.schema)
        cells = Design(request_table(table, self.schema, checked.seed))
        return editing.appended(adata, self._fitted.sample(cells, checked), self.schema)

    def transfer(
        self,
        source: Source,
        to: Mapping[str, object],
        *,
        strength: float | None = None,
        layer: str | None = None,
        **options: Unpack[SamplingKeywords],
    ) -> AnnData:
        """Generate the same cells under other labels, for example as if they were stimulated.

        Each cell is encoded, shifted in latent space by the mean difference between its labels,
        noised in part and denoised under the new labels (SDEdit: Meng et al., arXiv:2108.01073).

        Parameters
        ----------
        source, layer
            As for `fit`, with the genes of training in any order. A missing or unknown category of
            a label in ``to`` counts as the one with the nearest mean.
        to
            Labels to change, and their new categories: ``{"condition": "stimulated"}``.
        strength
            Share of the noise schedule, from 0.001 to 1. At 1 nothing but the other labels is kept,
            as if by `sample` with a table.
        **options
            As for `sample`: guidance, guidance_interval, post, steps, seed, progress.

        Returns
        -------
        AnnData
            As from `sample`, one cell per cell of ``source``, with its name after a prefix and,
            below strength 1, its expected library size.

        Examples
        --------
        >>> cells, to = scld.datasets.pbmc()[:2], {"cell_type": "NK cell"}
        >>> synth.transfer(cells, to, progress=False).obs["cell_type"].tolist()
        ['NK cell', 'NK cell']
        """
        model, config = self._fitted, self.config.sampling
        checked = self._fitted.options(
            options, config.transfer_strength if strength is None else strength
        )
        editing.check_transfer(to, model.schema)
        parts = (model.generator, model.schema, model.genes)
        cells = editing.transfer_request(read(source, layer), to, checked, *parts)
        asked = {"to": model.schema.described(to), "strength": checked.strength}
        return model.sample(Design(cells, asked), checked)

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Save to a checkpoint directory of JSON, CSV and safetensors."""
        self._fitted.save(Path(path).expanduser(), overwrite)

    @classmethod
    def load(cls, path: str | Path, *, device: str = "auto") -> Synthesizer:
        """Load a checkpoint directory; `CheckpointError` if it is missing or damaged."""
        model = FittedModel.load(Path(path).expanduser(), torch_device(device))
        synth = cls(model.schema.names, config=model.config, seed=model.seed, device=device)
        synth._model = model
        return synth

    @property
    def _fitted(self) -> FittedModel:
        if self._model is None:
            advice = "call fit(source), or scld.load(path) for a fitted one"
            raise NotFittedError(f"this Synthesizer is not fitted yet; {advice}")
        return self._model


def _in_html(about: str, rows: list[tuple[str, str]], call: str) -> str:
    cells = [f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in rows]
    table = f"<table>{''.join(cells)}</table>" if cells else ""
    return f"<p>{escape(about)}</p>{table}<p>Next: <code>{escape(call)}</code></p>"


load = Synthesizer.load
