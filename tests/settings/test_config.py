"""Settings: what each value means, which ones are refused and how, and where they come from."""

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from places import ROOT

from jcache.settings.config import SETTINGS, Config, ConfigError, parse_size

README = ROOT / "README.md"


def test_nothing_set() -> None:
    assert Config.from_environ({}) == Config()
    assert Config.from_environ({setting.variable: "" for setting in SETTINGS}) == Config()
    assert Config().report_directory is None


def test_everything_set(tmp_path: Path) -> None:
    assert Config.from_environ(
        {
            "JCACHE_DIR": str(tmp_path),
            "JCACHE_VALIDATE": "2.5",
            "JCACHE_OFFLINE": "1",
            "JCACHE_BYPASS": "yes",
            "JCACHE_SUMMARY": "0",
            "JCACHE_JSON": "/reports",
            "JCACHE_STATS": "60",
            "JCACHE_PROFILE": "profiles",
            "JCACHE_APPNAME": "ttbar 1",
            "JCACHE_NOAPP": "ls, cp,",
            "JCACHE_PROTOCOLS": "ROOT,https",
            "JCACHE_BASEPATH": "store//data/",
            "JCACHE_FLAT": "true",
            "JCACHE_SIZE": "500GB",
            "JCACHE_LOG": "DEBUG",
            "JCACHE_UNHEARD_OF": "x",
        }
    ) == Config(
        dir=str(tmp_path),
        validate=2.5,
        offline=True,
        bypass=True,
        summary=False,
        json="/reports",
        stats=60.0,
        profile=str(Path.cwd() / "profiles"),
        appname="ttbar 1",
        noapp=("ls", "cp"),
        protocols=("root", "https"),
        basepath="/store/data",
        flat=True,
        size=500 * 10**9,
        log="debug",
    )


def test_the_table_and_the_fields_are_the_same() -> None:
    assert [setting.field for setting in SETTINGS if setting.field] == [
        name for name in (setting.key for setting in SETTINGS) if name != "config"
    ]
    assert {setting.field for setting in SETTINGS} - {None} == {field.name for field in fields(Config)} - {
        "rules",
        "ignored",
        "file",
        "stated",
        "tiers",
    }
    for setting in SETTINGS:
        assert setting.help.endswith(".")


def test_the_readme_has_the_table() -> None:
    if not README.exists():
        pytest.skip("there is no README yet")
    rows = [f"| `{setting.variable}` | {setting.type} | {setting.default} | {setting.help} |" for setting in SETTINGS]
    assert "\n".join(["| variable | value | default | meaning |", "|---|---|---|---|", *rows]) in README.read_text()


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("500GB", 500 * 10**9),
        ("1.5 TiB", 3 << 39),
        ("2k", 2000),
        ("2kB", 2000),
        ("2KiB", 2048),
        (" 10 mb ", 10**7),
        ("1e3MB", 10**9),
        (4096, 4096),
        ("3P", 3 * 10**15),
    ],
)
def test_sizes(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "GB", "0", "-1GB", "10 XB", "nan", "inf", "1e99", "1,5GB", "0.1", True, None, [1]]
)
def test_no_sizes(text: object) -> None:
    with pytest.raises((ValueError, OverflowError)):
        parse_size(text)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("JCACHE_DIR", "a\0b"),
        ("JCACHE_VALIDATE", "sometimes"),
        ("JCACHE_VALIDATE", "-1"),
        ("JCACHE_VALIDATE", "nan"),
        ("JCACHE_OFFLINE", "maybe"),
        ("JCACHE_BYPASS", "2"),
        ("JCACHE_SUMMARY", "none"),
        ("JCACHE_STATS", "1 min"),
        ("JCACHE_STATS", "inf"),
        ("JCACHE_APPNAME", "a/b"),
        ("JCACHE_APPNAME", "a\nb"),
        ("JCACHE_PROTOCOLS", "https://"),
        ("JCACHE_BASEPATH", "/"),
        ("JCACHE_BASEPATH", "root://h//store"),
        ("JCACHE_FLAT", "flat"),
        ("JCACHE_SIZE", "lots"),
        ("JCACHE_SIZE", "inf"),
        ("JCACHE_SIZE", "/a=1GB,2GB"),
        ("JCACHE_SIZE", "=1GB"),
        ("JCACHE_LOG", "loud"),
        ("JCACHE_LOG", "x" * 10000),
    ],
)
def test_a_wrong_value_is_one_line_that_says_what_to_give(variable: str, value: str) -> None:
    with pytest.raises(ConfigError) as wrong:
        Config.from_environ({variable: value})
    message = str(wrong.value)
    setting = next(setting for setting in SETTINGS if setting.variable == variable)
    assert message.startswith(f"{variable}={repr(value)[:20]}")
    assert message.endswith(f"give {setting.type}")
    assert message.isprintable()
    assert len(message) < 250


def test_paths_are_resolved_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    config = Config.from_environ({"JCACHE_DIR": "cache/../c", "JCACHE_JSON": "~/reports"})
    monkeypatch.chdir("/")
    assert config.dir == str(tmp_path / "c")
    assert config.json == config.report_directory == "/home/someone/reports"
    assert Config(dir="/c").report_directory == "/c/.reports"


def test_a_size_for_each_directory_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sizes = f"{tmp_path}/near=2GB, far=3TB"

    def size(directory: str | None, **more: str) -> int | None:
        named = {} if directory is None else {"JCACHE_DIR": directory}
        return Config.from_environ({**named, "JCACHE_SIZE": sizes, **more}).size

    assert size("near") == size(f"near:{tmp_path}/far") == 2 * 10**9
    assert size(f"{tmp_path}/near/../far") == 3 * 10**12
    assert size("elsewhere:far") is None
    assert size(None) is None
    (tmp_path / "settings.toml").write_text('dir = "./far:./near"\n')
    assert size(None, JCACHE_CONFIG="settings.toml") == 3 * 10**12
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "jcache.toml").write_text(f'size = "{tmp_path}/near=1MB"\n')
    assert Config.from_environ({"JCACHE_DIR": "near"}).size == 10**6


def test_file_in_the_cache_directory(tmp_path: Path) -> None:
    (tmp_path / "jcache.toml").write_text(
        'validate = 300\nsize = "2TB"\nflat = true\nnoapp = ["ls", "du"]\njson = "reports"\nlog = "error"\n'
    )
    config = Config.from_environ({"JCACHE_DIR": str(tmp_path), "JCACHE_LOG": "info"})
    assert config == Config(
        dir=str(tmp_path),
        validate=300.0,
        size=2 * 10**12,
        flat=True,
        noapp=("ls", "du"),
        json=str(tmp_path / "reports"),
        log="info",
    )


def test_file_that_is_named(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "jcache.toml").write_text("offline = true")
    named = tmp_path / "mine.toml"
    named.write_text('dir = "cache"\nvalidate = "never"\nprotocols = "root,s3"')
    config = Config.from_environ({"JCACHE_CONFIG": str(named)})
    # The one file or the other: settings of two files would be hard to tell apart.
    assert config == Config(dir=str(cache), validate="never", protocols=("root", "s3"))
    assert Config.from_environ({"JCACHE_CONFIG": str(named), "JCACHE_DIR": "/x"}).dir == "/x"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("flat = maybe", "TOML"),
        ("\xff\xfe", "TOML"),
        ("colour = 1", "'colour', which is no setting"),
        ("config = 'x'", "'config', which is no setting"),
        ("dir = '/x'", "must not set 'dir'"),
        ("flat = 'perhaps'", "flat = 'perhaps'"),
        ("validate = true", "give open, never or a number of seconds"),
        ("size = []", "give a size"),
        ("noapp = [1]", "give program names"),
        ("json = 3", "give a directory"),
        ("[log]\nlevel = 1", "give debug"),
    ],
)
def test_wrong_files(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "jcache.toml").write_text(content, encoding="latin-1")
    with pytest.raises(ConfigError) as wrong:
        Config.from_environ({"JCACHE_DIR": str(tmp_path)})
    assert says in str(wrong.value)
    assert str(wrong.value).isprintable()


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"JCACHE_CONFIG=.* cannot be read: No such file"):
        Config.from_environ({"JCACHE_CONFIG": str(tmp_path / "none.toml")})
    (tmp_path / "jcache.toml").mkdir()
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        Config.from_environ({"JCACHE_DIR": str(tmp_path)})
    plain = tmp_path / "plain"
    plain.write_text("")
    assert Config.from_environ({"JCACHE_DIR": str(plain)}).dir == str(plain)


def test_no_file_loads_no_toml_parser() -> None:
    script = (
        "import sys; from jcache.settings.config import Config; Config.from_environ({'JCACHE_DIR': '/nonexistent'}); "
        "print([name for name in ('tomllib', 'fsspec', 'asyncio', 'rich', 'click') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], env=os.environ, capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_profiles_go_beside_the_reports_or_where_they_are_told(tmp_path: Path) -> None:
    def directory(value: str, **others: str) -> str | None:
        return Config.from_environ({"JCACHE_DIR": str(tmp_path), "JCACHE_PROFILE": value, **others}).profile_directory

    assert directory("") is directory("0") is directory("off") is None
    assert directory("1") == directory("yes") == str(tmp_path / ".reports")
    assert directory("1", JCACHE_JSON="/reports") == "/reports"
    assert directory("/profiles", JCACHE_JSON="/reports") == "/profiles"
    (tmp_path / "jcache.toml").write_text("profile = true\n")
    assert directory("") == str(tmp_path / ".reports")
    (tmp_path / "jcache.toml").write_text("profile = 'here'\n")
    assert directory("") == str(tmp_path / "here")


def test_what_a_worker_is_given_is_a_path_only_where_it_is_one() -> None:
    from jcache_plugins.settings import checked

    assert checked({"profile": True, "summary": False}) == {"JCACHE_PROFILE": "1", "JCACHE_SUMMARY": "0"}
    assert checked({"profile": "here"}) == {"JCACHE_PROFILE": str(Path.cwd() / "here")}


def test_further_directories_are_tiers(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    config = Config.from_environ({"JCACHE_DIR": f"{first}:{second}:/c"})
    assert (config.dir, config.tiers) == (str(first), (str(second), "/c"))
    odd = tmp_path / "one:two"
    config = Config.from_environ({"JCACHE_DIR": str(odd)})
    assert (config.dir, config.tiers) == (str(odd), ())
    file = tmp_path / "settings.toml"
    config = Config.from_environ({"JCACHE_DIR": f"{first}::{second}:"})
    assert (config.dir, config.tiers) == (str(first), (str(second),))
    file.write_text('dir = "near:../far"')
    config = Config.from_environ({"JCACHE_CONFIG": str(file)})
    assert (config.dir, config.tiers) == (str(tmp_path / "near"), (str(tmp_path.parent / "far"),))
