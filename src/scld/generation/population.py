"""One population: latent points from a single normal distribution, for a null of clusterings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Population:
    """A normal distribution of latent points for each combination of labels.

    Parameters
    ----------
    means
        ``[combinations, dims]``.
    roots
        ``[combinations, dims, dims]`` lower triangular roots of the covariances.
    of
        ``[cells]`` combination of each cell.
    """

    means: np.ndarray
    roots: np.ndarray
    of: np.ndarray

    @classmethod
    def like(cls, points: Sequence[np.ndarray], of: np.ndarray) -> Population:
        """With the moments of latent points ``[points, dims]`` of each combination."""
        ridge = 1e-6 * np.eye(points[0].shape[1])
        means = np.stack([some.mean(axis=0) for some in points])
        return cls(means, np.linalg.cholesky([np.cov(some.T) + ridge for some in points]), of)

    def some(self, cells: slice | np.ndarray) -> Population:
        """That of some cells."""
        return replace(self, of=self.of[cells])

    def points(self, noise: Tensor) -> Tensor:
        """Latent points ``[size, dims]`` of standard normal noise."""
        of = np.resize(self.of, len(noise))
        means, roots = (torch.from_numpy(part[of]).to(noise) for part in (self.means, self.roots))
        return means + (roots @ noise[:, :, None])[:, :, 0]
