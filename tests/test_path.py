import pytest
import torch

from scld.path import along, path

ENDS = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
LEVELS = torch.full((300,), 0.5)


def circle(x, sigma):
    """The data lie on a circle, and noise pushes a point off it and no other way."""
    return x / x.norm(dim=1, keepdim=True).clamp_min(1e-6)


def cloud(x, sigma):
    """Standard normal data, whose exact denoiser shrinks."""
    return x / (1 + sigma[:, None] ** 2)


def gaps(string):
    return (string[1:] - string[:-1]).norm(dim=1)


def test_it_goes_round_where_there_are_no_data():
    start = torch.tensor([[1.0, 0.0], [-1.0, 0.1]])
    string = path(circle, start, 41, LEVELS)
    torch.testing.assert_close(string[1:-1].norm(dim=1), torch.ones(39), rtol=0.01, atol=0.0)
    assert abs(float(gaps(string).sum()) / torch.pi - 1) < 0.05


@pytest.mark.parametrize("denoise", [circle, cloud])
def test_its_ends_stay_and_its_points_are_evenly_spread(denoise):
    ends = torch.tensor([[1.0, 0.2], [-0.5, 0.8]])
    string = path(denoise, ends, 20, LEVELS)
    torch.testing.assert_close(string[[0, -1]], ends)
    assert float(gaps(string).max() / gaps(string).min()) < 1.01


def test_through_one_cloud_between_opposite_points_it_is_straight():
    string = path(cloud, ENDS, 9, LEVELS)
    torch.testing.assert_close(string, along(ENDS, torch.linspace(0, 1, 9)), rtol=0, atol=1e-5)


def test_a_data_set_of_two_moons_is_walked_along():
    """The exact denoiser of finitely many points on an arc: every point of the path is near one, of a straight line is not."""
    angle = torch.linspace(0, 1.5 * torch.pi, 400)
    data = torch.stack([angle.cos(), angle.sin()], dim=1)

    def ideal(x, sigma):
        return torch.softmax(-torch.cdist(x, data).square() / (2 * sigma[:, None] ** 2), dim=1) @ data

    ends = data[[0, -1]]
    far = lambda string: float(torch.cdist(string, data).min(dim=1).values.max())  # noqa: E731
    found = path(ideal, ends, 64, torch.logspace(0.3, -1, 300))
    assert far(along(ends, torch.linspace(0, 1, 64))) > 0.25
    assert far(found) < 0.1


def test_positions_are_shares_of_the_length():
    bent = torch.tensor([[0.0, 0.0], [3.0, 0.0], [3.0, 1.0]])
    torch.testing.assert_close(along(bent, torch.tensor([0.0, 0.25, 0.75, 0.875, 1.0])), torch.tensor([[0.0, 0], [1, 0], [3, 0], [3, 0.5], [3, 1]]))


def test_ends_that_are_one_point_are_the_whole_path():
    point = torch.ones(2, 3)
    assert torch.equal(path(cloud, point, 5, torch.ones(0)), torch.ones(5, 3))
