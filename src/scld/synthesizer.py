"""The Synthesizer: fit, sample, stream, edit, save, load. The only file that knows all the parts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from torch import nn

from scld import __version__
from scld import checkpoint as disk
from scld.autoencoder import Autoencoder
from scld.config import Config
from scld.cost import cost
from scld.critic import Critic
from scld.data import count_matrix, read
from scld.denoiser import Denoiser
from scld.edit import Cells, Fitted, appended, between, matched, shortfall, transferred
from scld.errors import DataError, RequestError
from scld.fitting import Fit
from scld.generator import Generator, Plan
from scld.progress import bars, note
from scld.request import Wanted, plan_of, wanted, whole
from scld.schema import Schema
from scld.selector import Selector
from scld.shift import Means

if TYPE_CHECKING:
    from anndata import AnnData

FEWEST_CELLS = 20
_PIECE = 4096  # cells made at a time


class Synthesizer:
    """Learns labelled cells and writes new ones.

    Parameters
    ----------
    labels
        obs columns to steer by: any number, none too.
    config
        Settings; the defaults if None.
    seed
        Of the fit.
    device
        ``"auto"`` (a GPU where there is one), ``"cpu"``, ``"cuda"``, ...

    Examples
    --------
    >>> import scld
    >>> quick = {"rounds": 2, "steps": 10, "epochs": 1}
    >>> trainings = dict.fromkeys(["autoencoder_training", "denoiser_training", "critic_training"], quick)
    >>> config = scld.Config.from_dict({**trainings, "selector": {"most_cells": 200}})
    >>> synth = scld.Synthesizer(labels=["cell_type"], config=config).fit(scld.datasets.pbmc(), progress=False)
    >>> synth.sample(5, where={"cell_type": "NK cell"}, progress=False).shape
    (5, 2000)
    """

    schema: Schema  # the labels, their categories and frequencies in training
    genes: pd.DataFrame  # columns gene and seen: whether training saw a count of it
    summary: dict[str, Any]  # what training did

    def __init__(self, labels: Sequence[str] | str = (), *, config: Config | None = None, seed: int = 0, device: str = "auto") -> None:
        self.labels = [labels] if isinstance(labels, str) else list(labels)
        self.config = config or Config()
        self.seed = whole("seed", seed, 0)
        self.device = _device(device)
        self._generator: Generator | None = None

    def fit(
        self, source: AnnData | str | Path, *, layer: str | None = None, checkpoint: str | Path | None = None, overwrite: bool = False, progress: bool = True
    ) -> Synthesizer:
        """Learn from raw counts.

        Parameters
        ----------
        source
            An AnnData, or the path of an ``.h5ad`` file or ``.zarr`` store.
        layer
            The layer that holds the raw counts; ``X`` if None.
        checkpoint
            Where to save the fitted model. A fit that was interrupted goes on from there when it is called again.
        overwrite
            Whether what is already in that place may be replaced.
        progress
            Whether to show, on standard error, what the fit will take (see `scld.cost`) and its progress.

        Returns
        -------
        Synthesizer
            Itself.

        Raises
        ------
        DataError
            The source, its counts or its labels cannot be used.
        """
        target = None if checkpoint is None else Path(checkpoint).expanduser()
        if target is not None and not (target / disk.RESUME).exists():
            disk.check_output(target, overwrite)
        adata = read(source, layer)
        counts = count_matrix(adata)
        if counts.shape[0] < FEWEST_CELLS:
            raise DataError(f"X: {counts.shape[0]} cells; a fit needs at least {FEWEST_CELLS}: pass more cells")
        self.schema, self._generator = Schema.of(adata.obs, self.labels), None
        self.genes = pd.DataFrame({"gene": adata.var_names.astype(str), "seen": np.asarray(counts.sum(axis=0)).ravel() > 0})
        codes = self.schema.codes(adata.obs)
        resume = None if target is None else disk.resume_folder(target, self._run(counts, codes), overwrite)
        seen = counts[:, self.genes["seen"].to_numpy()]
        fit = Fit(seen, codes, self.schema.sizes, self.config, self.seed, self.device, resume)
        if progress:
            note(f"fit: {counts.shape[0]:,} cells x {counts.shape[1]:,} genes: {cost(fit)}")
        with bars(progress) as bar:
            self._generator, self.summary = replace(fit, bar=bar).run()
        if target is not None:
            self.save(target, overwrite=True)
        return self

    def _run(self, counts: sp.csr_matrix, codes: np.ndarray) -> str:
        """Tells one fit from another, so that none resumes from a stranger's state."""
        data = [hashlib.sha256(np.ascontiguousarray(part).data).hexdigest() for part in (counts.data, counts.indices, counts.indptr, codes)]
        return json.dumps([__version__, self.seed, self.config.to_dict(), counts.shape, data, self.schema.to_json()])

    def sample(
        self,
        n: int | None = None,
        *,
        where: Mapping[str, object] | None = None,
        obs: pd.DataFrame | None = None,
        unseen: bool = False,
        guidance: float | Mapping[str, float] | None = None,
        guidance_interval: tuple[float, float] | None = None,
        post: str | None = None,
        steps: int | None = None,
        seed: int = 0,
        progress: bool = True,
    ) -> AnnData:
        """Write new cells.

        Parameters
        ----------
        n
            Number of cells; not with ``obs``.
        where
            Labels to fix: ``{"cell_type": "plasma cell"}``, or a list of categories to draw from. Labels left out follow
            their training frequencies given these.
        obs
            One cell a row: a table with a column a label. What is left out or missing is drawn as above. Combinations
            that training never saw can always be asked for here.
        unseen
            Whether ``where`` may ask for a combination that training never saw. Its cells are those of the nearest one it saw, moved by
            what the label that differs shifts in other contexts (`scld.shift`). Labels left out then follow the training cells that
            have most of what is fixed.
        guidance
            Classifier-free guidance weight, one for all labels or one a label; 1 follows the labels, more exaggerates.
        guidance_interval
            Noise levels ``(low, high)``, above and up to which that weight holds; outside them it is 1. Guidance at middle
            levels alone keeps more of the variety (Kynkaanniemi et al., arXiv:2404.07724).
        post
            Post-guidance by critics that learnt to tell real cells from generated ones: ``"select"`` chooses among several finished cells
            by their odds of being real, ``"correct"`` follows the gradient of these odds while denoising, ``"both"``, or ``"off"``.
        steps
            Solver steps.
        seed
            Same seed, same cells, whatever the number of threads.
        progress
            Whether to show progress on standard error.

        Returns
        -------
        AnnData
            Raw counts (CSR), labels as categoricals with the training categories, genes in training order,
            ``uns["scld"]`` with version, seed and settings. If any combination of labels was not in training, a boolean column
            ``seen_in_training`` says of each cell whether its own was (``seen_in_training_`` where a label has that name).

        Raises
        ------
        RequestError
            An unknown label or category, a combination without training cells unless ``unseen``, ``n`` below 1.
        """
        how = {"guidance": guidance, "guidance_interval": guidance_interval, "post": post, "steps": steps, "seed": seed, "progress": progress}
        return _whole(self.stream(n, where=where, obs=obs, unseen=unseen, **how))  # type: ignore[arg-type]

    def stream(
        self,
        n: int | None = None,
        *,
        where: Mapping[str, object] | None = None,
        obs: pd.DataFrame | None = None,
        unseen: bool = False,
        guidance: float | Mapping[str, float] | None = None,
        guidance_interval: tuple[float, float] | None = None,
        post: str | None = None,
        steps: int | None = None,
        seed: int = 0,
        batch_size: int = _PIECE,
        progress: bool = True,
    ) -> Iterator[AnnData]:
        """Write the cells of `sample` piece by piece, ``batch_size`` cells each, in bounded memory.

        Examples
        --------
        >>> import scld
        >>> quick = {"rounds": 1, "steps": 1, "epochs": 1}
        >>> trainings = dict.fromkeys(["autoencoder_training", "denoiser_training", "critic_training"], quick)
        >>> config = scld.Config.from_dict({**trainings, "selector": {"most_cells": 200}})
        >>> synth = scld.Synthesizer(config=config).fit(scld.datasets.pbmc(), progress=False)
        >>> [piece.n_obs for piece in synth.stream(5, batch_size=2, progress=False)]
        [2, 2, 1]
        """
        self._require_fit()
        batch_size = whole("batch_size", batch_size, 1)
        plan = plan_of(guidance, steps, seed, self.labels, self.config.sampling, guidance_interval, post)
        cells = wanted(n, where, obs, self.schema, plan.seed, unseen)
        return self._pieces(cells, plan, self._settings(plan, where=dict(where or {})), batch_size, progress)

    def _settings(self, plan: Plan, **request: object) -> dict[str, Any]:
        settings = {
            "version": __version__,
            "seed": plan.seed,
            "steps": len(plan.sigmas) - 1,
            "guidance": json.dumps(dict(zip(self.labels, plan.weights, strict=True))),
            "guidance_interval": json.dumps(plan.interval),
            "correction": plan.correction,
            "candidates": plan.candidates,
        }
        return settings | {name: json.dumps(value, default=str) for name, value in request.items()}

    def _pieces(self, cells: Wanted, plan: Plan, settings: dict[str, Any], size: int, progress: bool) -> Iterator[AnnData]:
        import anndata as ad

        var, seen = pd.DataFrame(index=self.genes["gene"].to_numpy()), np.flatnonzero(self.genes["seen"])
        start, ready = 0, sp.csr_matrix(np.zeros((0, len(seen)), np.float32))
        with bars(progress) as bar:
            update = bar("sample", len(cells.codes))
            for page in self._require_fit().pages(cells.codes, plan, cells.start):
                ready = sp.csr_matrix(sp.vstack([ready, page], format="csr"))
                while ready.shape[0] >= size or (ready.shape[0] and start + ready.shape[0] == len(cells.codes)):
                    piece, ready = ready[:size], ready[size:]
                    stop = start + piece.shape[0]
                    matrix = sp.csr_matrix((piece.data, seen[piece.indices].astype(np.int32), piece.indptr), shape=(stop - start, len(var)))
                    update(stop, "")
                    yield ad.AnnData(X=matrix, obs=cells.obs(slice(start, stop), self.schema), var=var.copy(), uns={"scld": dict(settings)})
                    start = stop

    def augment(
        self,
        source: Cells,
        label: str,
        to: int | str | Mapping[Any, int],
        *,
        layer: str | None = None,
        guidance: float | Mapping[str, float] | None = None,
        guidance_interval: tuple[float, float] | None = None,
        post: str | None = None,
        steps: int | None = None,
        seed: int = 0,
        progress: bool = True,
    ) -> AnnData:
        """Top rare categories of real cells up with new ones.

        Parameters
        ----------
        source
            Raw counts with the genes of training, in any order: an AnnData, or the path of an ``.h5ad`` file or ``.zarr`` store.
        label
            The label whose categories are topped up. Other labels of new cells follow their training frequencies given it.
        to
            Number of cells that every category of ``source`` is to have at least; ``"balance"`` for that of the largest; or a
            number for each category named.
        layer
            The layer of ``source`` that holds the raw counts; ``X`` if None.
        guidance, guidance_interval, post, steps, seed, progress
            As for `sample`.

        Returns
        -------
        AnnData
            The original cells first, their counts, obs columns and genes as they were; then the new ones, which miss what is not a
            label. The boolean obs column ``synthetic`` tells them apart; cells that came with it keep theirs. Columns that get gaps
            are kept in kinds that may have them: pandas' nullable integers and booleans, categoricals for text. Layers, embeddings
            and the like are left behind.

        Raises
        ------
        DataError
            Not raw counts, other genes, a cell without this label or with a category that training did not have.
        RequestError
            ``label`` is not one of the model's, ``to`` is none of the above.

        Examples
        --------
        >>> import scld
        >>> quick, cells = {"rounds": 1, "steps": 1, "epochs": 1}, scld.datasets.pbmc()
        >>> trainings = dict.fromkeys(["autoencoder_training", "denoiser_training", "critic_training"], quick)
        >>> config = scld.Config.from_dict({**trainings, "selector": {"most_cells": 200}})
        >>> synth = scld.Synthesizer("cell_type", config=config).fit(cells, progress=False)
        >>> more = synth.augment(cells, "cell_type", to=100, progress=False)
        >>> int(more.obs["cell_type"].value_counts().min())
        100
        """
        self._require_fit()
        adata = read(source, layer)
        matched(adata, self.genes)
        table = shortfall(adata, label, to, self.schema)
        how = {"guidance": guidance, "guidance_interval": guidance_interval, "post": post, "steps": steps, "seed": seed, "progress": progress}
        return appended(adata, self.sample(obs=table, **how) if len(table) else None, self.schema)  # type: ignore[arg-type]

    def transfer(
        self,
        source: Cells,
        to: Mapping[str, object],
        *,
        strength: float | None = None,
        layer: str | None = None,
        guidance: float | Mapping[str, float] | None = None,
        guidance_interval: tuple[float, float] | None = None,
        post: str | None = None,
        steps: int | None = None,
        seed: int = 0,
        progress: bool = True,
    ) -> AnnData:
        """Write the same cells under other labels: what would this cell be, had it been stimulated?

        Each cell is encoded, moved in latent space by the mean difference between its old labels and the new ones (`scld.shift`), noised part of
        the way, and denoised under its new labels (Meng et al., SDEdit, arXiv:2108.01073).

        Parameters
        ----------
        source
            Raw counts with the genes of training, in any order: an AnnData, or the path of an ``.h5ad`` file or ``.zarr`` store. Labels
            that are missing are left open. A cell whose own category of a label in ``to`` is missing, or was not in training, counts as of the
            one whose mean is nearest.
        to
            The labels to change, and the category each is to have: ``{"condition": "stimulated"}``.
        strength
            Above 0, up to 1: how far up the noise levels a cell is taken, and so how little is kept of it: 1 starts from pure noise and keeps
            nothing of a cell but its other labels, as `sample` with a table does. The change itself arrives at any strength, unless no
            context in training has both categories: then only as much as the strength lets through.
        layer
            The layer of ``source`` that holds the raw counts; ``X`` if None.
        guidance, guidance_interval, post, steps, seed, progress
            As for `sample`.

        Returns
        -------
        AnnData
            As `sample` makes it, one cell for each of ``source``, in order, by the same names. Below strength 1 the expected total
            count of a cell is the one it had, within what training saw.

        Raises
        ------
        DataError
            Not raw counts, other genes, a category that training did not have.
        RequestError
            ``to`` or ``strength`` is none of the above.

        Examples
        --------
        >>> import scld
        >>> quick, cells = {"rounds": 1, "steps": 1, "epochs": 1}, scld.datasets.pbmc()
        >>> trainings = dict.fromkeys(["autoencoder_training", "denoiser_training", "critic_training"], quick)
        >>> config = scld.Config.from_dict({**trainings, "selector": {"most_cells": 200}})
        >>> synth = scld.Synthesizer("cell_type", config=config).fit(cells, progress=False)
        >>> synth.transfer(cells[:3], {"cell_type": "NK cell"}, progress=False).obs["cell_type"].tolist()
        ['NK cell', 'NK cell', 'NK cell']
        """
        fitted = Fitted(self._require_fit(), self.schema, self.genes)
        strength = self.config.editing.strength if strength is None else strength
        plan = plan_of(guidance, steps, seed, self.labels, self.config.sampling, guidance_interval, post, strength)
        cells = transferred(read(source, layer), to, fitted, strength)
        return _whole(self._pieces(cells, plan, self._settings(plan, to=dict(to)) | {"strength": strength}, _PIECE, progress))

    def interpolate(
        self,
        a: Mapping[str, object] | Cells,
        b: Mapping[str, object] | Cells,
        n: int,
        *,
        unseen: bool = False,
        guidance: float | Mapping[str, float] | None = None,
        guidance_interval: tuple[float, float] | None = None,
        post: str | None = None,
        steps: int | None = None,
        seed: int = 0,
        progress: bool = True,
    ) -> AnnData:
        """Write cells along a path between two populations, through where cells are: see `scld.path`.

        Parameters
        ----------
        a, b
            The populations: labels as for ``where`` of `sample`, or real cells with the genes of training (an AnnData, or a path).
        n
            Number of cells, evenly spaced; at least 2.
        unseen, guidance, guidance_interval, post, steps, seed, progress
            As for `sample`. Guidance is for the populations at the ends; cells on the way have no labels, by which selection would choose.

        Returns
        -------
        AnnData
            As `sample` makes it. The obs column ``position`` goes from 0 to 1 (``position_`` where a label has that name). Cells on the way
            are made without labels, and have none; the first and the last are made with those that all of their population share, if it
            was asked for by labels.

        Raises
        ------
        DataError
            A population of real cells that are not raw counts, or have other genes.
        RequestError
            An unknown label or category, a combination without training cells unless ``unseen``, ``n`` below 2.

        Examples
        --------
        >>> import scld
        >>> quick = {"rounds": 1, "steps": 1, "epochs": 1}
        >>> trainings = dict.fromkeys(["autoencoder_training", "denoiser_training", "critic_training"], quick)
        >>> config = scld.Config.from_dict({**trainings, "selector": {"most_cells": 200}})
        >>> synth = scld.Synthesizer("cell_type", config=config).fit(scld.datasets.pbmc(), progress=False)
        >>> cells = synth.interpolate({"cell_type": "platelet"}, {"cell_type": "NK cell"}, 5, progress=False)
        >>> cells.obs["position"].tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0]
        """
        fitted, editing = Fitted(self._require_fit(), self.schema, self.genes), self.config.editing
        whole_way = replace(plan_of(guidance, steps, seed, self.labels, self.config.sampling, guidance_interval, post), candidates=1)
        last_part = plan_of(None, steps, seed, self.labels, replace(self.config.sampling, sigma_max=editing.path_noise), post=post)
        last_part = replace(last_part, weights=(1.0,) * len(self.labels), candidates=1)
        cells = between((a, b), n, fitted, (whole_way, last_part), editing, unseen)
        ends = [dict(end) if isinstance(end, Mapping) else "cells" for end in (a, b)]
        return _whole(self._pieces(cells, last_part, self._settings(whole_way, ends=ends), _PIECE, progress))

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Save to a checkpoint directory of JSON, CSV and safetensors: see `scld.checkpoint`."""
        generator = self._require_fit()
        manifest = {"scld_version": __version__, "config": self.config.to_dict(), "seed": self.seed, "training": self.summary}
        schema = self.schema.to_json() | {"latent_mean": generator.centre.tolist(), "latent_sd": generator.scale.tolist()}
        schema |= {} if generator.means is None else {"combination_means": generator.means.points.tolist()}
        networks = {"autoencoder": generator.autoencoder, "denoiser": generator.denoiser, "critic": generator.critic}
        parts = {name: network.state_dict() for name, network in networks.items() if network is not None}
        parts |= {} if generator.selector is None else {"selector": generator.selector.tensors()}
        disk.write(Path(path).expanduser(), disk.Checkpoint(manifest, schema, self.genes, parts), overwrite)

    @classmethod
    def load(cls, path: str | Path, *, device: str = "auto") -> Synthesizer:
        """Load a checkpoint directory: see `scld.load`."""
        path, place = Path(path).expanduser(), str(_device(device))
        saved = disk.read(path)
        try:
            schema, config = Schema.from_json(saved.schema), Config.from_dict(saved.manifest["config"])
            synth = cls([label.name for label in schema.labels], config=config, seed=saved.manifest["seed"], device=place)
            synth.schema, synth.genes, synth.summary = schema, saved.genes, saved.manifest["training"]
            dims = config.autoencoder.latent + 1
            autoencoder = Autoencoder(int(saved.genes["seen"].sum()), schema.sizes, config.autoencoder)
            denoiser, critic = Denoiser(dims, schema.sizes, config.denoiser), Critic(dims, schema.sizes, config.critic)
            networks: dict[str, nn.Module] = {"autoencoder": autoencoder, "denoiser": denoiser, "critic": critic}
            for name, network in networks.items():
                network.load_state_dict(saved.parts[name])
                network.to(synth.device).eval()
            selector = Selector.from_tensors(saved.parts["selector"])
            centre, scale = (torch.tensor(saved.schema[name], device=synth.device).reshape(dims) for name in ("latent_mean", "latent_sd"))
            points = np.asarray(saved.schema["combination_means"], np.float32).reshape(len(schema.cells), dims)
            low, high = synth.summary["log_library"]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise disk.damaged(path, str(error)) from error
        synth._generator = Generator(autoencoder, denoiser, centre, scale, (low, high), critic, selector, Means(schema.combinations, schema.cells, points))
        return synth

    def _require_fit(self) -> Generator:
        if self._generator is None:
            raise RequestError("this Synthesizer is not fitted yet; call fit(source), or scld.load(path) for one that is")
        return self._generator


def _whole(pieces: Iterator[AnnData]) -> AnnData:
    import anndata as ad

    cells = list(pieces)
    return cells[0] if len(cells) == 1 else ad.concat(cells, merge="same", uns_merge="same")


def load(path: str | Path, *, device: str = "auto") -> Synthesizer:
    """Load a fitted `Synthesizer` from its checkpoint directory.

    Parameters
    ----------
    path
        The directory that `Synthesizer.save` or ``scld fit`` wrote.
    device
        Where to sample: ``"auto"``, ``"cpu"``, ``"cuda"``, ...

    Raises
    ------
    CheckpointError
        Missing, unfinished, damaged, or of another format version.

    Examples
    --------
    >>> import scld
    >>> scld.load("nowhere.scld")
    Traceback (most recent call last):
    scld.errors.CheckpointError: nowhere.scld: no such checkpoint; check the path, or make one with scld fit ... -o nowhere.scld
    """
    return Synthesizer.load(path, device=device)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise RequestError(f"device: {name!r} cannot be used here; allowed are 'auto', 'cpu' and, with a GPU and a torch built for it, 'cuda'") from error
