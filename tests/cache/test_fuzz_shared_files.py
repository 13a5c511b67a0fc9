"""Whatever somebody writes into a shared cache directory, only documented errors come out, in bounded time and memory.

Short by default. `JCACHE_FUZZ=5000` tries so many cases of each kind.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import resource
import shutil
import tempfile
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from report_samples import ttbar_report

from jcache.cache import Cache
from jcache.cache import usage as usages
from jcache.cache.books import is_over, read_head, read_uses
from jcache.cache.catalogue import journals
from jcache.cache.eviction import Cleaner, Wish
from jcache.cache.pins import Pins, read_pins
from jcache.cache.verify import verify
from jcache.cli import main
from jcache.journal import Journal, JournalError, Version
from jcache.journal.whole import Whole, read_whole
from jcache.naming.layout import is_journal
from jcache.report.faces.html import fragment
from jcache.report.faces.text import render
from jcache.report.merge import merge
from jcache.report.model import Report, ReportError
from jcache.report.select import heads, runs
from jcache.segment import format as fmt
from jcache.segment.writer import describe
from jcache.settings.config import Config, ConfigError
from jcache.system.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Iterator

CASES = int(os.environ.get("JCACHE_FUZZ", "15"))
fuzz = settings(
    max_examples=CASES,
    deadline=None if CASES > 100 else 10_000,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
    derandomize=CASES <= 100,
    database=None,
)

DATA = bytes(range(256)) * 16
VERSION = Version(len(DATA), etag='"1"')
URL = "https://h/d/f.root"

_COUNTS = st.one_of(
    st.integers(0, 1 << 12),
    st.integers(0, (1 << 64) - 1),
    st.sampled_from([0, 1, 100, 255, 1 << 16, (1 << 31) - 1, (1 << 32) - 1, 1 << 62, 1 << 63, (1 << 64) - 1]),
)
_SHORTS = _COUNTS.map(lambda n: n & 0xFFFFFFFF)
_NUMBERS = st.one_of(
    st.integers(),
    st.integers(-(10**400), 10**400),
    st.floats(),
    st.sampled_from([2**63, 10**308, -1, 0, 1e308, math.inf]),
)
_TEXTS = st.one_of(
    st.text(max_size=30), st.sampled_from(["../x", "/etc", "a\nb", "\x1b[31m", "<script>", "\ud800", "@x", ""])
)
_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), _NUMBERS, _TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_TEXTS, inner, max_size=4)),
    max_leaves=8,
)


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    """A gigabyte more than there is, and no more."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@contextlib.contextmanager
def cache_of(parent: Path) -> Iterator[Cache]:
    place = tempfile.mkdtemp(dir=parent)
    cache = Cache(place)
    cache.prepare()
    Path(place, ".usage").mkdir()
    yield cache
    shutil.rmtree(place, ignore_errors=True)


@st.composite
def mutated(draw: st.DrawFn, sound: bytes) -> bytes:
    """Return bytes with pieces replaced, removed or repeated."""
    data = bytearray(sound)
    for _ in range(draw(st.integers(0, 6))):
        at, size = draw(st.integers(0, len(data))), draw(st.integers(0, 40))
        data[at : at + size] = draw(st.one_of(st.binary(max_size=40), st.just(bytes(data[at : at + size]) * 2)))
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)


# -- segments --------------------------------------------------------------------------------------------------------


@st.composite
def segments(draw: st.DrawFn) -> bytes:
    """Return a segment that is sound by its checksums, or nearly so, whatever it says."""
    salt, size = 0x1234, len(DATA)
    about = json.loads(describe("url:https/h/d/f.root", VERSION, {}, created_ns=1).pack())
    if draw(st.booleans()):
        about[draw(st.sampled_from([*sorted(about), "generation", "proved"]))] = draw(_JSON)
    try:
        metadata = json.dumps(about).encode()
    except ValueError:
        metadata = b"{}"
    metadata = metadata[: fmt.MAX_METADATA_BYTES]
    header = fmt.pack_header(salt, metadata)
    body, base = header, len(header)
    for _ in range(draw(st.integers(0, 2))):
        starts = draw(st.lists(_COUNTS, min_size=1, max_size=4))
        lengths = [draw(_SHORTS) for _ in starts]
        pieces = [
            DATA[start : start + length] if start < size else b"" for start, length in zip(starts, lengths, strict=True)
        ]
        sums = [fmt.checksum(piece, salt) for piece in pieces]
        body += fmt.pack_frame(salt, len(body), starts, lengths, sums) + b"".join(pieces)
    if draw(st.booleans()):
        return draw(mutated(body))
    position = len(body)
    body += DATA
    rows = draw(st.lists(st.tuples(_COUNTS, _SHORTS, _COUNTS), max_size=5))
    positions = [min(at if at > size else position + at, (1 << 64) - 1) for _, _, at in rows]
    sums = [fmt.checksum(DATA[at : at + length] if at < size else b"", salt) for _, length, at in rows]
    columns = fmt.Columns(
        array("Q", [start for start, _, _ in rows]),
        array("I", [n for _, n, _ in rows]),
        array("Q", sums),
        array("Q", positions),
    )
    seal = bytearray(fmt.pack_seal(salt, len(body), columns, metadata))
    if draw(st.booleans()):
        at, count = draw(_COUNTS), draw(_COUNTS)
        trailer = fmt.TRAILER.pack(fmt.TRAILER_MAGIC, 1, 0, len(metadata), salt, at, count, 0)[:-8]
        seal[-fmt.TRAILER.size :] = trailer + fmt.checksum(metadata + trailer, salt).to_bytes(8, "little")
    assert base
    return body + bytes(seal)


@fuzz
@given(st.lists(segments(), min_size=1, max_size=3))
def test_segments(tmp_path: Path, forged: list[bytes]) -> None:
    with cache_of(tmp_path) as cache:
        identity = cache.identify("https", URL, {})
        directory = cache.path(identity)
        os.makedirs(directory)
        for number, data in enumerate(forged):
            name = fmt.segment_name("evil", number + 1, 0x1234)
            Path(directory, name).write_bytes(data)
        whole = read_whole(Storage(), directory, identity.key)
        assert whole in ("nothing", "unclear") or isinstance(whole, Whole)
        journal = Journal(Storage(), directory, identity.key)
        journal.attach()
        for stored in [*journal.versions(), None]:
            view = journal.view(VERSION if stored is None else stored.version)
            view.covered()
            view.extents()
            for start, stop in ((0, 50), (40, 300), (0, view.size), (1 << 40, 1 << 41)):
                for _ in range(30):
                    hits = [part for part in view.find(start, stop) if part[2] is not None]
                    try:
                        for part in hits:
                            assert len(view.read(part)) == part[1] - part[0]
                        break
                    except JournalError:
                        pass
                else:
                    pytest.fail("what is damaged is found again and again")
        journal.refresh()
        journal.append(VERSION, {}, [(0, b"abc")])
        with contextlib.suppress(JournalError):
            journal.seal()
            journal.compact(at_least=1)
        journal.close()
        list(journals(Storage(), cache.directory))
        list(verify(Storage(), cache.directory, repair=True))
        Cleaner(Storage(), cache.directory).run(Wish(to_bytes=0), measure=True)


# -- what is noted ---------------------------------------------------------------------------------------------------

_BOOK = b"jcache-use 2 +00000000000000000010 +00000000000000000000 +00000000000000000000 o".ljust(95) + b"\n"
_BOOK += b"u 1700000000.000 3 100 https/h/d/f.root\nw 1700000000.000 0 0 https/h/d/g.root\n"


def _line(draw: st.DrawFn) -> bytes:
    words = [draw(st.one_of(_NUMBERS.map(str), _TEXTS)) for _ in range(draw(st.integers(0, 8)))]
    return " ".join(words).encode(errors="surrogatepass")


@st.composite
def books(draw: st.DrawFn) -> bytes:
    """Return a book, or nearly so."""
    head = draw(st.one_of(st.just(_BOOK[:96]), mutated(_BOOK[:96])))
    return head + b"\n".join([_line(draw) for _ in range(draw(st.integers(0, 4)))]) + draw(mutated(_BOOK[96:]))


@st.composite
def indexes(draw: st.DrawFn) -> bytes:
    """Return an index, or nearly so."""
    head: Any = {"jcache-index": 2, "offset": 5, "folded": [1, 2, 3], "walked": 1e9, "walk": ["a", 1, 2]}
    head |= {"dropped": ["@h.1.0123456789abcdef.use", "@h.1.0123456789abcdee.use"], "since": [1.7e9, draw(_NUMBERS)]}
    for _ in range(draw(st.integers(0, 3))):
        head[draw(st.sampled_from(sorted(head)))] = draw(_JSON)
    lines = [json.dumps(head).encode(), b"1700000000 3 100 1 5 1700000000 https/h/d/f.root"]
    return draw(mutated(b"\n".join([*lines, *(_line(draw) for _ in range(draw(st.integers(0, 4)))), b""])))


@st.composite
def facts(draw: st.DrawFn) -> bytes:
    """Return what is known of a journal, or nearly so, with the stamp that `journal` has."""
    line: list[Any] = ["https/h/d/f.root", 1, 7, 5, "url:https/h/d/f.root", [[5, 5, 1e9, {"size_bytes": 5}]]]
    where = draw(st.integers(4, 6))
    if where < 6:
        line[where] = draw(_JSON)
    else:
        line[5][0][draw(st.integers(0, 3))] = draw(_JSON)
    return draw(st.one_of(st.just(json.dumps(line).encode()), mutated(json.dumps(line).encode()))) + b"\n"


@fuzz
@given(
    books(),
    indexes(),
    facts(),
    st.one_of(st.binary(max_size=60), st.text(max_size=60).map(lambda t: t.encode() + b"\n")),
)
def test_what_is_noted(tmp_path: Path, book: bytes, index: bytes, fact: bytes, pin: bytes) -> None:
    with cache_of(tmp_path) as cache:
        notes = Path(cache.directory, ".usage")
        (notes / "pins").mkdir()
        for name, data in {"@h.1.0123456789abcdef.use": book, "index": index, "facts": fact, "pins/x.pin": pin}.items():
            (notes / name).write_bytes(data)
        path = str(notes / "@h.1.0123456789abcdef.use")
        read_head(Storage(), path)
        is_over(Storage(), path)
        assert all(is_journal(use.path) for use in read_uses(Storage(), path))
        Pins(read_pins(Storage(), cache.directory)).match(URL)
        known = usages.load(Storage(), cache.directory)
        assert all(is_journal(name) for name in usages.uses(Storage(), cache.directory, known))
        usages.total_bytes(Storage(), cache.directory)
        # A journal of which the facts are taken for true.
        journal = Path(cache.directory, "https/h/d/f.root")
        journal.mkdir(parents=True)
        segment = journal / "@h.1.0123456789abcdef.seg"
        segment.write_bytes(b"\0" * 7)
        os.utime(segment, ns=(5, 5))
        for arguments in (["ls"], ["ls", "-l"], ["ls", "--json"], ["pin", "--list"], ["info", "https://h/d/f.root"]):
            done = CliRunner().invoke(main, [*arguments, "--dir", cache.directory])
            assert done.exception is None or isinstance(done.exception, SystemExit), (arguments, done.exc_info)
            assert "\x1b" not in done.output
        for wish in (Wish(unused_since_s=0.0), Wish(to_bytes=0)):
            assert Cleaner(Storage(), cache.directory).run(wish) is not None


@fuzz
@given(
    st.one_of(
        mutated(b'validate = 300\nsize = "2TB"\nprotocols = ["root"]\n[[rules]]\nurl = "*"\nvalidate = "never"\n'),
        st.builds(
            lambda key, value: f"{key} = {json.dumps(value)}\n".encode(),
            st.sampled_from(["size", "rules", "json"]),
            _JSON,
        ),
    )
)
def test_settings(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "jcache.toml").write_bytes(content)
    with contextlib.suppress(ConfigError):
        Config.from_environ({"JCACHE_DIR": str(tmp_path)})


# -- reports ---------------------------------------------------------------------------------------------------------

_SOUND = json.loads(ttbar_report(events=20).dumps())
_SOUND["uncached"] = [{"reason": "why", "ops": 1, "bytes": 1}]
_SOUND["tiers"] = [{"place": "/far", "hit_bytes": 1, "copied_bytes": 1}]


@st.composite
def reports(draw: st.DrawFn) -> bytes:
    """Return a report, or nearly so: with anything anywhere in it."""
    document = json.loads(json.dumps(_SOUND))
    for _ in range(draw(st.integers(0, 4))):
        at: Any = document
        while True:
            keys = sorted(at) if isinstance(at, dict) else list(range(len(at)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(at[key], dict | list) and draw(st.booleans()):
                at = at[key]
                continue
            like = {int: st.one_of(st.integers(0, 2**62), _NUMBERS), float: st.floats(0, 1e12), str: _TEXTS}
            at[key] = draw(like.get(type(at[key]), _JSON))
            break
    text = json.dumps(document).encode()
    return draw(st.one_of(st.just(text), mutated(text)))


@fuzz
@given(st.lists(reports(), min_size=1, max_size=3))
def test_reports(tmp_path: Path, texts: list[bytes]) -> None:
    place = Path(tempfile.mkdtemp(dir=tmp_path))
    paths = [str(place / f"jcache.a.h.{number}.2.000.json") for number in range(len(texts))]
    found = []
    for path, text in zip(paths, texts, strict=True):
        Path(path).write_bytes(text)
        with contextlib.suppress(ReportError):
            found.append(Report.load(path))
    errors: list[ReportError] = []
    runs(heads(paths, errors))
    if found:
        merged = merge(found)
        out = io.StringIO()
        render(merged, out, color=False)
        assert "\x1b" not in out.getvalue()
        page = fragment(merged, found)
        assert "<script>" not in page
        Report.loads(merged.dumps()) if merged.profile.hit_bytes else None
    for arguments in (["report"], ["top", "--once"], ["report", "--json"]):
        done = CliRunner().invoke(main, [*arguments, str(place)])
        assert done.exception is None or isinstance(done.exception, SystemExit), (arguments, done.exc_info)
        assert "\x1b" not in done.output
    shutil.rmtree(place)
