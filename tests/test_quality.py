"""How good cells are at default settings, on the blood cells that ship with the package."""

import pytest

import scld
from scld.evaluation.cells import OVERALL
from scld.evaluation.controls import BASELINE, CONTROLS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scores():
    """Overall metrics of each dataset: synthetic, the negative controls, real against real."""
    train, test = scld.split(scld.datasets.pbmc(), "cell_type")
    synth = scld.Synthesizer("cell_type").fit(train, progress=False)
    cells = synth.sample(obs=test.obs[["cell_type"]], seed=0, progress=False)
    table = scld.evaluate(train, test, cells, "cell_type", progress=False).table
    overall = table[table["group"] == OVERALL]
    return overall.pivot(index="dataset", columns="metric", values="value")


@pytest.mark.parametrize("metric", ["c2st", "w2"])
def test_cells_are_nearer_to_real_ones_than_half_way_to_the_best_negative_control(scores, metric):
    """Half way leaves room for the luck of a fit.

    When this was written, the two-sample AUC of the worst classifier was a sixth of the way, the
    Wasserstein distance a quarter.
    """
    excess = scores[metric] - scores.loc[BASELINE, metric]
    assert excess[list(CONTROLS)].min() > 0
    assert excess["synthetic"] < 0.5 * excess[list(CONTROLS)].min()


def test_types_are_recognised_as_those_of_real_cells_are(scores):
    """Not less, as where types are blurred: a tenth of cells under a wrong label is .08 less.

    Nor as much more as in the negative controls, which have no blur at all.
    """
    accuracy = scores["label_accuracy"]
    assert accuracy["synthetic"] > accuracy[BASELINE] - 0.05
    excess = accuracy[["poisson", "shuffle"]].min() - accuracy[BASELINE]
    assert accuracy["synthetic"] < accuracy[BASELINE] + 0.75 * excess


def test_nothing_is_copied(scores):
    """Real cells lie as near to training cells as to others, copies much nearer.

    Half way between leaves room for the luck of 749 cells.
    """
    assert scores.loc["synthetic", "exact_copies"] == 0
    assert scores.loc["bootstrap", "exact_copies"] == 1
    nearer = scores["nearer_training"]
    assert nearer["synthetic"] < (nearer[BASELINE] + nearer["bootstrap"]) / 2
