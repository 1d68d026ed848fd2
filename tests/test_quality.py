"""How good cells are at default settings, on the blood cells that ship with the package."""

import pytest

import scld
from scld.judge import BASELINES, FLOOR, OVERALL

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def figures():
    """Of each set, overall: SCLD's under the name synthetic, the trivial fakes and the real floor."""
    train, test = scld.data.split(scld.datasets.pbmc(), "cell_type")
    synth = scld.Synthesizer("cell_type").fit(train, progress=False)
    cells = synth.sample(obs=test.obs[["cell_type"]], progress=False)
    table = scld.evaluate(train, test, cells, "cell_type", progress=False).table
    return table[table["scope"] == OVERALL].pivot(index="set", columns="figure", values="value")


@pytest.mark.parametrize("figure", ["c2st", "w2"])
def test_cells_are_nearer_to_real_ones_than_half_way_to_the_best_trivial_fake(figures, figure):
    """Half way leaves room for the luck of a fit: the worst classifier's share of the way was a sixth when this was written, Wasserstein's a quarter."""
    above = figures[figure] - figures.loc[FLOOR, figure]
    assert above[list(BASELINES)].min() > 0
    assert above["synthetic"] < 0.5 * above[list(BASELINES)].min()


def test_types_are_recognised_as_real_ones_are(figures):
    """Not less, as where types are blurred (a tenth of cells under a wrong label would be .08 less), nor as much more as in the fakes without any blur."""
    accuracy = figures["label_accuracy"]
    assert accuracy["synthetic"] > accuracy[FLOOR] - 0.05
    assert accuracy["synthetic"] < accuracy[FLOOR] + 0.75 * (accuracy[["poisson", "shuffle"]].min() - accuracy[FLOOR])


def test_nothing_is_copied(figures):
    """Real cells lie as near to training cells as to others, copies much nearer: half way between leaves room for the luck of 749 cells."""
    assert figures.loc["synthetic", "exact_copies"] == 0
    assert figures.loc["bootstrap", "exact_copies"] == 1
    nearer = figures["nearer_training"]
    assert nearer["synthetic"] < (nearer[FLOOR] + nearer["bootstrap"]) / 2
