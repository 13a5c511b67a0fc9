"""The profile of the seed's analysis: its numbers are those of the talk, each of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from jcache.cli.group import main
from jcache.profile.synthetic import Statistics

if TYPE_CHECKING:
    from pathlib import Path


def made(path: Path, *args: str) -> dict[str, object]:
    done = CliRunner().invoke(main, ["profile", "synthesize", "-o", str(path), *args, "--json"], prog_name="jcache")
    assert done.exit_code == 0, done.output
    shown = CliRunner().invoke(main, ["profile", "show", str(path), "--json"], prog_name="jcache")
    assert shown.exit_code == 0, shown.output
    return json.loads(shown.stdout)


def test_it_says_what_the_report_in_the_talk_says(tmp_path: Path) -> None:
    told, said = made(tmp_path / "a.jcp"), Statistics()
    assert told["requests"]["open"] == 1050
    assert (told["requests"]["read"], told["requests"]["vector"]) == (34_056, 10_707)
    total = told["total"]
    assert total["ranges"] == 34_056 + 93_611
    assert total["bytes"] == 8_976_091_232 + 53_958_826_610
    assert len(told["files"]) == 796
    assert total["size"] == pytest.approx(976_614_396_598, abs=796)
    assert total["distinct_bytes"] / total["size"] == pytest.approx(0.0644, abs=0.002)
    assert total["backward"] < 1050, "forward, but where a file is opened again"
    assert told["real_s"] == pytest.approx(said.seconds, rel=0.03)


def test_a_share_of_it_is_smaller_and_the_same_each_time(tmp_path: Path) -> None:
    told = made(tmp_path / "a.jcp", "--share", "0.01", "--base", "https://host/")
    assert (len(told["files"]), told["requests"]["vector"]) == (8, 107)
    assert all(one["url"].startswith("https://host/") for one in told["files"])
    made(tmp_path / "b.jcp", "--share", "0.01", "--base", "https://host/")
    assert (tmp_path / "a.jcp").read_bytes() == (tmp_path / "b.jcp").read_bytes()
