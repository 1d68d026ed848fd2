import pytest
import torch
from toy import TINY, make_cells

import scld


@pytest.fixture(scope="session")
def config():
    return scld.Config.from_dict(TINY)


@pytest.fixture
def cells():
    return make_cells()


@pytest.fixture(scope="session")
def synth(config):
    """Fitted on two labels, with an active discriminator; read only."""
    labels = ["cell_type", "donor"]
    synth = scld.Synthesizer(labels, config=config).fit(make_cells(), progress=False)
    assert synth._fitted.generator.discriminator.active
    return synth


@pytest.fixture(scope="session")
def saved(synth, tmp_path_factory):
    """Its checkpoint; read only."""
    path = tmp_path_factory.mktemp("saved") / "model.scld"
    synth.save(path)
    return path


@pytest.fixture
def threads():
    """Sets the number of threads, until the end of the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _same_noise_in_every_test():
    torch.manual_seed(0)
