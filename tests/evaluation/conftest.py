import pytest
from simulated import QUICK, noise_free, population, rebuilt

import scld
from scld.evaluation.controls import bootstrap, shuffle


@pytest.fixture(scope="session")
def train():
    return population(600, 1)


@pytest.fixture(scope="session")
def test():
    return population(600, 2)


@pytest.fixture(scope="session")
def fresh():
    """Real cells that are neither training nor test cells: what a perfect generator makes."""
    return population(600, 3)


@pytest.fixture(scope="session")
def report(train, test, fresh):
    """Real cells, and three datasets that are wrong in a known way; read only."""
    datasets = {
        "other real": fresh,
        "noise-free": noise_free(train),
        "shuffled": rebuilt(train, shuffle),
        "copies": rebuilt(train, bootstrap),
    }
    return scld.evaluate(train, test, datasets, **{**QUICK, "replicates": 2})
