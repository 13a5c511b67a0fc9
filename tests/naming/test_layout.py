"""Directories of journals: legal, inside the root, one for each object, and readable."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jcache.naming import layout

# Slashes cannot be in a name, except for the one that the identity uses as a mark; surrogates stand for bytes.
AWKWARD = st.sampled_from(list("./%@~\\ a0\0\n\x7f\x85é\u202e\U000e0001\udc80\udcff\ud800AF")).filter(
    lambda c: c != "/"
)
NAME = st.one_of(
    st.text(AWKWARD, max_size=12),
    st.text(st.characters(exclude_characters="/", exclude_categories=()), max_size=30),
    st.from_regex(r"[a-c%~@.]{0,3}~?[0-9a-f]{0,2}([0-9a-f]{14})?([0-9a-f]{16})?", fullmatch=True),
    st.text("ab", min_size=190, max_size=260),
)
PATH = st.lists(NAME, min_size=1, max_size=8)


def legal(parts: tuple[bytes, ...]) -> None:
    assert parts
    for part in parts:
        assert 0 < len(part) <= layout.COMPONENT_BYTES
        assert b"/" not in part
        assert b"\0" not in part
        # A leading dot is ours (and `.` and `..` climb), a leading @ is a segment's.
        assert part[:1] not in {b".", b"@"}
        assert part.decode().isprintable()
    assert sum(map(len, parts)) + len(parts) <= layout.PATH_BYTES


@given(NAME, NAME)
def test_components_are_injective(first: str, second: str) -> None:
    legal((layout.component(first),))
    assert (layout.component(first) == layout.component(second)) == (first == second)


@given(PATH, PATH, st.sampled_from(["", "v", "w"]), st.sampled_from(["", "v", "w"]))
def test_trees_are_injective_and_stay_inside(first: list[str], second: list[str], v: str, w: str) -> None:
    a = layout.tree(first[:-1], first[-1], variant=v)
    b = layout.tree(second[:-1], second[-1], variant=w)
    legal(a)
    assert (a == b) == ((first, v) == (second, w))
    root = Path("/cache/root")
    inside = os.path.normpath(root.joinpath(*map(os.fsdecode, a)))
    assert inside.startswith(f"{root}/")
    assert inside.count("/") == 2 + len(a)


@given(PATH)
def test_names_grown_by_a_suffix_stay_apart(names: list[str]) -> None:
    directories, name = names[:-1], names[-1]
    suffixed = layout.tree(directories, name, variant="v")
    pretender = [*directories, suffixed[-1].decode()]
    assert layout.tree(pretender[:-1], pretender[-1]) != suffixed


@given(st.lists(st.text("ab/", max_size=30), min_size=1, max_size=400))
def test_long_paths_collapse_and_stay_apart(names: list[str]) -> None:
    names = [name.replace("/", "b") for name in names]
    one, other = layout.tree(names, "f.root"), layout.tree([*names, "x"], "f.root")
    legal(one)
    legal(other)
    assert one != other


@given(NAME, st.text())
def test_flat_is_one_component(name: str, key: str) -> None:
    parts = layout.flat(name, key)
    legal(parts)
    assert len(parts) == 1
    assert parts != layout.flat(name, key + "x")


@pytest.mark.parametrize(
    ("name", "spelt"),
    [
        ("Run2012B_DoubleMuParked.root", b"Run2012B_DoubleMuParked.root"),
        ("0a1b-2c=3d+e,f:g h.root", b"0a1b-2c=3d+e,f:g h.root"),
        ("Daten für alle.root", "Daten für alle.root".encode()),
        ("", b"%"),
        (".", b"%2E"),
        ("..", b"%2E."),
        (".reports", b"%2Ereports"),
        ("@host.1.2.seg", b"%40host.1.2.seg"),
        ("a@b", b"a@b"),
        ("100%", b"100%25"),
        ("a\nb\x7f", b"a%0Ab%7F"),
        ("\udcff", b"%FF"),
        ("\u202e", b"%u202E"),
        ("\U000e0001", b"%u{E0001}"),
        ("a~b", b"a~b"),
        ("a~0123456789abcdef", b"a%7E0123456789abcdef"),
    ],
)
def test_spelling(name: str, spelt: bytes) -> None:
    assert layout.component(name) == spelt


def test_long_names_keep_their_beginning() -> None:
    part = layout.component("Run2012B" + "é" * 300)
    assert part.startswith("Run2012Bé".encode())
    assert len(part) <= layout.COMPONENT_BYTES
    assert layout.component("%" * 500).rpartition(b"~")[0].replace(b"%25", b"") == b""


def test_files_of_the_root_are_not_hidden_by_a_tree() -> None:
    assert layout.tree(["CACHEDIR.TAG"], "f")[0] == b"%43ACHEDIR.TAG"
    assert layout.tree(["Jcache.toml"], "f")[0] == b"%4Acache.toml"
    assert layout.tree(["https", "CACHEDIR.TAG"], "f")[1] == b"CACHEDIR.TAG"


def test_real_file_system_takes_every_directory(tmp_path: Path) -> None:
    trees = [
        layout.tree(["https", "h", *["d" * 300] * 9], "x" * 2000),
        layout.tree(["root", "h", "..", ".", "", "a\0b", "\udcff"], ".."),
        layout.tree(["s3", "h", "a"], "b"),
        layout.tree(["s3", "h", "a", "b"], "c"),
        layout.flat("x/y" * 300, "key"),
    ]
    for parts in trees:
        tmp_path.joinpath(*map(os.fsdecode, parts)).mkdir(parents=True, exist_ok=True)
    for parts in trees:
        assert tmp_path.joinpath(*map(os.fsdecode, parts)).resolve().is_relative_to(tmp_path)
