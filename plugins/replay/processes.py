"""A replay as a job of its own: each recorded process has one here, up to a number, cached and reported as any is."""

import contextlib
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from jcache.profile.reader import Profile, Recording
from jcache_plugins.places import Places
from jcache_plugins.replay.player import Played, Player

__all__ = ["main", "play"]

# Where there are many more, processes take turns all the same; what a replay measures then is the machine it runs on.
PROCESSES_A_CORE = 4


def play(what: dict[str, Any], paths: list[str], ready: Callable[[], object] | None = None) -> Played:
    """Play recordings in this process.

    Args:
        what: `maps`, `speed`, `workers` and `plain` of `Places` and `Player`; `start_time`, when the whole run began.
        paths: The recordings.
        ready: Called before the first request; the run begins when it returns.
    """
    profile = Profile([Recording.open(path) for path in paths])
    # Its clock begins with its own first process.
    later_s = 0.0 if what["speed"] is None else max(profile.start_time - what["start_time"], 0.0) / what["speed"]
    places = Places([(old, new) for old, new in what["maps"]])
    player = Player(profile, places, speed=what["speed"], workers=what["workers"], plain=what["plain"])
    player.prepare()
    if ready is not None:
        ready()
    begin_s = time.monotonic()
    played = player.play(begin_s + later_s)
    played.wall_s = time.monotonic() - begin_s
    return played


def _process(what: dict[str, Any], paths: list[str], parent: Connection) -> None:
    def ready() -> None:
        parent.send(None)
        parent.recv()

    # A parent that was interrupted may be gone before it has ended its children.
    with contextlib.suppress(EOFError, ConnectionError):
        parent.send(play(what, paths, ready))


@contextlib.contextmanager
def _interrupts_kept() -> Iterator[None]:
    """Keep interrupts from this process for a moment, and from those that it starts by then for good."""
    resource_tracker.ensure_running()  # it lets them through once it has begun, which a first child would have it do
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _side_by_side(what: dict[str, Any], shares: list[list[str]]) -> Played:
    """Play recordings in processes that begin together."""
    children: list[tuple[BaseProcess, Connection]] = []
    try:
        for share in shares:
            with _interrupts_kept():
                children.append(_begun(what, share))
        return _played(children)
    except BaseException:
        for process, _ in children:
            process.terminate()
        raise
    finally:
        for process, ours in children:
            process.join()
            ours.close()


def _begun(what: dict[str, Any], share: list[str]) -> tuple[BaseProcess, Connection]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_process, args=(what, share, theirs))
    process.start()
    theirs.close()
    return process, ours


def _played(children: list[tuple[BaseProcess, Connection]]) -> Played:
    """Have all begin when all are ready; return what they did."""
    played, children = Played(), list(children)
    for said in ("ready", "begin", "done"):
        for process, child in list(children):
            try:
                if said == "begin":
                    child.send(None)
                elif (one := child.recv()) is not None:
                    played.add(one)
            except (EOFError, ConnectionError):
                children.remove((process, child))
                process.join()
                played.failed[f"a process ended with {process.exitcode}"] += 1
    return played


def main(spec: str, result: str) -> None:
    """Do what one file says, and write into another what was done; both JSON."""
    with open(spec, encoding="utf-8") as file:
        what = json.load(file)
    paths: list[str] = what["paths"]
    count = min(what["workers"] or len(paths), len(paths), PROCESSES_A_CORE * (os.cpu_count() or 1))
    if what["workers"] is not None:
        what["workers"] = -(-what["workers"] // count)
    played = play(what, paths) if count == 1 else _side_by_side(what, [paths[i::count] for i in range(count)])
    with open(result, "w", encoding="utf-8") as file:
        json.dump(played.to_json(), file)
