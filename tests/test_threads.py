import multiprocessing
import threading

import pytest

from scld.threads import PARTS, side_by_side


@pytest.mark.parametrize("number", [0, 1, 3, 4, 5, 1001])
@pytest.mark.parametrize("workers", [1, 3])
def test_every_item_is_in_one_part_whatever_the_number_of_threads(threads, number, workers):
    threads(workers)
    seen, lock = {}, threading.Lock()

    def work(part, span):
        with lock:
            seen[part] = span

    side_by_side(work, number)
    assert sorted(seen) == list(range(PARTS))
    assert [item for part in range(PARTS) for item in range(*seen[part])] == list(range(number))


def test_an_error_in_a_part_is_not_lost(threads):
    def work(part, span):
        if part == 2:
            raise ValueError("of this part")

    for workers in (1, 3):
        threads(workers)
        with pytest.raises(ValueError, match="of this part"):
            side_by_side(work, 10)


def _sum_of_parts(answer):
    seen = []
    side_by_side(lambda part, span: seen.append(span[1] - span[0]), 10)
    answer.put(sum(seen))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="nothing forks here")
def test_a_fork_has_threads_of_its_own(threads):
    threads(2)
    side_by_side(lambda part, span: None, 10)
    fork = multiprocessing.get_context("fork")
    answer = fork.SimpleQueue()
    child = fork.Process(target=_sum_of_parts, args=(answer,), daemon=True)
    child.start()
    child.join(20)
    assert child.exitcode == 0
    assert answer.get() == 10
