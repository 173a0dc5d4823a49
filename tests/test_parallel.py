import os
import warnings

import pytest

from usdrl_hub.data.parallel import ReadingPool
from usdrl_hub.errors import USDRLWarning, notice


def work(number):
    if number % 7 == 3:
        notice(f"item {number}", "items of a kind")
    return number, os.getpid()


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order_with_the_notices_of_all_processes(workers):
    # More items than blocks are waited for.
    with warnings.catch_warnings(record=True) as caught, ReadingPool(workers) as pool:
        warnings.simplefilter("always")
        found = list(pool.map(work, range(400)))
    assert [number for number, _ in found] == list(range(400))
    assert (os.getpid() in {process for _, process in found}) == (workers == 1)
    messages = [str(item.message) for item in caught if issubclass(item.category, USDRLWarning)]
    assert messages == [f"item {number}" for number in range(3, 400, 7)]


def test_items_are_not_taken_long_before_they_are_needed():
    taken = []
    with ReadingPool(2) as pool:
        results = pool.map(work, (taken.append(number) or number for number in range(10_000)))
        assert next(results)[0] == 0
    assert len(taken) < 500


def test_at_least_one_process_reads():
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        ReadingPool(0)
