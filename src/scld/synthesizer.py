"""The Synthesizer: fit, sample, stream, save, load. The only file that knows all the parts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from scld import __version__
from scld import checkpoint as disk
from scld.autoencoder import Autoencoder, Batch
from scld.config import Config
from scld.data import count_matrix, read
from scld.denoiser import Denoiser
from scld.errors import DataError, RequestError
from scld.generator import Generator, Plan
from scld.latents import Latents
from scld.progress import bars
from scld.request import plan_of, wanted, whole
from scld.schema import Schema
from scld.train import train

if TYPE_CHECKING:
    from anndata import AnnData

FEWEST_CELLS = 20
_SPARE_NONE_BELOW = 20  # a category with fewer cells keeps all of them for training


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
    >>> config = scld.Config.from_dict({"autoencoder_training": quick, "denoiser_training": quick})
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
            Whether to show progress on standard error.

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
        self._generator = self._train(counts[:, self.genes["seen"].to_numpy()], codes, resume, progress)
        if target is not None:
            self.save(target, overwrite=True)
        return self

    def _run(self, counts: sp.csr_matrix, codes: np.ndarray) -> str:
        """Tells one fit from another, so that none resumes from a stranger's state."""
        data = [hashlib.sha256(np.ascontiguousarray(part).data).hexdigest() for part in (counts.data, counts.indices, counts.indptr, codes)]
        return json.dumps([__version__, self.seed, self.config.to_dict(), counts.shape, data, self.schema.to_json()])

    def _train(self, counts: sp.csr_matrix, codes: np.ndarray, resume: Path | None, progress: bool) -> Generator:
        config, device = self.config, self.device
        cells, held_out = _split(codes, config.held_out, self.seed)

        def reconstruction(module: nn.Module, picked: Tensor) -> Tensor:
            rows = np.sort(picked.numpy())
            loss: Tensor = module.loss(Batch.of(counts[rows], codes[rows], device))  # type: ignore[operator]
            return loss

        def denoising(module: nn.Module, picked: Tensor) -> Tensor:
            return latents.loss(module, picked.to(device), config.denoiser.label_dropout)

        with torch.random.fork_rng(), bars(progress) as bar:
            torch.manual_seed(self.seed)
            autoencoder = Autoencoder(counts.shape[1], self.schema.sizes, config.autoencoder).start_from(counts[cells.numpy()]).to(device)
            settings = config.autoencoder_training
            groups, update = autoencoder.parameter_groups(settings.learning_rate), bar("1/2 autoencoder", settings.rounds)
            first = train(autoencoder, groups, reconstruction, cells, held_out, settings, self.seed, _part(resume, "autoencoder"), update)
            latents = Latents.of(autoencoder, counts, codes, device)
            denoiser = Denoiser(config.autoencoder.latent + 1, self.schema.sizes, config.denoiser).to(device)
            settings = config.denoiser_training
            groups, update = [{"params": list(denoiser.parameters())}], bar("2/2 denoiser", settings.rounds)
            second = train(denoiser, groups, denoising, cells, held_out, settings, self.seed, _part(resume, "denoiser"), update)
        library = (float(latents.mean[:, -1].min()), float(latents.mean[:, -1].max()))
        self.summary = {"cells": counts.shape[0], "log_library": library, "autoencoder": asdict(first), "denoiser": asdict(second)}
        return Generator(autoencoder, denoiser, latents.centre, latents.scale, library)

    def sample(
        self,
        n: int | None = None,
        *,
        where: Mapping[str, object] | None = None,
        obs: pd.DataFrame | None = None,
        guidance: float | Mapping[str, float] | None = None,
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
            that training never saw can be asked for here.
        guidance
            Classifier-free guidance weight, one for all labels or one a label; 1 follows the labels, more exaggerates.
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
            ``uns["scld"]`` with version, seed and settings.

        Raises
        ------
        RequestError
            An unknown label or category, a combination without training cells, ``n`` below 1.
        """
        import anndata as ad

        pieces = list(self.stream(n, where=where, obs=obs, guidance=guidance, steps=steps, seed=seed, progress=progress))
        return pieces[0] if len(pieces) == 1 else ad.concat(pieces, merge="same", uns_merge="same")

    def stream(
        self,
        n: int | None = None,
        *,
        where: Mapping[str, object] | None = None,
        obs: pd.DataFrame | None = None,
        guidance: float | Mapping[str, float] | None = None,
        steps: int | None = None,
        seed: int = 0,
        batch_size: int = 4096,
        progress: bool = True,
    ) -> Iterator[AnnData]:
        """Write the cells of `sample` piece by piece, ``batch_size`` cells each, in bounded memory.

        Examples
        --------
        >>> import scld
        >>> quick = {"rounds": 1, "steps": 1, "epochs": 1}
        >>> config = scld.Config.from_dict({"autoencoder_training": quick, "denoiser_training": quick})
        >>> synth = scld.Synthesizer(config=config).fit(scld.datasets.pbmc(), progress=False)
        >>> [piece.n_obs for piece in synth.stream(5, batch_size=2, progress=False)]
        [2, 2, 1]
        """
        generator = self._require_fit()
        batch_size = whole("batch_size", batch_size, 1)
        plan = plan_of(guidance, steps, seed, self.labels, self.config.sampling)
        codes, names = wanted(n, where, obs, self.schema, plan.seed)
        settings = {
            "version": __version__,
            "seed": plan.seed,
            "steps": len(plan.sigmas) - 1,
            "guidance": json.dumps(dict(zip(self.labels, plan.weights, strict=True))),
            "where": json.dumps(dict(where or {}), default=str),
        }
        return self._pieces(generator, codes, names, plan, settings, batch_size, progress)

    def _pieces(
        self, generator: Generator, codes: np.ndarray, names: pd.Index | None, plan: Plan, settings: dict[str, Any], size: int, progress: bool
    ) -> Iterator[AnnData]:
        import anndata as ad

        var, seen = pd.DataFrame(index=self.genes["gene"].to_numpy()), np.flatnonzero(self.genes["seen"])
        start, ready = 0, sp.csr_matrix(np.zeros((0, len(seen)), np.float32))
        with bars(progress) as bar:
            update = bar("sample", len(codes))
            for page in generator.pages(codes, plan):
                ready = sp.csr_matrix(sp.vstack([ready, page], format="csr"))
                while ready.shape[0] >= size or (ready.shape[0] and start + ready.shape[0] == len(codes)):
                    piece, ready = ready[:size], ready[size:]
                    stop = start + piece.shape[0]
                    index = pd.Index([f"cell_{i}" for i in range(start, stop)]) if names is None else names[start:stop]
                    obs = self.schema.frame(codes[start:stop]).set_index(index)
                    matrix = sp.csr_matrix((piece.data, seen[piece.indices].astype(np.int32), piece.indptr), shape=(stop - start, len(var)))
                    update(stop, "")
                    yield ad.AnnData(X=matrix, obs=obs, var=var.copy(), uns={"scld": dict(settings)})
                    start = stop

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Save to a checkpoint directory of JSON, CSV and safetensors: see `scld.checkpoint`."""
        generator = self._require_fit()
        manifest = {"scld_version": __version__, "config": self.config.to_dict(), "seed": self.seed, "training": self.summary}
        schema = self.schema.to_json() | {"latent_mean": generator.centre.tolist(), "latent_sd": generator.scale.tolist()}
        parts = {"autoencoder": generator.autoencoder.state_dict(), "denoiser": generator.denoiser.state_dict()}
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
            autoencoder = Autoencoder(int(saved.genes["seen"].sum()), schema.sizes, config.autoencoder)
            denoiser = Denoiser(config.autoencoder.latent + 1, schema.sizes, config.denoiser)
            autoencoder.load_state_dict(saved.parts["autoencoder"])
            denoiser.load_state_dict(saved.parts["denoiser"])
            dims = config.autoencoder.latent + 1
            centre, scale = (torch.tensor(saved.schema[name], device=synth.device).reshape(dims) for name in ("latent_mean", "latent_sd"))
            low, high = synth.summary["log_library"]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise disk.damaged(path, str(error)) from error
        synth._generator = Generator(autoencoder.to(synth.device).eval(), denoiser.to(synth.device).eval(), centre, scale, (low, high))
        return synth

    def _require_fit(self) -> Generator:
        if self._generator is None:
            raise RequestError("this Synthesizer is not fitted yet; call fit(source), or scld.load(path) for one that is")
        return self._generator


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


def _split(codes: np.ndarray, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Cells to train on, and cells to stop by: none of a rare category, unless all are rare."""
    rarest = np.full(len(codes), len(codes))
    for column in codes.T:
        _, category, cells = np.unique(column, return_inverse=True, return_counts=True)
        rarest = np.minimum(rarest, cells[category])
    spare = np.flatnonzero(rarest >= min(_SPARE_NONE_BELOW, rarest.max()))
    held_out = np.random.default_rng(seed).choice(spare, size=max(1, round(share * len(spare))), replace=False)
    return torch.from_numpy(np.setdiff1d(np.arange(len(codes)), held_out)), torch.from_numpy(np.sort(held_out))


def _part(resume: Path | None, name: str) -> Path | None:
    return None if resume is None else resume / name


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise RequestError(f"device: {name!r} cannot be used here; allowed are 'auto', 'cpu' and, with a GPU and a torch built for it, 'cuda'") from error
