import hashlib
import os
import random
import re
from types import SimpleNamespace

import pytest
from places import ROOT

import jcache.journal.journal
import jcache.segment.writer
from jcache.journal import Journal, Version
from jcache.segment.format import (
    ENTRY,
    FRAME,
    HEADER,
    MAX_METADATA_BYTES,
    TRAILER,
    Metadata,
    checksum,
    pack_header,
    parse_frame_head,
    parse_header,
    parse_segment_name,
    parse_table,
    parse_trailer,
    segment_name,
)
from jcache.system.storage import Storage

SALT = 0x0123456789ABCDEF
EXTENTS = [(40, b"journal"), (2, b"cache")]
DOCUMENT = ROOT / "docs" / "format.md"
GOLDEN_SHA256 = "d4c05e71de67a068d1621aecf1e41dc977e872fc68dd865b600d9b02c0c6d3a0"
BUMP = "the format changed: give it a new version number, and describe that in docs/format.md"


def documented_example() -> bytes:
    text = DOCUMENT.read_text().split("<!-- example -->")[1].split("<!-- /example -->")[0]
    data = bytearray()
    for line in re.findall(r"^    ([0-9a-f]{4})  ([0-9a-f ]{1,48})", text, re.MULTILINE):
        assert int(line[0], 16) == len(data)
        data += bytes.fromhex(line[1])
    return bytes(data)


@pytest.fixture
def fixed_writer(monkeypatch):
    """A writer whose salt, host, process and clock are those of the document's example."""
    monkeypatch.setattr(jcache.segment.writer, "new_salt", lambda: SALT)
    monkeypatch.setattr(jcache.segment.writer.os, "uname", lambda: SimpleNamespace(nodename="node17"))
    monkeypatch.setattr(jcache.segment.writer, "here", lambda: "node17")
    monkeypatch.setattr(jcache.segment.writer.os, "getpid", lambda: 4711)
    monkeypatch.setattr(jcache.segment.writer.time, "time_ns", lambda: 1767225600000000000)
    monkeypatch.setattr(jcache.segment.proof, "boot_id", lambda: "")


def test_the_example_of_the_document_is_the_golden_segment():
    assert hashlib.sha256(documented_example()).hexdigest() == GOLDEN_SHA256, BUMP


def test_the_writer_writes_the_golden_bytes(tmp_path, fixed_writer):
    journal = Journal(Storage(), str(tmp_path), "https://example.org/f")
    journal.append(Version(100, etag='"1"'), {}, EXTENTS)
    journal.close()
    name = "@node17.4711.0123456789abcdef.seg"
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).read_bytes() == documented_example(), BUMP


@pytest.mark.parametrize("sealed", [True, False])
def test_the_golden_bytes_are_read(tmp_path, sealed):
    golden = documented_example()
    (tmp_path / "@node17.4711.0123456789abcdef.seg").write_bytes(golden if sealed else golden[:0x112])
    journal = Journal(Storage(), str(tmp_path), "https://example.org/f")
    journal.attach()
    (stored,) = journal.versions()
    assert (stored.version, stored.info) == (Version(100, etag='"1"'), {})
    view = journal.view(stored.version)
    assert [part[:2] for part in view.find(0, 100) if part[2]] == [(2, 7), (40, 47)]
    assert [view.read(part) for part in view.find(0, 100) if part[2]] == [b"cache", b"journal"]
    assert journal.problems() == []


def test_the_document_states_the_sizes_and_magics():
    text = DOCUMENT.read_text()
    assert (HEADER.size, FRAME.size, ENTRY.size, TRAILER.size) == (32, 32, 24, 48)
    for word in ("`JCFR`", "`JCIX`", "\\x89JCSEG\\r\\n", "\\x89JCEND\\r\\n", f"{MAX_METADATA_BYTES:,}"):
        assert word in text


@pytest.mark.parametrize(
    "name",
    [
        "@h.1.0123456789abcdef.tmp",
        "@h.1.0123456789abcde.seg",
        "@h.1.0123456789ABCDEF.seg",
        "h.1.0123456789abcdef.seg",
        "@h.x.0123456789abcdef.seg",
        "@0123456789abcdef.seg",
        "@h.1.0123456789abcdef.seg\n",
        "",
    ],
)
def test_other_names_are_no_segments(name):
    assert parse_segment_name(name) is None


def test_a_segment_name_carries_host_process_and_salt():
    name = segment_name("node-1.site.org/../x", 12, 5)
    assert "/" not in name
    assert parse_segment_name(name) == ("node-1-site-org----x", 12, 5)
    assert len(segment_name("x" * 1000, 1 << 22, SALT)) < 128


def test_metadata_longer_than_its_bound_is_refused():
    metadata = Metadata("x" * MAX_METADATA_BYTES, Version(1, 1), {}, "h", 1, 1)
    with pytest.raises(ValueError, match="bytes of metadata"):
        metadata.pack()


@pytest.mark.parametrize("info", [{"a": object()}, {"a": float("nan")}, {"a": b"bytes"}])
def test_info_that_is_not_json_is_refused(info):
    with pytest.raises(ValueError, match="JSON"):
        Metadata("x", Version(1, 1), info, "h", 1, 1).pack()


def test_names_that_are_not_utf8_survive(tmp_path):
    identity = "file://host/caf\udce9"
    packed = Metadata(identity, Version(1, 1), {}, "h", 1, 1).pack()
    parsed = parse_header(pack_header(SALT, packed), SALT)
    assert isinstance(parsed, tuple)
    assert parsed[0].identity == identity


def test_a_table_entry_with_an_unknown_flag_is_left_out():
    table = b"".join(ENTRY.pack(start, 10, flags, 1) for start, flags in [(0, 0), (10, 1), (20, 1 << 31), (30, 0)])
    seed = SALT ^ 182
    head = FRAME.pack(b"JCFR", 4, 40, checksum(table, seed), 0)[:-8]
    parsed = parse_frame_head(head + checksum(head, seed).to_bytes(8, "little"), seed)
    assert parsed is not None
    columns = parse_table(memoryview(table), parsed, seed, 1000)
    assert columns is not None
    assert (list(columns.starts), list(columns.positions)) == ([0, 30], [1000, 1030])


def test_a_table_that_does_not_add_up_is_damaged():
    table, seed = ENTRY.pack(0, 10, 0, 1), SALT ^ 182
    head = FRAME.pack(b"JCFR", 1, 11, checksum(table, seed), 0)[:-8]
    parsed = parse_frame_head(head + checksum(head, seed).to_bytes(8, "little"), seed)
    assert parsed is not None
    assert parse_table(memoryview(table), parsed, seed, 1000) is None


def test_random_bytes_are_never_taken_for_anything():
    rng = random.Random(1)
    for _ in range(2000):
        data = rng.randbytes(rng.randrange(32, 300))
        assert not isinstance(parse_header(data, SALT), tuple)
        assert not isinstance(parse_header(b"\x89JCSEG\r\n\x01\0\0\0" + data, SALT), tuple)
        assert parse_frame_head(data[:32], SALT) is None
        assert parse_trailer(data, len(data), SALT) is None
        assert parse_trailer(data[:-48] + b"\x89JCEND\r\n\x01\0\0\0" + data[-36:], len(data), SALT) is None
