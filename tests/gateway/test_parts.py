"""What the gateway is made of, each part alone: targets, patterns, ranges, conditions, listings, tokens, the log."""

from __future__ import annotations

import base64
import ipaddress
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from jcache.cli import main
from jcache.journal import Version
from jcache_plugins.gateway import byteranges, conditions
from jcache_plugins.gateway.allowed import Allowed, PatternError, RefusedError, is_public
from jcache_plugins.gateway.byteranges import Cutter, Part, Unsatisfiable
from jcache_plugins.gateway.conditions import CacheControl, Fields, entity_tag
from jcache_plugins.gateway.door import Tokens, is_name_known
from jcache_plugins.gateway.listing import listed, wants_json
from jcache_plugins.gateway.log import shown
from jcache_plugins.gateway.places import OriginError, Place
from jcache_plugins.gateway.targets import BadTargetError, Forwarded, Mounted, forwarded, parse

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

TAG = '"abc"'


@pytest.mark.parametrize(
    ("raw", "names"),
    [
        ("/", ("",)),
        ("/a/b.root", ("a", "b.root")),
        ("/a/", ("a", "")),
        ("/a%20b/%C3%A9", ("a b", "é")),
        ("//a", ("", "a")),
        ("/100%25", ("100%",)),
        ("/...", ("...",)),
    ],
)
def test_a_path_is_its_names(raw: str, names: tuple[str, ...]) -> None:
    target = parse(raw)
    assert isinstance(target, Mounted)
    assert target.names == names
    assert "/" + target.raw == raw


BAD = [
    *("", "*", "a", "host:443", "/a b", "/a\tb", "/\x00", "/é", "/%", "/%zz", "/%ff", "/a#b", "/\\..\\a"),
    *("/..", "/../a", "/a/../b", "/.", "/./a", "/%2e%2e/a", "/%2E./a", "/.%2e/a", "/a/..%2fb", "/a%2Fb", "/a%5c..%5cb"),
    *("/%252e%252e/a", "/a%252fb", "/..%255c", "/%25252e%25252e", "/a%00b", "/a%0d%0aX-Y:%20z", "/%7f", "/%C2%85"),
    *("http://", "http:///a", "http://@h/", "http://u:p@h/", "http://h@127.0.0.1/", "http://h:0/", "http://h:65536/"),
    *("http://h:8x/", "http://h/../a", "http://h/%2e%2e/a", "ftp://h/a", "file:///etc/passwd", "/http://u@h/", "/https://h/.."),
    *("http://h\\@x/", "http://[::1/", "http://h%2f@x/", "http://h,x/", "http://-/", "javascript://h/"),
    *("http://127.1/", "http://2130706433/", "http://0x7f.1/", "http://0177.0.0.1/", "http://127.0.0.01/", "http://a.1/"),
]  # fmt: skip


@pytest.mark.parametrize("raw", BAD)
def test_what_leads_elsewhere_or_is_no_target_is_refused(raw: str) -> None:
    with pytest.raises(BadTargetError):
        parse(raw)


@given(st.text(alphabet="./%25eEfFcC2\\ab~", max_size=24))
def test_no_name_of_a_target_leads_elsewhere(text: str) -> None:
    try:
        target = parse("/" + text)
    except BadTargetError:
        return
    assert isinstance(target, Mounted)
    for name in target.names:
        assert name not in {".", ".."}
        assert not set("/\\") & set(name)
        assert name.isprintable()


@pytest.mark.parametrize(
    ("raw", "url"),
    [
        ("/https://Host.Example/a%20b?x=1&y", "https://host.example/a%20b?x=1&y"),
        ("http://h:80", "http://h/"),
        ("HTTP://h:8080/", "http://h:8080/"),
        ("http://[::1]:81/a", "http://[::1]:81/a"),
    ],
)
def test_a_url_to_be_forwarded(raw: str, url: str) -> None:
    target = parse(raw)
    assert isinstance(target, Forwarded)
    assert target.url == url


ALLOWED = [
    (("*.example.org",), "https://a.example.org/x", True),
    (("*.example.org",), "https://example.org/x", False),
    (("*.example.org",), "https://evil.org/a.example.org", False),
    (("https://*.example.org/*",), "https://evil.org/a.example.org/x", False),
    (("https://example.org/data/*",), "https://example.org/data/x/y", True),
    (("https://example.org/data/*",), "https://example.org/secret", False),
    (("https://example.org/data/*",), "http://example.org/data/x", False),
    (("example.org",), "https://example.org:8443/x", False),
    (("example.org:*",), "https://example.org:8443/x", True),
    (("example.org:8443",), "http://example.org:8443/x", True),
    (("*",), "https://example.org/", True),
    (("*",), "http://127.0.0.1/", False),
    (("*",), "http://[::1]/", False),
    (("*",), "http://[::ffff:10.0.0.1]/", False),
    (("*",), "http://[64:ff9b::a00:1]/", False),
    (("*",), "http://169.254.169.254/latest", False),
    (("*",), "http://0.0.0.0/", False),
    (("*",), "http://8.8.8.8/", True),
    (("127.0.0.?",), "http://127.0.0.1/", False),
    (("127.0.0.1",), "http://127.0.0.1:1234/", True),
    (("http://127.0.0.1:81/*",), "http://127.0.0.1:81/x", True),
    (("http://127.0.0.1:81/*",), "http://127.0.0.1:82/x", False),
    (("10.1.0.0/16",), "http://10.1.2.3/", True),
    (("10.1.0.0/16",), "http://10.2.2.3/", False),
    (("http://[::1]:81/*",), "http://[::1]:81/x", True),
    ((), "https://example.org/", False),
]


@pytest.mark.parametrize(("patterns", "url", "allowed"), ALLOWED)
def test_what_is_allowed_is_what_a_pattern_names(patterns: tuple[str, ...], url: str, allowed: bool) -> None:
    if allowed:
        Allowed(patterns).check(forwarded(url))
    else:
        with pytest.raises(RefusedError):
            Allowed(patterns).check(forwarded(url))


@pytest.mark.parametrize(
    ("address", "public"),
    [
        *[(a, False) for a in ("127.1.2.3", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.0.1", "0.0.0.0")],
        *[(a, False) for a in ("224.0.0.1", "255.255.255.255", "100.64.0.1", "240.0.0.1", "::", "::1", "fe80::1")],
        *[
            (a, False)
            for a in ("fc00::1", "fec0::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "ff02::1")
        ],
        *[(a, True) for a in ("8.8.8.8", "188.184.9.234", "2001:1458:201:b49f::100:d", "::ffff:8.8.8.8")],
    ],
)
def test_public_addresses(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public


def test_an_allowed_name_has_no_private_address_unless_that_is_named_too() -> None:
    with pytest.raises(RefusedError):
        Allowed(["intranet.example"]).check_address("intranet.example", "10.1.2.3")
    Allowed(["intranet.example", "10.1.0.0/16"]).check_address("intranet.example", "10.1.2.3")
    Allowed(origin="http://intranet.example/data").check_address("intranet.example", "10.1.2.3")
    Allowed(["intranet.example"]).check_address("intranet.example", "8.8.8.8")


@pytest.mark.parametrize("pattern", ["", "a b", "ftp://h/*", "https://", "h:99999999", "http://u@h/", "/path"])
def test_what_is_no_pattern_is_said(pattern: str) -> None:
    with pytest.raises(PatternError, match="names no origin"):
        Allowed([pattern])


@pytest.mark.parametrize(
    ("origin", "said"),
    [
        ("/data", "has to be remote"),
        ("memory://x", "has to be remote"),
        ("nowhere://x", "read by no file system"),
        ("http://u:p@h/", "without a user"),
        ("http://h/a/../b", "leads elsewhere"),
        ("http://h/a?x=1", "no query"),
    ],
)
def test_what_cannot_be_mounted_is_said(origin: str, said: str) -> None:
    with pytest.raises(OriginError, match=said):
        Place.mount(origin, requests=1, patterns=(), via="")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "nothing is served"),
        (["--allow", "h", "--key", __file__], "with --cert only"),
        (["--allow", "h"], "there is no cache directory"),
    ],
)
def test_options_that_go_together(args: list[str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JCACHE_DIR", raising=False)
    monkeypatch.setenv("JCACHE_APPNAME", "x")
    result = CliRunner().invoke(main, ["serve", *args])
    assert (result.exit_code, said in result.output) == (2, True)


def test_without_aiohttp_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("JCACHE_DIR", "JCACHE_VALIDATE", "JCACHE_APPNAME"):
        monkeypatch.setenv(name, "10" if name == "JCACHE_VALIDATE" else str(tmp_path.name))
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    result = CliRunner().invoke(main, ["serve", "--allow", "h", "--dir", str(tmp_path)])
    assert (result.exit_code, "install jcache[http]" in result.output) == (1, True)


SIZE = 100
RANGES: list[tuple[str | None, Any]] = [
    (None, None),
    ("bytes=0-9", [(0, 10)]),
    ("BYTES=0-9", [(0, 10)]),
    ("bytes = 0 - 9 ", [(0, 10)]),
    ("bytes=90-", [(90, 100)]),
    ("bytes=-10", [(90, 100)]),
    ("bytes=-1000", [(0, 100)]),
    ("bytes=0-999", [(0, 100)]),
    ("bytes=0-0,-1", [(0, 1), (99, 100)]),
    ("bytes=0-0,,200-300, 5-5,", [(0, 1), (5, 6)]),
    ("bytes=5-5,0-0", [(5, 6), (0, 1)]),
    ("bytes=9-0", None),
    ("bytes=a-b", None),
    ("bytes=", None),
    ("bytes=1-2-3", None),
    ("bytes=--1", None),
    ("bytes=-", None),
    ("items=0-9", None),
    ("bytes 0-9", None),
    ("bytes=100-", Unsatisfiable),
    ("bytes=-0", Unsatisfiable),
    ("bytes=0-,0-", [(0, 100), (0, 100)]),
    ("bytes=0-,0-,0-", Unsatisfiable),
    ("bytes=0-50,40-60,45-70", Unsatisfiable),
    ("bytes=" + ",".join(["0-0"] * 2000), Unsatisfiable),
]


@pytest.mark.parametrize(("said", "meant"), RANGES)
def test_ranges_mean_what_rfc_9110_says(said: str | None, meant: Any) -> None:
    if meant is Unsatisfiable:
        with pytest.raises(Unsatisfiable):
            byteranges.parse(said, SIZE)
    else:
        assert byteranges.parse(said, SIZE) == meant


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 50), st.integers(1, 20))
def test_what_an_answer_begins_with_is_known_before_its_size(a: int, b: int, size: int, most: int) -> None:
    for said in (None, f"bytes={a}-{b}", f"bytes={a}-"):
        begin = byteranges.begin(said, most)
        try:
            ranges = byteranges.parse(said, size) or [(0, size)]
        except Unsatisfiable:
            continue
        if begin is not None:
            start, stop = ranges[0]
            assert (begin[0], min(begin[1], size)) == (start, min(stop, start + most))


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), max_size=6), st.integers(1, 400), st.randoms())
def test_a_body_in_pieces_is_the_body(ranges: list[tuple[int, int]], room: int, rng: random.Random) -> None:
    data = bytes(i % 251 for i in range(600))
    parts = [Part(b"<%d>" % i, start, start + length) for i, (start, length) in enumerate(ranges)]
    cutter, out = Cutter(parts), b""
    while piece := cutter.next(room := rng.randint(1, room)):
        assert sum(part.stop - part.start for part in piece) <= room
        out += b"".join(part.prefix + data[part.start : part.stop] for part in piece)
    assert out == b"".join(part.prefix + data[part.start : part.stop] for part in parts)


def fields(**said: str) -> Fields:
    return Fields(CIMultiDict({name.replace("_", "-"): value for name, value in said.items()}))


TIME_NS = 1_700_000_000 * 10**9
NOW, BEFORE, AFTER = (
    "Tue, 14 Nov 2023 22:13:20 GMT",
    "Tue, 14 Nov 2023 22:13:19 GMT",
    "Tue, 14 Nov 2023 22:13:21 GMT",
)


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({}, None),
        ({"If_Match": TAG}, None),
        ({"If_Match": "*"}, None),
        ({"If_Match": f'"x", {TAG}'}, None),
        ({"If_Match": f"W/{TAG}"}, 412),
        ({"If_Match": '"x"'}, 412),
        ({"If_Match": "abc"}, 412),
        ({"If_Unmodified_Since": NOW}, None),
        ({"If_Unmodified_Since": BEFORE}, 412),
        ({"If_Unmodified_Since": "yesterday"}, None),
        ({"If_Match": TAG, "If_Unmodified_Since": BEFORE}, None),
        ({"If_None_Match": TAG}, 304),
        ({"If_None_Match": f"W/{TAG}"}, 304),
        ({"If_None_Match": "*"}, 304),
        ({"If_None_Match": '"x"'}, None),
        ({"If_None_Match": '"x"', "If_Modified_Since": AFTER}, None),
        ({"If_Modified_Since": NOW}, 304),
        ({"If_Modified_Since": AFTER}, 304),
        ({"If_Modified_Since": BEFORE}, None),
        ({"If_Modified_Since": "now"}, None),
        ({"If_Match": '"x"', "If_None_Match": TAG}, 412),
        ({"If_Match": TAG, "If_None_Match": TAG}, 304),
    ],
)
def test_conditions_are_judged_in_the_order_of_rfc_9110(said: dict[str, str], status: int | None) -> None:
    assert conditions.verdict(fields(**said), TAG, TIME_NS) == status


@pytest.mark.parametrize(
    ("said", "wanted"), [(TAG, True), ('"x"', False), (f"W/{TAG}", False), (NOW, True), (AFTER, False), ("x", False)]
)
def test_if_range(said: str, wanted: bool) -> None:
    assert conditions.is_range_wanted(fields(If_Range=said), TAG, TIME_NS) is wanted


def test_an_entity_tag_is_of_the_strongest_validator_and_of_no_other() -> None:
    assert entity_tag(Version(1, 5, '"a"')) == entity_tag(Version(1, None, '"a"'))
    assert entity_tag(Version(1, 5, '"a"')) != entity_tag(Version(1, 5, '"b"'))
    assert entity_tag(Version(1, 5)) != entity_tag(Version(1, 6))
    assert entity_tag(Version(1, 5, '"a"', "adler32:1")) == entity_tag(Version(1, 6, '"b"', "adler32:1"))
    assert entity_tag(Version(1, 5, '"a\r\n"')).isprintable()


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ({}, CacheControl()),
        ({"Cache_Control": "No-Cache"}, CacheControl(no_cache=True)),
        ({"Cache_Control": "only-if-cached, max-age=5"}, CacheControl(only_if_cached=True, max_age_s=5)),
        ({"Cache_Control": 'max-age="7"'}, CacheControl(max_age_s=7)),
        ({"Cache_Control": "max-age=soon"}, CacheControl(max_age_s=0)),
        ({"Cache_Control": "no-store"}, CacheControl(no_store=True)),
        ({"Cache_Control": "min-fresh=3, max-stale=4"}, CacheControl(min_fresh_s=3)),
        ({"Cache_Control": "min-fresh=soon"}, CacheControl()),
        ({"Pragma": "no-cache"}, CacheControl(no_cache=True)),
        ({"Pragma": "no-cache", "Cache_Control": "max-age=1"}, CacheControl(max_age_s=1)),
    ],
)
def test_cache_control_of_requests(said: dict[str, str], meant: CacheControl) -> None:
    assert CacheControl.of(fields(**said)) == meant


@pytest.mark.parametrize(
    ("accept", "json"),
    [
        ("", False),
        ("*/*", False),
        ("text/html,application/xhtml+xml,*/*;q=0.8", False),
        ("application/json", True),
        ("application/json, text/html;q=0.5", True),
        ("application/json;q=0.5, text/html", False),
        ("application/json;q=0", False),
        ("application/json; Q = 0.9 ; v=1,text/html;q=0.91", False),
        ("application/json;q=many", False),
        (";q=1,,application/json", True),
    ],
)
def test_json_is_for_who_asks_for_it(accept: str, json: bool) -> None:
    assert wants_json(accept) is json


@pytest.mark.parametrize(
    "read",
    [
        lambda text: byteranges.parse(f"bytes=0-{' ' * len(text)}x", 10),
        lambda text: byteranges.parse(f"bytes=0{' ' * len(text)}-{' ' * len(text)}x", 10),
        wants_json,
        lambda text: wants_json(f"a/b;q{' ' * len(text)}"),
        lambda text: conditions.matches(f'"x"{" " * len(text)}y', TAG, strongly=True),
        lambda text: conditions.matches(",\t" * (len(text) // 2) + "y", TAG, strongly=True),
        lambda text: CacheControl.of(fields(Cache_Control=f"a{' ' * len(text)}b")),
        lambda text: CacheControl.of(fields(Cache_Control='a="\\' * (len(text) // 4))),
    ],
)
def test_what_a_client_sends_is_read_in_a_time_that_grows_as_its_length(read: Callable[[str], Any]) -> None:
    """All clients wait for it; what is tried in all ways takes a field of this length ten seconds."""
    began_s = time.process_time()
    read("a" * 100_000)
    assert time.process_time() - began_s < 2


@pytest.mark.parametrize("zone", ["America/Chicago", "Europe/Zurich", "UTC"])
def test_a_date_without_a_zone_is_of_utc(monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    """RFC 9110, 5.6.7: the three forms are one date, wherever the gateway is."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        for said in (NOW, "Tuesday, 14-Nov-23 22:13:20 GMT", "Tue Nov 14 22:13:20 2023"):
            assert conditions.verdict(fields(If_Modified_Since=said), TAG, TIME_NS) == 304, said
            assert conditions.verdict(fields(If_Modified_Since=said), TAG, TIME_NS + 10**9) is None, said
            assert conditions.verdict(fields(If_Unmodified_Since=said), TAG, TIME_NS) is None, said
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_listing_is_a_page_in_which_no_name_is_markup() -> None:
    found = [{"name": 'store/<script>"&x', "size": 3, "type": "file"}, {"name": "store/http:x", "type": "directory"}]
    kind, text = listed("/<b>/", found, as_json=False, urls=False)
    assert kind == "text/html"
    assert "<script>" not in text
    assert "<b>" not in text
    assert 'href="http%3Ax/"' in text


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        ("/a?token=abc&x=1", "/a?token=***&x=1"),
        ("/a?X-Amz-Signature=abc&X-Amz-Credential=d", "/a?X-Amz-Signature=***&X-Amz-Credential=***"),
        ("/a?%74oken=abc", "/a?%74oken=***"),
        ("http://user:secret@host/a", "http://***@host/a"),
        ('/a"\n\x1b[2Jb', "/a\\x22\\x0a\\x1b[2Jb"),
        ("/?" + "a" * 5000, "/?" + "a" * 2043 + "..."),
    ],
)
def test_the_log_keeps_no_secret_and_no_control_character(raw: str, kept: str) -> None:
    assert shown(raw) == kept


@pytest.mark.parametrize(
    ("host", "known"),
    [
        *[
            (h, True)
            for h in ("localhost", "LocalHost:8080", "a.localhost", "127.0.0.1:80", "[::1]:80", "[::1]", "8.8.8.8")
        ],
        *[(h, True) for h in ("gate.example", "GATE.example.:8080")],
        *[
            (h, False)
            for h in ("evil.example", "localhost.evil.example", "evil.example:127", "gate.example.evil", "", "x:y")
        ],
        *[(h, False) for h in ("127.0.0.1.evil.example", "2130706433", "notlocalhost")],
    ],
)
def test_names_of_the_gateway(host: str, known: bool) -> None:
    assert is_name_known(host, frozenset({"gate.example"})) is known


def test_tokens_are_those_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jcache_plugins.gateway.door.LOOK_S", 0)
    path = tmp_path / "tokens"
    path.write_text("# who\nsecret\n\nother token\n")
    tokens = Tokens(str(path))
    password = base64.b64encode(b"me:secret").decode()
    for said in ("Bearer secret", "bearer  secret", "Bearer other token", f"Basic {password}"):
        assert tokens.admit(said), said
    for said in (None, "", "secret", "Bearer", "Bearer x", "Bearer # who", "Basic secret", "Basic Og==", "Bearer é"):
        assert not tokens.admit(said), said
    path.write_text("new and longer\n")
    assert (tokens.admit("Bearer secret"), tokens.admit("Bearer new and longer")) == (False, True)
    path.unlink()
    assert not tokens.admit("Bearer new and longer")
    path.write_text("# nobody\n")
    with pytest.raises(ValueError, match="no token"):
        Tokens(str(path))
