"""Which processes live."""

import os
import subprocess
import sys
import time

from jcache.system.processes import is_alive


def test_this_process_lives_and_one_that_was_waited_for_does_not() -> None:
    assert is_alive(os.getpid())
    assert is_alive(1)
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    assert not is_alive(done.pid)


def test_a_zombie_does_not_live() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    assert is_alive(process.pid)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is still to be waited for
    assert not is_alive(process.pid)
    process.wait()


def test_a_number_that_was_given_again_is_another_process() -> None:
    assert is_alive(os.getpid(), before_s=time.time())
    assert not is_alive(os.getpid(), before_s=1_000_000_000)


def test_numbers_that_no_process_has() -> None:
    assert not is_alive(2**22 + 1)  # beyond the kernel's largest
    assert is_alive(2**70), "nothing is known of it, so nothing is taken from it"
