"""The interval map against a plain dictionary of bytes."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jcache.planning.intervals import Comb, IntervalMap
from jcache.vectors import Vector

steps = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12), st.booleans()), max_size=40)


@given(steps, st.integers(0, 60), st.integers(0, 60))
def test_find_says_of_each_byte_where_it_is(steps, a, b) -> None:
    intervals: IntervalMap[int] = IntervalMap()
    owner: dict[int, int] = {}
    for number, (start, length, remove) in enumerate(steps):
        stop = start + length
        if remove:
            intervals.remove(start)
            if start in owner and owner.get(start - 1) != owner[start]:
                gone = owner[start]
                owner = {at: value for at, value in owner.items() if value != gone}
        elif not any(at in owner for at in range(start, stop)):
            intervals.add(start, stop, number)
            owner |= dict.fromkeys(range(start, stop), number)
    start, stop = min(a, b), max(a, b)
    at = start
    for piece_start, piece_stop, value in intervals.find(start, stop):
        assert piece_start == at < piece_stop
        at = piece_stop
        assert {owner.get(byte) for byte in range(piece_start, piece_stop)} == {value}
    assert at == stop
    assert len(intervals) == len(set(owner.values()))
    assert {(a, b) for a, b, _ in intervals} == {
        (min(bytes_), max(bytes_) + 1)
        for value in set(owner.values())
        if (bytes_ := [at for at in owner if owner[at] == value])
    }


def test_nothing_and_everything() -> None:
    intervals: IntervalMap[str] = IntervalMap()
    assert intervals.find(0, 0) == []
    assert intervals.find(5, 9) == [(5, 9, None)]
    intervals.add(3, 3, "empty")
    assert len(intervals) == 0
    intervals.remove(3)
    intervals.add(0, 2**63, "all")
    assert intervals.find(5, 9) == [(5, 9, "all")]
    intervals.clear()
    assert not list(intervals)


def test_neighbours_stay_apart() -> None:
    intervals: IntervalMap[str] = IntervalMap()
    for start, name in ((20, "c"), (0, "a"), (10, "b")):
        intervals.add(start, start + 10, name)
    assert intervals.find(5, 25) == [(5, 10, "a"), (10, 20, "b"), (20, 25, "c")]
    intervals.remove(10)
    assert intervals.find(5, 25) == [(5, 10, "a"), (10, 20, None), (20, 25, "c")]


@pytest.mark.parametrize("order", range(5))
def test_any_order_of_adding_and_removing(order: int) -> None:
    chosen = random.Random(order)
    starts = list(range(0, 1000, 10))
    chosen.shuffle(starts)
    intervals: IntervalMap[int] = IntervalMap()
    for start in starts:
        intervals.add(start, start + 10, start)
    assert [start for start, _, _ in intervals] == sorted(starts)
    chosen.shuffle(starts)
    for start in starts:
        intervals.remove(start)
        assert intervals.find(start, start + 10) == [(start, start + 10, None)]
    assert len(intervals) == 0


@pytest.mark.parametrize("seed", range(40))
def test_combs_are_as_their_intervals_one_by_one(seed: int) -> None:
    """A comb, whole or taken apart by what comes between, says of each byte what its intervals would say."""
    chosen = random.Random(seed)
    intervals: IntervalMap[tuple[int, int]] = IntervalMap()
    owner: dict[int, tuple[int, int]] = {}
    combs: dict[int, Vector] = {}
    single: dict[int, int] = {}
    for number in range(60):
        if combs and chosen.random() < 0.3:
            gone = chosen.choice(list(combs))
            vector = combs.pop(gone)
            if not intervals.remove_comb(vector.starts[0], gone):
                intervals.remove_all(vector.starts)
            owner = {at: value for at, value in owner.items() if value[0] != gone}
        elif single and chosen.random() < 0.3:
            start, gone = single.popitem()
            intervals.remove(start)
            owner = {at: value for at, value in owner.items() if value[0] != gone}
        else:
            begin, step = chosen.randrange(100), chosen.randrange(1, 9)
            ranges = [(at, at + chosen.randint(1, step)) for at in range(begin, begin + 6 * step, step)]
            ranges = [(a, b) for a, b in ranges if not any(at in owner for at in range(a, b))]
            if len(ranges) > 1:
                vector = combs[number] = Vector.of(ranges)
                intervals.add_comb(Comb(vector, number, lambda i, number=number: (number, i)))
            elif ranges:
                single[ranges[0][0]] = number
                intervals.add(*ranges[0], (number, 0))
            owner |= {at: (number, i) for i, (a, b) in enumerate(ranges) for at in range(a, b)}
        for _ in range(20):
            start, stop = sorted((chosen.randrange(170), chosen.randrange(170)))
            at = start
            for piece_start, piece_stop, value in intervals.find(start, stop):
                assert piece_start == at < piece_stop
                at = piece_stop
                assert {owner.get(byte) for byte in range(piece_start, piece_stop)} == {value}
            assert at == stop
            if start < stop:
                assert intervals.is_clear(start, stop) != any(at in owner for at in range(start, stop))
        assert len(intervals) == len(set(owner.values()))
        of_singles = {(a, b) for a, b, value in intervals.singles(0, 1000) if value[0] in single.values()}
        assert of_singles == {(a, b) for a, b, value in intervals if value[0] in single.values()}


def test_a_comb_taken_apart_is_removed_one_by_one() -> None:
    intervals: IntervalMap[str] = IntervalMap()
    vector = Vector([0, 20, 40], [10, 30, 50])
    intervals.add_comb(Comb(vector, "comb", lambda i: f"tooth {i}"))
    assert intervals.get(0) is None
    intervals.add(10, 15, "between")
    assert intervals.find(5, 45) == [
        *((5, 10, "tooth 0"), (10, 15, "between"), (15, 20, None), (20, 30, "tooth 1"), (30, 40, None)),
        (40, 45, "tooth 2"),
    ]
    assert not intervals.remove_comb(0, "comb")
    intervals.remove_all(vector.starts)
    assert list(intervals) == [(10, 15, "between")]


@pytest.mark.parametrize("start", [0, 20, 40])
def test_any_interval_of_a_comb_can_be_removed(start: int) -> None:
    intervals: IntervalMap[int] = IntervalMap()
    intervals.add_comb(Comb(Vector([0, 20, 40], [10, 30, 50]), "comb", lambda i: i))
    intervals.remove(start)
    assert [begin for begin, _, _ in intervals] == [begin for begin in (0, 20, 40) if begin != start]
    intervals.add(start, start + 10, 7)
    assert [value for begin, _, value in intervals if begin == start] == [7]


def test_a_comb_of_somebody_else_stays() -> None:
    intervals: IntervalMap[str] = IntervalMap()
    intervals.add_comb(Comb(Vector([0, 20], [10, 30]), "first", str))
    assert not intervals.remove_comb(0, "second")
    assert intervals.remove_comb(0, "first")
    assert not list(intervals)
