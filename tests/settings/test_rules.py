"""Rules for some remote files: which file each is about, what it does, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import fsspec
import pytest
from places import ROOT

from jcache.settings.config import Config, ConfigError
from jcache.settings.rules import KEYS, Rule, find_rule, parse_rule

if TYPE_CHECKING:
    from collections.abc import Callable

    from jcache.session import Session

DOCS = ROOT / "docs" / "howto" / "settings.md"
DATA = bytes(range(256)) * 40


def test_the_first_rule_that_matches_decides() -> None:
    rules = (
        Rule(url="root://eos*/**/calib/*", bypass=True),
        Rule(url="root://eos*/**", validate="never"),
        Rule(protocol="s3", record=False),
        Rule(url="https://h/x[1].root", exclude=True),
    )
    assert find_rule(rules, "root://eos01.cern.ch//eos/a/calib/x.root") is rules[0]
    assert find_rule(rules, "root://eos01.cern.ch//eos/a/b.root") is rules[1]
    assert find_rule(rules, "root://other.cern.ch//eos/a/b.root") is None
    assert find_rule(rules, "s3://bucket/key") is rules[2]
    assert find_rule(rules, "https://h/x1.root") is rules[3]
    assert find_rule(rules, "HTTPS://h/x1.root") is None
    assert find_rule((), "s3://bucket/key") is None


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("rules = 1", "rule 1 in .* is no table"),
        ("[[rules]]\nbypass = true", "says nothing of which files"),
        ('[[rules]]\nurl = "x"', "sets nothing"),
        ('[[rules]]\nurl = "x"\nbypass = "perhaps"', "has bypass = 'perhaps': give true or false"),
        ('[[rules]]\nurl = "x"\nbypass = true\n[[rules]]\nurl = "y"\ncolour = 1', "rule 2 .* sets 'colour', which no"),
        ('[[rules]]\nprotocol = "a,b"\nbypass = true', "give a protocol"),
        ('[[rules]]\nurl = ""\nbypass = true', "give a pattern"),
        ('[[rules]]\nurl = "x"\nvalidate = "often"', "give open, never or a number"),
    ],
)  # fmt: skip
def test_a_wrong_rule_is_one_line(tmp_path: Path, toml: str, says: str) -> None:
    (tmp_path / "jcache.toml").write_text(toml)
    with pytest.raises(ConfigError, match=says) as wrong:
        Config.from_environ({"JCACHE_DIR": str(tmp_path)})
    assert str(wrong.value).isprintable()


def test_rules_are_read_in_order(tmp_path: Path) -> None:
    (tmp_path / "jcache.toml").write_text(
        '[[rules]]\nprotocol = "S3"\nvalidate = 60\n[[rules]]\nurl = "root://*"\nexclude = true\n'
    )
    config = Config.from_environ({"JCACHE_DIR": str(tmp_path)})
    assert config.rules == (Rule(protocol="s3", validate=60.0), Rule(url="root://*", exclude=True))
    assert [rule.describe() for rule in config.rules] == [
        {"protocol": "s3", "validate": 60.0},
        {"url": "root://*", "exclude": True},
    ]
    assert parse_rule({"url": "x", "bypass": True}) == Rule(url="x", bypass=True)


def test_the_documentation_has_the_table() -> None:
    rows = [f"| `{key}` | {allowed} | {meaning} |" for key, (_, allowed, meaning) in KEYS.items()]
    assert "\n".join(["| key | value | meaning |", "|---|---|---|", *rows]) in DOCS.read_text()
    assert set(KEYS) == set(Rule.__dataclass_fields__)


@pytest.fixture
def url(tmp_path: Path) -> str:
    path = tmp_path / "remote.bin"
    path.write_bytes(DATA)
    return f"slow://{path}"


def read(url: str) -> bytes:
    fs, path = fsspec.url_to_fs(url)
    return fs.cat_file(path, 100, 5000)


def test_a_bypassed_file_is_measured_and_not_recorded(active: Callable[..., Session], url: str) -> None:
    session = active(rules=(Rule(url="*remote.bin", bypass=True),))
    assert read(url) == read(url) == DATA[100:5000]
    session.recorder.flush(20)
    counts = session.counters.snapshot()
    assert (counts.read_bypass, counts.read_hit, counts.recorded_bytes) == (9800, 0, 0)


def test_an_excluded_file_is_not_even_measured(active: Callable[..., Session], url: str) -> None:
    session = active(
        rules=(
            Rule(protocol="nothing", bypass=True),
            Rule(url="*remote.bin", exclude=True),
        )
    )
    assert read(url) == DATA[100:5000]
    with fsspec.open(url, "rb") as file:
        assert file.read(10) == DATA[:10]
    assert not session.counters.any_activity()


def test_what_is_not_to_be_recorded_is_served_if_it_is_there(active: Callable[..., Session], url: str) -> None:
    session = active()
    assert read(url) == DATA[100:5000]
    session = active(rules=(Rule(url="*remote.bin", record=False),))
    fs, path = fsspec.url_to_fs(url)
    assert fs.cat_file(path, 100, 6000) == DATA[100:6000]
    session.recorder.flush(20)
    counts = session.counters.snapshot()
    assert (counts.read_hit, counts.read_miss, counts.recorded_bytes) == (4900, 1000, 0)


def test_validation_by_rule(active: Callable[..., Session], url: str, tmp_path: Path) -> None:
    session = active()
    assert read(url) == DATA[100:5000]
    path = Path(url.removeprefix("slow://"))
    path.write_bytes(b"\0" * len(DATA))
    session = active(rules=(Rule(url="*remote.bin", validate="never"),))
    assert read(url) == DATA[100:5000]  # write-once data, says the rule
    assert session.counters.snapshot().origin_requests == 0
    active(rules=(Rule(url="*other.bin", validate="never"),))
    assert read(url) == b"\0" * 4900
