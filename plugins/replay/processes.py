"""A replay as a job of its own: each recorded process has one here, up to a number, cached and reported as any is."""

import contextlib
import json
import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
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

    parent.send(play(what, paths, ready))


def _side_by_side(what: dict[str, Any], shares: list[list[str]]) -> Played:
    """Play recordings in processes that begin together."""
    context = multiprocessing.get_context("spawn")
    played = Played()
    with contextlib.ExitStack() as stack:
        children: list[tuple[Any, Connection]] = []
        for share in shares:
            ours, theirs = context.Pipe()
            process = context.Process(target=_process, args=(what, share, theirs))
            process.start()
            theirs.close()
            stack.enter_context(ours)
            stack.callback(process.join)
            children.append((process, ours))
        for said in ("ready", "begin", "done"):
            for process, child in children:
                try:
                    if said == "begin":
                        child.send(None)
                    elif (one := child.recv()) is not None:
                        played.add(one)
                except (EOFError, BrokenPipeError):
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
