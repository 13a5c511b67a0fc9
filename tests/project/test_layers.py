"""The architecture as a test: imports point downwards, and start-up loads nothing that it does not need."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from places import ROOT

SOURCES = [path for folder in ("jcache", "plugins") for path in sorted((ROOT / folder).rglob("*.py"))]

# From the top down. A module may import what stands below it, and its own layer's other modules.
LAYERS = (
    "jcache.__main__",
    "jcache_plugins",
    "jcache.cli",
    "jcache.demo",
    "jcache.doctor",
    "jcache.activate",
    "jcache.profile",
    "jcache.report.faces",
    "jcache.report",
    "jcache.session",
    "jcache.registry",
    "jcache.caches",
    "jcache.settings",
    "jcache.reader",
    "jcache.recording",
    "jcache.planning",
    "jcache.origin",
    "jcache.bundle",
    "jcache.cache",
    "jcache.naming",
    "jcache.journal",
    "jcache.segment",
    "jcache.counters",
    "jcache.ranges",
    "jcache.vectors",
    "jcache.system",
    "jcache.errors",
    "jcache",
    "jcache.moved",
)
HEAVY = {"aiofiles", "aiohttp", "asyncio", "click", "dask", "fsspec", "portalocker", "redis", "rich", "wrapt"}
# The command line and the text report draw; plug-ins are imported by what they hook, and bring the reader along.
MAY_LOAD = {
    "jcache.cli": HEAVY,
    "jcache.demo": HEAVY,
    "jcache.report.faces.text": {"rich"},
    "jcache.reader": {"asyncio"},
    "jcache.recording": {"asyncio"},
    "jcache.planning": {"asyncio"},
    "jcache_plugins": HEAVY,
}


ON_THE_CACHE = {
    *("jcache.reader", "jcache.recording", "jcache.planning", "jcache.cache", "jcache.naming", "jcache.journal"),
    "jcache.segment",
}
FILE_CALLS = {
    *("open", "read", "write", "pread", "preadv", "pwrite", "pwritev", "mkdir", "makedirs", "unlink", "remove"),
    *("rename", "replace", "link", "symlink", "listdir", "scandir", "stat", "lstat", "fstat", "ftruncate", "truncate"),
    *("fsync", "utime", "rmdir", "chmod", "fchmod"),
}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = ("jcache_plugins", *parts[1:]) if parts[0] == "plugins" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer_of(module: str) -> str | None:
    return max((layer for layer in LAYERS if f"{module}.".startswith(f"{layer}.")), key=len, default=None)


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def imports(tree: ast.AST, *, everywhere: bool) -> Iterator[tuple[int, str]]:
    """Yield line and name of what a module imports, or only of what loading it imports; not what is for types alone.

    A layer may know by type what it calls back: that is no import when the program runs.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from ((node.lineno, name) for name in whole)
        elif is_for_types(node) or (
            not everywhere and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        ):
            continue
        else:
            yield from imports(node, everywhere=everywhere)


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def test_every_module_has_a_layer() -> None:
    assert len(SOURCES) > 10
    # `jcache` itself is a layer, so that what is new must find its place above.
    strangers = [name_of(path) for path in SOURCES if layer_of(name_of(path)) == "jcache" and name_of(path) != "jcache"]
    assert strangers == []


def test_imports_point_downwards() -> None:
    wrong = []
    for path in SOURCES:
        layer = layer_of(name_of(path))
        assert layer is not None
        for line, name in imports(parsed(path), everywhere=True):
            target = layer_of(name)
            if target is not None and LAYERS.index(target) < LAYERS.index(layer):
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {layer} imports {name}")
    assert wrong == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Neither modules of one folder nor those of several, imports inside functions included."""
    paths = {name_of(path): path for path in SOURCES}
    below = {name: set(targets(path, paths)) - {name} for name, path in paths.items()}
    # What imports nothing that is left is in no circle.
    while free := {name for name, names in below.items() if not names & below.keys()}:
        below = {name: names for name, names in below.items() if name not in free}
    assert below == {}


def targets(path: Path, paths: Mapping[str, Path]) -> Iterator[str]:
    """Yield the modules that one imports."""
    for _, name in imports(parsed(path), everywhere=True):
        module = name if name in paths else name.rpartition(".")[0]
        if module in paths:
            yield module


def test_what_is_heavy_is_imported_where_it_is_used() -> None:
    wrong = []
    for path in SOURCES:
        module = name_of(path)
        allowed = {name for place, names in MAY_LOAD.items() if f"{module}.".startswith(f"{place}.") for name in names}
        wrong += [
            f"{path.relative_to(ROOT)}:{line}: {name}"
            for line, name in imports(parsed(path), everywhere=False)
            if name.partition(".")[0] in HEAVY - allowed
        ]
    assert wrong == []


def test_only_storage_touches_the_cache_directory() -> None:
    """Calls on `os` that read or change files, in the layers that work on the cache."""
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}: os.{node.attr}"
        for path in SOURCES
        if layer_of(name_of(path)) in ON_THE_CACHE
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if node.value.id == "os" and node.attr in FILE_CALLS
    ]
    assert wrong == []


def loaded_by(statement: str, **environ: str) -> set[str]:
    script = f"import sys; before = set(sys.modules); {statement}; print(*(set(sys.modules) - before), sep='\\n')"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("JCACHE_")}
    run = subprocess.run(
        [sys.executable, "-c", script], env={**clean, **environ}, capture_output=True, text=True, check=True
    )
    return set(run.stdout.split())


def test_importing_jcache_loads_jcache_alone() -> None:
    assert {name for name in loaded_by("import jcache") if name.startswith("jcache")} == {"jcache", "jcache.moved"}


@pytest.mark.parametrize(
    "module",
    [
        "jcache",
        "jcache.settings.config",
        "jcache.cache",
        "jcache.journal",
        "jcache.origin",
        "jcache.counters",
        "jcache.ranges",
        "jcache.vectors",
        "jcache.system.mounts",
        "jcache.system.storage",
    ],
)
def test_layers_load_nothing_heavy(module: str) -> None:
    roots = {name.partition(".")[0] for name in loaded_by(f"import {module}")}
    assert module.partition(".")[0] in roots
    assert roots & HEAVY == set()


def test_without_a_directory_nothing_is_loaded() -> None:
    script = (
        "import sys; print([name for name in sys.modules if name.partition('.')[0] in ('jcache', 'jcache_plugins')])"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("JCACHE_")}
    run = subprocess.run([sys.executable, "-c", script], env=clean, capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
