import json

import pytest

from jcache.journal import Version


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (Version(1, 5), Version(1, 5), True),
        (Version(1, 5), Version(2, 5), False),
        (Version(1, 5), Version(1, 6), False),  # a nanosecond is a difference
        (Version(1, 5, '"a"'), Version(1, 6, '"a"'), True),  # the stronger field decides
        (Version(1, 5, '"a"'), Version(1, 5, '"b"'), False),
        (Version(1, 5, '"a"', "adler32:1"), Version(1, 6, '"b"', "adler32:1"), True),
        (Version(1, 5, '"a"', "adler32:1"), Version(1, 5, '"a"', "adler32:2"), False),
        (Version(1, 5, '"a"'), Version(1, 5), True),  # the strongest that both have
        (Version(1, etag='"a"'), Version(1, 5), False),  # nothing in common proves nothing
        (Version(1), Version(1), False),
        (Version(1, etag=""), Version(1, etag=""), True),
    ],
)
def test_same_as(one, other, same):
    assert one.same_as(other) is same
    assert other.same_as(one) is same


def test_a_size_alone_proves_nothing():
    assert not Version(1).is_provable
    assert all(v.is_provable for v in (Version(1, 0), Version(1, etag=""), Version(1, checksum="x")))


@pytest.mark.parametrize("version", [Version(0), Version(1 << 60, -1, '"a"', "x:1")])
def test_json_round_trip(version):
    assert Version.from_json(json.loads(json.dumps(version.to_json()))) == version


@pytest.mark.parametrize(
    "fields",
    [{}, {"size_bytes": -1}, {"size_bytes": True}, {"size_bytes": 1.0}, {"size_bytes": 1, "mtime_ns": 1.5},
     {"size_bytes": 1, "etag": 3}, {"size_bytes": 1, "checksum": []}],
)  # fmt: skip
def test_json_of_the_wrong_kind_is_refused(fields):
    with pytest.raises(ValueError, match=r"size|mtime|etag"):
        Version.from_json(fields)
