"""One remote file in one process: right bytes of one version, each fetched once, and nothing left behind."""

import asyncio
import datetime as dt
import errno
import random
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from faults import FaultyStorage, error
from readers import IDENTITY, PATIENCE_S, URL, Host, Replaced, ScriptedOrigin, Setup, once

from jcache.errors import OfflineMissError, OriginChangedError, ShortReadError
from jcache.journal import Journal, JournalError, Version
from jcache.journal.turns import Turn
from jcache.origin import Info
from jcache.planning import waiting
from jcache.planning.held import Room
from jcache.reader.lookout import Lookout
from jcache.reader.remote import RemoteFile
from jcache.system.locks import Outcome
from jcache.system.storage import Storage

OLD, NEW = Replaced(1), Replaced(2)


@pytest.fixture
def setup(tmp_path):
    made = []

    def make(**options) -> Setup:
        made.append(Setup(tmp_path / "j", **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def warm(setup, *spans: tuple[int, int], state: Replaced = OLD) -> None:
    """Record ranges as another process did before."""
    first = setup(state=state)
    assert asyncio.run(first.read(*spans)) == [state.data[a:b] for a, b in spans]
    first.remote.close() if first.host.recorder.flush(PATIENCE_S) else None


def counts(each: Setup):
    return each.host.counters.snapshot()


# -- what is read, and what is fetched for it --------------------------------------------------------------------


def test_cold_then_warm_then_more(setup) -> None:
    each = setup()
    spans = [(100, 200), (150, 250), (100, 200), (-10, None), (None, 5), (300, 300), (3990, 5000), (9000, 9010)]
    for _ in range(2):
        assert asyncio.run(each.read(*spans)) == [OLD.data[a:b] for a, b in spans]
        each.settle()
    assert sorted(each.origin.fetched) == [(0, 5), (100, 200), (200, 250), (3990, 4000)]
    assert asyncio.run(each.read((0, 300))) == [OLD.data[:300]]
    assert sorted(each.origin.fetched[4:]) == [(5, 100), (250, 300)]
    each.assert_empty()
    each.assert_adds_up()
    seen = counts(each)
    assert seen.readv_hit + seen.readv_miss == sum(len(OLD.data[a:b]) for a, b in [*spans, *spans, (0, 300)])
    assert seen.recorded_bytes == each.origin.sent == each.journal.view(OLD.version).covered()
    assert each.try_read(*spans) == [OLD.data[a:b] for a, b in spans]


def test_the_first_read_asks_for_nothing_but_the_bytes(setup) -> None:
    each = setup()
    assert asyncio.run(each.read((5, 9), (10, None))) == [OLD.data[5:9], OLD.data[10:]]
    assert each.origin.stats == 0
    assert each.origin.fetched == [(5, 9), (10, None)]


def test_a_range_counted_from_the_end_asks_for_the_size_first(setup) -> None:
    each = setup()
    assert asyncio.run(each.read((-9, None), (3, -4))) == [OLD.data[-9:], OLD.data[3:-4]]
    assert each.origin.stats == 1


def test_what_bytes_have_said_goes_before_what_a_stat_says_of_which_the_journal_is_looked_for(
    setup, monkeypatch
) -> None:
    each = setup()
    longer = Version(4007, etag='"1"')  # as HEAD may have it

    async def stat() -> Info:
        return Info(longer, {"size": 4007})

    looking, read, view = asyncio.Event(), asyncio.Event(), each.remote._store.view

    async def looked(version: Version):
        if version == longer:
            looking.set()
            await read.wait()
        return await view(version)

    async def wait(_: int) -> None:
        await looking.wait()

    monkeypatch.setattr(each.origin, "stat", stat)
    monkeypatch.setattr(each.remote._store, "view", looked)
    each.origin.behind = wait

    async def both() -> None:
        end = asyncio.ensure_future(each.read((-9, None)))
        assert await each.read((None, None)) == [OLD.data]
        read.set()
        assert await end == [OLD.data[-9:]]

    asyncio.run(both())
    each.assert_empty()


def test_another_process_is_served_from_the_journal_after_one_stat(setup) -> None:
    warm(setup, (0, 100))
    each = setup()
    assert asyncio.run(each.read((0, 100), (50, 60))) == [OLD.data[:100], OLD.data[50:60]]
    assert each.origin.stats == 1
    assert not each.origin.fetched
    assert each.try_read((0, 100)) == [OLD.data[:100]]
    assert counts(each).readv_hit == 210


def test_an_empty_file(setup) -> None:
    each = setup(state=Replaced(1, 0))
    assert asyncio.run(each.read((0, 10), (None, None))) == [b"", b""]
    assert asyncio.run(each.read((0, 10), (None, None))) == [b"", b""]
    each.assert_empty()


@pytest.mark.parametrize("seed", range(5))
def test_many_tasks_fetch_each_byte_once(setup, seed: int) -> None:
    each = setup()
    chosen = random.Random(seed)

    async def one() -> None:
        for _ in range(5):
            spans = [(a := chosen.randrange(3000), a + chosen.randrange(200)) for _ in range(4)]
            assert await each.read(*spans) == [OLD.data[a:b] for a, b in spans]

    async def many() -> None:
        await asyncio.gather(*(one() for _ in range(30)))

    asyncio.run(many())
    each.assert_empty()
    each.assert_adds_up()
    covered = each.journal.view(OLD.version).covered()
    assert each.origin.sent == covered == counts(each).recorded_bytes


def test_many_threads_with_loops_of_their_own_fetch_each_byte_once(setup) -> None:
    each = setup(pool=4)
    failures = []

    def run(seed: int) -> None:
        chosen = random.Random(seed)

        async def one() -> None:
            for _ in range(10):
                spans = [(a := chosen.randrange(3900), a + chosen.randrange(100)) for _ in range(4)]
                rows = each.try_read(*spans) or await each.read(*spans)
                assert rows == [OLD.data[a:b] for a, b in spans]

        try:
            asyncio.run(one())
        except BaseException as problem:
            failures.append(problem)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert not failures
    each.assert_empty()
    assert each.origin.sent == each.journal.view(OLD.version).covered()


# -- accounting --------------------------------------------------------------------------------------------------


def test_hits_and_misses_add_up_and_a_shared_fetch_is_a_miss_for_both(setup) -> None:
    each = setup()

    async def both() -> None:
        second = asyncio.Event()

        async def before(number, ranges) -> None:
            if number == 2:  # the second reader's own part: it waits for the first one's by now
                second.set()
            await second.wait()

        each.origin.before = before
        assert await asyncio.gather(each.read((0, 100)), each.read((50, 150))) == [[OLD.data[:100]], [OLD.data[50:150]]]

    asyncio.run(both())
    each.settle()
    each.origin.before = None
    asyncio.run(each.read((0, 200), vector=False))
    seen = counts(each)
    assert (seen.readv_hit, seen.readv_miss) == (0, 200)
    assert (seen.read_hit, seen.read_miss) == (150, 50)
    each.assert_adds_up()


def test_bytes_read_ahead_are_misses_when_they_are_asked_for(setup) -> None:
    each = setup()

    async def ahead() -> None:
        await each.read((0, 10), vector=False)
        await each.read((10, 20), vector=False, ahead_bytes=100)

    asyncio.run(ahead())
    assert each.origin.fetched == [(0, 10), (10, 120)]
    each.settle()
    assert counts(each).recorded_bytes == 20
    assert each.try_read((20, 30), vector=False) == [OLD.data[20:30]]
    assert asyncio.run(each.read((30, 40), vector=False)) == [OLD.data[30:40]]
    each.settle()
    assert each.try_read((20, 40), vector=False) == [OLD.data[20:40]]
    each.remote.drop_ahead()
    each.assert_empty()
    seen = counts(each)
    assert (seen.read_hit, seen.read_miss) == (20, 40)
    assert (seen.prefetch_bytes, seen.prefetch_unused_bytes) == (100, 80)
    assert seen.recorded_bytes == 40


def test_bytes_fetched_beside_a_damaged_extent_are_misses(setup, tmp_path) -> None:
    warm(setup, (0, 100))
    each = setup()
    asyncio.run(each.remote._validation.ready(each.origin))
    (path,) = (tmp_path / "j").iterdir()
    content = path.read_bytes()
    at = content.index(OLD.data[:100])
    path.write_bytes(content[:at] + b"X" + content[at + 1 :])
    assert asyncio.run(each.read((0, 200))) == [OLD.data[:200]]
    seen = counts(each)
    assert seen.readv_miss == 200
    assert seen.damaged_extents == 1
    each.assert_empty()
    each.assert_adds_up()


def test_unproved_bytes_count_as_misses_and_are_not_recorded(setup) -> None:
    each = setup()
    each.origin.proves = False
    for _ in range(2):
        assert asyncio.run(each.read((0, 100), (50, 150))) == [OLD.data[:100], OLD.data[50:150]]
    each.assert_empty()
    seen = counts(each)
    assert seen.readv_miss == 400
    assert seen.recorded_bytes == 0


# -- an origin that fails ----------------------------------------------------------------------------------------


def test_a_range_that_fails_does_not_cost_its_neighbours_theirs(setup) -> None:
    each = setup()
    each.origin.answer = lambda data: [OSError("broken"), *data[1:]]
    first, second = asyncio.run(each.read((0, 10), (20, 30)))
    assert isinstance(first, OSError)
    assert second == OLD.data[20:30]
    each.origin.answer = None
    assert asyncio.run(each.read((0, 10), (20, 30))) == [OLD.data[:10], OLD.data[20:30]]
    assert each.origin.fetched == [(0, 10), (20, 30), (0, 10)]
    each.assert_empty()


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"x", lambda b: b""])
def test_an_answer_of_the_wrong_length_is_never_recorded(setup, change) -> None:
    each = setup()
    each.origin.answer = lambda data: [change(part) for part in data]
    (got,) = asyncio.run(each.read((0, 10)))
    assert isinstance(got, ShortReadError)
    each.settle()
    assert counts(each).recorded_bytes == 0
    each.assert_empty()


@pytest.mark.parametrize("many", [0, 1, 3])
def test_an_answer_with_the_wrong_number_of_ranges_is_an_error(setup, many: int) -> None:
    each = setup()
    each.origin.answer = lambda data: [b"x" * 10] * many
    for got in asyncio.run(each.read((0, 10), (20, 30))):
        assert isinstance(got, ValueError)
    each.settle()
    assert counts(each).recorded_bytes == 0
    each.assert_empty()


def test_a_fetch_that_fails_fails_its_ranges_and_no_hit(setup) -> None:
    warm(setup, (0, 10))
    each = setup()

    async def fail(number, ranges) -> None:
        raise OSError("connection lost")

    each.origin.before = fail
    hit, gap = asyncio.run(each.read((0, 10), (20, 30)))
    assert hit == OLD.data[:10]
    assert isinstance(gap, OSError)
    each.origin.before = None
    assert asyncio.run(each.read((20, 30))) == [OLD.data[20:30]]
    each.assert_empty()


def test_a_stat_that_fails_reaches_all_who_wait_for_it_and_the_next_read_asks_again(setup) -> None:
    warm(setup, (0, 10))
    each = setup()
    each.origin.stat_fails = FileNotFoundError("gone")

    async def both() -> None:
        results = await asyncio.gather(*(each.read((0, 10)) for _ in range(3)), return_exceptions=True)
        assert [type(result) for result in results] == [FileNotFoundError] * 3
        each.origin.stat_fails = None
        assert await each.read((0, 10)) == [OLD.data[:10]]

    asyncio.run(both())
    each.assert_empty()


# -- versions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", ["etag", "mtime_ns", "checksum", "etag mtime_ns"])
def test_a_file_replaced_between_two_processes(setup, fields: str) -> None:
    warm(setup, (0, 100), state=Replaced(1, fields=fields))
    new = Replaced(2, fields=fields)
    each = setup(state=new)
    assert asyncio.run(each.read((0, 100), (200, 300))) == [new.data[:100], new.data[200:300]]


@pytest.mark.parametrize("conditional", [True, False])
def test_a_file_replaced_before_any_byte_was_delivered_is_read_new(setup, conditional: bool) -> None:
    warm(setup, (0, 100))
    each = setup()
    each.origin.conditional = conditional

    async def replace(number, ranges) -> None:
        each.origin.state = NEW

    each.origin.before = replace
    assert asyncio.run(each.read((0, 100), (200, 300))) == [NEW.data[:100], NEW.data[200:300]]
    each.assert_empty()


@pytest.mark.parametrize("conditional", [True, False])
def test_a_file_replaced_after_bytes_were_delivered_is_an_error_once(setup, conditional: bool) -> None:
    each = setup()
    each.origin.conditional = conditional
    assert asyncio.run(each.read((0, 100))) == [OLD.data[:100]]
    each.origin.state = NEW
    with pytest.raises(OriginChangedError):
        asyncio.run(each.read((50, 200)))
    assert asyncio.run(each.read((50, 200))) == [NEW.data[50:200]]
    each.assert_empty()
    assert each.journal.view(NEW.version).covered() == 150
    assert each.journal.view(OLD.version).covered() == 100


def test_a_read_that_gave_no_byte_holds_nobody_to_its_version(setup) -> None:
    warm(setup, (0, 100))
    each = setup()
    each.origin.conditional = False
    asyncio.run(each.remote.make_ready(each.origin))
    assert each.try_read((9000, 9010), (300, 300)) == [b"", b""]
    assert each.remote.peek(200, 300) == b""
    assert each.remote.hits == 1, "the read; nothing was there to peek at"
    each.origin.state = NEW
    assert asyncio.run(each.read((0, 200))) == [NEW.data[:200]]


def test_a_file_replaced_while_many_read_it_is_an_error_or_one_version_throughout(setup) -> None:
    each = setup()
    each.origin.conditional = False

    async def replace(number, ranges) -> None:
        if number == 4:
            each.origin.state = NEW

    each.origin.before = replace

    async def one(n: int) -> list | None:
        try:
            return await each.read((n * 50, n * 50 + 100), (0, 50))
        except OriginChangedError:
            return None

    async def many() -> list:
        return await asyncio.gather(*(one(n) for n in range(20)))

    for n, rows in enumerate(asyncio.run(many())):
        if rows is not None:
            assert rows in [[s.data[n * 50 : n * 50 + 100], s.data[:50]] for s in (OLD, NEW)]
    each.assert_empty()
    for state in (OLD, NEW):
        view = each.journal.view(state.version)
        for part in view.find(0, 4000):
            if part[2] is not None:
                assert view.read(part) == state.data[part[0] : part[1]]


def test_a_file_that_is_replaced_again_and_again(setup) -> None:
    warm(setup, (0, 10))
    each = setup()

    async def replace(number, ranges) -> None:
        each.origin.state = Replaced(10 + number)

    each.origin.before = replace
    with pytest.raises(OriginChangedError):
        asyncio.run(each.read((0, 100)))
    each.assert_empty()


def test_unproved_bytes_are_not_mixed_with_what_the_journal_has(setup) -> None:
    warm(setup, (0, 100))
    each = setup()
    each.origin.state = Replaced(1)
    each.origin.conditional = False
    asyncio.run(each.remote._validation.ready(each.origin))
    each.origin.state, each.origin.proves = NEW, False
    assert asyncio.run(each.read((0, 200))) == [NEW.data[:200]], "fetched whole"
    assert asyncio.run(each.read((0, 100))) == [NEW.data[:100]]
    assert each.try_read((0, 100)) is None
    each.assert_empty()


def test_unproved_bytes_after_hits_were_delivered_are_an_error(setup) -> None:
    warm(setup, (0, 100))
    each = setup()
    each.origin.conditional = False
    asyncio.run(each.remote._validation.ready(each.origin))
    assert each.try_read((0, 100)) == [OLD.data[:100]]
    each.origin.state, each.origin.proves = NEW, False
    with pytest.raises(OriginChangedError):
        asyncio.run(each.read((100, 200)))
    assert asyncio.run(each.read((0, 200))) == [NEW.data[:200]]


def test_unproved_bytes_are_not_mixed_with_what_waits_to_be_recorded(setup) -> None:
    each = setup(storage=slow(go := threading.Event()))
    each.origin.conditional = False

    assert asyncio.run(each.read((0, 100))) == [OLD.data[:100]]
    each.origin.state, each.origin.proves = NEW, False
    with pytest.raises(OriginChangedError):
        asyncio.run(each.read((50, 200)))
    assert asyncio.run(each.read((50, 200))) == [NEW.data[50:200]]
    go.set()
    each.settle()
    assert asyncio.run(each.read((0, 200))) == [NEW.data[:200]]
    each.assert_empty()


def test_read_ahead_of_a_version_that_stopped_being_proved(setup) -> None:
    each = setup()
    asyncio.run(each.read((0, 10), vector=False))
    asyncio.run(each.read((10, 20), vector=False, ahead_bytes=100))
    each.origin.proves = False
    asyncio.run(each.read((1000, 1010)))
    assert asyncio.run(each.read((20, 30), vector=False)) == [OLD.data[20:30]]
    each.remote.drop_ahead()
    each.assert_empty()


def test_a_version_that_only_its_size_tells_is_read_and_not_recorded(setup) -> None:
    state = Replaced(1, fields="")
    each = setup(state=state)
    for _ in range(2):
        assert asyncio.run(each.read((0, 10), (5, 20))) == [state.data[:10], state.data[5:20]]
    each.settle()
    assert counts(each).recorded_bytes == 0
    each.origin.state = Replaced(2, 5000, fields="")
    with pytest.raises(OriginChangedError):
        asyncio.run(each.read((0, 10)))
    each.assert_empty()


def test_write_once_data_of_which_only_the_size_is_known_is_recorded_when_the_user_says_so(setup) -> None:
    state = Replaced(1, fields="")
    each = setup(state=state, validate="never")
    assert asyncio.run(each.read((0, 10))) == [state.data[:10]]
    assert asyncio.run(each.read((5, 20))) == [state.data[5:20]]
    each.settle()
    assert counts(each).recorded_bytes == 20
    each.close()
    again = setup(state=state, validate="never")
    assert asyncio.run(again.read((0, 20), (15, 30))) == [state.data[:20], state.data[15:30]]
    assert again.origin.fetched == [(20, 30)]
    assert again.origin.stats == 0


def test_never_asks_the_origin_for_what_is_there_and_offline_never_at_all(setup) -> None:
    warm(setup, (0, 100))
    each = setup(validate="never")
    each.origin.stat_fails = OSError("down")
    assert asyncio.run(each.read((0, 100))) == [OLD.data[:100]]
    assert asyncio.run(each.remote.stat(each.origin)).version == OLD.version
    offline = setup(offline=True)
    assert asyncio.run(offline.read((20, 30))) == [OLD.data[20:30]]
    with pytest.raises(OfflineMissError, match="JCACHE_OFFLINE"):
        asyncio.run(offline.read((20, 130)))
    assert asyncio.run(offline.read((20, 30))) == [OLD.data[20:30]]
    assert offline.origin.fetches == offline.origin.stats == 0
    offline.assert_empty()


@pytest.mark.parametrize("validate", [0.0, 1e-9])
def test_an_answer_trusted_for_no_time_is_asked_for_at_each_read(setup, validate: float) -> None:
    each = setup(validate=validate)

    async def reads() -> None:
        async with asyncio.timeout(PATIENCE_S):
            assert await each.read((0, 10)) == [OLD.data[:10]]
            await asyncio.sleep(0.001)
            assert await each.read((0, 10)) == [OLD.data[:10]]
            await asyncio.gather(*(each.read((0, 10)) for _ in range(5)))
            each.origin.state = NEW
            with pytest.raises(OriginChangedError):
                await each.read((0, 10))
            assert await each.read((0, 10)) == [NEW.data[:10]]

    asyncio.run(reads())
    assert each.origin.stats >= 3


def test_an_answer_grows_old_while_the_machine_sleeps(setup, monkeypatch) -> None:
    """Of all clocks that nobody sets, one alone runs on then."""
    each, real = setup(validate=300.0), time.clock_gettime
    assert asyncio.run(each.read((0, 10))) == [OLD.data[:10]]
    each.settle()
    each.origin.state = NEW
    monkeypatch.setattr(time, "clock_gettime", lambda clock: real(clock) + 299 * (clock == time.CLOCK_BOOTTIME))
    assert each.try_read((0, 10)) == [OLD.data[:10]]
    monkeypatch.setattr(time, "clock_gettime", lambda clock: real(clock) + 301 * (clock == time.CLOCK_BOOTTIME))
    assert each.remote.validation.age_s > 300
    with pytest.raises(OriginChangedError):
        asyncio.run(each.read((0, 10)))
    assert asyncio.run(each.read((0, 10))) == [NEW.data[:10]]


def test_a_write_while_the_version_is_asked_for_is_not_missed(setup) -> None:
    warm(setup, (0, 10))
    each = setup()
    asked = asyncio.Event
    stat = each.origin.stat

    async def reads() -> None:
        waiting, go = asked(), asked()

        async def slow_stat() -> Info:
            info = await stat()
            waiting.set()
            await go.wait()
            return info

        each.origin.stat = slow_stat  # type: ignore[method-assign]
        reader = asyncio.create_task(each.read((0, 10)))
        await waiting.wait()
        each.origin.state = NEW
        each.remote.invalidate()
        go.set()
        assert await reader == [NEW.data[:10]]
        assert await each.read((0, 10)) == [NEW.data[:10]]

    asyncio.run(reads())
    each.assert_empty()


# -- cancellation ------------------------------------------------------------------------------------------------


def test_cancelled_at_any_step_a_reader_harms_nobody_and_leaves_nothing(tmp_path) -> None:
    """For all k: cancel the first reader after k turns of the loop, while two others want some of the same bytes."""
    warm_directory = tmp_path / "warm"
    first = Setup(warm_directory)
    asyncio.run(first.read((0, 40), (300, 340)))
    first.settle()
    first.close()
    for k in range(200):
        each = Setup(warm_directory if k % 2 else tmp_path / f"cold-{k}", limit_bytes=100)
        # One by one at first; then in strides, because worker threads take as many turns as they please.
        turns = k // 2 if k < 160 else 80 << (k - 160) // 4

        async def scene(each=each, turns=turns) -> bool:
            async def behind(number) -> None:
                for _ in range(3):
                    await asyncio.sleep(0)

            each.origin.behind = behind
            victim = asyncio.create_task(each.read((20, 200), (310, 400), ahead_bytes=50))
            await asyncio.sleep(0)
            others = [asyncio.create_task(each.read((100, 250), (350, 380))), asyncio.create_task(each.read((0, 400)))]
            for _ in range(turns):
                if victim.done():
                    break
                await asyncio.sleep(0)
            ended = victim.done()
            victim.cancel()
            async with asyncio.timeout(PATIENCE_S):
                rows = await asyncio.gather(*others)
            assert rows == [[OLD.data[100:250], OLD.data[350:380]], [OLD.data[:400]]]
            assert await asyncio.gather(victim, return_exceptions=True)
            return ended

        ended = asyncio.run(scene())
        each.remote.drop_ahead()
        each.assert_empty()
        view = each.journal.view(OLD.version)
        for part in view.find(0, 4000):
            if part[2] is not None:
                assert view.read(part) == OLD.data[part[0] : part[1]]
        each.close()
        if ended and k > 20:
            break
    else:
        pytest.fail("the reader never ended by itself")


def test_cancelled_while_it_waits_for_another_it_takes_nobody_with_it(setup) -> None:
    each = setup()

    async def scene() -> None:
        go = asyncio.Event()
        each.origin.behind = lambda number: go.wait()  # type: ignore[assignment,return-value]
        readers = [asyncio.create_task(each.read((0, 100))) for _ in range(5)]
        await once(lambda: each.origin.fetches == 1)
        for _ in range(5):
            await asyncio.sleep(0)
        for waiter in readers[1:4]:
            waiter.cancel()
        await asyncio.sleep(0)
        go.set()
        assert await readers[0] == await readers[4] == [OLD.data[:100]]

    asyncio.run(scene())
    assert each.origin.fetches == 1
    each.assert_empty()


def test_cancelled_before_its_fetch_has_begun_it_takes_nobody_with_it(setup) -> None:
    warm(setup, (0, 40))
    each = setup()

    async def scene() -> None:
        await each.read((0, 40))
        each.host.workers.hung = True  # then no step waits before the fetch does
        victim = asyncio.create_task(each.read((0, 40), (100, 140)))
        asyncio.get_running_loop().call_soon(victim.cancel)
        assert await asyncio.gather(victim, return_exceptions=True)
        assert not each.origin.fetches
        each.host.workers.hung = False
        async with asyncio.timeout(PATIENCE_S):
            assert await each.read((100, 140)) == [OLD.data[100:140]]

    asyncio.run(scene())


def test_a_process_that_may_have_no_thread_reads_from_the_origin(setup, monkeypatch: pytest.MonkeyPatch) -> None:
    warm(setup, (0, 40))
    each = setup()

    def submit(_: object) -> None:
        raise JournalError("the cache directory cannot be read: can't start new thread")

    async def scene() -> None:
        await each.read((0, 40))
        monkeypatch.setattr(each.host.workers, "_submit", submit)
        async with asyncio.timeout(PATIENCE_S):
            assert await each.read((0, 40), (100, 140)) == [OLD.data[:40], OLD.data[100:140]]

    asyncio.run(scene())
    monkeypatch.undo()


def test_a_look_around_that_fails_keeps_no_turn(setup) -> None:
    class Turns:
        left = 0

        def ask(self, at: int, *, shared: bool) -> Outcome:
            return Outcome.TAKEN

        def leave(self, at: int) -> None:
            self.left += 1

    def refresh(**_: object) -> bool:
        raise JournalError("no answer")

    each, turns = setup(), Turns()
    journal = SimpleNamespace(turn=Turn(turns, 0), refresh=refresh, others_live=lambda: False)
    lookout = Lookout(each.host, local=True, writable=True)
    assert not asyncio.run(lookout.share(journal, [(0, 40)], None)).is_held
    assert turns.left == 1


def test_who_waits_for_a_cancelled_reader_fetches_for_itself(setup) -> None:
    each = setup()

    async def scene() -> None:
        never = asyncio.Event()
        each.origin.before = lambda number, ranges: never.wait() if number == 1 else asyncio.sleep(0)  # type: ignore[assignment,return-value]
        victim = asyncio.create_task(each.read((0, 100)))
        await once(lambda: each.origin.fetches == 1)
        others = [asyncio.create_task(each.read((50, 150))) for _ in range(5)]
        for _ in range(10):
            await asyncio.sleep(0)
        victim.cancel()
        async with asyncio.timeout(PATIENCE_S):
            assert await asyncio.gather(*others) == [[OLD.data[50:150]]] * 5

    asyncio.run(scene())
    # Of the first flight nothing came; its bytes were asked for once more, and the others' once.
    assert sorted(each.origin.fetched[1:]) == [(50, 100), (100, 150)]
    each.assert_empty()


def test_cancelled_while_it_opens_the_file_the_next_one_opens_it(setup) -> None:
    warm(setup, (0, 10))
    each = setup()
    stat = each.origin.stat

    async def scene() -> None:
        never, calls = asyncio.Event(), []

        async def hang_once() -> Info:
            calls.append(1)
            if len(calls) == 1:
                await never.wait()
            return await stat()

        each.origin.stat = hang_once  # type: ignore[method-assign]
        victim = asyncio.create_task(each.read((0, 10)))
        await once(lambda: bool(calls))
        others = [asyncio.create_task(each.read((0, 10))) for _ in range(3)]
        for _ in range(5):
            await asyncio.sleep(0)
        victim.cancel()
        async with asyncio.timeout(PATIENCE_S):
            assert await asyncio.gather(*others) == [[OLD.data[:10]]] * 3

    asyncio.run(scene())
    each.assert_empty()


@pytest.mark.parametrize("how", ["blocked", "closed", "stopped"])
def test_a_loop_that_stopped_turning_holds_up_nobody(setup, monkeypatch, how: str) -> None:
    monkeypatch.setattr(waiting, "STUCK_S", 0.05)
    each = setup()
    fetching, release = threading.Event(), threading.Event()

    async def before(number, ranges) -> None:
        if number == 1:
            fetching.set()
            if how == "blocked":
                assert release.wait(PATIENCE_S)
            else:
                asyncio.get_running_loop().stop()
                await asyncio.sleep(0)

    each.origin.before = before
    loop = asyncio.new_event_loop()
    tasks: list[asyncio.Task] = []
    results = []

    async def first() -> None:
        results.append(await each.read((0, 100)))

    def run() -> None:
        tasks.append(loop.create_task(first()))
        loop.run_forever()
        if how == "closed":
            tasks[0].cancel()  # never delivered: the loop is closed first
            loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    assert fetching.wait(PATIENCE_S)
    if how != "blocked":
        thread.join(PATIENCE_S)
    assert asyncio.run(asyncio.wait_for(each.read((50, 150)), PATIENCE_S)) == [OLD.data[50:150]]
    if how == "closed":
        tasks.clear()
    else:
        # It turns again: what it fetched comes too late to be recorded twice, and its reader gets its bytes.
        release.set()
        if how == "stopped":
            thread = threading.Thread(target=loop.run_forever)
            thread.start()
        deadline = time.monotonic() + PATIENCE_S
        while not results and time.monotonic() < deadline:
            time.sleep(0.001)
        assert results == [[OLD.data[:100]]]
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE_S)
        loop.close()
    each.assert_empty()


# -- recording ---------------------------------------------------------------------------------------------------


def slow(go: threading.Event) -> Storage:
    class Slow(Storage):
        def pwritev(self, fd, buffers, position):
            assert go.wait(PATIENCE_S)
            return super().pwritev(fd, buffers, position)

    return Slow()


def test_bytes_on_their_way_into_the_journal_are_served_from_memory(setup) -> None:
    each = setup(storage=slow(go := threading.Event()))
    asyncio.run(each.read((0, 100), (200, 300)))
    assert each.try_read((50, 100), (200, 210)) == [OLD.data[50:100], OLD.data[200:210]]
    assert asyncio.run(each.read((90, 210))) == [OLD.data[90:210]]
    assert each.origin.fetched == [(0, 100), (200, 300), (100, 200)]
    go.set()
    each.assert_empty()


def test_a_recorder_that_cannot_keep_up_holds_a_read_up_for_a_moment_and_memory_is_bounded(setup) -> None:
    each = setup(storage=slow(go := threading.Event()), limit_bytes=1000)
    for start in range(0, 4000, 400):
        assert asyncio.run(each.read((start, start + 400))) == [OLD.data[start : start + 400]]
        assert each.host.recorder._waiting_bytes <= 1000
        held = list(each.remote._validation.snapshot._held)
        assert sum(stop - start for start, stop, _ in held) <= 1000
    go.set()
    each.assert_empty()
    assert counts(each).recorded_bytes == 800
    assert each.host.troubles


@pytest.mark.parametrize("keeps_up", [True, False])
def test_a_read_larger_than_what_may_wait_is_recorded_in_pieces_and_not_kept(
    setup, monkeypatch, keeps_up: bool
) -> None:
    go, limit = threading.Event(), 100_000
    each = setup(storage=slow(go), limit_bytes=limit, state=Replaced(1, size=1_000_000))
    bodies: list = []
    each.origin.answer = lambda data: bodies.extend(data) or data
    if keeps_up:
        monkeypatch.setattr("jcache.reader.remote.ROOM_S", PATIENCE_S)  # on a busy machine it keeps up late
        go.set()

    async def read() -> None:
        (row,) = await each.read((0, 800_000))
        assert row == each.data[:800_000]
        await each.read((900_000, 900_100))

    asyncio.run(read())
    references = sys.getrefcount(bodies[0])
    assert references == 2, "the application let go of it, and so has everybody"
    held = list(each.remote._validation.snapshot._held)
    assert sum(stop - start for start, stop, _ in held) <= limit
    go.set()
    each.assert_empty()
    if keeps_up:
        assert counts(each).recorded_bytes == 800_100
        assert each.try_read((0, 800_000)) == [each.data[:800_000]]
    else:
        assert 0 < counts(each).recorded_bytes <= limit + 100
        assert each.host.troubles


def test_what_is_read_ahead_is_bounded_over_all_files(tmp_path) -> None:
    host = Host()
    files = [Setup(tmp_path / str(i), host=host, state=Replaced(1, size=100_000)) for i in range(5)]
    idle: list[Setup] = []
    host.ahead = Room(30_000, make=lambda: [each.remote.drop_ahead() for each in idle])

    def held() -> int:
        return sum(
            stop - start
            for each in files
            if (snapshot := each.remote._validation.snapshot) is not None
            for start, stop, piece in snapshot._held
            if piece.ahead
        )

    async def ahead() -> None:
        for each in files:
            await each.read((0, 10), vector=False)
            await each.read((10, 20), vector=False, ahead_bytes=5_000)
            await each.remote.prefetch(each.origin, 5_020, 10_020)
        assert held() == 30_000
        assert [len(each.origin.fetched) for each in files] == [3, 3, 3, 2, 2]
        assert files[4].origin.fetched[1] == (10, 20)
        idle.extend(files[:1])
        await files[4].remote.prefetch(files[4].origin, 20, 10_020)
        assert held() == 30_000
        assert files[0].try_read((100, 110), vector=False) is None
        assert files[4].try_read((20, 10_020), vector=False) == [files[4].data[20:10_020]]
        host.recorder.flush(PATIENCE_S)
        await files[4].remote.prefetch(files[4].origin, 10_020, 20_020)
        assert files[4].try_read((10_020, 10_030), vector=False) == [files[4].data[10_020:10_030]]

    asyncio.run(ahead())
    assert counts(files[0]).prefetch_unused_bytes == 10_000
    for each in files:
        each.remote.close()
    host.close()
    assert not host.ahead._shares, "all of it is there again"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES])
def test_a_cache_directory_that_takes_nothing_costs_no_read(setup, number: int) -> None:
    each = setup(storage=FaultyStorage(lambda name, at: error(number) if name in ("pwritev", "mkdir") else None))
    for _ in range(3):
        assert asyncio.run(each.read((0, 100), (50, 150))) == [OLD.data[:100], OLD.data[50:150]]
        each.assert_empty()
    assert each.host.troubles


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_a_cache_directory_that_gives_nothing_costs_no_read(setup, number: int) -> None:
    warm(setup, (0, 100))
    storage = FaultyStorage(lambda name, at: error(number) if name in ("pread", "listdir") else None)
    each = setup(storage=storage)
    for _ in range(2):
        assert asyncio.run(each.read((0, 200))) == [OLD.data[:200]]
    each.assert_empty()


def test_any_single_failing_operation_costs_no_read(tmp_path) -> None:
    first = Setup(tmp_path / "j")
    asyncio.run(first.read((0, 100), (300, 400)))
    first.settle()
    first.close()
    operations = 1
    k = 0
    while k < operations:
        storage = FaultyStorage(lambda name, at, k=k: error(errno.EIO) if at == k and name != "close" else None)
        each = Setup(tmp_path / "j", storage=storage)
        assert asyncio.run(each.read((0, 150), (300, 450))) == [OLD.data[:150], OLD.data[300:450]]
        each.settle()
        assert asyncio.run(each.read((0, 160), (300, 450))) == [OLD.data[:160], OLD.data[300:450]]
        each.assert_empty()
        operations = max(operations, len(storage.calls))
        each.host.recorder.call(each.remote.close)
        each.host.close()
        k += 1
    assert operations > 8


def test_bytes_that_may_not_be_recorded_are_not(setup, tmp_path) -> None:
    each = setup()
    each.origin.recordable = False
    for _ in range(2):
        assert asyncio.run(each.read((0, 100))) == [OLD.data[:100]]
    each.assert_empty()
    assert each.origin.fetches == 2
    each.remote.close()
    assert not list((tmp_path / "j").iterdir()), "the segment that announced the reader is gone again"


def test_a_directory_that_may_only_be_read(setup, tmp_path) -> None:
    warm(setup, (0, 100))
    each = setup()
    reader = RemoteFile(each.host, each.journal, url=URL, writable=False)
    before = sorted((tmp_path / "j").iterdir())
    assert asyncio.run(reader.read(each.origin, [(0, 200)], vector=False)) == [OLD.data[:200]]
    each.settle()
    assert sorted((tmp_path / "j").iterdir()) == before
    assert each.origin.fetched == [(100, 200)]


def test_reads_after_the_recorder_was_closed(setup) -> None:
    each = setup()
    asyncio.run(each.read((0, 10)))
    each.host.recorder.close(PATIENCE_S)
    each.remote.close()
    assert asyncio.run(each.read((0, 20))) == [OLD.data[:20]]
    assert asyncio.run(each.read((0, 20))) == [OLD.data[:20]]
    each.assert_empty()


def test_what_the_origin_says_of_a_file_is_stored_without_secrets_and_whatever_it_holds(setup, tmp_path) -> None:
    each = setup()
    details = {
        "name": "https://user:secret@example.org/f?token=secret",
        "url": "https://cdn.example.org/f?signature=secret",
        "LastModified": dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        "links": ["https://example.org/f?secret"],
        "huge": "x" * 100_000,
        "odd": float("nan"),
        "StorageClass": "STANDARD",
        "size": 4000,
    }
    each.origin.state = Replaced(1)
    each.origin.state.info = Info(OLD.version, details)
    asyncio.run(each.read((0, 100)))
    each.settle()
    assert counts(each).recorded_bytes == 100
    assert not each.host.troubles
    each.remote.close()
    for path in (tmp_path / "j").iterdir():
        assert b"secret" not in path.read_bytes()
    journal = Journal(Storage(), str(tmp_path / "j"), URL)
    journal.attach()
    (stored,) = journal.versions()
    assert stored.info == {"StorageClass": "STANDARD", "size": 4000}


# -- others --------------------------------------------------------------------------------------------------------


def test_what_another_process_publishes_while_this_one_reads_is_a_hit(setup) -> None:
    one, two = setup(), setup()
    asyncio.run(one.read((0, 10)))
    asyncio.run(two.read((100, 110)))
    one.settle()
    two.settle()
    assert asyncio.run(one.read((100, 110))) == [OLD.data[100:110]]
    assert asyncio.run(two.read((0, 10))) == [OLD.data[:10]]
    assert one.origin.fetched == [(0, 10)]
    assert two.origin.fetched == [(100, 110)]
    for each in (one, two):
        each.assert_empty()


def test_a_forked_child_starts_from_what_is_on_disk(setup, tmp_path) -> None:
    each = setup()
    asyncio.run(each.read((0, 100)))
    each.settle()
    each.remote.forget()  # as the child does
    host = Host()
    child = RemoteFile(host, Journal(Storage(), str(tmp_path / "j"), URL), url=URL)
    origin = ScriptedOrigin(OLD)
    assert asyncio.run(child.read(origin, [(0, 150)], vector=False)) == [OLD.data[:150]]
    assert origin.fetched == [(100, 150)]
    assert origin.identity is IDENTITY
    host.recorder.call(child.close)
    host.close()


def test_a_journal_of_two_versions_with_the_same_time_is_not_mixed(setup) -> None:
    """An origin that names its versions today, and tomorrow only their time."""
    one = Replaced(1, fields="etag mtime_ns")
    two = Replaced(2, fields="etag mtime_ns")
    two.version = Version(two.version.size_bytes, two.version.mtime_ns and one.version.mtime_ns, two.version.etag)
    two.info = Info(two.version)
    warm(setup, (0, 100), state=one)
    warm(setup, (50, 200), state=two)
    third = Replaced(2)
    third.version = Version(two.version.size_bytes, mtime_ns=one.version.mtime_ns)
    third.info = Info(third.version)
    each = setup(state=third)
    (got,) = asyncio.run(each.read((0, 300)))
    assert got == two.data[:300]


def test_a_reader_that_keeps_to_a_version_gets_it_or_an_error(setup) -> None:
    each = setup(state=NEW)
    for _ in range(2):
        with pytest.raises(OriginChangedError):
            asyncio.run(each.remote.read(each.origin, [(0, 10)], vector=False, version=OLD.version))
    assert asyncio.run(each.remote.read(each.origin, [(0, 10)], vector=False, version=NEW.version)) == [NEW.data[:10]]
    assert each.remote.try_read([(0, 10)], vector=False, version=OLD.version) is None
    assert each.remote.peek(0, 10, version=OLD.version) == b""
    assert counts(each).read_miss + counts(each).read_hit >= 10
