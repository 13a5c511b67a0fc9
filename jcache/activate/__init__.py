"""From the environment to a session, and from the session's end to its reports.

`start` is what the `.pth` file calls in every Python process that has `JCACHE_DIR` set, most of which never read a
remote byte. So it only puts a finder on `sys.meta_path` that knows the names of the modules for which there are
plug-ins; the session, wrapt and the plug-ins themselves are loaded when the first of these modules is imported.

Modules of this package import at their top only what the interpreter has loaded anyway when it starts: no `typing`,
`dataclasses`, `threading` or `signal`. A test measures it.
"""

import atexit
import os
import sys

from jcache.activate.exits import Ending
from jcache.activate.job import Job
from jcache.activate.notice import say, say_once
from jcache.activate.plugins import PluginHooks
from jcache.settings.several import directories, files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jcache.session import Session
    from jcache.settings.config import Config

__all__ = ["activate", "deactivate", "ensure", "ensure_directory", "start"]

_PATHS = ("JCACHE_DIR", "JCACHE_JSON", "JCACHE_CONFIG", "JCACHE_PROFILE", "JCACHE_BUNDLES", "JCACHE_METRICS")
_SEVERAL = {"JCACHE_DIR": directories, "JCACHE_BUNDLES": files}
_WORDS = ("0", "1", "yes", "no", "on", "off", "true", "false")

_ending: Ending | None = None
_hooks: PluginHooks | None = None
_failed = False


def start() -> None:
    """Make this process ready to cache: the session begins when a module that has a plug-in is first imported.

    Called by the `.pth` file; never raises, whatever the environment holds. A second call changes nothing.
    """
    try:
        for name in _PATHS:
            value = os.environ.get(name)
            if not value or (name == "JCACHE_PROFILE" and value.lower() in _WORDS):
                continue
            # The session begins later and children elsewhere; where the user was when they said it is what counts.
            words = _SEVERAL[name](value) if name in _SEVERAL else [value]
            os.environ[name] = os.pathsep.join(word if word[:1] in "/~" else os.path.abspath(word) for word in words)
        if not os.environ.get("JCACHE_DIR"):
            os.environ["JCACHE_DIR"] = _for_this_job()
        _arm()
    except Exception as error:  # noqa: BLE001 - nothing of ours may break the start of an interpreter
        say(f"not active: {type(error).__name__}: {error}")


def _for_this_job() -> str:
    """Return a cache directory that goes with this process: bundles are read, and nothing else is to be kept."""
    import shutil
    import tempfile

    directory, pid = tempfile.mkdtemp(prefix="jcache-"), os.getpid()

    def remove() -> None:
        if os.getpid() == pid:
            shutil.rmtree(directory, ignore_errors=True)

    atexit.register(remove)  # before what ends the session, and so called after it
    return directory


def activate(config: "Config | None" = None) -> "Session":
    """Begin caching now, with all plug-ins, as `JCACHE_DIR` in the environment would.

    A session that is running already is returned as it is. One that only caches where it is told to (of `ensure`) ends,
    for it has no directory that plug-ins could cache in.

    Args:
        config: What to use instead of the environment's settings.

    Returns:
        The session; it ends with the process or by `deactivate`.

    Raises:
        ConfigError: The environment's settings are wrong, or there are none.
    """
    from jcache import session
    from jcache.settings.config import Config, ConfigError

    global _failed
    running = session.current()
    if running is not None and running.config.dir is not None:
        return running
    if config is None:
        config = Config.from_environ(os.environ)
        if config.dir is None:
            raise ConfigError("JCACHE_DIR is not set: it says where the cache is")
    if running is not None:
        deactivate()
    ending, hooks = _arm()
    begun = _begin_with(ending, config)
    _failed = False
    hooks.scan()
    return begun


def ensure() -> "Session":
    """Return the session of this process; where JCache is not active, one that caches only where it is told to.

    For what a program calls by name, such as the `jcache::` protocol, with `JCACHE_DIR` unset. Such a session, too, is
    closed when the process ends, on whichever way; it hooks no plug-in and leaves no report.
    """
    from jcache import session

    running = session.current()
    if running is None:
        ending = _arm_ending()
        running = session.ensure()
        ending.begin(running)
    return running


def ensure_directory(cache_dir: str | None) -> None:
    """Ensure a session for what is cached by name.

    Args:
        cache_dir: The cache directory; None for JCACHE_DIR.

    Raises:
        ValueError: Neither is there.
    """
    if ensure().config.dir is None and cache_dir is None:
        msg = "jcache needs a cache directory: set JCACHE_DIR, or pass cache_dir=..."
        raise ValueError(msg)


def deactivate() -> None:
    """Undo `activate` and `start`: unhook the plug-ins, end the session, write its report as the process's end would.

    Does nothing where nothing is active.
    """
    global _ending, _hooks, _failed
    hooks, _hooks = _hooks, None
    ending, _ending = _ending, None
    _failed = False
    if hooks is not None:
        hooks.uninstall()
    if ending is not None:
        atexit.unregister(ending.at_exit)
        ending.finish()
        ending.uninstall()
        ending.job.leave(os.environ)
        # Not before: without a session there may be no need to load its module.
        module = sys.modules.get("jcache.session")
        if module is not None:
            module.stop()


def _arm() -> tuple[Ending, PluginHooks]:
    global _hooks
    ending = _arm_ending()
    if _hooks is None:
        _hooks = PluginHooks(_begin)
        _hooks.install()
    return ending, _hooks


def _arm_ending() -> Ending:
    global _ending
    if _ending is None:
        _ending = Ending(Job.join(os.environ))
        # As early as possible: exit handlers run last in, first out, and those of the application may still read.
        atexit.register(_ending.at_exit)
    return _ending


def _begin() -> bool:
    """Begin the session that a plug-in is about to need; False, with one line on stderr, where that cannot be."""
    global _failed
    if _failed or _ending is None:
        return False
    try:
        from jcache import session
        from jcache.settings.config import Config

        running = session.current()
        if running is not None:
            _ending.begin(running)
        else:
            _begin_with(_ending, Config.from_environ(os.environ))
    except Exception as error:  # noqa: BLE001 - the job runs uncached, whatever is wrong with the cache
        _failed = True
        say_once(f"not caching: {error}")
        return False
    return True


def _begin_with(ending: Ending, config: "Config") -> "Session":
    from jcache import session
    from jcache.activate.job import program_name

    begun = session.start(config, run_id=ending.job.run)
    if config.ignored:
        say_once(config.ignored)
    name = program_name()
    if name in config.noapp:
        begun.bypass(f"JCACHE_NOAPP names {name}")
    ending.begin(begun)
    return begun
