"""Any sequence of recording, reading, crashing, reopening and damaging, against a plain dictionary."""

import functools
import os
import random
import shutil
import tempfile
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule
from journals import journal

from jcache.journal import Journal, JournalError, Version
from jcache.segment.format import PIECE_BYTES

SIZE = 3 * PIECE_BYTES
VERSIONS = [Version(SIZE, etag=f'"{n}"') for n in range(2)]
REMOTES = [random.Random(n).randbytes(SIZE) for n in range(2)]

# Small offsets collide often; large ones cross pieces.
offsets = st.integers(0, 60) | st.integers(0, SIZE)
lengths = st.integers(0, 30) | st.integers(0, SIZE)
which = st.integers(0, 1)


class JournalMachine(RuleBasedStateMachine):
    """`model` has, for each version, what must be a hit; `damage` says that some of it may have become a gap."""

    journals = Bundle("journals")

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.mkdtemp()
        self.model: list[set[tuple[int, int]]] = [set(), set()]
        self.damage = False
        self.opened: list[Journal] = []
        # Names, and so the order of segments, repeat: hypothesis must be able to replay what it found.
        salts = functools.partial(random.Random(0).getrandbits, 64)
        self.salts = mock.patch("jcache.segment.writer.new_salt", salts)
        self.salts.start()

    def teardown(self) -> None:
        self.salts.stop()
        for each in self.opened:
            each.forget()
        shutil.rmtree(self.directory)

    @rule(target=journals)
    def open(self) -> Journal:
        opened = journal(self.directory)
        opened.attach()
        self.opened.append(opened)
        return opened

    @rule(target=journals, each=consumes(journals), how=st.sampled_from(["close", "crash", "seal"]))
    def end(self, each: Journal, how: str):
        if how == "seal":
            each.seal()
            return each
        each.close() if how == "close" else each.forget()
        self.opened.remove(each)
        return multiple()

    @rule(each=journals, which=which, extents=st.lists(st.tuples(offsets, lengths), max_size=5))
    def record(self, each: Journal, which: int, extents: list[tuple[int, int]]) -> None:
        chosen: list[tuple[int, int]] = []
        for start, length in extents:
            stop = min(SIZE, start + length)
            if stop > start and all(stop <= a or b <= start for a, b in chosen):
                chosen.append((start, stop))
        each.append(VERSIONS[which], {}, [(a, REMOTES[which][a:b]) for a, b in chosen])
        self.model[which].update(chosen)
        self.check(each, which, chosen)

    @rule(each=journals, which=which, start=offsets, length=lengths)
    def read(self, each: Journal, which: int, start: int, length: int) -> None:
        each.refresh()
        self.check(each, which, [(start, min(SIZE, start + length))])

    @rule(each=journals)
    def announce(self, each: Journal) -> None:
        each.announce()

    @rule(each=journals, at_least=st.integers(1, 3))
    def compact(self, each: Journal, at_least: int) -> None:
        each.compact(at_least=at_least)
        each.refresh()
        for which in range(2):
            self.check(each, which, self.model[which])

    @rule(each=journals, which=which)
    def read_everything(self, each: Journal, which: int) -> None:
        each.refresh()
        self.check(each, which, self.model[which])

    def check(self, each: Journal, which: int, ranges) -> None:
        view, remote = each.view(VERSIONS[which]), REMOTES[which]
        for start, stop in ranges:
            at, hits = start, []
            for part in view.find(start, stop):
                assert part[0] == at < part[1]
                at = part[1]
                if part[2] is None:
                    continue
                try:
                    assert view.read(part) == remote[part[0] : part[1]]
                except JournalError:
                    assert self.damage
                else:
                    hits.append(part[:2])
            assert at == max(start, stop)
            if not self.damage:
                assert sum(b - a for a, b in hits) == covered(self.model[which], start, stop)

    @invariant()
    def covered_is_what_is_readable(self) -> None:
        if self.damage:
            return
        for each in self.opened:
            for version in VERSIONS:
                view = each.view(version)
                assert view.covered() == sum(b - a for a, b, run, *_ in view.find(0, SIZE) if run is not None)


class DamagedJournalMachine(JournalMachine):
    """Segments are also damaged, cut and removed: whatever is still a hit has the right bytes."""

    @rule(segment=st.integers(0, 9), place=st.integers(0, 2000) | st.integers(0, 1 << 20), mask=st.integers(1, 255))
    def damage_a_byte(self, segment: int, place: int, mask: int) -> None:
        path = self.segment(segment)
        if path is None or not os.path.getsize(path):
            return
        place %= os.path.getsize(path)
        with open(path, "r+b") as file:
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ mask]))
        self.damage = True

    @rule(segment=st.integers(0, 9))
    def remove_a_segment(self, segment: int) -> None:
        path = self.segment(segment)
        if path is not None:
            os.unlink(path)
            self.damage = True

    @rule(segment=st.integers(0, 9), size=st.integers(0, 2000) | st.integers(0, 1 << 20))
    def cut_a_segment(self, segment: int, size: int) -> None:
        path = self.segment(segment)
        if path is not None:
            os.truncate(path, min(size, os.path.getsize(path)))
            self.damage = True

    def segment(self, number: int) -> str | None:
        names = sorted(os.listdir(self.directory))
        return os.path.join(self.directory, names[number % len(names)]) if names else None


def covered(ranges: set[tuple[int, int]], start: int, stop: int) -> int:
    total = reach = 0
    for a, b in sorted(ranges):
        total += max(0, min(b, stop) - max(a, start, reach))
        reach = max(reach, min(b, stop))
    return total


_SETTINGS = settings(max_examples=150, stateful_step_count=40, deadline=None, derandomize=True, database=None)
TestJournal = JournalMachine.TestCase
TestJournal.settings = _SETTINGS
TestDamagedJournal = DamagedJournalMachine.TestCase
TestDamagedJournal.settings = _SETTINGS
