import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scld.generation.batches import Assembly, Cells, resized
from scld.generation.generator import Drawn
from scld.generation.request import SamplingRequest
from scld.schema import Schema

RANDOM = np.random.default_rng(0)


def make_pages(*sizes, genes=6):
    counts = [RANDOM.poisson(0.7, (size, genes)).astype(np.float32) for size in sizes]
    return [Drawn(sp.csr_matrix(some), sp.csr_matrix(some), some + 0.5) for some in counts]


def dense(pages):
    return np.concatenate([page.counts.toarray() for page in pages])


@pytest.mark.parametrize("size", [1, 2, 5, 7, 8, 20, 1000])
@pytest.mark.parametrize("sizes", [(7,), (7, 7, 7), (7, 7, 3), (7, 0, 1), (0, 2)], ids=str)
def test_batches_hold_the_same_rows_in_order(sizes, size):
    pages = make_pages(*sizes)
    batches = list(resized(iter(pages), size))
    np.testing.assert_array_equal(dense(batches), dense(pages))
    np.testing.assert_array_equal(
        np.concatenate([batch.mean for batch in batches]), dense(pages) + 0.5
    )
    counts = [batch.counts for batch in batches]
    assert [some.shape[0] for some in counts[:-1]] == [size] * (len(batches) - 1)
    assert 1 <= counts[-1].shape[0] <= size
    assert all(isinstance(some, sp.csr_matrix) for some in counts)
    assert {some.dtype for some in counts} == {np.dtype(np.float32)}


def test_no_pages_make_no_batches():
    assert list(resized([], 3)) == []


def test_a_batch_is_given_as_soon_as_its_rows_are_there():
    taken = []

    def pages():
        for page in make_pages(4, 4, 4):
            taken.append(page)
            yield page

    batches = resized(pages(), 6)
    assert taken == []
    next(batches)
    assert len(taken) == 2


class Counting:
    """A stand-in for a page: rows without content; it counts how many of them are copied."""

    copied = 0

    def __init__(self, rows):
        self.shape = (rows, 1)

    def __getitem__(self, rows):
        part = Counting(len(range(*rows.indices(self.shape[0]))))
        Counting.copied += part.shape[0]
        return part


def stack(parts, format=None):
    total = sum(part.shape[0] for part in parts)
    Counting.copied += total
    return Counting(total)


@pytest.fixture
def copies(monkeypatch):
    """Number of rows copied to make batches of a size from pages of 256 cells."""

    class Sparse:
        vstack = staticmethod(stack)
        csr_matrix = staticmethod(lambda counts: counts)

    monkeypatch.setattr("scld.generation.batches.sp", Sparse)

    def count(cells, size):
        Counting.copied = 0
        counts = [Counting(min(256, cells - first)) for first in range(0, cells, 256)]
        pages = [Drawn(some, some) for some in counts]
        assert sum(batch.counts.shape[0] for batch in resized(pages, size)) == cells
        return Counting.copied

    return count


@pytest.mark.parametrize("size", [1, 100, 256, 1000, 10**6])
def test_the_number_of_rows_copied_grows_with_the_number_of_cells_and_not_its_square(copies, size):
    """Each row is cut from its page once, and stacked once, whatever the size of a batch."""
    for cells in (1_000, 4_000, 16_000):
        assert copies(cells, size) <= 2 * cells


def test_assembled_cells_have_all_genes_names_labels_and_settings():
    obs = pd.DataFrame({"type": ["B", "T", "T"]})
    schema = Schema.of(obs, ["type"])
    genes = pd.DataFrame({"gene": list("abcd"), "seen": [True, False, True, True]})
    settings = {"seed": 3, "guidance": {"type": 1.0}}
    request = SamplingRequest(schema.codes(obs), columns={"flag": np.array([True, False, True])})
    counts = sp.csr_matrix(np.array([[1, 0, 2], [0, 3, 0]], np.float32))
    assembly = Assembly(genes, schema, settings, {"effect": np.arange(4)})
    cells = assembly.assemble(Cells(counts, np.ones((2, 3), np.float32)), request, 1)
    assert cells.layers["mean"].tolist() == [[1, 0, 1, 1]] * 2
    assert cells.var["effect"].tolist() == [0, 1, 2, 3]
    assert cells.X.toarray().tolist() == [[1, 0, 0, 2], [0, 0, 3, 0]]
    assert cells.var_names.tolist() == list("abcd")
    assert cells.obs_names.tolist() == ["cell_1", "cell_2"]
    assert cells.obs["type"].tolist() == ["T", "T"]
    assert cells.obs["flag"].tolist() == [False, True]
    assert cells.uns["scld"] == settings
    cells.uns["scld"]["guidance"]["type"] = 4.0
    assert settings["guidance"] == {"type": 1.0}
