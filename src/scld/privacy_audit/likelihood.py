"""The score of an attacker who has the fitted model itself, not only cells from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from scld.privacy_audit.attacks import LEAST_CELLS, standardised

if TYPE_CHECKING:
    from scld.generation.fitted import FittedModel
    from scld.privacy_audit.donors import Cells

_BATCH = 256  # cells whose dense expected counts are held at a time


def model_scores(model: FittedModel, auxiliary: Cells, cells: Cells) -> np.ndarray:
    """Scores ``[cells]``, standardised within each type; missing where the model lacks the type.

    The negative binomial log-likelihood of a cell, encoded and decoded by the autoencoder, less
    that at the mean expression proportions of the type's auxiliary cells, with the same library
    size and dispersions. A cell that the autoencoder was trained on is reconstructed better.

    Parameters
    ----------
    model
        Fitted on the type alone.
    auxiliary, cells
        With the genes of the model, in its order.
    """
    seen = model.genes["seen"].to_numpy()
    known = [str(category) for category in model.schema.labels[0].categories]
    scores = np.full(len(cells), np.nan)
    for kind in np.intersect1d(known, cells.types):
        others = auxiliary.types == kind
        rows = np.flatnonzero(cells.types == kind)
        counts = sp.csr_matrix(cells.counts[rows][:, seen])
        rows = rows[np.diff(counts.indptr) > 0]
        if others.sum() < LEAST_CELLS or not len(rows):
            continue
        totals = np.asarray(auxiliary.counts[others][:, seen].sum(axis=0)).ravel() + 0.5
        code = np.full((len(rows), 1), known.index(str(kind)))
        counts = sp.csr_matrix(cells.counts[rows][:, seen])
        scores[rows] = standardised(_difference(model, counts, code, totals / totals.sum()))
    return scores


def _difference(
    model: FittedModel, counts: sp.csr_matrix, codes: np.ndarray, proportions: np.ndarray
) -> np.ndarray:
    """Log-likelihood ``[cells]`` under the model, less that under these expression proportions."""
    import torch

    from scld.model.autoencoder import Batch

    autoencoder, parts = model.generator.autoencoder, []
    device = autoencoder.mean_log_p.device
    log_p = torch.from_numpy(np.log(proportions)).to(device)
    with torch.inference_mode():
        for start in range(0, counts.shape[0], _BATCH):
            some = slice(start, start + _BATCH)
            x = torch.from_numpy(counts[some].toarray()).to(device)
            batch = Batch.of(sp.csr_matrix(counts[some]), codes[some], device)
            latent = autoencoder.encode(batch)[0]
            library = batch.log_library[:, None]
            logits = autoencoder.logits(latent, batch.labels)
            parameters = autoencoder.nb_parameters(logits, library)
            log_mean, log_r = (each.double() for each in parameters)  # large r cancel
            gain = _log_nb(x, log_mean, log_r) - _log_nb(x, log_p + library, log_r)
            parts.append(gain.sum(dim=1).cpu().numpy())
    return np.concatenate(parts)


def _log_nb(x: Any, log_mean: Any, log_r: Any) -> Any:
    """Log-probability of counts, without the terms that do not depend on the mean."""
    import torch

    total = torch.logaddexp(log_mean, log_r)
    return x * (log_mean - total) + log_r.exp() * (log_r - total)
