"""Any sequence of reads, crashes, second processes, replaced origins and failing disks, against plain bytes."""

import asyncio
import errno
import os
import random
import secrets
import shutil
import tempfile
from unittest import mock

import pytest
from faults import FaultyStorage, error
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from readers import PATIENCE_S, URL, Host, Replaced, ScriptedOrigin

from jcache.errors import OriginChangedError
from jcache.journal import Journal
from jcache.reader.remote import RemoteFile

SIZE = 600
spans = st.lists(
    st.tuples(st.none() | st.integers(-SIZE - 5, SIZE + 20), st.none() | st.integers(-SIZE - 5, SIZE + 20)),
    min_size=1,
    max_size=4,
)


class Process:
    """A process with the file open, and what it was given."""

    def __init__(self, machine: "ReaderMachine", validate: str) -> None:
        self.storage = FaultyStorage(machine.fault)
        self.host = Host(validate=validate, limit_bytes=2000)
        self.journal = Journal(self.storage, machine.directory, URL)
        self.remote = RemoteFile(self.host, self.journal, url=URL)  # type: ignore[arg-type]
        # Which versions everything that was delivered may be of.
        self.delivered: set[int] | None = None
        self.expected = 0


class ReaderMachine(RuleBasedStateMachine):
    """Two processes at a time share a directory. `versions` has every state that the remote file ever had."""

    @initialize(fields=st.sampled_from(["etag", "mtime_ns", "etag mtime_ns"]), conditional=st.booleans())
    def begin(self, fields: str, conditional: bool) -> None:
        self.directory = tempfile.mkdtemp()
        self.fields = fields
        self.versions = [Replaced(0, SIZE, fields=fields)]
        self.origin = ScriptedOrigin(self.versions[0])
        self.origin.conditional = conditional
        self.failing: set[str] = set()
        self.unproved = False
        self.processes: list[Process] = []
        self.patches = [
            mock.patch.object(os, "urandom", random.Random(0).randbytes),
            mock.patch.object(secrets, "randbits", random.Random(0).getrandbits),
        ]
        for patch in self.patches:
            patch.start()
        self.start("open")

    def teardown(self) -> None:
        if not hasattr(self, "processes"):
            return
        self.failing.clear()
        for process in self.processes:
            process.host.recorder.call(process.remote.close)
            process.host.close()
        for patch in self.patches:
            patch.stop()
        shutil.rmtree(self.directory)

    def fault(self, name: str, number: int):
        if name in self.failing:
            return (3, error(errno.ENOSPC)) if name == "pwritev" and number % 2 else error(errno.EIO)
        return None

    # -- processes -----------------------------------------------------------------------------------------------

    @rule(validate=st.sampled_from(["open", "open", "never"]))
    def start(self, validate: str) -> None:
        if len(self.processes) < 2:
            self.processes.append(Process(self, validate))

    @rule(which=st.integers(0, 1), how=st.sampled_from(["close", "crash"]))
    def end(self, which: int, how: str) -> None:
        if which < len(self.processes):
            process = self.processes.pop(which)
            if how == "crash":
                process.host.recorder.give_up()
                process.storage.crashed = True
                process.journal.forget()
            else:
                process.host.recorder.call(process.remote.close)
            process.host.recorder.close(PATIENCE_S)

    @rule(which=st.integers(0, 1))
    def settle(self, which: int) -> None:
        if which < len(self.processes):
            assert self.processes[which].host.recorder.flush(PATIENCE_S)

    # -- the world -------------------------------------------------------------------------------------------------

    @rule(grow=st.sampled_from([0, 0, 0, 50, -50]))
    def replace(self, grow: int) -> None:
        size = self.origin.state.version.size_bytes + grow
        self.versions.append(Replaced(len(self.versions), max(size, 0), fields=self.fields))
        self.origin.state = self.versions[-1]

    @rule(names=st.sets(st.sampled_from(["pwritev", "pread", "listdir", "open", "mkdir", "fstat", "stat"]), max_size=3))
    def disk(self, names: set[str]) -> None:
        self.failing = names

    @rule(kind=st.sampled_from(["short", "error", "unproved", "fetch", "unrecordable", "midway"]))
    def misbehave(self, kind: str) -> None:
        """The next fetch goes wrong."""
        origin, number = self.origin, self.origin.fetches + 1

        def answer(data):
            if kind == "short":
                data = [part[:-1] if part else part for part in data]
            elif kind == "error":
                data = [OSError("broken"), *data[1:]]
            reset()
            return data

        async def before(at, ranges):
            if kind == "fetch":
                reset()
                raise OSError("connection lost")
            if kind == "midway" and at == number:
                self.replace(0)

        def reset() -> None:
            origin.answer = origin.before = None
            origin.proves = origin.recordable = True

        reset()
        origin.answer, origin.before = answer, before
        origin.proves = kind != "unproved"
        self.unproved = self.unproved or kind == "unproved"
        origin.recordable = kind != "unrecordable"

    # -- reading -----------------------------------------------------------------------------------------------------

    @rule(which=st.integers(0, 1), vectors=st.lists(spans, min_size=1, max_size=3), cancel=st.integers(0, 60))
    def read(self, which: int, vectors: list, cancel: int) -> None:
        """Read several vectors at once; cancel the first after some steps where `cancel` is below 30."""
        if which < len(self.processes):
            process = self.processes[which]

            async def scene() -> list:
                tasks = [asyncio.create_task(process.remote.read(self.origin, v, vector=True)) for v in vectors]
                if cancel < 30:
                    for _ in range(cancel):
                        await asyncio.sleep(0)
                    tasks[0].cancel()
                async with asyncio.timeout(PATIENCE_S):
                    return await asyncio.gather(*tasks, return_exceptions=True)

            self.check_all(process, vectors, asyncio.run(scene()))

    @rule(which=st.integers(0, 1), vector=spans)
    def try_read(self, which: int, vector: list) -> None:
        if which < len(self.processes):
            process = self.processes[which]
            result = process.remote.try_read(vector, vector=True)
            if result is not None:
                self.check(process, vector, result)

    @rule(which=st.integers(0, 1), start=st.integers(0, SIZE), length=st.integers(1, 50), ahead=st.integers(1, 300))
    def sequential(self, which: int, start: int, length: int, ahead: int) -> None:
        if which < len(self.processes):
            process = self.processes[which]

            async def scene() -> list:
                span = (start, start + length)
                try:
                    return await process.remote.read(self.origin, [span], vector=True, ahead_bytes=ahead)
                except OSError as problem:
                    return problem  # type: ignore[return-value]

            self.check(process, [(start, start + length)], asyncio.run(scene()))
            asyncio.run(process.remote.prefetch(self.origin, start + length, start + length + ahead))

    @rule(which=st.integers(0, 1))
    def drop_ahead(self, which: int) -> None:
        if which < len(self.processes):
            self.processes[which].remote.drop_ahead()

    @rule(which=st.integers(0, 1))
    def write(self, which: int) -> None:
        """A process that writes to the file knows that what it held is old."""
        if which < len(self.processes):
            self.replace(0)
            self.processes[which].remote.invalidate()
            self.processes[which].delivered = None

    def check(self, process: Process, vector: list, result) -> None:
        self.check_all(process, [vector], [result])

    def check_all(self, process: Process, vectors: list, results: list) -> None:
        """Check vectors that were read at the same time."""
        changed = any(isinstance(result, OriginChangedError) for result in results)
        for vector, result in zip(vectors, results, strict=True):
            if isinstance(result, BaseException):
                assert isinstance(result, OriginChangedError | asyncio.CancelledError), repr(result)
                continue
            wrong = [row for row in result if not isinstance(row, bytes)]
            assert all(isinstance(row, OSError) for row in wrong), wrong
            rows = [(row, span) for row, span in zip(result, vector, strict=True) if isinstance(row, bytes)]
            process.expected += sum(len(row) for row, _ in rows)
            # Each byte equals one version of the origin throughout the vector ...
            of = {n for n, state in enumerate(self.versions) if all(row == state.data[a:b] for row, (a, b) in rows)}
            assert of, (vector, result)
            # ... and throughout the process, until it is told by an error. Without proof there is no more than the
            # plain file system gives.
            if not changed and not self.unproved and any(row for row, _ in rows):
                process.delivered = of if process.delivered is None else process.delivered & of
                assert process.delivered, "another version without an error"
        if changed:
            process.delivered = None

    # -- what always holds -------------------------------------------------------------------------------------------

    @precondition(lambda self: hasattr(self, "processes"))
    @invariant()
    def nothing_is_left_behind(self) -> None:
        for process in self.processes:
            snapshot = process.remote._validation.snapshot
            if snapshot is not None:
                assert not list(snapshot._flights)
            assert process.remote._validation.opening is None

    @precondition(lambda self: hasattr(self, "processes"))
    @invariant()
    def numbers_add_up(self) -> None:
        for process in self.processes:
            seen = process.host.counters.snapshot()
            assert seen.readv_hit + seen.readv_miss + seen.readv_bypass >= process.expected

    @precondition(lambda self: hasattr(self, "processes") and not self.failing)
    @invariant()
    def the_journal_has_only_bytes_of_their_version(self) -> None:
        for process in self.processes:
            for state in self.versions:
                view = process.journal.view(state.version)
                for part in view.find(0, state.version.size_bytes):
                    if part[2] is not None:
                        assert view.read(part) == state.data[part[0] : part[1]]


# A crash stops the recording thread where it is.
TestReader = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")(ReaderMachine.TestCase)
TestReader.settings = settings(max_examples=120, stateful_step_count=40, deadline=None, derandomize=True, database=None)
