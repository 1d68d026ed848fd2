import time
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from small import make_cells

from scld.autoencoder import Autoencoder, Batch
from scld.config import AutoencoderConfig, CriticConfig, DenoiserConfig, SelectorConfig
from scld.critic import Critic
from scld.denoiser import Denoiser
from scld.generator import PAGE, Generator, Plan, Start, _stream, alone
from scld.sampler import schedule
from scld.selector import Selector, Sides

COUNTS = sp.csr_matrix(make_cells(60, 12).X)
CODES = np.random.default_rng(0).integers(0, 3, (1000, 1))
PLAN = Plan(schedule(4, 80.0), (1.5,), seed=3)


POSTS = {"off": PLAN, "correct": replace(PLAN, correction=1.0), "select": replace(PLAN, candidates=4), "both": replace(PLAN, correction=1.0, candidates=4)}


def make(library=(2.0, 4.0)):
    torch.manual_seed(0)
    autoencoder = Autoencoder(12, [3], AutoencoderConfig(latent=4, width=16)).start_from(COUNTS).eval()
    denoiser, critic = Denoiser(5, [3], DenoiserConfig(width=64)).eval(), Critic(5, [3], CriticConfig(width=16)).eval()
    with torch.no_grad():
        for parameter in [*autoencoder.parameters(), *denoiser.parameters(), *critic.parameters()]:
            parameter.add_(0.2 * torch.randn_like(parameter))
        autoencoder.log_dispersion.fill_(9.0)  # nearly Poisson: what varies more comes from the latents
    others, config = sp.csr_matrix(make_cells(60, 12, seed=1).X), SelectorConfig(components=5, trees=20, leaf=5, rate=0.3)
    told = Sides(COUNTS, others, CODES[:60], CODES[60:120])
    selector = Selector.of(others, told, told, config, seed=0)
    return Generator(autoencoder, denoiser, torch.tensor([0.0, 0.0, 0.0, 0.0, 3.0]), torch.ones(5), library, critic, selector)


@pytest.fixture(scope="module")
def generator():
    return make()


def cells(generator, codes=CODES, plan=PLAN, start=None):
    return sp.csr_matrix(sp.vstack(list(generator.pages(codes, plan, start))))


def same(one, other):
    return one.shape == other.shape and all(getattr(one, part).tobytes() == getattr(other, part).tobytes() for part in ("data", "indices", "indptr"))


@pytest.mark.parametrize("post", POSTS)
def test_any_number_of_threads_gives_the_same_bytes(generator, threads, post):
    threads(1)
    alone = cells(generator, plan=POSTS[post])
    for number in (2, 4):
        threads(number)
        assert same(alone, cells(generator, plan=POSTS[post]))
        assert torch.get_num_threads() == number


@pytest.mark.parametrize("post", POSTS)
@pytest.mark.parametrize("n", [1, PAGE, 300])
def test_fewer_cells_are_the_first_of_many(generator, n, post):
    assert same(cells(generator, CODES[:n], POSTS[post]), cells(generator, plan=POSTS[post])[:n])


@pytest.mark.parametrize("post", POSTS)
def test_a_cell_does_not_depend_on_the_labels_of_others(generator, post):
    others = CODES.copy()
    others[1::2] = (others[1::2] + 1) % 3
    assert same(cells(generator, plan=POSTS[post])[::2], cells(generator, others, POSTS[post])[::2])


def test_a_selected_cell_is_one_of_its_candidates_and_the_first_is_what_comes_without_selection(generator):
    candidates = [generator._candidate(number, 1, CODES[:PAGE], PLAN, None).toarray() for number in range(4)]
    np.testing.assert_array_equal(candidates[0], generator.page(1, CODES[:PAGE], PLAN).toarray())
    selected = generator.page(1, CODES[:PAGE], POSTS["select"]).toarray()
    is_one = np.array([(candidate == selected).all(axis=1) for candidate in candidates])
    assert is_one.any(axis=0).all()
    assert (is_one.sum(axis=1) > 0).all()
    differ = [(one != other).any(axis=1).mean() for i, one in enumerate(candidates) for other in candidates[:i]]
    assert min(differ) > 0.99


def test_selection_goes_by_the_odds(generator):
    """Chances that the quantiles are read off are those of the selector: the chosen have higher odds, by as much as the law says."""
    codes = CODES[:PAGE]
    expected, found = [], []
    for page in range(8):
        log_odds = np.stack([generator.selector.log_odds(generator._candidate(number, page, codes, PLAN, None), codes) for number in range(4)])
        chances = np.exp(log_odds) / np.exp(log_odds).sum(axis=0)
        expected.append((chances * log_odds).sum(axis=0))
        found.append(generator.selector.log_odds(generator.page(page, codes, POSTS["select"]), codes))
    difference = np.concatenate(found) - np.concatenate(expected)
    assert np.concatenate(expected).std() > 0
    assert abs(difference.mean()) < 5 * difference.std() / np.sqrt(8 * PAGE)
    assert np.concatenate(found).mean() > log_odds.mean() + 0.1


def test_a_correction_moves_the_latents_up_the_critics_slope(generator):
    """In a single step, of the angle arctan(2)."""
    codes, step = CODES[:PAGE], replace(PLAN, sigmas=torch.tensor([2.0, 0.0]))
    moved = generator.latents(0, codes, replace(step, correction=0.1)) - generator.latents(0, codes, step)
    x = (5**0.5 * torch.from_numpy(_stream(PLAN.seed, 0, 0).standard_normal((PAGE, 5), dtype=np.float32))).requires_grad_()
    slope = torch.autograd.grad(generator.critic(x, torch.full((PAGE,), 2.0), torch.from_numpy(codes)).sum(), x)[0]
    correction = 0.1 * 2.0**2 * slope
    correction = correction * (generator.critic.config.clip / correction.norm(dim=1, keepdim=True)).clamp_max(1)
    torch.testing.assert_close(moved, correction * np.arctan(2) / np.sin(np.arctan(2)), rtol=1e-3, atol=1e-4)
    assert not moved.requires_grad


def test_without_critics_there_is_no_post_guidance(generator):
    assert same(cells(replace(generator, critic=None), plan=POSTS["correct"]), cells(generator))


def test_a_silent_selector_costs_nothing(generator, monkeypatch):
    """One candidate is made of each cell, the one that comes without selection."""
    silent = replace(generator, selector=replace(generator.selector, feature=generator.selector.feature[:0]))
    made, usual = [], Generator._candidate
    monkeypatch.setattr(Generator, "_candidate", lambda self, number, *rest: made.append(number) or usual(self, number, *rest))
    assert same(cells(silent, plan=POSTS["select"]), cells(generator))
    assert set(made) == {0}


def test_a_cell_with_an_open_label_is_not_selected(generator):
    """The selector goes by labels: such a cell is its first candidate."""
    codes = CODES.copy()
    codes[::2] = -1
    selected, plain = cells(generator, codes, POSTS["select"]), cells(generator, codes)
    assert same(selected[::2], plain[::2])
    assert not same(selected[1::2], plain[1::2])


def test_labels_weights_and_seeds_all_tell(generator):
    usual = cells(generator)
    assert not same(usual, cells(generator, (CODES + 1) % 3))
    assert not same(usual, cells(generator, plan=Plan(PLAN.sigmas, (1.0,), PLAN.seed)))
    assert not same(usual, cells(generator, plan=Plan(PLAN.sigmas, PLAN.weights, PLAN.seed + 1)))


def test_pages_differ(generator):
    """In their latents too, which the library sizes show."""
    sizes = np.asarray(cells(generator, np.zeros((2 * PAGE, 1), np.int64)).sum(axis=1)).reshape(2, PAGE)
    assert abs(np.corrcoef(sizes)[0, 1]) < 5 / np.sqrt(PAGE)
    one_latent = cells(replace(generator, scale=torch.zeros(5)), np.zeros((2 * PAGE, 1), np.int64))
    assert not same(one_latent[:PAGE], one_latent[PAGE:])


POINTS = np.random.default_rng(1).standard_normal((1000, 5)).astype(np.float32)
PART = replace(PLAN, sigmas=schedule(20, 20.0, 0.5))


@pytest.mark.parametrize("post", ["off", "both"])
@pytest.mark.parametrize("keep", [False, True])
def test_cells_with_a_start_are_the_same_for_any_number_of_threads_too(generator, threads, keep, post):
    threads(1)
    plan = replace(POSTS[post], sigmas=PART.sigmas)
    alone_ = cells(generator, plan=plan, start=Start(POINTS, keep))
    threads(4)
    assert same(alone_, cells(generator, plan=plan, start=Start(POINTS, keep)))
    assert same(alone_[:300], cells(generator, CODES[:300], plan, Start(POINTS[:300], keep)))


def normal(x, sigma, labels):
    """The exact denoiser of standard normal data; its flow keeps a point in units of sd."""
    return x / (1 + sigma[:, None] ** 2)


@pytest.mark.parametrize("strength", [0.005, 0.1, 0.3, 0.6])
def test_a_start_is_kept_but_for_the_noise_it_was_given(generator, strength):
    """For normal data in closed form: x = (start + sigma noise) / sqrt(1 + sigma^2)."""
    exact = replace(generator, denoiser=normal)
    plan = Plan(schedule(400, 20.0, strength), (1.0,), 3)
    noise = exact.latents(0, CODES[:PAGE], replace(plan, sigmas=torch.tensor([1e-9, 1e-10, 0.0])), Start(0 * POINTS[:PAGE], False)) / 1e-9
    reached = exact.latents(0, CODES[:PAGE], plan, Start(POINTS[:PAGE], False))
    expected = (torch.from_numpy(POINTS[:PAGE]) + plan.sigmas[0] * noise) / (1 + plan.sigmas[0] ** 2).sqrt()
    torch.testing.assert_close(reached, expected, rtol=0, atol=0.02)
    if strength == 0.005:
        torch.testing.assert_close(reached, torch.from_numpy(POINTS[:PAGE]), rtol=0, atol=0.05)


def test_a_kept_library_size_is_that_of_the_start(generator):
    for strength in (0.1, 0.9):
        plan, start = replace(POSTS["correct"], sigmas=schedule(20, 20.0, strength)), Start(POINTS[:PAGE], True)
        assert torch.equal(generator.latents(0, CODES[:PAGE], plan, start)[:, -1], torch.from_numpy(POINTS[:PAGE, -1]))


def test_codes_are_the_posterior_means_in_units_of_the_latents(generator):
    """And those of a cell do not depend on how many there are."""
    counts = sp.csr_matrix(make_cells(600, 12).X)
    points = alone(lambda: generator.encode(counts))
    mean = generator.autoencoder.encode(Batch.of(counts, np.zeros((600, 1), np.int64)))[0]
    np.testing.assert_allclose(points * generator.scale.numpy() + generator.centre.numpy(), mean.detach().numpy(), atol=1e-5)
    np.testing.assert_array_equal(points[:PAGE], alone(lambda: generator.encode(counts[:PAGE])))


def test_work_done_alone_is_done_by_one_thread(threads):
    threads(3)
    assert alone(torch.get_num_threads) == 1
    assert torch.get_num_threads() == 3


def test_an_interval_reaches_the_sampler(generator):
    usual = cells(generator)
    assert same(usual, cells(generator, plan=replace(PLAN, interval=(0.0, 80.0))))
    assert same(cells(generator, plan=replace(PLAN, weights=(1.0,))), cells(generator, plan=replace(PLAN, interval=(0.0, 0.0))))
    assert not same(usual, cells(generator, plan=replace(PLAN, interval=(0.0, 1.0))))


def test_pages_left_untaken_give_the_threads_back(generator, threads):
    threads(3)
    pages = generator.pages(CODES, PLAN)
    next(pages)
    pages.close()
    assert torch.get_num_threads() == 3


def test_the_expected_library_size_stays_within_that_of_training(generator):
    sizes = np.asarray(cells(generator).sum(axis=1)).ravel()
    bound = np.asarray(cells(make(library=(3.0, 3.0))).sum(axis=1)).ravel()
    assert sizes.std() > 2 * bound.std()
    assert abs(bound.mean() / np.exp(3.0) - 1) < 0.1


def test_no_cell_is_empty_however_shallow():
    """Cells of one count on average: a third of plain draws would be empty; the others stay what they were."""
    shallow = cells(make(library=(0.0, 0.0)))
    assert np.diff(shallow.indptr).min() == 1
    shallow.check_format(full_check=True)
    assert shallow.has_sorted_indices
    assert (shallow.data > 0).all()
    assert same(shallow[:300], cells(make(library=(0.0, 0.0)), CODES[:300]))


def test_each_page_computes_on_one_thread(generator, threads, monkeypatch):
    """Sums split over threads would round differently."""
    seen = []
    usual = Generator.page
    monkeypatch.setattr(Generator, "page", lambda self, *args: seen.append(torch.get_num_threads()) or usual(self, *args))
    threads(3)
    cells(generator)
    assert set(seen) == {1}


def test_pages_wait_to_be_asked_for(generator, monkeypatch):
    """However many cells are asked for, only a few pages are made ahead of those taken."""
    made = []
    monkeypatch.setattr(Generator, "page", lambda self, page, *rest: made.append(page))
    pages = generator.pages(np.zeros((200 * PAGE, 1), np.int64), PLAN)
    next(pages)
    time.sleep(0.2)  # what waits is made by now
    assert len(made) == 2 * torch.get_num_threads() + 1
    pages.close()
