"""The interval algebra agrees with plain sets of byte numbers."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from jcache.ranges import Range, merge, normalise, resolve, subtract, total

POSITION = st.integers(0, 60)
RANGES = st.lists(st.tuples(POSITION, POSITION), max_size=12)


def numbers(ranges: list[Range]) -> set[int]:
    return {number for start, stop in ranges for number in range(start, stop)}


def is_run(ranges: list[Range]) -> bool:
    flat = [position for item in ranges for position in item]
    return all(a < b for a, b in itertools.pairwise(flat))


@given(RANGES)
def test_normalise_keeps_the_bytes_and_makes_a_run(ranges: list[Range]) -> None:
    run = normalise(ranges)
    assert is_run(run)
    assert numbers(run) == numbers(ranges)
    assert normalise(run) == run
    assert total(run) == len(numbers(ranges))


@given(RANGES, RANGES)
def test_merge_is_union(first: list[Range], second: list[Range]) -> None:
    assert merge(first, second) == normalise(first + second)
    assert numbers(merge(first, second)) == numbers(first) | numbers(second)


@given(RANGES, RANGES)
def test_subtract_is_difference(first: list[Range], second: list[Range]) -> None:
    left = subtract(normalise(first), normalise(second))
    assert is_run(left)
    assert numbers(left) == numbers(first) - numbers(second)


@given(st.one_of(st.none(), st.integers(-80, 80)), st.one_of(st.none(), st.integers(-80, 80)), st.integers(0, 40))
def test_resolve_is_a_slice(start: int | None, end: int | None, size: int) -> None:
    content = bytes(range(size))
    first, stop = resolve(start, end, size)
    assert 0 <= first <= stop <= size
    assert content[first:stop] == content[start:end]


def test_ranges_beyond_64_bits_of_a_small_machine() -> None:
    far = 1 << 62
    assert subtract([(0, far)], [(far - 1, far)]) == [(0, far - 1)]
    assert resolve(-1, None, far) == (far - 1, far)


def test_touching_ranges_become_one() -> None:
    assert normalise([(5, 9), (0, 5), (9, 9)]) == [(0, 9)]
