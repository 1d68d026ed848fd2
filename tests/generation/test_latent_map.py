import pytest
import torch

from scld.generation.latent_map import LatentMap

CPU = torch.device("cpu")


def example():
    torch.manual_seed(0)
    return LatentMap(torch.randn(4, 2), torch.randn(4, 2), torch.randn(2, 2))


def test_the_identity_changes_nothing():
    points = torch.randn(5, 3)
    mapped = LatentMap.identity(2, 3)(points, torch.tensor([0, 1, -1, 0, 1]))
    assert torch.equal(mapped, points)


def test_points_at_the_mean_are_shifted_alone():
    latent_map = example()
    for row in (0, 2, -1):
        mapped = latent_map(latent_map.means[[row]], torch.tensor([row]))
        torch.testing.assert_close(mapped, (latent_map.means + latent_map.shifts)[[row]])


def test_deviations_are_multiplied_by_the_matrix():
    latent_map, deviation = example(), torch.tensor([[1.0, -2.0]])
    row = torch.tensor([1])
    one, other = (latent_map(latent_map.means[row] + part, row) for part in (deviation, 0))
    torch.testing.assert_close((one - other)[0], latent_map.matrix @ deviation[0])


def test_tensors_make_the_map_again():
    latent_map = example()
    again = LatentMap.from_tensors(latent_map.tensors(), 3, 2, CPU)
    for name in ("means", "shifts", "matrix"):
        assert torch.equal(getattr(again, name), getattr(latent_map, name))
    with pytest.raises(RuntimeError):
        LatentMap.from_tensors(latent_map.tensors(), 4, 2, CPU)
