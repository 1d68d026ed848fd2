import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from toy import make_cells

from scld.config import AutoencoderConfig, DenoiserConfig, DiscriminatorConfig
from scld.errors import SCLDError
from scld.generation.generator import PAGE, Generator
from scld.generation.latent_map import LatentMap
from scld.generation.latent_shift import CombinationMeans
from scld.generation.options import SamplingOptions
from scld.generation.post_guidance import Discriminator, Examples, LabelledCells
from scld.generation.request import SamplingRequest
from scld.kernels.trees import Trees
from scld.model.autoencoder import Autoencoder, Batch
from scld.model.denoiser import Denoiser

COUNTS = sp.csr_matrix(make_cells(60, 12).X)
CODES = np.random.default_rng(0).integers(0, 3, (1000, 1))
OPTIONS = SamplingOptions(
    weights=(1.5,),
    interval=(0.0, np.inf),
    candidates=1,
    steps=4,
    seed=3,
    progress=False,
    sigma_max=80.0,
)
POSTS = {"off": OPTIONS, "select": replace(OPTIONS, candidates=4)}
LAST = -1  # the dimension of the log library size


def make(library=(2.0, 4.0)):
    torch.manual_seed(0)
    settings = AutoencoderConfig(latent=4, width=16)
    autoencoder = Autoencoder(12, [3], settings).start_from(COUNTS, CODES[:60]).eval()
    denoiser = Denoiser(5, [3], DenoiserConfig(width=64)).eval()
    with torch.no_grad():
        for parameter in [*autoencoder.parameters(), *denoiser.parameters()]:
            parameter.add_(0.2 * torch.randn_like(parameter))
        autoencoder.log_dispersion.fill_(9.0)  # nearly Poisson: what varies comes from the latents
    others = sp.csr_matrix(make_cells(60, 12, seed=1).X)
    examples = Examples(LabelledCells(COUNTS, CODES[:60]), LabelledCells(others, CODES[60:120]))
    settings = DiscriminatorConfig(components=5, trees=20, leaf=5, rate=0.3)
    discriminator = Discriminator.fit(others, examples, examples, settings, seed=0)
    means = CombinationMeans(np.arange(3)[:, None], np.ones(3, int), np.zeros((3, 5), np.float32))
    centre = torch.tensor([0.0, 0.0, 0.0, 0.0, 3.0])
    standard = (centre, torch.ones(5), torch.tensor(library))
    identity = LatentMap.identity(3, 5)
    return Generator(autoencoder, denoiser, *standard, means, identity, discriminator)


@pytest.fixture(scope="module")
def generator():
    return make()


@pytest.fixture(autouse=True)
def _one_thread(threads):
    """Unless a test sets more: torch's threads are slow where tests run side by side."""
    threads(1)


def cells(generator, codes=CODES, options=OPTIONS, start=None):
    pages = generator.pages(SamplingRequest(codes, start=start), options)
    return sp.csr_matrix(sp.vstack([page.counts for page in pages]))


def pages(generator, codes=CODES, start=None):
    return list(generator.split(SamplingRequest(codes, start=start)))


def same(one, other):
    parts = ("data", "indices", "indptr")
    equal = (getattr(one, part).tobytes() == getattr(other, part).tobytes() for part in parts)
    return one.shape == other.shape and all(equal)


def library_sizes(counts):
    return np.asarray(counts.sum(axis=1)).ravel()


# The same cells for any number of threads, of cells, and other labels


@pytest.mark.parametrize("post", POSTS)
def test_any_number_of_threads_gives_the_same_bytes(generator, threads, post):
    threads(1)
    alone = cells(generator, options=POSTS[post])
    for number in (2, 4):
        threads(number)
        assert same(alone, cells(generator, options=POSTS[post]))
        assert torch.get_num_threads() == number


@pytest.mark.parametrize("post", POSTS)
@pytest.mark.parametrize("n", [1, PAGE, 300])
def test_fewer_cells_are_the_first_of_many(generator, n, post):
    many = cells(generator, options=POSTS[post])
    assert same(cells(generator, CODES[:n], POSTS[post]), many[:n])


@pytest.mark.parametrize("post", POSTS)
def test_a_cell_does_not_depend_on_the_labels_of_others(generator, post):
    others = CODES.copy()
    others[1::2] = (others[1::2] + 1) % 3
    one = cells(generator, options=POSTS[post])
    other = cells(generator, others, POSTS[post])
    assert same(one[::2], other[::2])
    assert not same(one[1::2], other[1::2])


def test_labels_weights_steps_and_seeds_all_matter(generator):
    usual = cells(generator)
    assert not same(usual, cells(generator, (CODES + 1) % 3))
    for change in ({"weights": (1.0,)}, {"seed": 4}, {"steps": 5}):
        assert not same(usual, cells(generator, options=replace(OPTIONS, **change)))


def test_pages_differ(generator):
    """In their latents too, which the library sizes show."""
    codes = np.zeros((2 * PAGE, 1), np.int64)
    sizes = library_sizes(cells(generator, codes)).reshape(2, PAGE)
    assert abs(np.corrcoef(sizes)[0, 1]) < 5 / np.sqrt(PAGE)
    one_latent = cells(replace(generator, scale=torch.zeros(5)), codes)
    assert not same(one_latent[:PAGE], one_latent[PAGE:])


# Guidance leaves the library size alone


def towards_label(x, sigma, labels):
    """The exact denoiser of normal data whose mean is the label in all dimensions alike."""
    mean = (labels + 1.0).mean(dim=1, keepdim=True)
    return mean + (x - mean) / (1 + sigma[:, None] ** 2)


@pytest.mark.parametrize("steps", [1, 6])
def test_the_library_size_has_weight_1_at_every_guidance_weight(generator, steps):
    """Where it does not depend on the other dimensions, it is the same number."""
    exact = replace(generator, denoiser=towards_label)
    page = pages(exact, np.full((PAGE, 1), 2))[0]
    found = {
        weight: exact.latents(page, replace(OPTIONS, steps=steps, weights=(weight,)))
        for weight in (1.0, 3.0, 5.0)
    }
    for weight in (3.0, 5.0):
        torch.testing.assert_close(found[weight][:, LAST], found[1.0][:, LAST], rtol=0, atol=0)
        assert (found[weight] - found[1.0])[:, :LAST].mean() > 2


def test_after_the_first_step_the_library_size_is_what_weight_1_predicts(generator):
    page, one_step = pages(generator)[0], replace(OPTIONS, steps=1)
    strong, plain = (
        generator.latents(page, replace(one_step, weights=(weight,))) for weight in (5.0, 1.0)
    )
    assert torch.equal(strong[:, LAST], plain[:, LAST])
    assert (strong[:, :LAST] - plain[:, :LAST]).abs().max() > 0.1


def test_library_sizes_are_not_driven_by_guidance(generator):
    """Counts too: with latents that are guided far away, cells are as deep as at weight 1."""
    exact = replace(generator, denoiser=towards_label, library=torch.tensor([-9.0, 9.0]))
    codes = np.full((1000, 1), 1)
    at = {weight: replace(OPTIONS, weights=(weight,)) for weight in (1.0, 5.0)}
    plain, strong = (library_sizes(cells(exact, codes, at[weight])) for weight in (1.0, 5.0))
    error = np.log(plain).std() / np.sqrt(1000)
    assert abs(np.log(strong).mean() - np.log(plain).mean()) < 5 * error


def test_a_guidance_interval_reaches_the_sampler(generator):
    usual = cells(generator)
    whole, none, low = (
        cells(generator, options=replace(OPTIONS, interval=interval))
        for interval in ((0.0, 80.0), (0.0, 0.0), (0.0, 1.0))
    )
    assert same(usual, whole)
    assert same(none, cells(generator, options=replace(OPTIONS, weights=(1.0,))))
    assert not same(usual, low)


# Post-guidance


def test_a_selected_cell_is_one_of_its_candidates_and_without_selection_it_is_the_first(generator):
    page = pages(generator)[1]
    candidates = [generator._candidate(page, OPTIONS, i).counts.toarray() for i in range(4)]
    first = generator.generate(page, OPTIONS).counts
    np.testing.assert_array_equal(candidates[0], first.toarray())
    selected = generator.generate(page, POSTS["select"]).counts.toarray()
    is_one = np.array([(candidate == selected).all(axis=1) for candidate in candidates])
    assert is_one.any(axis=0).all()
    assert (is_one.sum(axis=1) > 0).all()
    pairs = [(one, other) for i, one in enumerate(candidates) for other in candidates[:i]]
    assert min((one != other).any(axis=1).mean() for one, other in pairs) > 0.9


def test_selection_goes_by_the_odds(generator):
    """Selected cells have higher log-odds, by as much as odds as probabilities give."""
    expected, found = [], []
    for page in pages(generator, np.resize(CODES, (8 * PAGE, 1))):
        candidates = [generator._candidate(page, OPTIONS, i).counts for i in range(4)]
        of_cells = generator.discriminator.log_odds
        log_odds = np.stack([of_cells(LabelledCells(c, page.codes)) for c in candidates])
        probabilities = np.exp(log_odds) / np.exp(log_odds).sum(axis=0)
        expected.append((probabilities * log_odds).sum(axis=0))
        selected = generator.generate(page, POSTS["select"]).counts
        found.append(of_cells(LabelledCells(selected, page.codes)))
    difference = np.concatenate(found) - np.concatenate(expected)
    assert np.concatenate(expected).std() > 0
    assert abs(difference.mean()) < 5 * difference.std() / np.sqrt(8 * PAGE)
    assert np.concatenate(found).mean() > log_odds.mean() + 0.1


def inactive(generator):
    discriminator = generator.discriminator
    trees = Trees(*(array[:0] for array in discriminator.trees))
    return replace(generator, discriminator=replace(discriminator, trees=trees))


def test_an_inactive_discriminator_costs_nothing(generator, monkeypatch):
    """One candidate is generated for each cell, the one of no selection."""
    made, usual = [], Generator._candidate

    def counted(self, page, options, number):
        made.append(number)
        return usual(self, page, options, number)

    monkeypatch.setattr(Generator, "_candidate", counted)
    assert same(cells(inactive(generator), options=POSTS["select"]), cells(generator))
    assert set(made) == {0}


def test_the_number_of_candidates_is_1_without_an_active_discriminator(generator):
    assert generator.candidates(POSTS["select"]) == 4
    assert generator.candidates(POSTS["off"]) == 1
    for other in (inactive(generator), replace(generator, discriminator=None)):
        assert other.candidates(POSTS["select"]) == 1
        assert same(cells(other, options=POSTS["select"]), cells(generator))


def test_a_cell_with_an_unspecified_label_is_not_selected(generator):
    """The discriminator sees labels: such a cell is its first candidate."""
    codes = CODES.copy()
    codes[::2] = -1
    selected, plain = cells(generator, codes, POSTS["select"]), cells(generator, codes)
    assert same(selected[::2], plain[::2])
    assert not same(selected[1::2], plain[1::2])


# Cells that start at given latent points

POINTS = np.random.default_rng(1).standard_normal((1000, 5)).astype(np.float32)


@pytest.mark.parametrize("post", POSTS)
def test_cells_with_a_start_are_the_same_for_any_number_of_threads(generator, threads, post):
    options = replace(POSTS[post], steps=20, sigma_max=20.0, strength=0.5)
    threads(1)
    alone = cells(generator, options=options, start=POINTS)
    threads(4)
    assert same(alone, cells(generator, options=options, start=POINTS))
    assert same(alone[:300], cells(generator, CODES[:300], options, POINTS[:300]))


def normal(x, sigma, labels):
    """The exact denoiser of standard normal data; its flow keeps a point in units of sd."""
    return x / (1 + sigma[:, None] ** 2)


@pytest.mark.parametrize("strength", [0.005, 0.1, 0.3, 0.6])
def test_a_start_is_kept_except_for_the_noise_that_is_added(generator, strength):
    """For normal data in closed form: x = (start + sigma noise) / sqrt(1 + sigma^2)."""
    exact = replace(generator, denoiser=normal)
    options = replace(OPTIONS, weights=(1.0,), steps=400, sigma_max=20.0, strength=strength)
    sigma = options.sigmas[0]
    page, zero = (pages(exact, start=start)[0] for start in (POINTS, 0 * POINTS))
    noise = exact.latents(zero, options) * (1 + sigma**2).sqrt() / sigma
    np.testing.assert_allclose(noise[:, :LAST].std(), 1, atol=0.1)
    reached = exact.latents(page, options)[:, :LAST]
    start = torch.from_numpy(page.start)
    expected = (start + sigma * noise) / (1 + sigma**2).sqrt()
    torch.testing.assert_close(reached, expected[:, :LAST], rtol=0, atol=0.02)
    if strength == 0.005:
        torch.testing.assert_close(reached, start[:, :LAST], rtol=0, atol=0.05)


@pytest.mark.parametrize("strength", [0.1, 0.9])
def test_the_library_size_of_a_start_is_kept(generator, strength):
    options = replace(OPTIONS, steps=20, sigma_max=20.0, strength=strength)
    page = pages(generator, start=POINTS)[0]
    assert torch.equal(
        generator.latents(page, options)[:, LAST], torch.from_numpy(page.start[:, LAST])
    )


# Encoding


def test_encoded_cells_are_standardised_posterior_means(generator):
    """And those of a cell do not depend on how many there are."""
    counts = sp.csr_matrix(make_cells(600, 12).X)
    points = generator.encode(counts)
    batch = Batch.of(counts, np.zeros((600, 1), np.int64))
    mean = generator.autoencoder.encode(batch)[0].detach().numpy()
    undone = points * generator.scale.numpy() + generator.centre.numpy()
    np.testing.assert_allclose(undone, mean, atol=1e-5)
    np.testing.assert_array_equal(points[:PAGE], generator.encode(counts[:PAGE]))


def test_encoding_does_not_depend_on_the_number_of_threads(generator, threads):
    counts = sp.csr_matrix(make_cells(600, 12).X)
    threads(1)
    alone = generator.encode(counts)
    threads(4)
    assert alone.tobytes() == generator.encode(counts).tobytes()
    assert torch.get_num_threads() == 4


# Depth


def test_the_expected_library_size_stays_within_that_of_training(generator):
    sizes = library_sizes(cells(generator))
    bound = library_sizes(cells(make(library=(3.0, 3.0))))
    assert sizes.std() > 2 * bound.std()
    assert abs(bound.mean() / np.exp(3.0) - 1) < 0.1


def test_no_cell_is_empty_however_shallow():
    """Cells of one count on average: a third of plain draws would be empty.

    The other cells stay what they were.
    """
    shallow = cells(make(library=(0.0, 0.0)))
    assert np.diff(shallow.indptr).min() == 1
    shallow.check_format(full_check=True)
    assert shallow.has_sorted_indices
    assert (shallow.data > 0).all()
    assert same(shallow[:300], cells(make(library=(0.0, 0.0)), CODES[:300]))


# Values that are not finite are refused

USED = ["labels.0.weight", "decoder.0.weight", "output.weight", "output.bias", "library_mean"]
USED += ["log_dispersion", "dispersion_slope"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", USED)
def test_non_finite_weights_of_the_decoder_are_one_clear_error(name, value):
    broken = make()
    broken.autoencoder.state_dict()[name].view(-1)[-1] = value
    with pytest.raises(SCLDError, match=r"model: .*non-finite.*fit again") as caught:
        cells(broken, np.full((9, 1), 2))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["input.weight", "labels.0.weight", "output.bias"])
def test_non_finite_weights_of_the_denoiser_are_one_clear_error(name):
    broken = make()
    broken.denoiser.state_dict()[name].fill_(np.nan)
    with pytest.raises(SCLDError, match=r"model: .*non-finite.*fit again"):
        cells(broken)


@pytest.mark.parametrize("dimension", range(5))
def test_non_finite_latents_are_one_clear_error(generator, dimension):
    start = POINTS.copy()
    start[7, dimension] = np.nan
    options = replace(OPTIONS, strength=0.5)
    with pytest.raises(SCLDError, match=r"model: .*non-finite"):
        cells(generator, options=options, start=start)


# Threads


def test_each_page_is_computed_by_one_thread(generator, threads, monkeypatch):
    """Sums split over threads would round differently."""
    seen, usual = [], Generator.generate

    def watched(self, *args):
        seen.append(torch.get_num_threads())
        return usual(self, *args)

    monkeypatch.setattr(Generator, "generate", watched)
    threads(3)
    cells(generator)
    assert set(seen) == {1}


def in_a_new_thread(work):
    found = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


def test_while_pages_wait_new_threads_have_the_usual_number_of_torch_threads(generator, threads):
    """And so has this thread, while the workers use one each."""
    threads(3)
    open_pages = generator.pages(SamplingRequest(CODES), OPTIONS)
    next(open_pages)
    assert in_a_new_thread(torch.get_num_threads) == 3
    assert torch.get_num_threads() == 3
    open_pages.close()
    assert in_a_new_thread(torch.get_num_threads) == 3


def test_two_open_requests_leave_the_number_of_threads_alone(generator, threads):
    threads(3)
    first, second = (generator.pages(SamplingRequest(CODES), OPTIONS) for _ in range(2))
    next(first)
    next(second)
    assert in_a_new_thread(torch.get_num_threads) == torch.get_num_threads() == 3
    first.close()
    assert in_a_new_thread(torch.get_num_threads) == torch.get_num_threads() == 3
    second.close()
    assert in_a_new_thread(torch.get_num_threads) == torch.get_num_threads() == 3


def test_an_error_in_a_page_is_raised_and_leaves_the_threads_as_they_were(
    generator, threads, monkeypatch
):
    def failing(self, *args):
        raise OSError("no page")

    monkeypatch.setattr(Generator, "generate", failing)
    threads(3)
    with pytest.raises(OSError, match="no page"):
        cells(generator)
    assert torch.get_num_threads() == 3


def test_pages_that_nobody_takes_leave_the_threads_as_they_were(generator, threads):
    threads(3)
    some = generator.pages(SamplingRequest(CODES), OPTIONS)
    next(some)
    some.close()
    assert torch.get_num_threads() == 3


def test_pages_are_generated_as_they_are_taken(generator, threads, monkeypatch):
    """However many cells are requested, only a few pages are generated ahead."""
    threads(3)
    made = []
    monkeypatch.setattr(Generator, "generate", lambda self, page, options: made.append(page))
    some = generator.pages(SamplingRequest(np.zeros((200 * PAGE, 1), np.int64)), OPTIONS)
    next(some)
    time.sleep(0.2)  # what waits is generated by now
    assert len(made) == 2 * 3 + 1
    some.close()
