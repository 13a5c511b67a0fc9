"""Another member of a group that shares a cache is hostile, or careless: nothing outside is touched, nobody crashes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import subprocess
import sys
import time
from array import array
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from jcache.cache import Cache
from jcache.cache import usage as usages
from jcache.cache.books import Book, Head, Use
from jcache.cache.eviction import Cleaner, Wish
from jcache.cache.pins import add_pin
from jcache.cache.verify import verify
from jcache.cli import main
from jcache.journal import Journal, Version
from jcache.reader.answers import ANSWERS
from jcache.report.places import read_file
from jcache.report.retention import clean_reports
from jcache.segment import format as fmt
from jcache.segment.errors import JournalError
from jcache.segment.writer import describe
from jcache.settings.config import Config
from jcache.system.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from conftest import RunPython
    from servers import ScriptedOrigin

URL = "https://h/d/f.root"
DATA = bytes(range(256)) * 64
VERSION = Version(len(DATA), etag='"1"')
NOBODY = 65534

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")


def made(path: Path) -> Cache:
    cache = Cache(path)
    cache.prepare()
    return cache


def record(cache: Cache, url: str = URL) -> Path:
    identity = cache.identify("https", url, {})
    journal = cache.journal(identity)
    journal.append(VERSION, {}, [(0, DATA[:1000])])
    journal.close()
    return Path(cache.path(identity))


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A directory that is none of the cache's business, and a look whether it is as it was."""
    place = tmp_path / "victim"
    (place / "sub" / "empty").mkdir(parents=True)
    for name in ("@important", "@leases", "@compact", "sub/@notes", "@h.1.0123456789abcdef.seg.tmp", "plain"):
        (place / name).write_text("x")
    # What is a segment by name and content, too.
    other = made(place / "other")
    shutil.copytree(record(other), place / "sub" / "journal")
    before = sorted((path.relative_to(place), path.lstat().st_mtime_ns) for path in place.rglob("*"))
    yield place
    assert sorted((path.relative_to(place), path.lstat().st_mtime_ns) for path in place.rglob("*")) == before


# -- symbolic links -----------------------------------------------------------------------------------------------


def linked(cache: Cache, outside: Path) -> list[Path]:
    """Put a link in the place of, or beside, everything below a cache's root."""
    journal = record(cache)
    places = [journal.parent / "evil", journal.parent.parent / "evil", Path(cache.directory) / "https" / "evil"]
    places += [journal / "evil", journal / "@leases", journal / "@compact", Path(cache.directory) / "flat~link"]
    for place in places:
        place.symlink_to(outside / "sub" if place.name == "evil" else outside / "@important")
    return places


def test_invalidation_follows_no_link(tmp_path: Path, outside: Path) -> None:
    cache = made(tmp_path / "cache")
    linked(cache, outside)
    for url in (URL, "https://h/d", "https://h", "https://h/d/evil/journal", "https://h/d/evil"):
        with contextlib.suppress(OSError):
            cache.remove(cache.identify("https", url, {}))


@pytest.mark.parametrize("what", ["https", "https/h", "https/h/d", "https/h/d/f.root"])
def test_a_link_on_the_way_to_a_journal_is_not_followed(tmp_path: Path, outside: Path, what: str) -> None:
    cache = made(tmp_path / "cache")
    record(cache)
    at = Path(cache.directory, what)
    copy = tmp_path / "elsewhere"
    shutil.move(at, copy)
    before = sorted(copy.rglob("*"))
    at.symlink_to(copy)
    again = made(tmp_path / "cache")
    identity = again.identify("https", URL, {})
    journal = again.journal(identity)
    journal.attach()
    assert journal.view(VERSION).covered() == 0
    with pytest.raises(JournalError):
        journal.append(VERSION, {}, [(0, b"abc")])
    with pytest.raises(JournalError):
        journal.announce()
    assert journal.compact(at_least=1) == 0
    journal.close()
    with contextlib.suppress(OSError):
        again.remove(identity)
    Cleaner(Storage(), again.directory).run(Wish(to_bytes=0), measure=True)
    assert sorted(copy.rglob("*")) == before


@pytest.mark.parametrize("arguments", [["clean", "--all"], ["verify", "--repair"], ["compact", "--all", "--dir"]])
def test_commands_follow_no_link(tmp_path: Path, outside: Path, arguments: list[str]) -> None:
    cache = made(tmp_path / "cache")
    linked(cache, outside)
    CliRunner().invoke(main, [*arguments, cache.directory])


def test_a_link_that_is_put_in_the_way_while_something_is_removed(tmp_path: Path, outside: Path) -> None:
    """Between the look and the removal: the storage walks down through directories that it holds open."""
    cache = made(tmp_path / "cache")
    journal = record(cache)

    class Swapped(Storage):
        def unlink(self, path: str) -> None:
            if journal.is_dir() and not journal.is_symlink():
                shutil.rmtree(journal)
                journal.symlink_to(outside)
            super().unlink(os.path.join(os.path.dirname(path), "@important"))

    with pytest.raises(NotADirectoryError):
        Cache(cache.directory, storage=Swapped()).remove(cache.identify("https", URL, {}))


@pytest.mark.parametrize(
    "name", [".usage", ".usage/pins", ".usage/index", ".usage/facts", ".reports", ".reports/.jobs"]
)
def test_links_in_place_of_what_is_noted(tmp_path: Path, outside: Path, name: str) -> None:
    cache = made(tmp_path / "cache")
    record(cache)
    at = Path(cache.directory, name)
    at.parent.mkdir(exist_ok=True)
    at.symlink_to(outside if "." not in at.name[1:] else outside / "plain")
    old = outside / "jcache.job.host.1.1000000000.000.json"
    old.write_text("{}")
    os.utime(old, (1e9, 1e9))
    with contextlib.suppress(OSError):
        Cleaner(Storage(), cache.directory).run(Wish(to_bytes=0), measure=True)
    with contextlib.suppress(OSError):
        clean_reports(os.path.join(cache.directory, ".reports"), older_than_s=60)
    for arguments in (["ls"], ["pin", "x", "--dir"], ["clean", "--reports", "1d"], ["report"], ["top", "--once"]):
        CliRunner().invoke(
            main, [*arguments, "--dir", cache.directory] if arguments == ["ls"] else [*arguments, cache.directory]
        )
    assert old.exists()
    old.unlink()


# -- paths from shared files ----------------------------------------------------------------------------------------


def test_a_path_in_a_book_or_the_index_leads_nowhere_else(tmp_path: Path, outside: Path) -> None:
    cache = made(tmp_path / "cache")
    evil = [
        "../victim/sub/empty",
        "../victim",
        "..",
        str(outside / "sub"),
        "a/../../victim",
        "./../victim",
        "",
        "@x",
        ".usage",
    ]
    book = Book(Storage(), usages.directory_of(cache.directory))
    book.add([Use(path, time.time(), kind="w") for path in evil])
    book.claim(Head(1 << 40))
    book.close(added_bytes=1 << 40)
    index = usages.Index(offset_bytes=1 << 40)
    usages.save(Storage(), cache.directory, index, file_mode=0o600, pace=lambda: None)
    path = Path(usages.directory_of(cache.directory), usages.INDEX_NAME)
    head = json.loads(path.read_text())
    head["dropped"] = ["../../victim/plain", "../CACHEDIR.TAG"]
    path.write_text("\n".join([json.dumps(head), *(f"1e9 0 0 1 0 0 {name}" for name in evil), ""]))
    done = Cleaner(Storage(), cache.directory).run(Wish(to_bytes=0), measure=True)
    assert done is not None
    assert not done.failed
    assert Path(cache.directory, "CACHEDIR.TAG").exists()


def test_names_with_line_ends_add_nothing_to_the_index(tmp_path: Path, outside: Path) -> None:
    cache = made(tmp_path / "cache")
    strange = Path(cache.directory, "a\n1e9 0 0 1 0 0 ..", "victim", "sub")
    strange.parent.mkdir(parents=True)
    shutil.copytree(outside / "sub" / "journal", strange)
    for _ in range(2):
        Cleaner(Storage(), cache.directory).run(Wish(unused_since_s=0.0), measure=True)
    assert usages.load(Storage(), cache.directory).entries == {}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e300", "-1"])
def test_a_time_that_is_none_keeps_nobody_from_cleaning_and_from_his_report(
    run_python: RunPython, http_origin: ScriptedOrigin, tmp_path: Path, number: str
) -> None:
    cache = made(tmp_path / "cache")
    notes = Path(cache.directory, ".usage")
    notes.mkdir()
    names = [f"@h.1.{salt:016x}.use" for salt in range(40)]
    for name in names:
        (notes / name).touch()
    head = {"jcache-index": 2, "offset": 0, "folded": [0, 0, 0], "walked": 0, "walk": None, "dropped": names[:1]}
    text = json.dumps(head).replace('"walked": 0', f'"walked": {number}, "since": [{number}]')
    (notes / "index").write_text(text + "\n")
    http_origin.put("a", bytes(1000))
    code = "import sys, fsspec; print(len(fsspec.filesystem('http').cat_file(sys.argv[1])))"
    ran = run_python(code, http_origin.url("a"), cache=Path(cache.directory))
    assert (ran.stdout, "no report" in ran.stderr) == ("1000\n", False)
    assert ran.report["cache"]["recorded_bytes"] == 1000
    done = CliRunner().invoke(main, ["clean", "--all", cache.directory])
    assert done.exit_code == 0, done.exc_info
    index = json.loads((notes / "index").read_text().split("\n")[0])
    assert all(0 <= since_s <= time.time() + 1 for since_s in [*index["since"], index["walked"]])


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e300", "-1e300"])
def test_a_time_that_is_none_is_listed_as_one(tmp_path: Path, number: str) -> None:
    cache = made(tmp_path / "cache")
    (segment,) = record(cache).glob("*.seg")
    status = segment.stat()
    notes = Path(cache.directory, ".usage")
    notes.mkdir()
    line = f'["https/h/d/f.root", 1, {status.st_size}, {status.st_mtime_ns}, "url:{URL}", '
    (notes / "facts").write_text(line + f'[[5, 7, {number}, {{"size_bytes": 5}}]]]\n')
    for words in (["ls"], ["ls", "-l"], ["info", URL]):
        done = CliRunner().invoke(main, [*words, "--dir", cache.directory])
        assert done.exit_code == 0, (words, done.exc_info)
    listed = CliRunner().invoke(main, ["ls", "--json", "--dir", cache.directory]).stdout
    (version,) = json.loads(listed)["versions"]
    assert version["cached_bytes"] == 7, "it is by the facts"
    assert 0 <= version["validated_s"] < 1e12


# -- what blocks, and what is no file --------------------------------------------------------------------------------


def test_fifos_directories_and_sockets_in_place_of_files(tmp_path: Path) -> None:
    cache = made(tmp_path / "cache")
    journal = record(cache)
    shared = Path(cache.directory)
    for below in (".usage/pins", ".reports/.jobs"):
        (shared / below).mkdir(parents=True)
    names = [
        "CACHEDIR.TAG", ".usage/index", ".usage/facts", ".usage/pins/x.pin", ".usage/@cleaner",
        ".usage/@h.1.0123456789abcdef.use", ".reports/jcache.a.h.1.2.000.json", ".reports/.jobs/0123456789abcdef.json",
    ]  # fmt: skip
    paths = [shared / name for name in names]
    paths += [
        journal / name for name in ("@h.1.0123456789abcdee.seg", "@leases", "@compact", "@h.1.0123456789abcdef.seg.tmp")
    ]
    script = f"""
import os, sys, fsspec
from click.testing import CliRunner
from jcache.cache import Cache
from jcache.cli import main
from jcache.settings.config import Config
from jcache.journal import Version
cache = Cache({cache.directory!r})
cache.prepare()
assert cache.writable
journal = cache.journal(cache.identify("https", {URL!r}, {{}}))
journal.attach()
assert journal.view(Version({len(DATA)}, etag='"1"')).covered() == 1000
journal.lease([(0, 10)])
journal.close()
commands = ["ls", "ls -l", "verify", "clean --all --dry-run", "pin --list", "report", "top --once"]
for arguments in map(str.split, commands):
    place = ["--dir", cache.directory] if arguments[0] in ("ls", "pin") else [cache.directory]
    done = CliRunner().invoke(main, [*arguments, *place])
    assert done.exception is None or isinstance(done.exception, SystemExit), (arguments, done.exc_info)
"""
    for make in (os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)):
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            make(path)
        done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        for path in paths:
            path.rmdir() if make is os.mkdir else path.unlink()


def test_a_report_that_is_no_file_or_a_hole(tmp_path: Path) -> None:
    path = tmp_path / "jcache.a.h.1.2.000.json"
    os.mkfifo(path)
    with pytest.raises(OSError, match="not a regular file"):
        read_file(path)
    path.unlink()
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match="larger than any report"):
        read_file(path)


def test_deep_directories_end_no_process(tmp_path: Path) -> None:
    cache = made(tmp_path / "cache")
    journal = record(cache)
    at = os.open(journal.parent, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=at)
        inner = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    os.close(at)
    try:
        cache.remove(cache.identify("https", "https://h/d", {}))
        assert not list(journal.iterdir())
        record(cache)
        list(verify(Storage(), cache.directory))
        Cleaner(Storage(), cache.directory).run(Wish(to_bytes=0), measure=True)
    finally:
        subprocess.run(["rm", "-rf", cache.directory], check=True)


# -- forged segments -----------------------------------------------------------------------------------------------


def forge(
    cache: Cache,
    rows: Sequence[tuple[int, int, int]],
    *,
    salt: int = 0x1234,
    url: str = URL,
    version: Version = VERSION,
) -> None:
    """Write a segment that is sound by every checksum, with an index of any start, length and position."""
    identity = cache.identify("https", url, {})
    directory = Path(cache.path(identity))
    directory.mkdir(parents=True, exist_ok=True)
    metadata = describe(identity.key, version, {}).pack()
    header = fmt.pack_header(salt, metadata)
    base = len(header)
    starts, lengths, positions = (
        array(kind, column) for kind, column in zip("QIQ", zip(*rows, strict=False), strict=True)
    )
    at = array("Q", [p if p >= 1 << 40 else base + p for p in positions])
    sums = array(
        "Q",
        [fmt.checksum(DATA[p : p + n] if p < 1 << 40 else b"", salt) for p, n in zip(positions, lengths, strict=True)],
    )
    body = DATA.ljust(len(rows) * (fmt.ENTRY.size + 1), b"\0")  # as long as the frames of so many extents
    seal = fmt.pack_seal(salt, base + len(body), fmt.Columns(starts, lengths, sums, at), metadata)
    (directory / fmt.segment_name("evil", 1, salt)).write_bytes(header + body + seal)


FORGED = {
    "behind 2^63": [(0, 100, 1 << 63), (100, 100, 100)],
    "at the end of the world": [(0, 100, (1 << 64) - 1), ((1 << 64) - 1, 0xFFFFFFFF, (1 << 64) - 1)],
    "not in order": [(1000, 100, 1000), (0, 100, 0), (500, 100, 500)],
    "inside one another": [(0, 300, 0), (10, 10, 10), (400, 10, 400)],
    "the same twice": [(0, 100, 0), (0, 100, 0), (0, 100, 0)],
    "the same start twice": [(0, 100, 0), (0, 200, 1 << 41), (100, 100, 100)],
    "of no length": [(0, 0, 0), (100, 0, 100)],
    "long": [(0, 0xFFFFFFFF, 0)],
    "descending": [(900 - 100 * i, 100, 900 - 100 * i) for i in range(10)],
}


@pytest.mark.parametrize("rows", FORGED.values(), ids=FORGED)
def test_an_index_that_lies_gives_gaps_and_right_bytes(tmp_path: Path, rows: list[tuple[int, int, int]]) -> None:
    cache = made(tmp_path / "cache")
    forge(cache, rows)
    journal = cache.journal(cache.identify("https", URL, {}))
    journal.attach()
    view = journal.view(VERSION)
    view.covered()
    for start in range(0, 1200, 50):
        for stop in (start + 1, start + 50, start + 333, len(DATA)):
            for _ in range(20):
                hits = [part for part in view.find(start, stop) if part[2] is not None]
                if not hits:
                    break
                try:
                    for part in hits:
                        assert view.read(part) == DATA[part[0] : part[1]]
                    break
                except JournalError:
                    pass
            else:
                pytest.fail("what is damaged is found again and again")
    journal.compact(at_least=1)
    journal.close()
    list(verify(Storage(), cache.directory, repair=True))
    again = Journal(Storage(), cache.path(cache.identify("https", URL, {})), cache.identify("https", URL, {}).key)
    again.attach()
    for part in again.view(VERSION).find(0, len(DATA)):
        if part[2] is not None:
            assert again.view(VERSION).read(part) == DATA[part[0] : part[1]]


def test_holes_of_terabytes_fill_no_memory(tmp_path: Path) -> None:
    cache = made(tmp_path / "cache")
    identity = cache.identify("https", URL, {})
    directory = Path(cache.path(identity))
    directory.mkdir(parents=True)
    metadata = describe(identity.key, VERSION, {}).pack()
    for number, (position, count) in enumerate(
        [(4096, (1 << 40) // 28), (1 << 42, (1 << 40) // 28), (1 << 30, 1 << 25)]
    ):
        salt = 0x77 + number
        end = position + fmt.FRAME.size + fmt.COLUMN_BYTES * count + len(metadata)
        trailer = fmt.TRAILER.pack(fmt.TRAILER_MAGIC, 1, 0, len(metadata), salt, position, count, 0)[:-8]
        sum_ = fmt.checksum(metadata + trailer, salt).to_bytes(8, "little")
        head = fmt.FRAME.pack(fmt.FRAME_MAGIC, 0xFFFFFFFF, 0xFFFFFFFF, 0, 0)[:-8]
        header = fmt.pack_header(salt, metadata)
        seed = salt ^ len(header)
        head += fmt.checksum(head, seed).to_bytes(8, "little")
        with (directory / fmt.segment_name("evil", 1, salt)).open("wb") as file:
            file.write(header + head)
            file.truncate(end + fmt.TRAILER.size)
            file.seek(end - len(metadata))
            file.write(metadata + trailer + sum_)
    for name in ("index", "facts", "@h.1.0123456789abcdef.use", "pins/x.pin"):
        path = Path(cache.directory, ".usage", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.truncate(1 << 43)
    script = f"""
import resource
from jcache.cache import Cache
from jcache.cache.catalogue import journals
from jcache.cache.eviction import Cleaner, Wish
from jcache.journal import Version
from jcache.system.storage import Storage
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
cache = Cache({cache.directory!r})
cache.prepare()
identity = cache.identify("https", {URL!r}, {{}})
journal = cache.journal(identity)
journal.attach()
view = journal.view(Version({len(DATA)}, etag='"1"'))
assert view.covered() == 0
assert journal.append(view.version, {{}}, [(0, b"abc")])
journal.close()
list(journals(Storage(), cache.directory))
assert Cleaner(Storage(), cache.directory).run(Wish(unused_since_s=0.0)) is not None
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def bounded(script: str, most_bytes: int = 1 << 30) -> str:
    """Run a program that has so much memory; return what it prints."""
    limit = f"import resource\nresource.setrlimit(resource.RLIMIT_AS, ({most_bytes}, {most_bytes}))\n"
    done = subprocess.run(
        [sys.executable, "-c", limit + script], check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_answers_that_repeat_one_extent_fill_no_memory(tmp_path: Path) -> None:
    """Some megabytes of rows join to one answer of gigabytes, each checksum of which is right."""
    cache = made(tmp_path / "cache")
    forge(cache, [(number * len(DATA), len(DATA), 0) for number in range(200_000)], url="https://h/d", version=ANSWERS)
    journal = cache.journal(cache.identify("https", "https://h/d", {}))
    for said_s, value in (("Infinity", 1), ("1e9", 2)):
        data = f'[["q", {said_s}, null, {value}]]'.encode()
        journal.append(ANSWERS, {}, [((1 << 60) + value * 100, data)])
    journal.close()
    script = f"""
from jcache.cache import Cache
from jcache.reader.answers import Book
from jcache.reader.store import Home
cache = Cache({cache.directory!r})
cache.prepare()
book = Book(cache.identify("https", "https://h/d", {{}}))
book.load(lambda identity: Home(cache.journal(identity)))
print({{question: answer.value for question, answer in book.known.items()}})
"""
    assert bounded(script) == "{'q': 2}\n"


def test_what_repeats_one_extent_is_neither_copied_nor_kept(tmp_path: Path) -> None:
    """A file holds no more than its own bytes: of some kilobytes gigabytes would be written."""
    cache, large = made(tmp_path / "cache"), Version(1 << 40, etag='"1"')
    for salt in (1, 2):
        forge(cache, [(number * 1000, 1000, 0) for number in range(20_000)], salt=salt, version=large)
    journal = cache.journal(cache.identify("https", URL, {}))
    journal.attach()
    journal.append(large, {}, [(1 << 39, b"abc")])
    journal.seal()
    assert journal.compact(at_least=2) == 3
    assert journal.size_bytes < 100_000
    journal.close()
    forge(cache, [(number * 1000, 1000, 0) for number in range(20_000)], salt=3, version=large)
    list(verify(Storage(), cache.directory, repair=True))
    assert sum(path.stat().st_size for path in Path(cache.directory).rglob("*.seg")) < 100_000


@pytest.mark.parametrize("content", [b"\n" * (64 << 20), b"[" + b"[]," * (20 << 20), b"\n[" + b"[]," * (20 << 20)])
def test_notes_of_many_small_things_fill_no_memory(tmp_path: Path, content: bytes) -> None:
    """Some bytes each, they are fifty as objects of Python's."""
    cache = made(tmp_path / "cache")
    record(cache)
    notes = Path(cache.directory, ".usage")
    notes.mkdir()
    for name in ("index", "facts", "@h.1.0123456789abcdef.use"):
        (notes / name).write_bytes(content)
    script = f"""
from jcache.cache.catalogue import journals
from jcache.cache.usage import load, uses
from jcache.system.storage import Storage
root = {cache.directory!r}
print(len(uses(Storage(), root, load(Storage(), root))), len(list(journals(Storage(), root))))
"""
    assert bounded(script, 512 << 20) == "0 1\n"


def test_segments_of_one_journal_fill_no_memory_together(tmp_path: Path) -> None:
    """Each is a hole, with an index of zeros that is sound and takes 117 MB of memory."""
    cache = made(tmp_path / "cache")
    identity = cache.identify("https", URL, {})
    directory, count, metadata = Path(cache.path(identity)), 1 << 22, describe(identity.key, VERSION, {}).pack()
    directory.mkdir(parents=True)
    index = bytes(fmt.COLUMN_BYTES * count)
    for salt in range(1, 9):
        position = 200_000_000
        table = fmt.checksum(index, salt ^ position)
        rest = len(index) + len(metadata) + fmt.TRAILER.size
        head = fmt.FRAME.pack(fmt.INDEX_MAGIC, count, rest, table, 0)[:-8]
        trailer = fmt.TRAILER.pack(fmt.TRAILER_MAGIC, 1, 0, len(metadata), salt, position, count, 0)[:-8]
        with (directory / fmt.segment_name("evil", 1, salt)).open("wb") as file:
            file.write(fmt.pack_header(salt, metadata))
            file.seek(position)
            file.write(head + fmt.checksum(head, salt ^ position).to_bytes(8, "little"))
            file.seek(len(index), os.SEEK_CUR)
            file.write(metadata + trailer + fmt.checksum(metadata + trailer, salt).to_bytes(8, "little"))
    script = f"""
from jcache.cache import Cache
cache = Cache({cache.directory!r})
cache.prepare()
journal = cache.journal(cache.identify("https", {URL!r}, {{}}))
journal.attach()
journal.attach()
print(len(journal._segments.known), {{what for _, what in journal.problems()}})
"""
    assert bounded(script, 2 << 30) == "4 {'the journal has more extents than are read'}\n"


# -- a group ---------------------------------------------------------------------------------------------------------


@root_only
@pytest.mark.parametrize("umask", [0o077, 0o027, 0o177])
def test_a_group_shares_whatever_the_first_users_umask(export_dir: Path, umask: int) -> None:
    shared = export_dir / "shared"
    shared.mkdir()
    os.chown(shared, 0, 100)
    shared.chmod(0o2770)
    for number in range(3):
        # A process of its own, and all imports before it becomes somebody else, who may not read this installation.
        script = _MEMBER.format(root=str(shared), name=f"u{number}", at=10 * number, umask=umask, uid=2001 + number)
        done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == [str(3 * (number + 1)), "[]"], done.stderr
    for path in shared.rglob("*"):
        mode = path.lstat().st_mode
        assert stat.S_IMODE(mode) & 0o770 == (0o770 if stat.S_ISDIR(mode) else 0o660), path
        assert path.lstat().st_gid == 100, path


_MEMBER = """
import os, asyncio, portalocker, zlib
from jcache.cache import Cache
from jcache.cache.books import Use
from jcache.cache.eviction import Cleaner, Wish
from jcache.cache.keeper import Keeper
from jcache.cache.meter import MeteredStorage
from jcache.cache.pins import add_pin
from jcache.journal import Version
from jcache.system.storage import Storage
os.umask({umask}); os.setgroups([]); os.setgid(100); os.setuid({uid})
root, name = {root!r}, {name!r}
storage = MeteredStorage()
cache = Cache(root, storage=storage)
cache.prepare()
assert cache.writable, cache.reason
version = Version(100, etag='"1"')
for url in ("https://h/d/" + name, "https://h/d/common"):
    journal = cache.journal(cache.identify("https", url, {{}}))
    journal.attach()
    journal.append(version, {{}}, [({at}, b"abc")])
    journal.lease([(0, 1)])
    journal.close()
uses = [Use("https/h/d/" + name, 1e9)]
Keeper(cache, storage, limit_bytes=None, collect=lambda: uses, seal_idle=list, trouble=print).close()
cleaner = Cleaner(Storage(), root, dir_mode=cache.dir_mode, file_mode=cache.file_mode)
assert cleaner.run(Wish(unused_since_s=0.0)) is not None
add_pin(Storage(root), root, name, dir_mode=cache.dir_mode, file_mode=cache.file_mode)
journal = cache.journal(cache.identify("https", "https://h/d/common", {{}}))
journal.attach()
print(journal.view(version).covered(), journal.problems())
journal.compact(at_least=2)
"""


def test_shared_files_and_directories_have_their_permissions_before_their_names(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o2770)
    seen: list[tuple[str, int]] = []

    class Watched(Storage):
        """Looks at everything in the cache after each operation that makes or renames, as others may."""

        def look(self) -> None:
            paths = [path for path in shared.rglob("*") if path.suffix != ".tmp" and not path.name.startswith(".probe")]
            seen.extend((str(path), path.lstat().st_mode) for path in paths)

        def open(self, path: str, flags: int, mode: int = 0o600) -> int:
            fd = super().open(path, flags, mode)
            self.look()
            return fd

        def mkdir(self, path: str, mode: int = 0o700) -> None:
            super().mkdir(path, mode)
            self.look()

    old = os.umask(0o077)
    try:
        cache = Cache(shared, storage=Watched())
        cache.prepare()
        record(cache)
    finally:
        os.umask(old)
    assert len(seen) > 5
    for path, mode in seen:
        assert stat.S_IMODE(mode) & 0o770 == (0o770 if stat.S_ISDIR(mode) else 0o660), path


# -- settings --------------------------------------------------------------------------------------------------------

_EVIL = """
json = "/tmp/evil"
validate = "never"
size = "1GB"
offline = true
summary = false
[[rules]]
url = "*"
validate = "never"
"""


def settings_of(place: Path) -> Config:
    return Config.from_environ({"JCACHE_DIR": str(place)})


@root_only
@pytest.mark.parametrize(
    "content", [_EVIL, "validate = 'maybe'", "no TOML", "x = " + 10_000 * "[", "\0", "dir = '/tmp'"]
)
@pytest.mark.parametrize("kind", ["file", "link", "unreadable"])
def test_settings_of_somebody_else_do_not_count(tmp_path: Path, content: str, kind: str) -> None:
    tmp_path.chmod(0o2777)
    path = tmp_path / "jcache.toml"
    if kind == "link":
        (tmp_path / "mine.toml").write_text(content)
        path.symlink_to(tmp_path / "mine.toml")
    else:
        path.write_text(content)
    os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    if kind == "unreadable":
        path.chmod(0)
    config = settings_of(tmp_path)
    assert "ignored" in config.ignored
    assert str(NOBODY) in config.ignored
    assert "\n" not in config.ignored
    expected = Config(dir=str(tmp_path), ignored=config.ignored)
    if content is _EVIL and kind != "link":
        assert config.ignored.startswith("json, offline, rules, summary, validate in ")
        expected = replace(expected, size=10**9)
    assert config == expected
    os.chown(tmp_path, NOBODY, NOBODY)  # whose directory it is may say what holds in it
    if content is _EVIL and kind != "link":
        assert settings_of(tmp_path).validate == "never"
        assert not settings_of(tmp_path).ignored


@pytest.mark.parametrize(("place", "file", "counts"), [
    (0o700, 0o666, True), (0o755, 0o644, True), (0o775, 0o646, False), (0o2770, 0o662, False), (0o1777, 0o644, True),
])  # fmt: skip
def test_settings_that_others_may_write_to_do_not_count(tmp_path: Path, place: int, file: int, counts: bool) -> None:
    path = tmp_path / "jcache.toml"
    path.write_text(_EVIL)
    path.chmod(file)
    tmp_path.chmod(place)
    config = settings_of(tmp_path)
    assert (config.validate, bool(config.ignored)) == (("never", False) if counts else ("open", True))


@root_only
def test_settings_that_a_group_may_write_to_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "jcache.toml"
    path.write_text(_EVIL)
    os.chown(path, 0, 100)
    path.chmod(0o664)
    tmp_path.chmod(0o775)
    assert "chmod go-w" in settings_of(tmp_path).ignored
    os.chown(path, 0, 0)
    assert not settings_of(tmp_path).ignored


def test_settings_that_others_may_write_to_fill_no_memory(tmp_path: Path) -> None:
    """The parser takes 4 n^2 bytes for a key of n parts: a hundred kilobytes of them are ten gigabytes."""
    path = tmp_path / "jcache.toml"
    path.write_text(50_000 * "a." + "a = 1\n")
    path.chmod(0o662)
    tmp_path.chmod(0o2770)
    script = f"""
import resource, tomllib
from jcache.settings.config import Config
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
config = Config.from_environ({{"JCACHE_DIR": {str(tmp_path)!r}}})
print(config.ignored, config.with_file(config.read_file()).ignored == config.ignored)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("all in "), done.stderr[-1000:]
    assert done.stdout.endswith("chmod go-w True\n")


def test_settings_that_are_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "jcache.toml")
    began_s = time.monotonic()
    assert settings_of(tmp_path).ignored
    assert time.monotonic() - began_s < 5


@root_only
def test_what_was_ignored_is_said_once(tmp_path: Path) -> None:
    path = tmp_path / "jcache.toml"
    path.write_text(_EVIL)
    tmp_path.chmod(0o2777)
    os.chown(path, NOBODY, NOBODY)
    code = """
import fsspec, jcache.session
fsspec.filesystem("http")
assert jcache.session.current().config.validate == "open"
"""
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("JCACHE_", "_JCACHE_"))}
    environ["JCACHE_DIR"] = str(tmp_path)
    done = subprocess.run([sys.executable, "-c", code], env=environ, check=True, capture_output=True, text=True)
    (line,) = [line for line in done.stderr.splitlines() if " ignored: " in line]  # of a long path only the beginning
    assert line.startswith("jcache: json, offline, rules, summary, validate in ")


# -- what is printed -------------------------------------------------------------------------------------------------

_ESCAPES = "\x1b]0;evil\x07\x1b[2Jx"


def test_no_terminal_obeys_what_others_have_written(tmp_path: Path) -> None:
    cache = made(tmp_path / "cache")
    root = Path(cache.directory)
    place = root / "https" / _ESCAPES / "f"
    journal = Journal(Storage(), str(place), f"url:https/h/{_ESCAPES}")
    journal.append(Version(10, etag=_ESCAPES), {"name": _ESCAPES}, [(0, b"abc")])
    journal.close()
    for name in (f"@x{_ESCAPES}.seg", _ESCAPES, f"@h{_ESCAPES}.1.0123456789abcdef.seg"):
        (place / name).write_bytes(b"junk")
    (root / ".reports").mkdir()
    (root / ".reports" / f"jcache.{_ESCAPES}.json").write_text("{")
    add_pin(Storage(), str(root), _ESCAPES, dir_mode=0o700, file_mode=0o600)
    shutil.copy(next(place.glob("@*__*.seg")), record(cache))
    commands = ["ls", "ls -l", "pin --list", "verify", "compact --all", "clean --all --dry-run", "report", "top --once"]
    for words in (["info", f"url:https/h/{_ESCAPES}"], ["verify", URL, "--dir"], *map(str.split, commands)):
        by_option = words[0] in {"ls", "info", "pin", "compact"}
        done = CliRunner().invoke(main, [*words, *(["--dir"] if by_option else []), str(root)])
        assert done.exception is None or isinstance(done.exception, SystemExit), (words, done.exc_info)
        assert not {"\x1b", "\x07"} & set(done.output), words
