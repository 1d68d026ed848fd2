import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from scld.kernels.parallel import (
    PARTS,
    is_compiled_case,
    parallel_for,
    single_threaded_pool,
    single_threaded_torch,
    thread_count,
)


@pytest.mark.parametrize("number", [0, 1, 3, 4, 5, 1001])
@pytest.mark.parametrize("workers", [1, 3])
def test_every_cell_is_in_one_part_for_any_number_of_threads(threads, number, workers):
    threads(workers)
    spans, lock = {}, threading.Lock()

    def work(part, first, stop):
        with lock:
            spans[part] = (first, stop)

    parallel_for(work, number)
    assert sorted(spans) == list(range(PARTS))
    cells = [cell for part in range(PARTS) for cell in range(*spans[part])]
    assert cells == list(range(number))


def test_sums_by_part_are_the_same_bytes_for_any_number_of_threads(threads):
    terms = np.random.default_rng(0).lognormal(0, 3, 10_001).astype(np.float32)
    results = []
    for workers in (1, 2, 3, 5):
        threads(workers)
        sums = np.zeros(PARTS, np.float32)

        def work(part, first, stop, sums=sums):
            sums[part] = terms[first:stop].sum()

        parallel_for(work, len(terms))
        results.append(sums.sum().tobytes())
    assert len(set(results)) == 1


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_in_a_part_is_raised(threads, workers):
    def work(part, first, stop):
        if part == 2:
            raise ValueError("of this part")

    threads(workers)
    with pytest.raises(ValueError, match="of this part"):
        parallel_for(work, 10)


def test_compiled_code_takes_float32_on_a_cpu():
    assert is_compiled_case(torch.zeros(1))
    assert not is_compiled_case(torch.zeros(1, dtype=torch.float64))
    assert not is_compiled_case(torch.zeros(1, device="meta"))


def test_torch_has_one_thread_while_compiled_code_keeps_its_threads(threads):
    threads(3)
    assert thread_count() == 3
    with single_threaded_torch():
        assert (torch.get_num_threads(), thread_count()) == (1, 3)
        with single_threaded_torch():
            assert (torch.get_num_threads(), thread_count()) == (1, 3)
        assert (torch.get_num_threads(), thread_count()) == (1, 3)
    assert (torch.get_num_threads(), thread_count()) == (3, 3)


def test_the_number_of_threads_is_restored_after_an_error(threads):
    threads(3)
    with pytest.raises(ValueError, match="within"), single_threaded_torch():
        raise ValueError("within")
    assert (torch.get_num_threads(), thread_count()) == (3, 3)


def test_parts_run_at_the_same_time_beside_a_torch_of_one_thread(threads):
    threads(2)
    both = threading.Barrier(2)  # one part alone would wait, and raise at the timeout
    with single_threaded_torch():
        parallel_for(lambda part, first, stop: both.wait(timeout=30), 10)


def test_every_thread_of_the_pool_has_one_torch_thread_and_all_others_keep_theirs(threads):
    threads(3)
    together = threading.Barrier(4)

    def number(_):
        together.wait(timeout=30)
        return torch.get_num_threads()

    with single_threaded_pool(4) as pool:
        assert list(pool.map(number, range(4))) == [1] * 4
        assert torch.get_num_threads() == 3
        new = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        seen = []
        new.start()
        new.join()
        assert seen == [3]


def test_an_interruption_while_the_pool_starts_leaves_no_thread_waiting(threads, monkeypatch):
    threads(3)
    before, here = set(threading.enumerate()), threading.current_thread()

    class Interrupted(threading.Barrier):
        def wait(self, timeout=None):
            if threading.current_thread() is here:
                raise KeyboardInterrupt
            return super().wait(timeout)

    monkeypatch.setattr("scld.kernels.parallel.Barrier", Interrupted)
    with pytest.raises(KeyboardInterrupt), single_threaded_pool(2):
        raise AssertionError("the pool started")
    assert set(threading.enumerate()) <= before
    assert torch.get_num_threads() == 3


_FORK = """
import os, sys
import torch

hooks = []
register = os.register_at_fork
def recording(**functions):
    hooks.append(sys._getframe(1).f_globals.get("__name__", ""))
    register(**functions)
os.register_at_fork = recording

from scld.kernels.parallel import parallel_for
assert not [name for name in hooks if name.split(".")[0] == "scld"], hooks

def cells():
    sizes = []
    parallel_for(lambda part, first, stop: sizes.append(stop - first), 10)
    return sum(sizes)

torch.set_num_threads(2)
assert cells() == 10
child = os.fork()
if child == 0:
    os._exit(cells())
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 10
assert cells() == 10
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_process_has_its_own_threads_without_a_fork_hook():
    """A pool inherited from the parent has no threads: work given to it would wait for ever."""
    command = [sys.executable, "-c", _FORK]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
