"""Where a job asks for it, an earlier run of it is looked for, and followed."""

import os
from typing import Any

from jcache.activate.job import program_name
from jcache.profile.reader import Profile, ProfileError
from jcache.profile.select import in_directory, named, runs
from jcache.report.select import SelectionError
from jcache.session import Session, current
from jcache_plugins.prefetch.ahead import Places, Prefetcher
from jcache_plugins.prefetch.guide import Guide

__all__ = ["begin"]

# The one that is followed last.
_followed: list[tuple[Session, Guide | None, Places]] = []


def begin(session: Session) -> Prefetcher | None:
    """Begin to fetch ahead in a session; None where there is no run to go by.

    Args:
        session: One whose settings want it.
    """
    word = session.config.prefetch
    if word == "columns":
        return _follow(session, None)
    errors: list[Any] = []
    guide = None
    try:
        profile = _last_of_this(session, errors) if word == "profile" else named(word, None, errors)
        guide = Guide(profile)
    except (SelectionError, ProfileError) as error:
        errors.append(error)
    if word != "profile":  # the first run has none before it
        for one in errors:
            session.trouble(f"JCACHE_PREFETCH: {one}")
    return _follow(session, guide) if guide is not None and guide.files else None


def _follow(session: Session, guide: Guide | None, places: Places | None = None) -> Prefetcher:
    if not _followed:
        os.register_at_fork(after_in_child=_follow_in_child)  # behind the session's own, which has begun anew by then
    places = {} if places is None else places
    prefetcher = Prefetcher(session, guide, session.counters.profile, places=places)
    _followed[:] = [(session, guide, places)]
    session.counters.profile = prefetcher
    session.places = prefetcher.place
    return prefetcher


def _follow_in_child() -> None:
    for session, guide, places in _followed:
        if session is current():
            _follow(session, guide, places)


def _last_of_this(session: Session, errors: list[ProfileError]) -> Profile:
    """Return the profile of the run of this program before this one.

    Raises:
        SelectionError: There is none.
    """
    config = session.config
    name = config.appname or program_name()
    for run in runs(in_directory(config.profile_directory or config.report_directory or ""), errors):
        if run.run != session.run_id and run.is_called(name):
            return run.profile
    raise SelectionError(f"no profile of {name}")
