"""Which processes belong together: the job that the user started, told to its processes by an environment variable.

The first process of a job is its root: it prints the one text report. Every process that has saved a report leaves an
empty file of the report's name in `.runs/<run id>` below the reports' directory, so that the root finds the reports
of its job without looking at those of all jobs before it.
"""

import os
import sys
import time

from jcache.system.processes import host_and_space, is_alive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence

    from jcache.system.storage import Storage

VARIABLE = "_JCACHE_RUN"
"""`<run id> <mode> <host and PID namespace> <root's pid> <root's process group> <root's program>`, for the processes of
one job only."""

_RUNS = ".runs"
_LITTER_S = 7 * 86400.0


class Job:
    """The job that this process belongs to.

    Args:
        run: Name of the job, the same in all of its processes.
        root_pid: The process that prints the text report.
        program: The root's name, for processes that have none of their own.
        follows: Whether this process was another program before, which became this one by exec.
    """

    # No dataclass: importing that machinery costs more than all else that happens at start-up.
    __slots__ = ("follows", "program", "root_pid", "run")

    def __init__(self, run: str, *, root_pid: int, program: str, follows: bool = False) -> None:
        self.run = run
        self.root_pid = root_pid
        self.program = program
        self.follows = follows

    @classmethod
    def join(cls, environ: "MutableMapping[str, str]") -> "Job":
        """Return the job that the environment names or, where it names none that goes on, begin one and name it there.

        Args:
            environ: The environment that child processes will inherit.
        """
        try:
            run, mode, host, pid, group, program = environ[VARIABLE].split(" ", 5)
            root_pid, root_group = int(pid), int(group)
        except (KeyError, ValueError):
            return cls.begin(environ)
        # `jcache run` was asked to gather all processes of its command, wherever they run.
        if mode == "command" or _is_member(host, root_pid, root_group):
            root_pid = root_pid if host == host_and_space() else 0
            return cls(run, root_pid=root_pid, program=program, follows=root_pid == os.getpid())
        return cls.begin(environ)

    @classmethod
    def begin(cls, environ: "MutableMapping[str, str]", *, command: str | None = None) -> "Job":
        """Begin a job whose root is this process, and name it in the environment.

        Args:
            environ: The environment that child processes will inherit.
            command: Name of the command that this process runs on the user's behalf, itself being no part of the job.
        """
        run = os.urandom(8).hex()
        program = program_name() if command is None else command
        mode = "process" if command is None else "command"
        host, pid, group = host_and_space(), os.getpid(), os.getpgrp()
        environ[VARIABLE] = f"{run} {mode} {host} {pid} {group} {program}"
        return cls(run, root_pid=pid, program=program)

    def leave(self, environ: "MutableMapping[str, str]") -> None:
        """Take the job's name out of the environment, where this process began it: what follows is another.

        Args:
            environ: The environment that child processes will inherit.
        """
        if self.is_root and environ.get(VARIABLE, "").startswith(f"{self.run} process "):
            del environ[VARIABLE]

    @property
    def is_root(self) -> bool:
        """Whether this process is the one that the user started. A forked child has another pid and is not."""
        return os.getpid() == self.root_pid

    def mark(self, report: str) -> None:
        """Tell the root of a report that was saved, unless the root is gone.

        Args:
            report: Its path.

        Raises:
            OSError: The mark cannot be written; the root's text report will be without this process.
        """
        from jcache.report.places import make_inside, storage_of

        if self.root_pid and not is_alive(self.root_pid):
            return
        directory, name = os.path.split(os.path.abspath(report))
        storage = storage_of(directory)
        marks = self._marks(directory)
        for path in (os.path.dirname(marks), marks):
            make_inside(storage, path)
        storage.close(storage.open(os.path.join(marks, name), os.O_WRONLY | os.O_CREAT))

    def reports(self, directory: str) -> list[str]:
        """Return the paths of the reports that processes of this job have marked in a directory, by one call as a rule.

        Raises:
            OSError: The directory cannot be read; not raised where it does not exist.
        """
        from jcache.report.places import storage_of

        directory = os.path.abspath(directory)
        try:
            names = storage_of(directory).listdir(self._marks(directory))
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [os.path.join(directory, name) for name in sorted(names)]

    def clear(self, directory: str) -> None:
        """Remove the job's marks, and what killed roots left behind a week ago; the reports stay.

        Never raises: marks are small, and harmless.
        """
        from jcache.report.places import storage_of

        directory = os.path.abspath(directory)
        storage = storage_of(directory)
        runs = os.path.dirname(self._marks(directory))
        _remove_marks(storage, self._marks(directory))
        try:
            old = time.time() - _LITTER_S
            for name in storage.listdir(runs):
                path = os.path.join(runs, name)
                if storage.stat(path).st_mtime < old:
                    _remove_marks(storage, path)
        except OSError:
            pass  # the next root tries again

    def _marks(self, directory: str) -> str:
        return os.path.join(directory, _RUNS, self.run)


def program_name(command: "Sequence[str] | None" = None) -> str:
    """Return what a user calls a program: the script's name without `.py`, or the module after `-m`; else `python`.

    Args:
        command: A Python's command line; by default this one's, complete from its first moment on and never changed.
    """
    arguments = iter((sys.orig_argv if command is None else command)[1:])
    for argument in arguments:
        if argument.startswith("--"):
            if argument == "--check-hash-based-pycs":
                next(arguments, None)
        elif argument == "-":
            break
        elif argument.startswith("-"):
            # Flags can stand together; the first that takes a value takes the rest of the word, or the next one.
            position = next((i for i, flag in enumerate(argument) if i and flag in "cmWX"), None)
            if position is None:
                continue
            value = argument[position + 1 :] or next(arguments, "")
            if argument[position] == "m":
                return value or "python"
            if argument[position] == "c":
                break
        else:
            name = os.path.basename(argument.rstrip("/"))
            if name == "__main__.py":
                name = os.path.basename(os.path.dirname(os.path.abspath(argument)))
            return name.removesuffix(".py") or "python"
    return "python"


def _is_member(host: str, root_pid: int, root_group: int) -> bool:
    """Tell whether this process works for the root that its environment names.

    Not so where the variable was handed on by accident: on another host (a batch system copied the environment), in
    another PID namespace (a container), when the root is gone, or when a user started this process at a terminal that a
    program of that job gave them (a notebook server).
    """
    if host != host_and_space():
        return False
    if root_pid == os.getpid():  # the root has replaced itself by exec
        return True
    if not is_alive(root_pid):
        return False
    group = os.getpgrp()
    if group != root_group:
        try:
            return os.tcgetpgrp(2) != group
        except OSError:
            pass  # stderr is no terminal
    return True


def _remove_marks(storage: "Storage", path: str) -> None:
    try:
        for name in storage.listdir(path):
            storage.unlink(os.path.join(path, name))
        storage.rmdir(path)
    except OSError:
        pass  # another process is adding a mark, or removed them first
