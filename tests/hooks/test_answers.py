"""What origins say of names, listings and absences included: remembered, and served where they are not asked."""

from __future__ import annotations

import asyncio
import gc
import json
import os
from datetime import UTC, timedelta, timezone
from typing import TYPE_CHECKING, Any

import filesystems
import fsspec
import pytest
from asking import ASK
from hypothesis import given
from hypothesis import strategies as st

from jcache.activate import deactivate
from jcache.errors import OfflineMissError
from jcache.recording.exact import InexactError, decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import RunPython
    from servers import Nginx, ScriptedOrigin

OFFLINE, NEVER = {"JCACHE_OFFLINE": "1"}, {"JCACHE_VALIDATE": "never"}


@pytest.fixture
def tree(nginx_server: Nginx) -> str:
    """A directory that nginx lists; its URL."""
    root = nginx_server.directory / "listed" / "d"
    (root / "sub").mkdir(parents=True)
    for name in ("a.bin", "b.bin", "sub/c.bin"):
        (root / name).write_bytes(name.encode() * 20)
        os.utime(root / name, (1_700_000_000, 1_700_000_000))
    return nginx_server.url("listed/d")


def test_all_questions_are_answered_alike_cold_warm_never_and_offline(
    run_python: RunPython, nginx_server: Nginx, tree: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "0")  # fsspec lists what HTTP servers give out of a set
    plain = run_python(ASK, tree, cache=None)
    asked = len(nginx_server.requests())
    nginx_server.reset()
    cold = run_python(ASK, tree)
    requests = nginx_server.requests()
    if requests[-2].method == "GET" and (requests[-1].method, requests[-1].uri) == ("HEAD", requests[-2].uri):
        requests.pop()  # it proves bytes that took longer than a round trip, as on a busy machine
    assert len(requests) <= asked, "no more than plain"
    nginx_server.reset()
    warm = run_python(ASK, tree)
    assert len(nginx_server.requests()) <= asked
    nginx_server.reset()
    never = run_python(ASK, tree, env=NEVER)
    assert nginx_server.requests() == []
    nginx_server.stop()
    offline = run_python(ASK, tree, env=OFFLINE)
    assert "a.bin" in plain.stdout
    assert plain.stdout == cold.stdout == warm.stdout == never.stdout == offline.stdout


POLL = """
import sys, os, fsspec
fs = fsspec.filesystem("http")
root, place = sys.argv[1:]
for i in range(3):
    fs.dircache.clear()
    name = f"new-{i}.bin"
    print(fs.exists(f"{root}/{name}"), len(fs.ls(root, detail=False)))
    open(os.path.join(place, name), "wb").write(b"x")
    fs.dircache.clear()
    print(fs.exists(f"{root}/{name}"), len(fs.ls(root, detail=False)))
"""


def test_what_grows_is_seen_at_once_and_the_last_answer_is_the_one_that_is_kept(
    run_python: RunPython, nginx_server: Nginx, tree: str
) -> None:
    place = os.fspath(nginx_server.directory / "listed" / "d")
    told = "False 3, True 4, False 4, True 5, False 5, True 6".replace(",", "").split()
    assert run_python(POLL, tree, place).stdout.split() == told
    nginx_server.stop()
    last = "import sys, fsspec; fs = fsspec.filesystem('http'); root = sys.argv[1]; "
    last += "print([fs.exists(f'{root}/new-{i}.bin') for i in range(3)], len(fs.ls(root, detail=False)))"
    assert run_python(last, tree, env=OFFLINE).stdout == "[True, True, True] 6\n"


def test_an_answer_that_is_not_known_is_an_error_that_says_so(run_python: RunPython, nginx_server: Nginx) -> None:
    code = """
import sys, fsspec
from jcache.errors import OfflineMissError
fs, url = fsspec.filesystem("http"), sys.argv[1]
for name in ("info", "exists", "isfile", "isdir", "ls", "find", "glob", "walk"):
    try:
        got = getattr(fs, name)(url + ("*" if name == "glob" else ""))
        print(name, list(got) if name == "walk" else got)
    except OfflineMissError as error:
        assert "not in the cache and JCACHE_OFFLINE is set; run once" in str(error), error
"""
    assert run_python(code, nginx_server.url("listed/nothing"), env=OFFLINE).stdout == ""
    assert nginx_server.requests() == []


def test_ten_thousand_absent_names_make_no_ten_thousand_files(run_python: RunPython, nginx_server: Nginx) -> None:
    code = """
import sys, fsspec
fs, url = fsspec.filesystem("http"), sys.argv[1]
found = fs.cat([f"{url}/c.{i}" for i in range(2000)], on_error="return")
print({type(error).__name__ for error in found.values()}, len(found))
"""
    url = nginx_server.url("z")
    told = run_python(code, url).stdout
    assert told == "{'FileNotFoundError'} 2000\n"
    cache = run_python("import os; print(os.environ['JCACHE_DIR'])", url).stdout.strip()
    assert sum(name.startswith("@") for _, _, names in os.walk(cache + "/http") for name in names) <= 2
    nginx_server.reset()
    assert run_python(code, url, env=NEVER).stdout == told
    assert nginx_server.requests() == []
    assert run_python(code, url, env=OFFLINE).stdout == told


def test_what_this_process_writes_is_forgotten_here_and_in_later_processes(
    active: Callable[..., Any], tmp_path: Path
) -> None:
    """Over a file system that is slow and remote by its own account; the oracle is the same without a cache."""

    def ask(fs: Any, root: str) -> list[Any]:
        names = [f"{root}/{name}" for name in ("a", "b", "sub/c", "new/deep/d")]
        return [
            sorted(fs.ls(root, detail=False)),
            sorted(fs.find(root)),
            [fs.exists(name) for name in names],
            [fs.isdir(f"{root}/{name}") for name in ("sub", "new", "new/deep", "a")],
        ]

    root = os.fspath(tmp_path / "files")
    os.makedirs(root + "/sub")
    (tmp_path / "files" / "kept").write_bytes(b"1")
    for cls in (filesystems.SlowFileSystem, filesystems.AsyncSlowFileSystem):
        for name in ("a", "sub/c"):
            (tmp_path / "files" / name).write_bytes(b"1")
        for name in ("b", "new/deep/d"):
            (tmp_path / "files" / name).unlink(missing_ok=True)
        active(validate="open")
        changes = (
            lambda fs: fs.pipe_file(f"{root}/b", b"2"),
            lambda fs: (os.makedirs(f"{root}/new/deep", exist_ok=True), fs.pipe_file(f"{root}/new/deep/d", b"3")),
            lambda fs: fs.rm(f"{root}/sub/c"),
            lambda fs: fs.mv(f"{root}/a", f"{root}/sub/c"),
        )
        for change in changes:
            active(validate="never")
            fs = cls(skip_instance_cache=True)
            before = ask(fs, root)
            assert ask(fs, root) == before
            change(fs)
            truth = [
                sorted(os.path.join(root, name) for name in os.listdir(root)),
                sorted(os.path.join(at, name) for at, _, names in os.walk(root) for name in names),
                [os.path.exists(f"{root}/{name}") for name in ("a", "b", "sub/c", "new/deep/d")],
                [os.path.isdir(f"{root}/{name}") for name in ("sub", "new", "new/deep", "a")],
            ]
            assert ask(fs, root) == truth, (cls, "here")
            active(validate="never")
            assert ask(cls(skip_instance_cache=True), root) == truth, (cls, "later")


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.binary()
    | st.datetimes()
    | st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-7, minutes=30))])),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_values_come_back_as_they_were_or_are_refused(value: Any) -> None:
    try:
        encoded = encode(value)
    except InexactError:
        return
    assert repr(decode(json.loads(json.dumps(encoded)))) == repr(value)


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1: 2},
        {"$": 1},
        float("nan"),
        "https://user:secret@host/x",
        "https://host/x?sig=secret",
        "/x?authz=secret",
        {1, 2},
    ],
    ids=lambda value: "object" if type(value) is object else repr(value),
)
def test_what_is_not_exact_or_secret_is_refused(value: Any) -> None:
    with pytest.raises(InexactError):
        encode([{"a": value}])


def test_seconds_of_trust_are_those_of_answers_too(run_python: RunPython, nginx_server: Nginx, tree: str) -> None:
    code = "import sys, fsspec; print(fsspec.filesystem('http').ls(sys.argv[1], detail=False).__len__())"
    first = run_python(code, tree, env={"JCACHE_VALIDATE": "1000"}).stdout
    nginx_server.reset()
    assert run_python(code, tree, env={"JCACHE_VALIDATE": "1000"}).stdout == first
    assert nginx_server.requests() == []
    run_python(code, tree, env={"JCACHE_VALIDATE": "0.001"})
    assert nginx_server.requests()


def test_what_one_credential_may_list_another_is_not_told(
    run_python: RunPython, nginx_server: Nginx, tree: str
) -> None:
    code = """
import sys, fsspec
fs = fsspec.filesystem("http", client_kwargs={"headers": {"Authorization": sys.argv[2]}})
try:
    print(len(fs.ls(sys.argv[1], detail=False)))
except OSError as error:
    print(type(error).__name__)
"""
    assert run_python(code, tree, "Bearer one").stdout == "3\n"
    assert run_python(code, tree, "Bearer one", env=OFFLINE).stdout == "3\n"
    assert run_python(code, tree, "Bearer two", env=OFFLINE).stdout == "OfflineMissError\n"


def test_a_file_of_which_something_is_recorded_is_not_read_to_learn_that_it_is_no_directory(
    run_python: RunPython, nginx_server: Nginx, tree: str
) -> None:
    code = """
import sys, fsspec
fs, url = fsspec.filesystem("http"), sys.argv[1]
print(fs.cat_file(url + "/a.bin", 0, 5), fs.isdir(url + "/a.bin"), fs.exists(url + "/a.bin"), fs.ls(url + "/a.bin"))
print(fs.isdir(url), len(fs.ls(url)))
"""
    plain = run_python(code, tree, cache=None).stdout
    for _ in range(2):
        nginx_server.reset()
        assert run_python(code, tree).stdout == plain
    asked = [request.method for request in nginx_server.requests() if request.uri.endswith("a.bin")]
    assert asked
    assert set(asked) == {"HEAD"}
    assert run_python(code, tree, env=OFFLINE).stdout == plain


def test_a_file_without_a_type_is_read_once_to_learn_that_it_is_no_directory(
    run_python: RunPython, http_origin: ScriptedOrigin
) -> None:
    code = """
import sys, fsspec
fs, url = fsspec.filesystem("http"), sys.argv[1]
print(fs.cat_file(url, 0, 5), fs.isdir(url), fs.exists(url), fs.ls(url), fs.find(url))
"""
    file = http_origin.put("f", b"binary" * 1000)
    url = http_origin.url("f")
    plain = run_python(code, url, cache=None).stdout
    assert run_python(code, url).stdout == plain
    http_origin.reset()
    assert run_python(code, url).stdout == plain
    assert (file.asked, file.heads > 0) == ([], True)
    http_origin.reset()
    for env in (NEVER, OFFLINE):
        assert run_python(code, url, env=env).stdout == plain
    assert http_origin.requests == 0
    file.change(b'binary<a href="x">x</a>', etag='"2"')
    plain = run_python(code, url, cache=None).stdout
    assert "/f/x" in plain
    for _ in range(2):
        assert run_python(code, url).stdout == plain


FORBIDDEN = """
import sys
import fsspec
fs, path = fsspec.url_to_fs(sys.argv[1])
for name in ("info", "exists", "isfile", "isdir", "cat_file", "open", "ls", "size"):
    try:
        print(name, getattr(fs, name)(path))
    except Exception as error:
        print(name, type(error).__name__, error)
print(fs.cat([path, path + "2"], on_error="omit"), fsspec.get_mapper(path, missing_exceptions=(Exception,)).get("x"))
"""


def test_what_the_origin_refuses_is_refused_offline_as_it_was_and_asked_for_again_else(
    run_python: RunPython, http_origin: ScriptedOrigin
) -> None:
    for name in ("f", "f2", "f/x"):
        http_origin.put(name, b"content", status=403)
    url = http_origin.url("f")
    plain = run_python(FORBIDDEN, url, cache=None).stdout
    assert "403" in plain
    assert "content" not in plain
    cold = run_python(FORBIDDEN, url).stdout
    assert run_python(FORBIDDEN, url, env=OFFLINE).stdout == cold == plain
    for name in ("f", "f2", "f/x"):
        http_origin.put(name, b"content")  # to whom has another token, say
    code = FORBIDDEN.replace('"open", ', "")  # whose result has an address
    allowed = run_python(code, url, cache=None).stdout
    assert run_python(code, url, env=NEVER).stdout == allowed
    assert "content" in allowed


@pytest.mark.parametrize("protocol", ["slow", "aslow"])
def test_what_is_not_permitted_is_not_offline(active: Callable[..., Any], tmp_path: Path, protocol: str) -> None:
    path = f"{tmp_path}/hidden"

    def ask() -> list[Any]:
        fs = fsspec.filesystem(protocol, skip_instance_cache=True)
        told = []
        for name in ("info", "exists", "isfile", "cat_file", "open"):
            try:
                told.append(getattr(fs, name)(path))
            except Exception as error:
                told.append((type(error), str(error)))
        return told

    deactivate()
    filesystems.register()
    plain = ask()
    active()
    assert ask() == plain
    active(offline=True)
    offline = ask()
    assert [one[0] if isinstance(one, tuple) else one for one in offline] == [
        one[0] if isinstance(one, tuple) else one for one in plain
    ]
    assert PermissionError in {one[0] for one in offline if isinstance(one, tuple)}


@pytest.mark.parametrize("protocol", ["slow", "aslow"])
def test_offline_a_call_answers_for_its_own_questions_alone(
    active: Callable[..., Any], tmp_path: Path, protocol: str
) -> None:
    directory = tmp_path / "d"
    for name in ("a", "b"):
        (directory / name).mkdir(parents=True)
        (directory / name / "f").write_bytes(b"x")

    def ask(handle: Callable[[Any, str], None] = lambda fs, path: None) -> list[Any]:
        fs, told = fsspec.filesystem(protocol, skip_instance_cache=True), []
        for top, below, names in fs.walk(str(directory)):
            told.append((top, sorted(below), sorted(names)))
            handle(fs, f"{top}/_never_asked")
        return [*told, fs.glob(f"{directory}/*"), fs.find(str(directory)), fs.isfile(f"{directory}/a/f")]

    def missed(fs: Any, path: str) -> None:
        with pytest.raises(OSError, match="_never_asked"):
            fs.info(path)

    deactivate()
    filesystems.register()
    plain = ask(missed)
    active()
    assert ask() == plain
    active(offline=True)
    assert ask(missed) == plain
    for way in ("walk", "glob", "find"):
        with pytest.raises(OfflineMissError):
            list(getattr(fsspec.filesystem(protocol), way)(f"{tmp_path}/other/{'*' if way == 'glob' else ''}"))

    async def at_once() -> list[Any]:
        fs = fsspec.filesystem("aslow", asynchronous=True, skip_instance_cache=True)
        known = [fs._glob(f"{directory}/*") for _ in range(20)]
        unknown = [fs._exists(f"{directory}/{i}") for i in range(20)]
        pairs = [call for pair in zip(known, unknown, strict=True) for call in pair]
        return (await asyncio.gather(*pairs, return_exceptions=True))[::2]

    if protocol == "aslow":
        assert asyncio.run(at_once()) == [plain[-3]] * 20
    gc.collect()
    assert len([one for one in gc.get_objects() if isinstance(one, OfflineMissError)]) < 10


def test_that_nobody_answered_is_no_absence(run_python: RunPython, http_origin: ScriptedOrigin) -> None:
    http_origin.put("f", b"content")
    url = http_origin.url("f")
    code = """
import sys
import fsspec
fs = fsspec.filesystem("http")
for name in ("info", "isfile"):
    try:
        print(bool(getattr(fs, name)(sys.argv[1])))
    except FileNotFoundError:
        print("nobody")
"""
    http_origin.stop()
    assert run_python(code, url).stdout == "nobody\nFalse\n"
    http_origin.start()
    assert run_python(code, url, env=NEVER).stdout == "True\nTrue\n"
