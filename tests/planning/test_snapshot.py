"""Planning, landing and releasing, without any I/O: each byte of a plan is in exactly one place, and none is kept."""

import collections
import random
from collections.abc import Iterator

import pytest
from readers import Replaced

from jcache.errors import OriginChangedError, ShortReadError
from jcache.journal import Version
from jcache.origin import Fetched
from jcache.planning.flight import Flight, FlightAbortedError
from jcache.planning.held import Held
from jcache.planning.snapshot import END, Snapshot, agrees, to_origin
from jcache.reader.store import pieces_of
from jcache.vectors import Extents

STATE = Replaced(1, 1000)
DATA = STATE.data


def fetched(flight: Flight, state: Replaced = STATE) -> Fetched:
    return Fetched([state.data[start:stop] for start, stop in flight.ranges], state.info)


def pinned() -> Snapshot:
    return Snapshot(STATE.info, None)


def flights(snapshot: Snapshot) -> list[tuple[int, int]]:
    return [(start, stop) for start, stop, _ in snapshot._flights]


def held(snapshot: Snapshot) -> list[tuple[int, int, bool]]:
    return [(start, stop, place.ahead) for start, stop, place in snapshot._held]


def test_a_gap_is_claimed_once_and_others_wait_for_it() -> None:
    snapshot = pinned()
    first = snapshot.plan([(0, 100), (50, 150), (0, 0)])
    assert first.own is not None
    assert first.own.ranges == [(0, 100), (100, 150)]
    assert not first.others
    second = snapshot.plan([(90, 200)])
    assert second.own is not None
    assert second.own.ranges == [(150, 200)]
    assert second.others == {first.own}
    extents = snapshot.land(first.own, fetched(first.own), record=True)
    assert extents == [(0, DATA[:100]), (100, DATA[100:150])]
    assert flights(snapshot) == [(150, 200)]
    assert held(snapshot) == [(0, 100, False), (100, 150, False)]
    for (start, stop), row in zip([(0, 100), (50, 150)], first.parts, strict=False):
        got = b"".join(place.bytes_of(a, b, index) for a, b, place, index, _ in row)
        assert got == DATA[start:stop]
    snapshot.settle(extents)
    snapshot.abort(second.own, FlightAbortedError())
    assert not flights(snapshot)
    assert not held(snapshot)


def test_bytes_held_are_found_until_they_are_settled() -> None:
    snapshot = pinned()
    plan = snapshot.plan([(10, 20)])
    assert plan.own is not None
    extents = snapshot.land(plan.own, fetched(plan.own), record=True)
    rows = snapshot.lookup([(12, 18)])
    assert rows is not None
    (((start, stop, place, _, _),),) = rows
    assert isinstance(place, Held)
    assert place.bytes_of(start, stop) == DATA[12:18]
    assert snapshot.lookup([(12, 21)]) is None
    snapshot.settle(extents)
    assert snapshot.lookup([(12, 18)]) is None


def test_settling_late_does_not_release_what_was_fetched_anew() -> None:
    snapshot = pinned()
    plan = snapshot.plan([(10, 20)])
    assert plan.own is not None
    before = snapshot.land(plan.own, fetched(plan.own), record=True)
    snapshot.settle(before)
    again = snapshot.plan([(10, 40)])
    assert again.own is not None
    after = snapshot.land(again.own, fetched(again.own), record=True)
    snapshot.settle(before)
    assert held(snapshot) == [(10, 40, False)]
    snapshot.settle(after)
    assert not held(snapshot)


@pytest.mark.parametrize("extra", [b"", b"xx"])
def test_an_answer_of_another_length_fails_its_range_alone(extra: bytes) -> None:
    snapshot = pinned()
    plan = snapshot.plan([(0, 10), (20, 30), (40, 50)])
    assert plan.own is not None
    answer = fetched(plan.own)
    answer.data[1] = answer.data[1][:5] + extra * 4 if extra else answer.data[1][:5]  # type: ignore[index]
    extents = snapshot.land(plan.own, answer, record=True)
    assert [start for start, _ in extents] == [0, 40]
    assert isinstance(plan.own.data[1], ShortReadError)
    assert not flights(snapshot)


def test_an_answer_with_too_few_ranges_is_refused_whole() -> None:
    snapshot = pinned()
    plan = snapshot.plan([(0, 10), (20, 30)])
    assert plan.own is not None
    with pytest.raises(ValueError, match="zip"):
        snapshot.land(plan.own, Fetched([DATA[:10]], STATE.info), record=True)
    snapshot.abort(plan.own, FlightAbortedError())
    assert not flights(snapshot)
    assert not held(snapshot)


def test_an_error_fails_its_range_alone() -> None:
    snapshot = pinned()
    plan = snapshot.plan([(0, 10), (20, 30)])
    assert plan.own is not None
    answer = fetched(plan.own)
    answer.data[0] = OSError("no")
    assert snapshot.land(plan.own, answer, record=True) == [(20, DATA[20:30])]
    with pytest.raises(OSError, match="no"):
        plan.own.bytes_of(0, 10, 0)
    assert plan.own.bytes_of(20, 30, 1) == DATA[20:30]


def test_before_the_size_is_known_ranges_may_end_behind_the_file() -> None:
    snapshot = Snapshot()
    plan = snapshot.plan([(990, 1010), (500, END), (2000, 2010)])
    assert plan.own is not None
    assert to_origin(plan.own.ranges) == [(990, 1010), (500, 990), (1010, None)]
    assert len(snapshot.plan([(2000, 2010)]).others) == 1
    answer = fetched(plan.own)
    snapshot.pin(STATE.info, None)
    snapshot.settle(snapshot.land(plan.own, answer, record=True))
    rows = [b"".join(place.bytes_of(a, b, index) for a, b, place, index, _ in row) for row in plan.parts]
    assert rows == [DATA[990:], DATA[500:], b""]
    assert not held(snapshot)


def test_reading_ahead_extends_the_last_gap_up_to_what_is_there() -> None:
    snapshot = pinned()
    there = snapshot.plan([(300, 310)])
    assert there.own is not None
    plan = snapshot.plan([(100, 110)], ahead_bytes=1000)
    assert plan.own is not None
    assert plan.own.ranges == [(100, 300)]
    assert plan.own.wanted == [110]
    assert snapshot.land(plan.own, fetched(plan.own), record=True) == [(100, DATA[100:110])]
    assert held(snapshot) == [(100, 110, False), (110, 300, True)]
    assert plan.own.bytes_of(100, 110, 0) == DATA[100:110]
    end = snapshot.plan([(900, 910)], ahead_bytes=1000)
    assert end.own is not None
    assert end.own.ranges == [(900, 1000)]


def test_what_was_read_ahead_is_recorded_when_it_is_asked_for_and_dropped_when_not() -> None:
    snapshot = pinned()
    flight = snapshot.claim_ahead(100, 200)
    assert flight is not None
    assert snapshot.claim_ahead(150, 400) is None, "up to the first byte that is there, which is the very first"
    assert snapshot.land(flight, fetched(flight), record=True) == []
    rows = snapshot.lookup([(120, 150)])
    assert rows is not None
    extents = snapshot.use_ahead(rows[0])
    assert [(start, bytes(data)) for start, data in extents] == [(120, DATA[120:150])]
    assert held(snapshot) == [(100, 120, True), (120, 150, False), (150, 200, True)]
    assert snapshot.use_ahead(rows[0]) == [], "once"
    assert snapshot.drop_ahead() == (70, [])
    assert held(snapshot) == [(120, 150, False)]
    snapshot.settle(extents)
    assert not held(snapshot)


def test_what_was_read_ahead_unproved_is_used_but_not_recorded() -> None:
    snapshot = pinned()
    flight = snapshot.claim_ahead(100, 200)
    assert flight is not None
    snapshot.land(flight, fetched(flight), record=False)
    rows = snapshot.lookup([(120, 150)])
    assert rows is not None
    assert snapshot.use_ahead(rows[0]) == []
    assert held(snapshot) == [(100, 120, True), (150, 200, True)]


def test_what_is_taken_in_small_steps_is_recorded_once_and_nothing_else() -> None:
    snapshot = pinned()
    flight = snapshot.claim_ahead(100, 200)
    assert flight is not None
    snapshot.land(flight, fetched(flight), record=True)
    assert snapshot.lend(101) is None, "no piece begins there"
    lent = snapshot.lend(100)
    assert lent is not None
    assert snapshot.take(lent, 100, 110)
    assert not snapshot.take(lent, 100, 110), "by one reader only"
    assert snapshot.take(lent, 110, 130)
    rows = snapshot.lookup([(120, 140)])
    assert rows is not None
    assert [(a, b, place.ahead) for a, b, place, *_ in rows[0]] == [(120, 130, False), (130, 140, True)]
    assert b"".join(place.bytes_of(a, b) for a, b, place, *_ in rows[0]) == DATA[120:140]
    extents = snapshot.use_ahead([part for part in rows[0] if part[2].ahead])
    assert [(start, bytes(data)) for start, data in extents] == [(100, DATA[100:130]), (130, DATA[130:140])]
    assert not snapshot.take(lent, 130, 135), "another reader has cut it"
    rest = snapshot.lend(140)
    assert rest is not None
    assert snapshot.take(rest, 140, 150)
    unused, left = snapshot.drop_ahead()
    assert (unused, [(start, bytes(data)) for start, data in left]) == (50, [(140, DATA[140:150])])
    assert snapshot.use_taken() == []
    snapshot.settle([*extents, *left])
    assert not held(snapshot)


@pytest.mark.parametrize("is_ahead", [True, False])
def test_dropping_a_piece_that_was_taken_to_its_end_leaves_its_neighbour(is_ahead: bool) -> None:
    snapshot = pinned()
    flight = snapshot.claim_ahead(0, 100)
    assert flight is not None
    snapshot.land(flight, fetched(flight), record=True)
    behind = snapshot.claim_ahead(100, 200) if is_ahead else snapshot.plan([(100, 200)]).own
    assert behind is not None
    snapshot.land(behind, fetched(behind), record=True)
    lent = snapshot.lend(0)
    assert lent is not None
    assert snapshot.take(lent, 0, 100)
    unused, extents = snapshot.drop_ahead(0, 50)
    assert (unused, [(start, len(data)) for start, data in extents]) == (0, [(0, 100)])
    assert (100, 200, is_ahead) in held(snapshot)


def test_nothing_is_taken_of_a_version_that_was_given_up() -> None:
    snapshot = pinned()
    flight = snapshot.claim_ahead(100, 200)
    assert flight is not None
    snapshot.land(flight, fetched(flight), record=True)
    lent = snapshot.lend(100)
    assert lent is not None
    assert snapshot.take(lent, 100, 110)
    snapshot.discard()
    assert not snapshot.take(lent, 110, 120)
    assert snapshot.lend(100) is None


def test_reading_ahead_waits_until_the_size_is_known() -> None:
    snapshot = Snapshot()
    assert snapshot.claim_ahead(0, 100) is None
    plan = snapshot.plan([(0, 10)], ahead_bytes=100)
    assert plan.own is not None
    assert plan.own.ranges == [(0, 10)]


def test_a_flight_given_up_by_somebody_else_brings_nothing_when_it_lands() -> None:
    snapshot = pinned()
    stuck = snapshot.plan([(0, 100)]).own
    assert stuck is not None
    snapshot.abort(stuck, FlightAbortedError())
    instead = snapshot.plan([(0, 50)]).own
    assert instead is not None
    assert snapshot.land(stuck, fetched(stuck), record=True) == []
    assert flights(snapshot) == [(0, 50)]
    assert not held(snapshot)
    snapshot.abort(stuck, OSError("late"))
    assert isinstance(stuck.error, FlightAbortedError)
    assert flights(snapshot) == [(0, 50)]


def test_one_version_only() -> None:
    snapshot = Snapshot()
    snapshot.pin(STATE.info, None)
    snapshot.pin(STATE.info, None)
    with pytest.raises(OriginChangedError):
        snapshot.pin(Replaced(2, 1000).info, None)
    assert not snapshot.discard()
    with pytest.raises(OriginChangedError):
        snapshot.deliver()
    snapshot = pinned()
    snapshot.deliver()
    assert snapshot.discard()
    with pytest.raises(OriginChangedError):
        snapshot.deliver()


def test_versions_without_validators_agree_by_size_and_never_with_one_that_has_some() -> None:
    assert agrees(Version(5), Version(5))
    assert not agrees(Version(5), Version(6))
    assert not agrees(Version(5), Version(5, etag='"1"'))
    assert not agrees(Version(5, mtime_ns=1), Version(5, etag='"1"'))
    assert agrees(Version(5, mtime_ns=1), Version(5, mtime_ns=1, etag='"1"'))


@pytest.mark.parametrize("is_here", [True, False], ids=["read ahead", "being read ahead"])
@pytest.mark.parametrize("record", [True, False])
def test_what_was_let_go_of_while_it_was_delivered_is_recorded_all_the_same(is_here: bool, record: bool) -> None:
    snapshot = pinned()
    flight = snapshot.claim_ahead(0, 100)
    assert flight is not None
    if is_here:
        snapshot.land(flight, fetched(flight), record=record)
    (parts,) = snapshot.plan([(10, 20)]).parts
    if not is_here:
        snapshot.land(flight, fetched(flight), record=record)
    snapshot.drop_ahead()
    assert not held(snapshot)
    extents = snapshot.use_ahead(parts)
    assert extents == ([(10, DATA[10:20])] if record else [])
    assert held(snapshot) == ([(10, 20, False)] if record else [])
    assert snapshot.use_ahead(parts) == []
    snapshot.settle(extents)
    again = snapshot.plan([(15, 30)]).own
    assert again is not None
    assert snapshot.use_ahead(parts) == ([(10, DATA[10:15])] if record else []), "who fetches the rest has it recorded"


def test_of_what_failed_while_it_was_waited_for_nothing_is_recorded() -> None:
    snapshot = pinned()
    flight = snapshot.claim_ahead(0, 100)
    assert flight is not None
    (parts,) = snapshot.plan([(10, 20)]).parts
    snapshot.land(flight, Fetched([DATA[:99]], STATE.info), record=True)
    assert snapshot.use_ahead(parts) == []
    assert not held(snapshot)


def recorded(snapshot: Snapshot, extents: Extents, *, piece_bytes: int) -> Iterator[None]:
    """Record in pieces, step by step, as the store does with more than may wait."""
    for piece in pieces_of(extents, piece_bytes):
        yield
        snapshot.replace(extents, piece)
        yield
        snapshot.settle(piece)
    snapshot.settle(extents)


@pytest.mark.parametrize("seed", range(300))
def test_at_random_every_byte_is_right_and_nothing_stays(seed: int) -> None:
    chosen = random.Random(seed)
    snapshot = pinned()
    out: list[Flight] = []
    waiting: list = []
    recording: list[Iterator[None]] = []
    for _ in range(60):
        match chosen.randrange(7):
            case 0 | 1:
                ranges = [tuple(sorted((chosen.randrange(1001), chosen.randrange(1001)))) for _ in range(3)]
                plan = snapshot.plan(ranges, ahead_bytes=chosen.choice([0, 50]))  # type: ignore[arg-type]
                waiting.append((ranges, plan))
                if plan.own is not None:
                    out.append(plan.own)
            case 2 if out:
                flight = out.pop(chosen.randrange(len(out)))
                extents = snapshot.land(flight, fetched(flight), record=chosen.random() < 0.7)
                recording.append(recorded(snapshot, extents, piece_bytes=chosen.choice([30, 1000])))
            case 3 if out:
                snapshot.abort(out.pop(chosen.randrange(len(out))), FlightAbortedError())
            case 4:
                flight = snapshot.claim_ahead(chosen.randrange(1001), chosen.randrange(1001))
                if flight is not None:
                    out.append(flight)
            case 5:
                snapshot.drop_ahead()
            case 6 if recording:
                next(chosen.choice(recording), None)
    for record in recording:
        collections.deque(record, maxlen=0)
    for flight in out:
        snapshot.settle(snapshot.land(flight, fetched(flight), record=True))
    for ranges, plan in waiting:
        for (start, stop), row in zip(ranges, plan.parts, strict=True):
            at = start
            for a, b, place, index, _ in row:
                assert a == at
                at = b
                if isinstance(place, Held):
                    assert place.bytes_of(a, b) == DATA[a:b]
                elif place.error is None:
                    assert place.bytes_of(a, b, index) == DATA[a:b]
            assert at == max(start, stop)
    snapshot.drop_ahead()
    assert not flights(snapshot)
    assert not held(snapshot)
