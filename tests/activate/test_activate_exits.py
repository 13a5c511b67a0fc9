"""Ways out of a process: each leaves a JSON report per process that read, a text report per job, and its exit code."""

from __future__ import annotations

import os
import signal
import sys

import pytest
from activation import LIMIT_S, Ended, Site

from jcache.report.job import title_of


def read_bytes(run: Ended) -> list[int]:
    return sorted(report["read"]["bytes"] for report in run.reports)


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("", 0),
        ("sys.exit(3)", 3),
        ("raise ValueError('x')", 1),
        ("raise KeyboardInterrupt", -signal.SIGINT),
        # Not one long sleep: a signal between Python's look for one and the call that sleeps is seen when that is over.
        ("os.kill(os.getpid(), signal.SIGINT)\nwhile True: time.sleep(0.1)", -signal.SIGINT),
        ("os._exit(4)", 4),
        ("os._exit(status=6)", 6),
        ("threading.Thread(target=os._exit, args=(5,)).start(); time.sleep(60)", 5),
        ("os.kill(os.getpid(), signal.SIGTERM)\nwhile True: time.sleep(0.1)", -signal.SIGTERM),
        # The main thread sleeps on, since the signal is another thread's, as the kernel's choice may be for any signal.
        (
            "threading.Thread(target=lambda: signal.pthread_kill(threading.get_ident(), 15)).start(); time.sleep(300)",
            -signal.SIGTERM,
        ),
        ("atexit.register(os._exit, 7)", 7),
        ("atexit.register(os.kill, os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
        ("threading.Thread(target=time.sleep, args=(60,), daemon=True).start()", 0),
        ("threading.Thread(target=lambda: (time.sleep(0.2), faraway.read(0))).start()", 0),
        ("sys.stderr.close()", 0),
        ("sys.stderr = None", 0),
        ("atexit.register(lambda: faraway.read(0))", 0),
    ],
)
def test_ways_out(site: Site, ending: str, code: int) -> None:
    program = site.script(f"import atexit, faraway, os, signal, sys, threading, time\nfaraway.read(10)\n{ending}\n")
    run = site.run(program)
    assert run.code == code
    assert read_bytes(run) == [10], run.err
    assert run.panels == 1, run.err
    assert "jcache: " not in run.err


def test_stderr_that_is_closed_or_gone(site: Site) -> None:
    program = site.script("import faraway, os\nfaraway.read(10)\nos.close(2)\n")
    run = site.run(program)
    assert (run.code, read_bytes(run)) == (0, [10])


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("end", ["terminate", "close"])
def test_multiprocessing_pools(site: Site, method: str, end: str) -> None:
    # The barrier makes both workers take part: without it one of them may do all the work.
    program = site.script(f"""
import multiprocessing as mp
import faraway

def begin(shared):
    global barrier
    barrier = shared

def work(n):
    barrier.wait({LIMIT_S})
    return faraway.read(n)

if __name__ == "__main__":
    context = mp.get_context({method!r})
    faraway.read(1)
    with context.Pool(2, begin, (context.Barrier(2),)) as pool:
        print(sum(pool.map(work, [10, 10], chunksize=1)))
        if {end!r} == "close":
            pool.close()
            pool.join()
""")
    run = site.run(program)
    assert (run.code, run.out) == (0, "20\n"), run.err
    assert read_bytes(run) == [1, 10, 10], run.err
    assert run.panels == 1
    assert "3 processes" in run.err
    assert {report["appname"] for report in run.reports} == {"job"}
    assert len({report["run"] for report in run.reports}) == 1
    assert len({report["pid"] for report in run.reports}) == 3


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_pool_is_reported_under_the_command_that_the_user_started(site: Site, method: str) -> None:
    program = site.script(f"""
import multiprocessing as mp, sys

def work(n):
    import faraway
    return faraway.read(n)

if __name__ == "__main__":
    with mp.get_context({method!r}).Pool(2) as pool:
        pool.map(work, [10, 10])
""")
    run = site.run(program, "--year", "2018")
    assert run.panels == 1, run.err
    assert "spawn_main" not in run.err
    (run_id,) = {report["run"] for report in run.reports}
    title = title_of(str(site.cache / ".reports"), run_id)
    assert title is not None
    assert title.appname == "job"
    assert title.command.endswith("--year 2018")
    assert f"(pid {title.pid})" in run.err
    assert title.pid not in {report["pid"] for report in run.reports}


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_processes_of_a_job(site: Site, method: str, number: signal.Signals) -> None:
    program = site.script(f"""
import multiprocessing as mp, os, time
import faraway

def work(n):
    faraway.read(n)
    os.write(1, b"up\\n")
    for _ in range(3000):  # a signal right before a long sleep is not seen before that is over
        time.sleep(0.1)

if __name__ == "__main__":
    os.setpgid(0, 0)
    faraway.read(1)
    with mp.get_context({method!r}).Pool(2) as pool:
        pool.map(work, [10, 10], chunksize=1)
""")
    process = site.start(program)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["up\n", "up\n"]
    os.killpg(process.pid, number)
    run = site.end(process)
    assert run.code == -number
    assert run.panels == 1
    assert 1 in read_bytes(run)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_process_pool_executor(site: Site, method: str) -> None:
    program = site.script(f"""
import multiprocessing as mp
from concurrent.futures import ProcessPoolExecutor
import faraway

def work(n):
    return faraway.read(n)

if __name__ == "__main__":
    with ProcessPoolExecutor(1, mp_context=mp.get_context({method!r})) as pool:
        print(sum(pool.map(work, [10, 20])))
""")
    run = site.run(program)
    assert (run.code, run.out) == (0, "30\n"), run.err
    assert read_bytes(run) == [30]
    assert run.panels == 1


@pytest.mark.parametrize(
    "child", ["os._exit(0)", "sys.exit(0)", "pass", "raise ValueError", "os.kill(os.getpid(), 15)"]
)
@pytest.mark.parametrize("parent", ["os._exit(0)", "sys.exit(0)", "pass"])
def test_both_sides_of_a_fork(site: Site, child: str, parent: str) -> None:
    program = site.script(f"""
import os, sys, faraway
faraway.read(5)
pid = os.fork()
if pid == 0:
    faraway.read(100)
    {child}
else:
    os.waitpid(pid, 0)
    faraway.read(7)
    {parent}
""")
    run = site.run(program)
    assert run.code == 0
    assert read_bytes(run) == [12, 100], run.err
    assert run.panels == 1
    assert "2 processes" in run.err


def test_a_child_that_is_ended_as_soon_as_it_is_forked_ends_alone(site: Site) -> None:
    program = site.script("""
import multiprocessing, os, signal, time
forked = []
os.register_at_fork(after_in_child=lambda: forked and os.kill(os.getpid(), signal.SIGTERM))
import faraway
faraway.read(5)
for number in range(100):
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    if number % 2:
        forked.append(number)
    child.start()
    child.terminate()
    forked.clear()
    child.join()
    assert child.exitcode == -signal.SIGTERM
assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
faraway.read(7)
""")
    run = site.run(program)
    assert (run.code, read_bytes(run), run.panels) == (0, [12], 1), run.err


def test_a_forked_child_that_reads_nothing_leaves_nothing(site: Site) -> None:
    program = site.script("import os, faraway\nfaraway.read(5)\nif os.fork() == 0:\n    pass\nelse:\n    os.wait()\n")
    run = site.run(program)
    assert (run.code, read_bytes(run), run.panels) == (0, [5], 1)


def test_a_fork_before_the_session(site: Site) -> None:
    program = site.script(
        "import os\nif os.fork() == 0:\n    import faraway\n    faraway.read(5)\n    os._exit(0)\nos.wait()\n"
    )
    run = site.run(program)
    assert (run.code, read_bytes(run), run.panels) == (0, [5], 1)


def test_a_driver_that_reads_nothing_prints_for_its_children(site: Site) -> None:
    child = "import faraway; faraway.read(10)"
    program = site.script(
        f"import subprocess, sys\nfor _ in range(2):\n    subprocess.run([sys.executable, '-c', {child!r}])\n"
    )
    run = site.run(program)
    assert (run.code, read_bytes(run), run.panels) == (0, [10, 10], 1)
    assert "2 processes" in run.err
    assert not list(site.cache.joinpath(".reports", ".runs").iterdir())


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("first", ["import faraway", "pass"])
def test_a_driver_that_reads_nothing_prints_for_its_pool(site: Site, method: str, first: str) -> None:
    program = site.script(f"""
import multiprocessing as mp
{first}

def work(n):
    import faraway
    return faraway.read(n)

if __name__ == "__main__":
    with mp.get_context({method!r}).Pool(1) as pool:
        print(sum(pool.map(work, [10, 20])))
""")
    run = site.run(program)
    assert (run.code, run.out, read_bytes(run), run.panels) == (0, "30\n", [30], 1), run.err


def test_a_grandchild_belongs_to_the_job(site: Site) -> None:
    grandchild = site.script("import faraway; faraway.read(10)", "grandchild.py")
    child = site.script(f"import os, sys; os.system(sys.executable + ' ' + {grandchild!r})", "child.py")
    run = site.run(site.script(f"import subprocess, sys; subprocess.run([sys.executable, {child!r}])"))
    assert (run.code, read_bytes(run), run.panels) == (0, [10], 1)


@pytest.mark.parametrize("after", ["import faraway; faraway.read(2)", "pass"], ids=["reads", "reads nothing"])
def test_exec_saves_and_the_program_that_follows_prints(site: Site, after: str) -> None:
    reads = "read" in after
    after = site.script(after, "after.py")
    program = site.script(f"""
import os, sys, faraway
faraway.read(1)
try:
    os.execlp("/nowhere/at/all", "x")
except FileNotFoundError:
    faraway.read(10)
os.execv(sys.executable, [sys.executable, {after!r}])
""")
    run = site.run(program)
    assert (run.code, read_bytes(run), run.panels) == (0, [2, 11] if reads else [11], 1), run.err
    assert len({report["pid"] for report in run.reports}) == 1
    assert ("2 processes" in run.err) is reads


def test_sigterm_from_outside_while_the_main_thread_reads(site: Site) -> None:
    # The counters' lock is held for much of the time, so the signal often comes while the main thread holds it.
    program = site.script(
        "import faraway\nfaraway.read(1)\nprint('up', flush=True)\nwhile True:\n    faraway.read(1)\n"
    )
    for _ in range(5):
        process = site.start(program)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGTERM)
        run = site.end(process)
        assert run.code == -signal.SIGTERM
        assert run.panels == 1, run.err
    assert len(run.reports) == 5


def test_sigterm_while_the_main_thread_holds_what_the_end_needs(site: Site) -> None:
    program = site.script("""
import os, signal, time
import faraway, jcache.session
faraway.read(10)
with jcache.session.current().counters._lock:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.1)
print("released", flush=True)
time.sleep(60)
""")
    run = site.run(program)
    assert (run.code, run.out) == (-signal.SIGTERM, "released\n")
    assert (read_bytes(run), run.panels) == ([10], 1)


@pytest.mark.parametrize("way", ["os._exit(9)", "sys.exit(9)", "os.kill(os.getpid(), 15)"])
def test_an_end_that_hangs_is_given_up(site: Site, way: str) -> None:
    program = site.script(f"""
import os, sys, time
import faraway, jcache.session
import jcache.activate.exits as exits
exits.EXIT_LIMIT_S = exits.URGENT_LIMIT_S = 0.5
faraway.read(10)
jcache.session.current().close = lambda **_: time.sleep(300)
{way}
time.sleep(300)
""")
    run = site.run(program, JCACHE_STATS="0")  # or what was read has an interim report after a second
    assert run.code == (-signal.SIGTERM if "kill" in way else 9)
    assert read_bytes(run) == []
    assert run.err.count("jcache: gave up after ") == 1
    assert run.panels == 0


@pytest.mark.parametrize("broken", ["save_own", "keep_title", "tidy_reports"])
def test_what_fails_on_the_way_out_is_one_line(site: Site, broken: str) -> None:
    program = site.script(f"""
import os, faraway
import jcache.activate.reports as reports
def fails(*args, **names):
    raise TypeError("not what it should be")
if os.fork() == 0:
    faraway.read(1)
    os._exit(0)
os.wait()
reports.{broken} = fails
faraway.read(10)
""")
    run = site.run(program)
    assert run.code == 0
    assert run.err.count("jcache: ") == run.err.count(": TypeError: not what it should be\n") == 1, run.err


def test_the_applications_own_handlers_stay(site: Site) -> None:
    program = site.script("""
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(8))
import faraway
faraway.read(10)
os.kill(os.getpid(), signal.SIGTERM)
for _ in range(600):  # any thread may take a signal, and the main one hears of it between two lines
    time.sleep(0.1)
""")
    run = site.run(program)
    assert (run.code, read_bytes(run), run.panels) == (8, [10], 1)
    program = site.script("""
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
import faraway
faraway.read(10)
os.kill(os.getpid(), signal.SIGTERM)
print("lives")
""")
    run = site.run(program)
    assert (run.code, run.out, run.panels) == (0, "lives\n", 1)


def test_nothing_is_left_to_import_where_threads_run_and_children_are_forked(site: Site) -> None:
    """A child forked while a thread imports a module can never import it, and would hang at its first lock."""
    program = site.script("""
import os, sys, faraway
from jcache.journal import Journal, Version
from jcache.system.storage import Storage
faraway.read(1)
before = set(sys.modules)
journal = Journal(Storage(), os.environ["JCACHE_DIR"] + "/x", "far://host/x")
journal.attach()
journal.append(Version(size_bytes=10, mtime_ns=1), {}, [(0, b"0123456789")])
journal.close()
print(sorted(set(sys.modules) - before))
""")
    site.cache.mkdir()
    run = site.run(program)
    assert run.out == "[]\n", run.err


def test_a_session_that_begins_in_a_thread(site: Site) -> None:
    program = site.script("""
import threading
def work():
    import faraway
    faraway.read(10)
thread = threading.Thread(target=work)
thread.start()
thread.join()
""")
    run = site.run(program)
    assert (run.code, read_bytes(run), run.panels) == (0, [10], 1), run.err


def test_a_job_whose_root_is_gone_is_no_job(site: Site) -> None:
    dead = f"0123456789abcdef process {os.uname().nodename} 4194303 4194303 old program"
    run = site.run("-c", "import faraway; faraway.read(10)", _JCACHE_RUN=dead)
    assert run.panels == 1
    assert run.reports[0]["run"] != "0123456789abcdef"


@pytest.mark.parametrize("variable", ["", "garbage", "a b c d e f", f"x process {os.uname().nodename} 1 two p"])
def test_a_job_variable_that_is_damaged(site: Site, variable: str) -> None:
    run = site.run("-c", "import faraway; faraway.read(10)", _JCACHE_RUN=variable)
    assert (run.code, run.panels, len(run.reports)) == (0, 1, 1)


def test_a_program_at_its_own_terminal_is_its_own_job(site: Site) -> None:
    """A notebook server gives its users terminals; what they start there reports there, not when the server ends."""
    inner = site.script("import faraway; faraway.read(10)", "inner.py")
    program = site.script(f"""
import os, pty, sys
pid, fd = pty.fork()
if pid == 0:
    os.execv(sys.executable, [sys.executable, {inner!r}])
seen = b""
while True:
    try:
        data = os.read(fd, 65536)
    except OSError:
        break
    if not data:
        break
    seen += data
os.waitpid(pid, 0)
print(seen.count(b"cache combined hit rate"))
""")
    run = site.run(program)
    assert (run.out, run.panels, len(run.reports)) == ("1\n", 0, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_marks_of_killed_roots_are_swept(site: Site) -> None:
    old = site.cache / ".reports" / ".runs" / "feedfeedfeedfeed"
    old.mkdir(parents=True)
    old.joinpath("jcache.x.json").touch()
    young = old.with_name("beefbeefbeefbeef")
    young.mkdir()
    os.utime(old, (0, 0))
    site.run("-c", "import faraway, os; faraway.read(10)\npid = os.fork()\nif pid: os.waitpid(pid, 0)\nfaraway.read(1)")
    assert os.listdir(old.parent) == [young.name], "by the next job of more than one process"
