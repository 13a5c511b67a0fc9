"""Hooked methods take what the originals take: for every file-system class that can be imported here."""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import json
from typing import TYPE_CHECKING, Any

import filesystems
import fsspec
import pytest
from fsspec.asyn import AsyncFileSystem
from fsspec.registry import known_implementations

from jcache_plugins.fsspec import downloads, files, hooks, metadata, reads, vector_reads, writes
from jcache_plugins.fsspec.calls import Parameters, as_bound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import RunPython
    from fsspec.spec import AbstractFileSystem

    from jcache.session import Session

Call = tuple[tuple[Any, ...], dict[str, Any]]


def importable() -> list[type[AbstractFileSystem]]:
    classes = [filesystems.SlowFileSystem, filesystems.AsyncSlowFileSystem]
    for protocol in sorted(known_implementations):
        with contextlib.suppress(Exception):  # its library is not installed
            classes.append(fsspec.get_filesystem_class(protocol))
    return [cls for cls in dict.fromkeys(classes) if hooks.is_remote(cls)]


def originals(cls: Any) -> Iterator[tuple[str, Any, Callable[[Any], Any]]]:
    """Yield name, function and hook of what is hooked in a class."""
    makers = writes.writes(cls)
    for group in (reads, vector_reads, files, downloads, metadata):
        makers.update(group.ASYNC if cls.async_impl else group.SYNC)
    for name, make in makers.items():
        function = inspect.getattr_static(cls, name, None)
        if inspect.isfunction(function):
            yield name, function, make


CLASSES = importable()
each_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: f"{cls.__module__}.{cls.__name__}")


def corpus(function: Any) -> Iterator[Call]:
    """Yield calls: by position, by name, mixed; with too few, too many, and names that a function does not have."""
    parameters = list(inspect.signature(function).parameters.values())[1:]
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    keywords = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        names += ["a", "b", "c"][len(names) :]
    values = {name: f"value of {name}" for name in [*names, *keywords]}
    for count in range(len(names) + 2):
        args = tuple([*values.values(), "one", "two"][:count])
        rest = {name: values[name] for name in names[count:]}
        for kwargs in ({}, rest, dict(itertools.islice(rest.items(), 1)), {name: values[name] for name in keywords}):
            yield args, kwargs
        yield args, {"of_no_parameter": 1}
        yield args, dict.fromkeys(names[:1], "twice")
        yield (args, {"start": 3}) if "start" not in names[:count] else (args, {})


def outcome(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return what a function returned, or that it does not take such a call."""
    try:
        result = function(*args, **kwargs)
        if inspect.isawaitable(result):
            result.send(None)  # type: ignore[attr-defined]
    except StopIteration as stop:
        return stop.value
    except TypeError:
        return TypeError
    return result


def recorder(function: Any) -> tuple[Any, list[dict[str, Any]]]:
    """Return a function with the same parameters that notes what it is called with."""
    signature, calls = inspect.signature(function), []

    def note(*args: Any, **kwargs: Any) -> bytes:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        calls.append(dict(bound.arguments))
        return b"bytes"

    async def note_soon(*args: Any, **kwargs: Any) -> bytes:
        return note(*args, **kwargs)

    return functools.update_wrapper(note_soon if inspect.iscoroutinefunction(function) else note, function), calls


def test_the_classes_of_the_ecosystem_are_among_them() -> None:
    names = {cls.__name__ for cls in CLASSES}
    assert {"HTTPFileSystem", "SlowFileSystem", "AsyncSlowFileSystem", "FTPFileSystem"} <= names
    assert all(len(list(originals(cls))) > 3 for cls in CLASSES)


@each_class
def test_every_call_reaches_the_original_and_means_what_it_meant(active: Callable[..., Session], cls: Any) -> None:
    active(bypass=True)
    fs = object.__new__(type(cls.__name__, (cls,), {"__del__": lambda _: None, "__getattr__": lambda *_: None}))
    fs.storage_options, fs.storage_args = {}, ()
    for name, function, make in originals(cls):
        original, calls = recorder(function)
        try:
            hooked = make(original)
        except ValueError:
            continue  # it is left as it is
        if hooked is original:
            continue
        functools.update_wrapper(hooked, original)
        assert inspect.signature(hooked) == inspect.signature(function)
        assert inspect.iscoroutinefunction(hooked) == inspect.iscoroutinefunction(function)
        for args, kwargs in corpus(function):
            told = outcome(original, (fs, *args), kwargs)
            expected = calls.copy()
            calls.clear()
            assert outcome(hooked, (fs, *args), kwargs) == told, (name, args, kwargs)
            assert calls == expected, (name, args, kwargs)
            calls.clear()


@each_class
def test_arguments_are_understood_as_python_binds_them(cls: Any) -> None:
    """The oracle is `inspect.signature`'s own `bind`."""
    for name, function, _ in originals(cls):
        signature, parameters = inspect.signature(function), Parameters.of(function)
        kinds = {parameter.kind: key for key, parameter in signature.parameters.items()}
        if inspect.Parameter.VAR_POSITIONAL in kinds:
            continue  # it does not say what it takes
        for args, kwargs in corpus(function):
            try:
                expected = dict(signature.bind(None, *args, **kwargs).arguments)
            except TypeError:
                continue  # the original raises; see above
            expected.update(expected.pop(kinds.get(inspect.Parameter.VAR_KEYWORD, ""), {}))
            assert {"self": None, **(parameters.named(args, kwargs) or {})} == expected, name


@pytest.mark.parametrize("value", ["uint64", "int64", "int32", "int16", "uint8", "int8"])
def test_bounds_become_python_integers_where_a_call_enters(value: str) -> None:
    numpy = pytest.importorskip("numpy")
    number = getattr(numpy, value)(7)
    assert type(as_bound(number)) is int
    asked = vector_reads.ranges_of(Parameters.of(AsyncFileSystem._cat_ranges), (["p", "p"], [0, number], number), {})
    assert asked is not None
    assert {type(bound) for column in asked[1:3] for bound in column} == {int}
    with pytest.raises(TypeError):
        as_bound(1.5)


WHAT_IT_IS = """
import copy, inspect, json, pickle, re, sys, weakref
import fsspec
from fsspec.implementations.http import HTTPFileSystem
from fsspec.utils import tokenize
out = {}
for protocol, options in json.loads(sys.argv[1]):
    fs = fsspec.filesystem(protocol, **options)
    again = fsspec.filesystem(protocol, **options)
    names = [name for name in dir(type(fs)) if not name.startswith("__") and callable(getattr(type(fs), name))]
    signatures = {}
    for name in names:
        try: signatures[name] = re.sub("at 0x[0-9a-f]+", "", str(inspect.signature(getattr(fs, name))))
        except (TypeError, ValueError): pass
    functions = {n: [f.__name__, f.__qualname__, f.__module__, f.__doc__, inspect.iscoroutinefunction(f)]
                 for n in names for f in [getattr(type(fs), n, None)] if inspect.isfunction(f)}
    here = re.sub("at 0x[0-9a-f]+", "", repr(fs))
    if protocol == "http":
        try: fs.cat_file("http://127.0.0.1:1/nothing")
        except Exception: pass
    out[protocol] = [sorted(vars(fs)), signatures, functions, here, again is fs, again == fs, hash(fs) == hash(again),
                     copy.copy(fs) is fs, pickle.loads(pickle.dumps(fs)) is fs, len(pickle.dumps(fs)), fs.to_json(),
                     weakref.ref(fs)() is fs, sorted(n for n in vars(type(fs)) if n not in ("_cat_ranges", "cat_ranges",
                     "_open", "_cat", "_isfile", "_exists", "cat_file", "info", "open_async", "_get_file",
                     "_find", "_glob", "_info", "_isdir", "_ls", "_walk", "invalidate_cache"))]
print(json.dumps(out))
"""


def test_instances_and_classes_look_as_without(run_python: RunPython) -> None:
    kinds = [["http", {"headers": {"x": "y"}}]]
    with contextlib.suppress(ImportError):
        fsspec.get_filesystem_class("s3")
        kinds.append(["s3", {"anon": True, "endpoint_url": "http://127.0.0.1:1"}])
    with contextlib.suppress(ImportError):
        fsspec.get_filesystem_class("gs")
        kinds.append(["gs", {"token": "anon"}])
    plain = json.loads(run_python(WHAT_IT_IS, json.dumps(kinds), cache=None).stdout)
    hooked = json.loads(run_python(WHAT_IT_IS, json.dumps(kinds)).stdout)
    assert hooked.keys() == plain.keys()
    for protocol in plain:
        for one, other in zip(hooked[protocol], plain[protocol], strict=True):
            assert one == other
