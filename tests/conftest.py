import pytest
import torch
from small import TINY, make_cells

import scld


@pytest.fixture(scope="session")
def config():
    return scld.Config.from_dict(TINY)


@pytest.fixture
def cells():
    return make_cells()


@pytest.fixture(scope="session")
def synth(config):
    """Fitted on two labels; read only."""
    return scld.Synthesizer(["cell_type", "donor"], config=config).fit(make_cells(), progress=False)


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
def _same_noise_every_time():
    torch.manual_seed(0)
