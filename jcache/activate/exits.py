"""The end of a process, on every way out of it that Python lets us see.

Normal end, `sys.exit` and exceptions come through `atexit`. The ends that pass it by are taken at their name:
`os._exit` (all children of `multiprocessing` end so), the `exec` family, and SIGTERM where it would kill. What is
left, SIGKILL, a crash of the interpreter, `os.abort`, loses the report and what was not recorded yet, never a right
byte.
"""

import _thread
import os
import sys

from jcache.activate.notice import say
from jcache.system.stopwatch import acquire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

    from jcache.activate.interim import Interim
    from jcache.activate.job import Job
    from jcache.activate.limits import Helper
    from jcache.profile.recorder import Recorder
    from jcache.report.job import JobTitle
    from jcache.report.model import Report
    from jcache.session import Session
    from jcache.settings.config import Config

EXIT_LIMIT_S = 30.0
"""A process's own end is held up no longer than this, by a cache directory that does not answer, say."""

URGENT_LIMIT_S = 10.0
"""The same after SIGTERM and in `os._exit`: batch systems kill a process 30 s after they asked it to end."""

_HANDLER_WAIT_S = 0.25
_CLOSE_SHARE = 0.7  # of a limit goes to closing the session; the rest is for the reports
_HUNG_WAIT_S = 0.5  # for the directory of the reports, once that of the cache is known to hang

# What is called when a process forks cannot be taken back, so it is put in place once and asks for whom it works.
_forks: "list[Ending]" = []
_forks_hooked = False
# The signals that a thread had blocked before it began to fork.
_masks: "dict[int, Any]" = {}


class Ending:
    """Ends this process's part of a job, once: closes the session, saves its report, prints the job's.

    Whichever of the ways out are taken, in whichever order and in whichever threads, the work is done once in each
    process. It is done in a thread of its own, so that a lock which the interrupted main thread holds, or a cache
    directory that hangs, delays the process by a bounded time and cannot stop it. The exit code stays what it was.

    A forked child starts over, with its counters at zero.

    Args:
        job: What this process belongs to.
    """

    def __init__(self, job: "Job") -> None:
        self.job = job
        self._session: Session | None = None
        self._times = (0.0, 0.0)
        self._restore: list[Callable[[], None]] = []
        self._watcher: tuple[int, int] | None = None
        self._interim: Interim | None = None
        self._profile: Recorder | None = None
        self._reset()

    def begin(self, session: "Session") -> None:
        """Take care of a session from now on. In a thread that is not the main one, SIGTERM cannot be caught."""
        global _forks_hooked
        if self._session is session:
            return
        if self._pid != os.getpid():  # forked before there was a session, so nobody told
            self._reset()
        # What threads of ours would import when they need it. A child that is forked in such a moment inherits the
        # lock of a half-imported module, which nobody in it will ever release, and cannot record nor end.
        import fcntl  # noqa: F401
        import resource  # noqa: F401

        import portalocker  # noqa: F401

        import jcache.activate.limits

        if session.config.size is not None:
            import jcache.cache.eviction  # noqa: F401

        self._session = session
        times = os.times()
        self._times = (times.user, times.system)
        self._begin_records()
        self._patch_exits()
        self._catch_sigterm()
        _forks.append(self)
        if not _forks_hooked:
            _forks_hooked = True
            os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after_in_child)
        if sys.version_info >= (3, 12):
            # From 3.12 on no thread can be started in an exit handler: it has to wait there already.
            self._start_worker()
            self._get_helper().start()

    def uninstall(self) -> None:
        """Take back what `begin` put in place."""
        if self in _forks:
            _forks.remove(self)
        self._unwatch_sigterm()
        while self._restore:
            self._restore.pop()()
        if self._helper is not None:
            self._helper.end()

    def at_exit(self) -> None:
        """End this process's part at its normal end."""
        try:
            if sys.stderr is not None:
                sys.stderr.flush()  # or the last unfinished line of the application would follow the report
        except (OSError, ValueError):
            pass  # closed, or nobody reads it
        self.finish(EXIT_LIMIT_S)
        if getattr(sys, "last_type", None) is KeyboardInterrupt and not hasattr(sys, "ps1"):
            _keep_status_of_interrupt()
        if self._dying:
            # SIGTERM came first, and its thread is about to kill: the exit status has to be the signal's.
            self._never.acquire(timeout=URGENT_LIMIT_S)

    def finish(self, limit_s: float = EXIT_LIMIT_S, *, text: bool = True) -> None:
        """Do the work, or wait for the thread that does it; never raises.

        Args:
            limit_s: Return after this time at the latest.
            text: Whether to print the job's report, if this is its root.
        """
        try:
            if not self._claim_work(limit_s, text):
                return
            self._wait(limit_s)
        except BaseException:  # noqa: BLE001, S110 - a second Ctrl-C: the user will not wait
            pass

    def forked(self) -> None:
        """Start over, in a forked child."""
        self._reset()
        if self._watcher is not None:
            # The pipe is the parent's; the thread did not come along.
            reader = self._watcher[0]
            self._unwatch_sigterm()
            os.close(reader)
            self._watch_sigterm()
        self._times = (0.0, 0.0)
        if self._session is not None:
            if self._profile is not None and not self._session.workers.hung:
                self._profile.forget()
            self._session.forget()
            self._begin_records()

    def _reset(self) -> None:
        # Raw locks: a signal handler may come while its own thread is inside the wait of a `threading.Event`, for whose
        # inner lock it would then wait without a limit.
        self._pid = os.getpid()
        self._claim = _thread.allocate_lock()
        self._go = _thread.allocate_lock()
        self._done = _thread.allocate_lock()
        self._never = _thread.allocate_lock()
        for lock in (self._go, self._done, self._never):
            lock.acquire()
        self._has_worker = False
        self._helper: Helper | None = None
        self._noticed = False
        self._dying = False
        self._limit_s = EXIT_LIMIT_S
        self._text = True

    def _claim_work(self, limit_s: float, text: bool) -> bool:
        """Get the work going if nobody has; False where there is none. Takes no lock that other code might hold."""
        if self._pid != os.getpid():
            return False  # forked before there was a session: nothing of this process is ours
        if self._session is None and not self._may_have_to_print():
            return False
        if not self._claim.acquire(blocking=False):
            return True
        self._limit_s = limit_s
        self._text = text
        if not self._has_worker:
            self._start_worker()
        if self._has_worker:
            self._go.release()
        else:
            self._work()
        return True

    def _may_have_to_print(self) -> bool:
        """Tell, without loading or asking anything, whether a process that reads nothing may have others' to print.

        That is what its children read, or the program that it was before.
        """
        if not self.job.is_root:
            return False
        if self.job.follows:
            return True
        # Of the children that were waited for, each that starts Python uses more than the 10 ms that are counted at
        # least. Those of a fork server are not waited for here.
        times = os.times()
        return times.children_user + times.children_system > 0 or "multiprocessing.forkserver" in sys.modules

    def _wait(self, limit_s: float) -> None:
        # The worker releases it once; whoever gets it hands it on to the next.
        if acquire(self._done, limit_s):
            self._done.release()
        else:
            say(f"gave up after {limit_s:g} s: the end of the recording and the report may be missing")

    def _start_worker(self) -> None:
        go = self._go

        def run() -> None:
            go.acquire()
            self._work()

        try:
            _thread.start_new_thread(run, ())
            self._has_worker = True
        except RuntimeError:
            pass  # none to be had, at the interpreter's end or at a limit: the caller does the work itself

    def _work(self) -> None:
        done = self._done
        try:
            self._close_and_report()
        except BaseException as error:  # noqa: BLE001 - the process is ending; one line is all there is to do
            say(f"no report: {type(error).__name__}: {error}")
        finally:
            done.release()

    def _close_and_report(self) -> None:
        session = self._session
        own = None
        if session is None:
            from jcache.settings.config import Config, ConfigError

            try:
                config = Config.from_environ(os.environ)
            except ConfigError:
                return  # with these settings no process of the job had anything to report, and who read has said so
        else:
            config = session.config
            session.close(timeout_s=self._limit_s * _CLOSE_SHARE)
        directory = config.report_directory
        limit_s = min(config.timeout, self._limit_s * (1 - _CLOSE_SHARE) / 3)
        if session is not None:
            if session.workers.hung:
                limit_s = min(limit_s, _HUNG_WAIT_S)
                if directory is not None and config.dir is not None and _is_below(directory, config.dir):
                    directory = None
            profile = self._profile
            if profile is not None and (directory is not None or session.config.profile is not True):
                self._ask(lambda: profile.close(limit_s), limit_s, f"the end of the access profile: {profile.path}")
            if self._interim is not None:
                self._interim.end(limit_s)
            if session.counters.any_activity():
                own = self._save_own(session, directory, limit_s)
        if self._text and self.job.is_root:
            self._print_job(config, own, directory, limit_s)

    def _get_helper(self) -> "Helper":
        if self._helper is None:
            from jcache.activate.limits import Helper

            self._helper = Helper()
        return self._helper

    def _save_own(self, session: "Session", directory: str | None, limit_s: float) -> "Report":
        from jcache.activate.reports import make_own, save_own

        own = make_own(session, self.job, times_before=self._times)
        if directory is not None:
            follows = not self._text  # a program that takes this process over, and prints the job's report
            what = f"no JSON report: {directory}"
            self._ask(lambda: save_own(own, session.config, self.job, follows=follows), limit_s, what)
        return own

    def _ask(self, task: "Callable[[], object]", limit_s: float, otherwise: str) -> bool:
        """Run what may hang; False, with a line on stderr, where it does, the first time."""
        helper = self._get_helper()
        told = helper.hangs
        done = helper.run(task, limit_s)
        if not done and not told:
            say(f"{otherwise} did not answer within {limit_s:.3g} s")
        return done

    def _print_job(self, config: "Config", own: "Report | None", directory: str | None, limit_s: float) -> None:
        marked: list[str] = []
        beside: list[Report] = []
        titles: list[JobTitle] = []

        def look() -> None:
            try:
                marked.extend(self.job.reports(directory) if directory is not None else ())
            except OSError:
                pass  # there may be none

        def load() -> None:
            from jcache.activate.reports import keep_title, others

            beside.extend(others(config, self.job, own, marked))
            if beside:
                # Its first process may be a worker of a pool, whose command tells a user nothing.
                titles.append(keep_title(config, self.job))

        if directory is not None:
            self._ask(look, limit_s, f"the reports of other processes are missing: {directory}")
        if own is None and not marked:
            return
        from jcache.activate.reports import print_job, tidy_reports

        if marked and not self._ask(load, self._limit_s, f"other processes are missing here: {directory}"):
            beside = []
        print_job(config, self.job, own, title=titles[0] if titles else None, beside=beside)
        if directory is not None:
            self._get_helper().run(lambda: tidy_reports(config), limit_s)

    def _begin_records(self) -> None:
        """Begin what is written of this process while it runs."""
        session = self._session
        self._profile = None
        where = None if session is None else session.config.profile_directory
        if session is not None and where is not None:
            from jcache.activate.profiles import begin_profile
            from jcache.activate.reports import called

            name = called(session.config, self.job)
            self._profile = begin_profile(session, run=self.job.run, appname=name, directory=where)
        if session is not None and session.config.tells_metrics and self.job.is_root:
            from jcache.activate.metrics import prepare

            prepare(session.config)
        if session is not None and session.config.stats != 0 and session.config.report_directory is not None:
            from jcache.activate.interim import Interim

            self._interim = Interim(session, self.job, times_before=self._times)

    def _patch_exits(self) -> None:
        leave: Callable[[int], Any] = os._exit
        execv: Callable[..., Any] = os.execv
        execve: Callable[..., Any] = os.execve

        def _exit(status: int) -> None:
            self.finish(URGENT_LIMIT_S)
            leave(status)

        # The report's text is left to the program that follows under this pid, if it is a Python one: it is the root
        # then.
        def _execv(path: "Any", argv: "Any", /) -> None:
            if os.access(path, os.X_OK):  # a search along PATH tries what does not exist, and goes on
                self.finish(URGENT_LIMIT_S, text=False)
            execv(path, argv)

        def _execve(path: "Any", argv: "Any", env: "Any") -> None:
            if isinstance(path, int) or os.access(path, os.X_OK):
                self.finish(URGENT_LIMIT_S, text=False)
            execve(path, argv, env)

        for name, patch in (("_exit", _exit), ("execv", _execv), ("execve", _execve)):
            self._patch(name, patch)

    def _patch(self, name: str, patch: "Callable[..., None]") -> None:
        original = getattr(os, name)
        patch.__name__ = patch.__qualname__ = name
        patch.__doc__ = original.__doc__
        setattr(os, name, patch)

        def restore() -> None:
            if getattr(os, name) is patch:  # else somebody has wrapped ours; it does nothing any more
                setattr(os, name, original)

        self._restore.append(restore)

    def _catch_sigterm(self) -> None:
        import signal

        def on_sigterm(number: int, _frame: "FrameType | None") -> None:
            self._noticed = True
            finished = self._finish_in_handler()
            # From here on another one kills at once. Not before the wait: the watching thread may just be sending one.
            signal.signal(number, signal.SIG_DFL)
            if finished:
                os.kill(os.getpid(), number)
            else:
                self._kill_when_finished(number)

        def restore() -> None:
            try:
                if signal.getsignal(signal.SIGTERM) is on_sigterm:
                    signal.signal(signal.SIGTERM, signal.SIG_DFL)
            except ValueError:
                pass  # not in the main thread; the handler kills all the same

        try:
            if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                signal.signal(signal.SIGTERM, on_sigterm)
                self._restore.append(restore)
                self._watch_sigterm()
        except ValueError:
            pass  # not in the main thread: SIGTERM kills without a report

    def _watch_sigterm(self) -> None:
        """Have a thread see to it that the main thread notices SIGTERM.

        The kernel may hand a signal to any thread, and the main thread, in which Python runs handlers, then sleeps on
        in whatever system call it is in: for good, if it is a worker of a pool that waits for its end by SIGTERM.
        """
        import signal

        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        theirs = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        if theirs != -1:  # an event loop that handles signals; it wakes the main thread as well
            signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
            os.close(reader)
            os.close(writer)
            return
        main = _thread.get_ident()

        def watch() -> None:
            while numbers := os.read(reader, 512):
                while signal.SIGTERM in numbers and not self._noticed and self._watcher == (reader, writer):
                    self._never.acquire(timeout=_HANDLER_WAIT_S / 5)
                    if not self._noticed:
                        signal.pthread_kill(main, signal.SIGTERM)
            os.close(reader)

        self._watcher = (reader, writer)
        try:
            _thread.start_new_thread(watch, ())
        except RuntimeError:
            self._unwatch_sigterm()
            os.close(reader)

    def _unwatch_sigterm(self) -> None:
        if self._watcher is None:
            return
        import signal

        writer = self._watcher[1]
        self._watcher = None
        try:
            current = signal.set_wakeup_fd(-1)
            if current != writer:  # an event loop has put its own there since
                signal.set_wakeup_fd(current, warn_on_full_buffer=False)
        except ValueError:
            return  # not in the main thread; the pipe stays
        os.close(writer)

    def _finish_in_handler(self) -> bool:
        """Finish, in a signal's handler; False where that takes longer than a moment.

        The code that the handler interrupted may hold a lock which the worker needs, and goes on only when the handler
        returns. So the handler waits for a moment, which nearly always does.
        """
        self._dying = True
        return not self._claim_work(URGENT_LIMIT_S, text=True) or self._done.acquire(timeout=_HANDLER_WAIT_S)

    def _kill_when_finished(self, number: int) -> None:
        pid = os.getpid()

        def kill() -> None:
            self._wait(URGENT_LIMIT_S)
            os.kill(pid, number)

        try:
            _thread.start_new_thread(kill, ())
        except RuntimeError:
            kill()


def _is_below(path: str, directory: str) -> bool:
    """Tell from the names alone, since one of them may hang."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _keep_status_of_interrupt() -> None:
    """Let the interpreter end as it was about to, by SIGINT, after an interrupt that nobody caught.

    It keeps that intention in a flag which the next string of code that is executed clears, and importing dataclasses
    executes such strings (CPython's `run_eval_code_obj`, which also sets the flag).
    """
    try:
        exec("raise KeyboardInterrupt")  # noqa: S102 - a constant; what sets the flag is executing a string
    except KeyboardInterrupt:
        pass


def _before() -> None:
    """Have SIGTERM wait while this thread forks.

    A child that got it before it has started over would tell the watching thread of its parent, which would take it for
    the parent's own; and the interpreter forgets what came to a child before it is one.
    """
    import signal

    if _forks:
        _masks[_thread.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _after() -> None:
    import signal

    mask = _masks.pop(_thread.get_ident(), None)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _after_in_child() -> None:
    for ending in _forks:
        ending.forked()
    _after()
    _masks.clear()
