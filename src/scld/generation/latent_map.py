"""The last step to a latent point: generated points get the moments of encoded cells.

A denoiser that is learnt from few cells pulls points towards the middle of their type.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LatentMap:
    """A linear map of the deviation of points from their mean, and a shift of the mean.

    Parameters
    ----------
    means
        ``[combinations + 1, dims]`` means of generated points of each combination of labels of the
        training cells, and last of all of them, for any other combination.
    shifts
        ``[combinations + 1, dims]`` added to these.
    matrix
        ``[dims, dims]``, the same for all combinations.

    Examples
    --------
    >>> twice = LatentMap(torch.tensor([[1.0], [0.0]]), torch.zeros(2, 1), 2 * torch.eye(1))
    >>> twice(torch.tensor([[1.5], [1.5]]), torch.tensor([0, -1])).tolist()
    [[2.0], [3.0]]
    """

    means: Tensor
    shifts: Tensor
    matrix: Tensor

    @classmethod
    def identity(cls, combinations: int, dims: int) -> LatentMap:
        """The map that changes nothing."""
        zeros = torch.zeros(combinations + 1, dims)
        return cls(zeros, zeros, torch.eye(dims))

    def __call__(self, points: Tensor, rows: Tensor) -> Tensor:
        """Map points ``[cells, dims]`` of these rows ``[cells]`` of the means."""
        means = self.means[rows]
        return means + self.shifts[rows] + (points - means) @ self.matrix.T

    def to(self, device: torch.device) -> LatentMap:
        """On another device."""
        return LatentMap(*(part.to(device) for part in (self.means, self.shifts, self.matrix)))

    def tensors(self) -> dict[str, Tensor]:
        """As named tensors, for a checkpoint."""
        return {"map_means": self.means, "map_shifts": self.shifts, "map_matrix": self.matrix}

    @classmethod
    def from_tensors(
        cls, tensors: dict[str, Tensor], combinations: int, dims: int, device: torch.device
    ) -> LatentMap:
        """The inverse of `tensors`; `RuntimeError` or `KeyError` if they do not fit."""
        names = ("map_means", "map_shifts")
        means, shifts = (tensors[name].reshape(combinations + 1, dims) for name in names)
        return cls(means, shifts, tensors["map_matrix"].reshape(dims, dims)).to(device)
