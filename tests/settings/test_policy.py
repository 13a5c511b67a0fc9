"""What holds for single remote files: denied origins, one file at several endpoints, what a program says of it.

And when: the file of settings is read again while a process runs.
"""

from __future__ import annotations

import pickle
import threading
import time
from typing import TYPE_CHECKING, Any

import fsspec
import pytest
from filesystems import settle
from fsspec.implementations.http import HTTPFileSystem

from jcache.reader.clearing import Clearing
from jcache.settings import watch
from jcache.settings.config import Config
from jcache.settings.rules import Rule

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import RunPython
    from servers import ScriptedOrigin

    from jcache.session import Session

DATA = bytes(range(256)) * 40


def counted(session: Session) -> tuple[int, int, int, int]:
    """Bytes of hits, of misses and past the cache, and bytes recorded."""
    settle()
    counts = session.counters.snapshot()
    return counts.read_hit, counts.read_miss, counts.read_bypass, counts.recorded_bytes


# -- which origins ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("deny", "allow", "is_cached"),
    [
        ("elsewhere.org, 127.0.*", "", False),
        ("http://*/f", "", False),
        ("", "elsewhere.org,root://*", False),
        ("*/f", "127.0.0.1", False),
        ("", "127.0.0.1:*", True),
        ("127.0.0", "http://*", True),
    ],
)
def test_which_origins_are_cached(
    active: Callable[..., Session], http_origin: ScriptedOrigin, deny: str, allow: str, is_cached: bool
) -> None:
    config = Config.from_environ({"JCACHE_DENY": deny, "JCACHE_ALLOW": allow})
    session = active(deny=config.deny, allow=config.allow)
    url = (http_origin.put("f", DATA), http_origin.url("f"))[1]
    for _ in range(2):
        assert fsspec.filesystem("http").cat_file(url, 10, 500) == DATA[10:500]
        settle()
    assert counted(session) == ((490, 490, 0, 490) if is_cached else (0, 0, 980, 0))


def test_what_is_denied_goes_past_the_cache_and_the_report_says_so(
    run_python: RunPython, http_origin: ScriptedOrigin, cache_dir: Path
) -> None:
    http_origin.put("f", DATA)
    code = """
import fsspec, sys
fs, path = fsspec.url_to_fs(sys.argv[1])
print(fs.exists(path), len(fs.open(path).read()))
"""
    for name, reason in (("DENY", "JCACHE_DENY names its"), ("ALLOW", "JCACHE_ALLOW does not name its")):
        pattern = "127.0.0.1" if name == "DENY" else "elsewhere.org"
        ran = run_python(code, http_origin.url("f"), env={f"JCACHE_{name}": pattern})
        assert ran.stdout == f"True {len(DATA)}\n"
        assert [(item["reason"], item["bytes"]) for item in ran.report["uncached"]] == [(f"{reason} origin", len(DATA))]
    assert not (cache_dir / "http").exists(), "nor is it remembered that it is there"


# -- one file at several endpoints ----------------------------------------------------------------------------------


def test_one_file_by_two_endpoints_is_fetched_once(active: Callable[..., Session], http_origin: ScriptedOrigin) -> None:
    http_origin.put("a/x/f", DATA)
    http_origin.put("b/c/x/f", DATA)
    http_origin.put("b/other/f", DATA[::-1])
    trees = [http_origin.url("a"), http_origin.url("b/c")]
    session = active(validate="never", rules=(Rule(same=tuple(trees)),))
    fs = fsspec.filesystem("http")
    for tree in trees:
        assert fs.cat_file(f"{tree}/x/f", 10, 500) == DATA[10:500]
        settle()
    assert counted(session)[:2] == (490, 490)
    assert fs.cat_file(http_origin.url("b/other/f"), 10, 500) == DATA[::-1][10:500]
    # Before there was a rule, and without it: the first endpoint's.
    session = active(validate="never")
    assert fs.cat_file(f"{trees[0]}/x/f", 10, 500) == DATA[10:500]
    assert counted(session)[:2] == (490, 0)


def test_endpoints_that_tell_other_versions_are_not_mixed(
    active: Callable[..., Session], http_origin: ScriptedOrigin
) -> None:
    trees = [http_origin.url("a"), http_origin.url("b")]
    http_origin.put("a/f", DATA, etag='"1"')
    http_origin.put("b/f", DATA[::-1], etag='"2"')
    for _ in range(2):
        for tree, data in zip(trees, (DATA, DATA[::-1]), strict=True):
            active(rules=(Rule(same=tuple(trees)),))
            assert fsspec.filesystem("http").cat_file(f"{tree}/f", 10, 500) == data[10:500]


# -- while a process runs -------------------------------------------------------------------------------------------


@pytest.fixture
def running(cache_dir: Path, active: Callable[..., Session], monkeypatch: pytest.MonkeyPatch) -> Session:
    """A session that looks at the file of settings only when a test says so."""
    monkeypatch.setattr(watch, "LOOK_S", 3600)
    return active(file=str(cache_dir / "jcache.toml"))


def test_what_is_open_keeps_its_rules(
    running: Session, cache_dir: Path, http_origin: ScriptedOrigin, capsys: pytest.CaptureFixture[str]
) -> None:
    http_origin.put("f", DATA)
    http_origin.put("g", DATA)
    url = http_origin.url("f")
    fs = fsspec.filesystem("http")
    with fs.open(url) as before:
        assert before.read(100) == DATA[:100]
        (cache_dir / "jcache.toml").write_text('deny = ["127.0.0.1"]\nvalidate = "never"')
        running._watch.look()
        assert before.read(100) == DATA[100:200]
        assert counted(running)[1:] == (200, 0, 200)
        with fs.open(url) as later:
            assert later.read(300) == DATA[:300]
        assert counted(running)[1:] == (200, 300, 200)
        assert before.read(100) == DATA[200:300]
        assert counted(running)[1:] == (300, 300, 300)
    (cache_dir / "jcache.toml").write_text("deny = 1\nvalidate = often")
    running._watch.look()
    assert "the settings stay as they were" in capsys.readouterr().err
    assert fs.cat_file(http_origin.url("g")) == DATA
    assert counted(running)[2] == 300 + len(DATA)
    (cache_dir / "jcache.toml").write_text('validate = "never"')
    running._watch.look()
    http_origin.reset()
    assert fs.cat_file(url, 0, 300) == DATA[:300]
    assert (counted(running)[0], http_origin.requests) == (300, 0), "recorded before, and never validated now"


def test_a_running_process_follows_its_file_of_settings(
    cache_dir: Path, active: Callable[..., Session], http_origin: ScriptedOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert watch.LOOK_S * 2 <= 10
    monkeypatch.setattr(watch, "LOOK_S", 0.01)
    looks: list[threading.Thread] = []
    looked = threading.Event()
    read_file = Config.read_file

    def counting(self: Config) -> Any:
        looks.append(threading.current_thread())
        if len(looks) > 2:
            looked.set()
        return read_file(self)

    monkeypatch.setattr(Config, "read_file", counting)
    session = active(file=str(cache_dir / "jcache.toml"))
    url = (http_origin.put("f", DATA), http_origin.url("f"))[1]
    fs = fsspec.filesystem("http")
    for start in range(0, 2000, 10):
        assert fs.cat_file(url, start, start + 10) == DATA[start : start + 10]
    (cache_dir / "jcache.toml").write_text('[[rules]]\nurl = "http://*"\nbypass = true\n')
    before = session.policy
    looks.clear()
    assert looked.wait(20)
    looked.clear()
    looks.clear()
    assert looked.wait(20)
    assert session.policy is not before
    assert fs.cat_file(url, 0, 10) == DATA[:10]
    assert counted(session)[2] == 10
    assert {thread.name for thread in looks} == {"jcache-settings"}, "no read looks at it"


def test_what_the_environment_sets_no_file_does(cache_dir: Path) -> None:
    cache_dir.mkdir()
    (cache_dir / "jcache.toml").write_text('validate = "never"\ndeny = ["a"]\nsize = "1GB"')
    config = Config.from_environ({"JCACHE_DIR": str(cache_dir), "JCACHE_VALIDATE": "7"})
    assert (config.validate, config.deny, config.size) == (7.0, ("a",), 10**9)
    (cache_dir / "jcache.toml").write_text('validate = "open"\nallow = "B,c://D"\nsize = "2GB"')
    fresh = config.with_file(config.read_file())
    assert (fresh.validate, fresh.deny, fresh.allow, fresh.size) == (7.0, (), ("b", "c://D"), 10**9)


# -- what a program says --------------------------------------------------------------------------------------------


def opened(url: str, how: str, **said: Any) -> Any:
    """Open a file of which something is said: by keyword, in its URL, or behind `jcache::`."""
    if how == "fragment":
        items = (f"jcache.{name}" if value is True else f"jcache.{name}={value}" for name, value in said.items())
        return fsspec.open(f"{url}#{'&'.join(items)}").open()
    return fsspec.open(("jcache::" if how == "by name" else "") + url, jcache=said).open()


@pytest.mark.parametrize("how", ["keyword", "fragment", "by name"])
def test_directives_by_keyword_and_by_fragment(
    active: Callable[..., Session], http_origin: ScriptedOrigin, how: str
) -> None:
    session = active(rules=(Rule(url="*g", validate="open"),))
    for name in ("f", "g"):
        http_origin.put(name, DATA)
    url, other = http_origin.url("f"), http_origin.url("g")
    assert opened(url, how, bypass=True).read() == DATA
    assert counted(session) == (0, 0, len(DATA), 0)
    for place in (url, other):
        assert fsspec.open(place).open().read() == DATA
    settle()
    session = active(rules=(Rule(url="*g", validate="open"),))
    http_origin.reset()
    for place in (url, other):
        with opened(place, how, validate="never") as file:
            assert file.path == place
            assert file.read() == DATA
    assert (counted(session)[0], http_origin.requests) == (2 * len(DATA), 0), "before the rule, and unasked"
    assert fsspec.open(url).open().read() == DATA
    assert http_origin.requests == 1, "of others nothing is said"


@pytest.mark.parametrize("how", ["keyword", "fragment", "by name"])
def test_what_is_to_be_refreshed_is_fetched_anew_at_each_open(
    active: Callable[..., Session], http_origin: ScriptedOrigin, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    carry_out = Clearing.carry_out
    # What is on disk is still there while the file is opened.
    monkeypatch.setattr(Clearing, "carry_out", lambda clearing: (time.sleep(0.05), carry_out(clearing)))
    session = active(validate="never")
    resource = http_origin.put("f", DATA)
    url = http_origin.url("f")
    for i in range(3):
        resource.data = DATA[i:] + DATA[:i]  # under the same tag: nothing but another fetch shows it
        for _ in range(2):
            before = counted(session)
            with opened(url, how, refresh=True) as file:
                assert file.read() == resource.data
            assert counted(session)[:2] == (before[0], before[1] + len(DATA))
        assert fsspec.open(url).open().read() == resource.data
    active(validate="never")
    http_origin.reset()
    assert fsspec.filesystem("http").cat_file(url) == resource.data
    assert http_origin.requests == 0, "it was recorded again"
    active(offline=True)
    assert opened(url, how, refresh=True).read() == resource.data


def test_whatever_names_a_file_takes_a_fragment(active: Callable[..., Session], http_origin: ScriptedOrigin) -> None:
    session = active()
    for name in ("a/f", "a/g"):
        http_origin.put(name, DATA)
    urls = [http_origin.url(name) for name in ("a/f", "a/g")]
    mark = "#jcache.bypass"
    fs = fsspec.filesystem("http")
    assert fs.cat_file(urls[0] + mark, 5, 50) == DATA[5:50]
    assert fs.cat_ranges([urls[0] + mark] * 2, [0, 5], [5, 9]) == [DATA[:5], DATA[5:9]]
    assert fs.cat([url + mark for url in urls]) == dict.fromkeys((url + mark for url in urls), DATA)
    assert fs.exists(urls[0] + mark)
    assert fs.isfile(urls[0] + mark)
    assert fs.info(urls[0] + mark)["size"] == fs.size(urls[0] + mark) == len(DATA)
    assert counted(session)[0::3] == (0, 0)
    assert fs.cat_file(urls[0] + "#jcache.validate=often", 5, 50) == DATA[5:50], "a warning, and nothing else"
    assert counted(session)[3] == 45
    assert fs.cat_file(urls[0] + "#part", 5, 50) == DATA[5:50]
    assert counted(session)[0] == 45


def test_a_file_system_of_which_something_is_said_is_another_one(
    active: Callable[..., Session], http_origin: ScriptedOrigin
) -> None:
    session = active()
    http_origin.put("f", DATA)
    plain, said = fsspec.filesystem("http"), fsspec.filesystem("http", jcache={"bypass": True})
    assert plain != said
    assert "jcache" not in said.kwargs
    assert said is fsspec.filesystem("http", jcache={"bypass": True})
    assert plain is fsspec.filesystem("http")
    assert plain._fs_token != said._fs_token
    assert pickle.loads(pickle.dumps(said)) is said
    assert said.cat_file(http_origin.url("f")) == DATA
    assert counted(session) == (0, 0, len(DATA), 0)
    with pytest.raises(TypeError, match="give bypass, validate or refresh"):
        fsspec.filesystem("http", jcache={"colour": 1})
    with pytest.raises(ValueError, match="give open, never or a number of seconds"):
        fsspec.filesystem("http", jcache={"validate": "often"})


def test_without_jcache_a_fragment_does_no_harm_over_http(http_origin: ScriptedOrigin) -> None:
    http_origin.put("f", DATA)
    assert HTTPFileSystem().cat_file(http_origin.url("f") + "#jcache.refresh", 5, 50) == DATA[5:50]
    assert fsspec.open(http_origin.url("f") + "#jcache.refresh").open().read() == DATA
