"""The look around before a fetch: who else writes to the journal, what they have published, what they fetch."""

import asyncio
import contextlib
import functools
import threading
import time
from collections.abc import Sequence

from jcache.journal import Contended, Journal, JournalError, Lease, Sole, View
from jcache.planning.snapshot import END
from jcache.ranges import Range
from jcache.reader.host import Host
from jcache.system.locks import pauses

__all__ = ["Lookout"]

# Where a look around takes long, a first fetch of less than this is made without: others at most make it as well.
ALONE_BYTES = 64 << 10
# So long after its last fetch nobody waits any more for a process that fetches alone.
REST_S = 0.05
# What a look around may have taken for the next one to be made on the event loop.
QUICK_S = 0.0005

NO_LEASE = Lease(None, ())


class Lookout:
    """Looks around for the readers of one remote file.

    Args:
        host: The process's recorder and workers.
        local: Whether the cache directory is on this machine.
        writable: Whether what is fetched may be recorded.
    """

    def __init__(self, host: Host, *, local: bool, writable: bool) -> None:
        self._host = host
        self._local = local
        self.writable = writable
        self._announced = False
        self._looked = False

    def moved(self) -> None:
        """Begin anew: another journal is used from now on."""
        self._announced = False

    async def share(self, journal: Journal | None, gaps: Sequence[Range], view: View | None) -> Lease | None:
        """Look around before gaps are fetched.

        Costs one stat of the journal's directory now and then while this process is alone, and a lock for as long as it
        goes on fetching. Where others write, the gaps are leased; if one of them is fetching some of these bytes, or
        was alone until now, its fetch is waited for, a bounded time.

        Args:
            journal: Where they are gaps; None where it is not to be used.
            gaps: What is about to be fetched.
            view: What the journal has; None where the version is not known yet.

        Returns:
            The lease, to be released when the bytes are recorded or will not be; None where some of the bytes are, or
            may be, in the journal by now, so that the read is to be planned anew.
        """
        first, self._looked = not self._looked, True
        if journal is None:
            return NO_LEASE
        if first and not self._local and sum(stop - start for start, stop in gaps if stop != END) < ALONE_BYTES:
            return NO_LEASE
        lease = journal.turn.go_on()
        if lease is not None:
            return lease
        look = _Look(self, journal, gaps, view)
        workers = self._host.workers

        def timed() -> Lease | Contended | None:
            began_s = time.monotonic()
            try:
                return look.around()
            finally:
                workers.look_s = time.monotonic() - began_s

        # Where that is known to be shorter than the way to another thread and back, and to wait for nobody.
        is_quick = self._local and workers.look_s < QUICK_S and not workers.hung
        try:
            if is_quick and not journal.others_live():
                answer = timed()
            else:
                answer = await workers.run(timed)
            return await self._wait(look, answer) if isinstance(answer, Contended) else answer
        except (JournalError, OSError):
            look.leave()
            return NO_LEASE
        except BaseException:
            look.leave()
            raise

    async def _wait(self, look: "_Look", contended: Contended) -> Lease | None:
        """Wait for who stands in the way: until what is needed is published, or is not fetched by them any more."""
        workers, patience, began_s = self._host.workers, self._host.patience, time.monotonic()
        over = False
        for pause_s in pauses(patience.left_s):
            await asyncio.sleep(pause_s)
            # Who was alone keeps the right to go on for a while after what this reader waits for is there.
            over = await workers.run(lambda: contended.is_over() or look.again())
            if over:
                break
        published = await workers.run(look.again)
        patience.waited(time.monotonic() - began_s, in_vain=not published)
        if over:
            return None
        await workers.run(contended.give_up)
        # What came meanwhile is taken; for the rest nobody is waited for.
        return None if published else NO_LEASE

    def be_seen(self, journal: Journal) -> bool:
        """Announce this process, once; return whether others had published anything by then."""
        first, self._announced = not self._announced, True
        with contextlib.suppress(JournalError):
            return first and journal.announce()
        return False

    def release(self, lease: Lease) -> None:
        """Release a lease behind the caller's back: it takes a call on the cache directory."""
        if lease.is_held and not self._host.recorder.call(functools.partial(self.release_here, lease)):
            self.release_here(lease)

    def release_here(self, lease: Lease) -> None:
        """Release a lease on this thread."""
        # In a directory that hangs the call would hang too, whoever makes it; the lease goes with the process.
        if lease.is_held and not self._host.workers.hung:
            lease.release()
            if isinstance(lease, Sole):
                self._host.recorder.later(lease.turn.rest, REST_S)


class _Look:
    """One look around, on a worker thread, for a task that may be gone before it is over."""

    __slots__ = ("_gaps", "_journal", "_lease", "_left", "_lock", "_lookout", "_view")

    def __init__(self, lookout: Lookout, journal: Journal, gaps: Sequence[Range], view: View | None) -> None:
        self._lookout = lookout
        self._journal = journal
        self._gaps = gaps
        self._view = view
        self._lock = threading.Lock()
        self._lease: Lease | None = None
        self._left = False

    def around(self) -> Lease | Contended | None:
        """Return a lease on the gaps, or who stands in the way, or None where some of them are published."""
        journal, writable = self._journal, self._lookout.writable
        found, answer = False, journal.turn.take() if writable else NO_LEASE
        if answer is None or isinstance(answer, Contended):
            found = self._lookout.be_seen(journal)
        if answer is None:
            answer = journal.lease(self._gaps) if journal.turn.has_company or journal.others_live() else NO_LEASE
        if isinstance(answer, Contended):
            return answer
        try:
            return self._shared(answer, found=found)
        except BaseException:
            drop(answer)
            raise

    def _shared(self, answer: Lease, *, found: bool) -> Lease | Contended | None:
        """Return a lease as `around` does, having looked for others behind it."""
        journal, writable = self._journal, self._lookout.writable
        # Whoever holds a lease publishes before releasing it: what is looked for behind one's own is all there.
        # Without waiting for the recorder: then the origin is the faster one.
        found |= journal.refresh(wait=False)
        if not answer.ranges and journal.others_live():
            # They came since the last look, and wait for what is leased only.
            journal.turn.make_room()
            answer.release()
            found |= writable and self._lookout.be_seen(journal)
            after = journal.lease(self._gaps)
            if isinstance(after, Contended):
                return after
            answer = after
            found |= journal.refresh(wait=False)
        elif isinstance(answer, Sole):
            journal.turn.looked()
        if found and self._is_published():
            drop(answer)
            return None
        return self._take(answer)

    def again(self) -> bool:
        """Return whether any of what is needed is published by now."""
        self._journal.refresh(wait=False)
        return self._is_published()

    def leave(self) -> None:
        """Wait no more. A lease is released here: that is one call, on a file that is open."""
        with self._lock:
            self._left = True
            lease = self._lease
        if lease is not None:
            drop(lease)

    def _take(self, lease: Lease) -> Lease:
        """Hand the lease over, or release it where nobody waits for it any more."""
        with self._lock:
            self._lease = lease
            left = self._left
        if left:
            drop(lease)
        return lease

    def _is_published(self) -> bool:
        if self._view is None:
            return bool(self._journal.versions())
        return any(part[2] is not None for gap in self._gaps for part in self._view.find(*gap))


def drop(lease: Lease) -> None:
    """Release a lease on what is not fetched after all."""
    lease.release()
    if isinstance(lease, Sole):
        lease.turn.rest()
