"""Reports to test with: made by real counters on a clock of their own."""

import random

from jcache.counters import Counters
from jcache.report.counted import from_counters
from jcache.report.model import Report


class Clock:
    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def ttbar_report(*, seed: int = 1, real_s: float = 72.48, events: int = 4000, warm: float = 1.0, **names) -> Report:
    """Return the report of a job whose hit rate rises from nothing to all in the first `1 / warm` of its run."""
    rng = random.Random(seed)
    clock = Clock()
    counters = Counters(clock=clock, start_time=names.pop("start_time", 1729505520.125))
    opened = set()
    for number in range(events):
        share = number / events
        clock.now = real_s * (0.03 + 0.94 * share)
        nbytes = rng.randrange(100_000, 12_000_000)
        hit = nbytes if share * warm > rng.random() else 0 if rng.random() < 0.8 else nbytes // 3
        url = f"root://eospublic.cern.ch//eos/nano_{rng.randrange(80)}.root"
        if number % 20 == 0 or url not in opened:
            opened.add(url)
            counters.file_opened(url, 1_226_902_508, 0.001)
        if rng.random() < 0.25:
            counters.readv(rng.randrange(2, 20), nbytes, hit, nbytes - hit, 0, url=url, seconds=0.001)
        else:
            counters.read(nbytes, hit, nbytes - hit, 0, url=url, seconds=0.001)
        if hit < nbytes:
            counters.origin(requests=1, nbytes=nbytes - hit, seconds=(nbytes - hit) / 500e6)
            counters.recorded(nbytes - hit)
    clock.now = real_s
    values = {"appname": "ttbar", "host": "lxplus042", "pid": 4242, "command": ["python", "ttbar.py", "--year", "2018"]}
    return from_counters(counters, **{**values, **names}, user_s=3329.07, sys_s=41.17)


def empty_report(**names) -> Report:
    clock = Clock()
    counters = Counters(clock=clock, start_time=1729505520.125)
    clock.now = 1.5
    values = {"appname": "idle", "host": "lxplus042", "pid": 7, "command": "idle"}
    return from_counters(counters, **{**values, **names}, user_s=0.5, sys_s=0.0)
