"""In which order journals go."""

from __future__ import annotations

import random
import time

from jcache.cache.policy import AGAIN_S, KEPT_FOR_S, eviction_order, times_read_again
from jcache.cache.usage import Entry

NOW_S = time.time()
MB = 1_000_000


def order_of(entries: dict[str, Entry]) -> list[str]:
    first, last = eviction_order(entries, 100 * MB)
    return first + last


def entry(age_s: float, *, times: float = 0, size: int = MB, gone: bool = False) -> Entry:
    made = Entry(NOW_S - age_s, 1, int(times * MB), size_bytes=0 if gone else size, looked_s=NOW_S if gone else 1.0)
    assert made.is_gone == gone
    return made


def test_once_read_it_is_the_least_recently_used_that_goes() -> None:
    ages = random.Random(3).sample(range(20, 10_000), 50)
    entries = {str(age): entry(age) for age in ages}
    assert order_of(entries) == [str(age) for age in sorted(ages, reverse=True)]


def test_what_was_read_again_outlives_a_scan() -> None:
    entries = {f"scan{n}": entry(20 + n) for n in range(100)}
    entries |= {"daily": entry(86400, times=1), "hot": entry(30, times=5)}
    assert order_of(entries)[-2:] == ["daily", "hot"]


def test_headers_that_are_read_again_and_again_are_no_use_of_a_file() -> None:
    assert times_read_again(entry(20, times=0.49)) == 0
    assert times_read_again(entry(20, times=0.5)) == 1
    assert times_read_again(entry(20, times=1.0, size=MB + 500)) == 1
    assert times_read_again(entry(20, times=7.1)) == 7
    assert times_read_again(entry(20, times=9, size=0)) == 0, "how large it is is not known"


def test_half_of_the_cache_is_for_what_is_new() -> None:
    entries = {f"again{n}": entry(5000 + n, times=1) for n in range(80)} | {f"new{n}": entry(20 + n) for n in range(20)}
    order = order_of(entries)
    assert order[:30] == [f"again{n}" for n in range(79, 49, -1)], "beyond half they are as good as any other"
    assert order[30:50] == [f"new{n}" for n in range(19, -1, -1)]
    assert order[50:] == [f"again{n}" for n in range(49, -1, -1)]


def test_what_was_used_again_and_is_no_more_goes_after_two_weeks() -> None:
    entries = {"old": entry(KEPT_FOR_S + 3600, times=100), "new": entry(20)}
    assert order_of(entries) == ["old", "new"]
    assert order_of({**entries, "old": entry(KEPT_FOR_S - 3600, times=1)}) == ["new", "old"]


def test_what_is_read_all_the_time_and_noted_once_a_minute_stays_before_what_was_read_twice() -> None:
    entries = {"hot": entry(AGAIN_S + 20, times=3)} | {f"twice{n}": entry(20, times=1) for n in range(9)}
    assert order_of(entries)[-1] == "hot"


def test_what_is_gone_is_not_looked_for() -> None:
    assert order_of({"gone": entry(100, gone=True), "there": entry(100)}) == ["there"]
