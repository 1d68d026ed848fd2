import numpy as np
import scipy.sparse as sp
import torch
from small import TINY, make_cells

from scld import Config
from scld.fitting import Fit, split
from scld.selector import Selector


def rows(counts):
    return {row.tobytes() for row in counts.toarray()}


def test_the_selector_learns_from_real_cells_and_from_generated_ones_with_their_labels(monkeypatch):
    """Of each real cell, or of some where they are many; the components come from cells that are not told from real ones."""
    seen, usual = [], Selector.of
    monkeypatch.setattr(Selector, "of", lambda *args: seen.append(args) or usual(*args))
    cells = make_cells()
    counts, codes = sp.csr_matrix(cells.X)[:, np.arange(30) != 4], cells.obs[["donor", "treated"]].to_numpy().astype(np.int64)
    config = Config.from_dict({**TINY, "selector": {**TINY["selector"], "most_cells": 50, "generated": 3}})
    Fit(counts, codes, (2, 2), config, 0, torch.device("cpu"), None, lambda text, length: lambda done, said: None).run()
    reference, told, held_out, *_ = seen[0]
    assert [reference.shape[0], *(part.shape[0] for part in (*told[:2], *held_out[:2]))] == [50, 50, 150, 12, 36]
    known = {counts[i].toarray()[0].tobytes(): tuple(codes[i]) for i in range(120)}
    for real, generated, of_real, of_generated in (told, held_out):
        assert [known[row.tobytes()] for row in real.toarray()] == list(map(tuple, of_real))
        np.testing.assert_array_equal(of_generated, np.tile(of_real, (3, 1)))
        assert len(rows(reference) & rows(generated)) < 3
        assert len(rows(real) & rows(generated)) < 3
    assert rows(held_out.real) == rows(counts[split(codes, config.held_out, 0)[1].numpy()])
    assert not rows(told.real) & rows(held_out.real)


def test_a_critic_that_does_no_better_than_a_guess_is_silent():
    cells = make_cells()
    counts, codes = sp.csr_matrix(cells.X)[:, np.arange(30) != 4], cells.obs[["donor"]].to_numpy().astype(np.int64)
    for rate in (0.0, 0.02):  # one that does not learn stays at a guess
        config = Config.from_dict({**TINY, "critic_training": {**TINY["critic_training"], "learning_rate": rate}})
        generator, summary = Fit(counts, codes, (2,), config, 0, torch.device("cpu"), None, lambda text, length: lambda done, said: None).run()
        guesses = rate == 0 or min(summary["critic"]["validation"]) >= np.log(2)
        assert bool(generator.critic.outlet.weight.any()) != guesses


def test_a_rare_category_is_kept_for_training():
    """Held-out cells come from common categories, so that the few of a rare one are learnt from."""
    codes = np.repeat([0, 1, 2], [100, 5, 40])[:, None]
    for seed in range(20):
        train, held_out = split(codes, 0.1, seed)
        assert sorted([*train.tolist(), *held_out.tolist()]) == list(range(145))
        assert 1 not in codes[held_out.numpy()]
        assert len(held_out) == 14
