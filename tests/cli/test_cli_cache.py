"""The commands that look after a cache: ls, info, clean, pin, compact, config."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result
from report_samples import ttbar_report

from jcache.cache import usage
from jcache.cache.books import Book, Use
from jcache.cache.directory import Cache
from jcache.cli import main
from jcache.cli.info import coverage, drawn
from jcache.journal import Version
from jcache.reader.answers import ANSWERS
from jcache.system.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Callable

    Call = Callable[..., Result]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Call:
    for name in [name for name in os.environ if name.startswith("JCACHE_")]:
        monkeypatch.delenv(name)

    def run(*arguments: object, **environ: str) -> Result:
        return CliRunner().invoke(main, [str(a) for a in arguments], env=environ, prog_name="jcache")

    return run


def url_of(name: str) -> str:
    return f"https://host.cern.ch/data/{name}"


def record(cache: Cache, name: str, *, size: int = 1000, start: int = 0, etag: str = "1", sealed: bool = True) -> Path:
    """Record bytes of a file; return its journal's directory."""
    journal = cache.journal(cache.identify("https", url_of(name), {}))
    journal.append(Version(100_000, etag=f'"{etag}"'), {}, [(start, b"x" * size)])
    if sealed:
        journal.close()
    else:
        journal.forget()
    return Path(cache.path(cache.identify("https", url_of(name), {})))


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """Four files, a.root used longest ago; d.root is large."""
    made = Cache(tmp_path / "cache")
    made.prepare()
    book = Book(Storage(), usage.directory_of(made.directory))
    for number, name in enumerate(("a.root", "b.root", "c.root", "d.root")):
        path = record(made, name, size=50_000 if name == "d.root" else 10_000)
        used_s = time.time() - 86400 * (10 - number)
        book.add([Use(os.path.relpath(path, made.directory), used_s, number, 100)])
        for segment in path.glob("@*.seg"):
            os.utime(segment, (used_s, used_s))
    book.close()
    (Path(made.directory) / "stranger.txt").write_text("not ours")
    return made


def names(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [line.rpartition("/")[2] for line in result.stdout.splitlines()]


def test_ls_sorts_and_chooses(call: Call, cache: Cache) -> None:
    where = cache.directory
    assert names(call("ls", "--dir", where)) == ["a.root", "b.root", "c.root", "d.root"]
    assert names(call("ls", "--dir", where, "--sort", "size"))[0] == "d.root"
    assert names(call("ls", "--dir", where, "--sort", "hits")) == ["d.root", "c.root", "b.root", "a.root"]
    assert names(call("ls", "--dir", where, "--sort", "used")) == ["d.root", "c.root", "b.root", "a.root"]
    assert names(call("ls", "--dir", where, "https://*/[bc].root")) == ["b.root", "c.root"]
    long = call("ls", "-l", JCACHE_DIR=where).stdout.splitlines()
    assert "last used" in long[0]
    assert long[-1].endswith("4 files")
    assert call("ls", "--dir", where, "--sort", "colour").exit_code == 2


def test_ls_remembers_and_notices(call: Call, tmp_path: Path) -> None:
    made = Cache(tmp_path / "cache")
    made.prepare()
    Path(made.directory, ".usage").mkdir()
    for number in range(70):
        record(made, f"f{number}.root", size=1000 + number)
    first = call("ls", "--json", "--dir", made.directory).stdout
    facts = Path(made.directory, ".usage", "facts")
    assert len(facts.read_text().splitlines()) == 70
    assert call("ls", "--json", "--dir", made.directory).stdout == first
    record(made, "f5.root", start=50_000, size=7)
    path = Path(made.path(made.identify("https", url_of("f6.root"), {})))
    (segment,) = path.glob("@*.seg")
    segment.unlink()
    found = {e["url"]: e for e in map(json.loads, call("ls", "--json", "--dir", made.directory).stdout.splitlines())}
    assert len(found) == 69
    assert found[url_of("f5.root")]["versions"][0]["cached_bytes"] == 1005 + 7
    facts.write_text("[1, 2\nnull\n{}\n")
    assert len(call("ls", "--dir", made.directory).stdout.splitlines()) == 69


def test_what_was_said_of_names_is_shown_as_that(call: Call, cache: Cache) -> None:
    """Its journal is of a file of 4 EiB that there is not; it is a listing, as large as it is."""
    (Path(cache.directory) / "stranger.txt").unlink()
    data = b'["ls", 1.0, null, []]'
    for name, options in (("a.root", {}), ("d.root", {"client_kwargs": {"headers": {"X-Site": "1"}}})):
        identity = cache.identify("https", url_of(name), options).answers(above=True)
        assert identity is not None
        for asker in (False, True):
            journal = cache.journal(identity, asker=asker)
            journal.append(ANSWERS, {}, [(1 << 61, data)])
            journal.close()
    where, above = cache.directory, url_of("")
    lines = call("ls", "-l", "--dir", where, "*listing*").stdout.splitlines()
    shown = [line.split() for line in lines[1:-1]]
    assert {tuple(words[:2]) for words in shown} == {(str(len(data)), "-")}
    assert lines[-1].endswith("0 files, 4 listings")
    assert "data/ (listing)" in lines[1]
    assert call("ls", "-l", "--dir", where).stdout.endswith("4 files, 4 listings\n")
    assert "E" not in "".join(line.rpartition("https")[0] for line in lines), "no exbibytes"
    found = [json.loads(line) for line in call("ls", "--json", "--dir", where).stdout.splitlines()]
    assert [entry["kind"] for entry in found].count("listing") == 4
    for entry in found:
        if entry["kind"] == "listing":
            assert entry["url"].startswith(above)
            assert [(one["size_bytes"], one["cached_bytes"]) for one in entry["versions"]] == [(len(data), len(data))]
    for address in (above, above.rstrip("/")):
        told = call("info", address, "--dir", where)
        assert told.stdout.count(f"answers      {len(data)} bytes") == 4
        document = json.loads(call("info", address, "--dir", where, "--json").stdout)
        assert document["kind"] == "listing"
        assert "coverage" not in json.dumps(document)
        assert document["parts"][0]["version"] is None
    checked = call("verify", where)
    assert (checked.exit_code, "all is well" in checked.stdout) == (0, True), checked.stdout
    gone = call("clean", "--url", above + "*listing*", where)
    assert gone.stdout.count("data/ (listing)") == 2
    assert gone.stdout.count(" (listing)") == 4
    assert names(call("ls", "--dir", where)) == ["a.root", "b.root", "c.root", "d.root"]


def test_info_shows_where_and_who(call: Call, cache: Cache) -> None:
    record(cache, "a.root", start=50_000, size=50_000, sealed=False)
    result = call("info", url_of("a.root"), "--dir", cache.directory)
    assert result.exit_code == 0
    assert "60000 of 100000 bytes" in result.stdout
    assert f"by process {os.getpid()} on" in result.stdout
    (bar,) = [line for line in result.stdout.splitlines() if line.startswith("  where")]
    assert bar.count("█") in range(35, 37) or bar.count("#") in range(35, 37)
    details = json.loads(call("info", url_of("a.root"), "--dir", cache.directory, "--json").stdout)
    assert sum(details["versions"][0]["coverage"]) == pytest.approx(36, abs=0.01)
    assert {part["state"] for part in details["parts"]} == {"sealed", "being written"}


def test_info_names_readers_that_live(call: Call, cache: Cache) -> None:
    book = Book(Storage(), usage.directory_of(cache.directory))
    path = os.path.relpath(cache.path(cache.identify("https", url_of("a.root"), {})), cache.directory)
    book.add([Use(path, time.time())])
    assert f"in use       by process {os.getpid()} on" in call(
        "info", url_of("a.root"), "--dir", cache.directory
    ).stdout  # fmt: skip
    book.close()
    assert "in use" not in call("info", url_of("a.root"), "--dir", cache.directory).stdout


def test_the_bar_is_full_only_where_everything_is() -> None:
    assert coverage([], 100, 4) == [0, 0, 0, 0]
    assert coverage([(0, 100)], 100, 4) == [1, 1, 1, 1]
    assert coverage([(10, 30), (20, 26), (99, 100)], 100, 4) == [15 / 25, 5 / 25, 0, 1 / 25]
    assert coverage([(0, 3)], 3, 5) == pytest.approx([1, 0, 1, 0, 1]) or sum(coverage([(0, 3)], 3, 5)) >= 3
    assert coverage([], 0, 4) == []
    bar = drawn([0, 0.0001, 0.9999, 1])
    assert len(set(bar)) == 4


def test_clean_removes_what_was_not_used_for_longest(call: Call, cache: Cache) -> None:
    where = cache.directory
    dry = call("clean", where, "--to", "62kB", "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert "a.root" in dry.stdout
    assert "would be removed" in dry.stdout
    assert len(names(call("ls", "--dir", where))) == 4
    done = call("clean", where, "--to", "62kB", "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert [removed["name"] for removed in document["removed"]] == [url_of("a.root"), url_of("b.root")]
    assert document["left_bytes"] <= 62_000
    assert document["left_bytes"] == sum(p.stat().st_size for p in Path(where).rglob("@*.seg"))
    assert names(call("ls", "--dir", where)) == ["c.root", "d.root"]
    assert not Path(where, "https", "host.cern.ch", "data", "a.root").exists()
    assert Path(where, "stranger.txt").read_text() == "not ours"


def test_clean_without_options_says_what_it_goes_by(call: Call, cache: Cache) -> None:
    result = call("clean", cache.directory, "--dry-run", JCACHE_SIZE="60kB")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("JCACHE_SIZE is 60.00 kB: what is above 54.00 kB of it would go\n")
    result = call("clean", cache.directory, JCACHE_SIZE="60kB")
    assert result.stdout.startswith("JCACHE_SIZE is 60.00 kB: what is above 54.00 kB of it goes\n")
    assert len(names(call("ls", "--dir", cache.directory))) < 4
    document = json.loads(call("clean", cache.directory, "--json", JCACHE_SIZE="60kB").stdout)
    assert document["journals"] == 0


def test_clean_by_age_and_by_address(call: Call, cache: Cache) -> None:
    where = cache.directory
    assert call("clean", where, "--older-than", "9.5d", "--url", "*/b.root").exit_code == 0
    assert len(names(call("ls", "--dir", where))) == 4  # it was used 9 days ago
    assert call("clean", where, "--older-than", "8.5d", "--url", "*/[bd].root").exit_code == 0
    assert names(call("ls", "--dir", where)) == ["a.root", "c.root", "d.root"]
    assert call("clean", where, "--url", url_of("c.root")).exit_code == 0
    assert call("clean", where, "--older-than", "7.5d").exit_code == 0
    assert names(call("ls", "--dir", where)) == ["d.root"]
    assert call("clean", where, "--all").exit_code == 0
    assert names(call("ls", "--dir", where)) == []
    assert sorted(os.listdir(where)) == [".usage", "CACHEDIR.TAG", "stranger.txt"]


def test_what_is_of_no_use_goes_first(call: Call, cache: Cache) -> None:
    where = cache.directory
    path = record(cache, "d.root", etag="2", size=20_000)
    new = min(path.glob("@*.seg"), key=lambda p: p.stat().st_size)
    document = json.loads(call("clean", where, "--to", "60kB", "--json").stdout)
    assert [(r["name"], r["why"]) for r in document["removed"]] == [(url_of("d.root"), "of no use")]
    assert list(path.glob("@*.seg")) == [new]
    assert len(names(call("ls", "--dir", where))) == 4


def test_clean_leaves_what_is_written_and_what_is_not_ours(call: Call, cache: Cache, tmp_path: Path) -> None:
    where = Path(cache.directory)
    path = record(cache, "live.root", sealed=False)
    foreign = path / "@notes.1.0123456789abcdef.seg"
    foreign.write_text("looks like one, and is none")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "@vm.1.0123456789abcdef.seg").write_text("")
    (where / "https" / "link").symlink_to(outside)
    result = call("clean", where, "--all", "--json")
    document = json.loads(result.stdout)
    assert (document["journals"], document["live"]) == (4, 1)
    assert foreign.exists()
    assert len(list(path.glob("@*.seg"))) == 2
    assert len(list(outside.iterdir())) == 1


def test_pins_hold(call: Call, cache: Cache) -> None:
    where = cache.directory
    assert call("pin", "https://HOST.cern.ch:443/data/a.root", "*/b.*", "--dir", where).exit_code == 0
    assert call("pin", url_of("a.root"), "--dir", where).exit_code == 0
    listed = json.loads(call("pin", "--list", "--json", "--dir", where).stdout)
    assert listed == ["*/b.*", url_of("a.root")]
    result = call("clean", where, "--to", "100")
    assert result.exit_code == 1
    assert "2 pinned" in result.stdout
    assert names(call("ls", "--dir", where)) == ["a.root", "b.root"]
    assert "pinned " in call("info", url_of("b.root"), "--dir", where).stdout
    assert call("clean", where, "--all").exit_code == 0
    assert len(names(call("ls", "--dir", where))) == 2
    assert call("pin", "--remove", "*/b.*", "--dir", where).exit_code == 0
    again = call("pin", "--remove", "*/b.*", "--dir", where)
    assert (again.exit_code, again.stderr) == (1, "jcache: not pinned: */b.*\n")
    assert call("clean", where, "--all").exit_code == 0
    assert names(call("ls", "--dir", where)) == ["a.root"]


def test_a_pin_says_what_it_is_about(call: Call, cache: Cache) -> None:
    where = cache.directory

    def pinned(word: str) -> str:
        result = call("pin", word, "--dir", where)
        assert result.exit_code == 0, result.output
        return result.stdout

    assert pinned(url_of("a.root")) == f"pinned: {url_of('a.root')} (10.00 kB of it cached)\n"
    assert pinned("*/data/[ab].*") == "pinned: */data/[ab].* (2 cached files now)\n"
    assert pinned("*/a.root") == "pinned: */a.root (1 cached file now)\n"
    assert pinned("*/z.root") == "pinned: */z.root (nothing that is cached matches it yet)\n"
    assert (
        pinned("root://HOST//z.root?xrd.wantprot=unix") == "pinned: root://host//z.root (nothing of it is cached yet)\n"
    )
    assert pinned("root://host//z.root") == "pinned already: root://host//z.root (nothing of it is cached yet)\n"
    assert pinned(f"jcache::{url_of('b.root')}").startswith(f"pinned: {url_of('b.root')} (10")
    assert call("pin", "--remove", "root://host//z.root?authz=b", "--dir", where).exit_code == 0


def test_no_secret_is_pinned(call: Call, cache: Cache) -> None:
    secret = "b64secretb64"
    for word in (
        f"https://host.cern.ch/f?X-Amz-Algorithm=A&X-Amz-Credential=c&X-Amz-Signature={secret}&X-Amz-Date=1",
        f"https://me:{secret}@host.cern.ch/f",
        f"https://me:{secret}@host.cern.ch/*.root",
        f"root://host//f?authz=Bearer%20{secret}",
    ):
        assert secret not in call("pin", word, "--dir", cache.directory).output
    written = b"".join(path.read_bytes() for path in Path(cache.directory, ".usage").rglob("*") if path.is_file())
    assert secret.encode() not in written
    assert json.loads(call("pin", "--list", "--json", "--dir", cache.directory).stdout) == [
        "https://host.cern.ch/*.root",
        "https://host.cern.ch/f",
        "root://host//f",
    ]


def test_nothing_to_list_is_said(call: Call, cache: Cache, tmp_path: Path) -> None:
    for options in ((), ("-l",), ("--json",)):
        result = call("ls", "a.root", *options, "--dir", cache.directory)
        assert (result.exit_code, result.stderr.count("\n")) == (0, 1)
        assert f"nothing that is cached in {cache.directory} matches 'a.root'" in result.stderr
        assert "'*a.root*'" in result.stderr
    assert "perhaps" not in call("ls", "*/z.root", "--dir", cache.directory).stderr
    (tmp_path / "new").mkdir()
    result = call("ls", "--dir", tmp_path / "new")
    assert (result.exit_code, result.stderr) == (0, f"jcache: nothing is cached in {tmp_path / 'new'}\n")
    assert names(call("ls", "--dir", Path(cache.directory, "https"))) == ["a.root", "b.root", "c.root", "d.root"]


def test_compact_merges(call: Call, cache: Cache) -> None:
    for number in range(3):
        path = record(cache, "a.root", start=10_000 * (number + 1))
    assert len(list(path.glob("@*.seg"))) == 4
    result = call("compact", "--all", "--dir", cache.directory)
    assert result.exit_code == 0, result.output
    assert "4 segments removed" in result.stdout
    assert " in 1 segment\n" in call("info", url_of("a.root"), "--dir", cache.directory).stdout
    assert len(list(path.glob("@*.seg"))) == 1
    entry = json.loads(call("ls", "--json", "*/a.root", "--dir", cache.directory).stdout)
    assert entry["versions"][0]["cached_bytes"] == 13_000
    assert call("compact", url_of("a.root"), "--dir", cache.directory).stdout == "nothing to compact\n"
    assert call("compact", url_of("z.root"), "--dir", cache.directory).exit_code == 1


def test_reports_are_cleaned(call: Call, cache: Cache) -> None:
    reports = Path(cache.directory, ".reports")
    path = ttbar_report(events=5).save(reports)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    kept = ttbar_report(events=5, pid=77).save(reports)
    result = call("clean", cache.directory, "--reports", "30d")
    assert result.exit_code == 0
    assert result.stdout.startswith("1 report (")
    assert os.listdir(reports) == [os.path.basename(kept)]
    assert len(names(call("ls", "--dir", cache.directory))) == 4  # nothing else was asked for


def test_config_says_where_each_setting_comes_from(call: Call, cache: Cache) -> None:
    Path(cache.directory, "jcache.toml").write_text(
        'size = "2GB"\nlog = "info"\n[[rules]]\nurl = "root://eos*/**"\nvalidate = 60\n'
    )
    environ = {"JCACHE_DIR": cache.directory, "JCACHE_LOG": "error"}
    document = json.loads(call("config", "--json", **environ).stdout)
    toml = str(Path(cache.directory, "jcache.toml"))
    assert document["settings"]["size"] == {"value": 2_000_000_000, "source": toml}
    assert document["settings"]["log"] == {"value": "error", "source": "JCACHE_LOG"}
    assert document["settings"]["flat"] == {"value": False, "source": "default"}
    assert document["rules"] == [{"url": "root://eos*/**", "validate": 60.0}]
    text = call("config", **environ).stdout
    assert f"size       2000000000 (2.00 GB)         {toml}" in text
    assert "1. url = root://eos*/**, validate = 60" in text
    assert "protocols  all                          default\n" in text
    assert "perhaps JCACHE_VALIDATE" in call("config", JCACHE_VALIDAT="never", **environ).stderr
    assert call("config").stdout.endswith("JCACHE_DIR is not set: nothing is cached\n")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["clean", "/no/such"], 2, "no such directory: /no/such"),
        (["clean", "PLAIN", "--all"], 2, "is not a cache directory of JCache's"),
        (["clean", "FILE", "--all"], 2, "not a directory"),
        (["clean"], 2, "JCACHE_DIR"),
        (["clean", "CACHE"], 2, "what is to go? JCACHE_SIZE is not set"),
        (["verify", "PLAIN"], 2, "and there is no journal in it"),
        (["verify", "FILE"], 2, "not a directory"),
        (["clean", "CACHE", "--to", "lots"], 2, "--to 'lots' is no size"),
        (["clean", "CACHE", "--older-than", "old"], 2, "'old' is no age"),
        (["clean", "CACHE", "--all", "--to", "1GB"], 2, "--all is everything"),
        (["pin", "--dir", "PLAIN", "x"], 2, "is not a cache directory"),
        (["pin", "--dir", "CACHE"], 2, "what is to stay?"),
        (["pin", "--dir", "CACHE", " "], 2, "neither a URL, such as root://"),
        (["pin", "--dir", "CACHE", "a.root"], 2, "neither a URL, such as root://"),
        (["pin", "--dir", "CACHE", "dropbox://a/b"], 2, "such files are not cached"),
        (["ls", "--dir", "PLAIN"], 2, "is not a cache directory of JCache's"),
        (["info", "--dir", "PLAIN", "https://host/f"], 2, "is not a cache directory of JCache's"),
        (["doctor", "FILE"], 2, "not a directory"),
        (["top", "PLAIN"], 2, "neither a cache directory nor one of reports"),
        (["config", "--dir", "FILE"], 2, "not a directory"),
        (["compact", "--dir", "CACHE"], 2, "which journals?"),
        (["compact", "--dir", "/no/such", "--all"], 2, "no such directory"),
        (["ls", "--dir", "FILE"], 2, "not a directory"),
        (["config", "--dir", "WRONG"], 2, "'colour', which is no setting"),
    ],
)
def test_what_is_wrong_is_one_line(
    call: Call, cache: Cache, tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    for name in ("PLAIN", "WRONG"):
        (tmp_path / name).mkdir()
    (tmp_path / "WRONG" / "jcache.toml").write_text("colour = 1")
    (tmp_path / "FILE").write_text("")
    (tmp_path / "PLAIN" / "novel.txt").write_text("not ours")
    places = {name: str(tmp_path / name) for name in ("PLAIN", "WRONG", "FILE")} | {"CACHE": cache.directory}
    result = call(*(places.get(argument, argument) for argument in arguments))
    assert result.exit_code == code, result.output
    assert words in result.stderr
    assert result.stderr.startswith("jcache: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["ls", "info", "clean", "pin", "compact", "config"])
def test_help_documents_exit_codes(call: Call, command: str) -> None:
    result = call(command, "--help")
    assert result.exit_code == 0
    assert "Exit codes:\n    0  " in result.output or "Exit codes:\n      0  " in result.output
    assert max(map(len, result.output.splitlines())) <= 80


def test_an_object_is_found_by_each_of_its_names(call: Call, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    cache.prepare()
    for who in ("AKIA1", "AKIA2"):
        options = {"endpoint_url": "http://minio.cern.ch:9000", "key": who}
        journal = cache.journal(cache.identify("s3", "bucket/dir/key.root", options))
        journal.append(Version(100, etag='"1"'), {}, [(0, bytes(10))])
        journal.close()
    where = cache.directory
    shown = names(call("ls", "--dir", where))
    assert shown == ["key.root", "key.root"]
    for url in (
        "s3://bucket/dir/key.root",
        "s3://minio.cern.ch:9000/bucket/dir/key.root",
        "http://minio.cern.ch:9000/bucket/dir/key.root",
    ):
        result = call("info", url, "--dir", where)
        assert result.exit_code == 0, result.output
        assert result.stdout.count("address ") == 2  # each access key has one
        assert len(json.loads(call("info", url, "--dir", where, "--json").stdout)["others"]) == 1
        assert len(names(call("ls", url.replace("key", "*"), "--dir", where))) == 2
    far = call("info", "s3://bucket/dir/key.rot", "--dir", where)
    assert (far.exit_code, "s3://minio.cern.ch:9000/bucket/dir/key.root" in far.stderr) == (1, True)
    other = call("info", "s3://elsewhere/key.root", "--dir", where)
    assert (other.exit_code, "s3://minio.cern.ch:9000/bucket/dir/key.root" in other.stderr) == (1, True)
    assert call("info", "https://nothing.org/at/all", "--dir", where).stderr.endswith(
        "holds nothing of https://nothing.org/at/all\n"
    )
    assert call("pin", "s3://bucket/dir/*", "--dir", where).stdout.endswith("(2 cached files now)\n")
    assert call("clean", "--all", where).exit_code == 0
    assert len(names(call("ls", "--dir", where))) == 2
