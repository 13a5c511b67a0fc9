"""The parent of several workers, which all listen on the same sockets: it starts them, and others for those that die.

A worker is the parent's own command once more, with a session and reports of its own. The parent reads nothing, so it
loads neither fsspec nor aiohttp; at its end it prints the report of them all, as the first process of any job.
"""

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from jcache.activate.notice import say
from jcache_plugins.gateway import handover, systemd
from jcache_plugins.gateway.channel import ANSWER_S, VARIABLE, Channel, Orders
from jcache_plugins.gateway.metrics import Numbers, added, lasting

__all__ = ["Parent"]

# The pause before a worker is started in the place of one that died; it doubles with each that has answered for less
# than `SOON_S`.
PAUSE_S, LONGEST_PAUSE_S, SOON_S = 0.25, 30.0, 10.0
# How long a worker may take to end after its requests have: its session ends within 30 s.
END_S = 60.0


@dataclass(eq=False, slots=True)
class _Worker:
    """A worker that runs.

    Attributes:
        ready_s: When it began to answer requests; None before that.
        numbers: What it has done, as far as it has told.
        answers: What waits for it to tell that, by numbers.
    """

    process: Process
    channel: Channel
    ready_s: float | None = None
    numbers: Numbers = field(default_factory=dict)
    answers: dict[int, asyncio.Future[None]] = field(default_factory=dict)


class Parent:
    """Runs workers until it is told to end.

    Args:
        count: How many.
        listeners: The sockets on which they listen.
        is_offered: Whether a gateway that comes after it may have these sockets.
        drain_s: How long the workers let requests take that are under way at their end.
        started: Called with the address once the first of them answers.
    """

    def __init__(
        self,
        count: int,
        listeners: Sequence[socket.socket],
        *,
        is_offered: bool,
        drain_s: float,
        started: Callable[[str], None],
    ) -> None:
        self._count, self._listeners, self._is_offered = count, listeners, is_offered
        self._drain_s, self._started = drain_s, started
        self._name = f"jcache-{secrets.token_hex(4)}"
        self._workers: set[_Worker] = set()
        self._gone: Numbers = {}
        self._died = self._asked = 0

    def run(self) -> int:
        """Run them; return the exit code, which is 0 unless the first one could not begin: then it is that one's."""
        return asyncio.run(self._run())

    async def _run(self) -> int:
        loop = asyncio.get_running_loop()
        self._orders = Orders()
        self._ready: asyncio.Future[str] = loop.create_future()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._orders.advance)
        # The first one finds out whether what is to be served can be.
        slots = [asyncio.ensure_future(self._keep())]
        ordered = asyncio.ensure_future(self._orders.drain.wait())
        begun: set[asyncio.Future[Any]] = {self._ready, slots[0], ordered}
        await asyncio.wait(begun, return_when=asyncio.FIRST_COMPLETED)
        if not self._ready.done() and slots[0].done():
            return slots[0].result()
        if not self._ready.done():  # it is to end before it has begun
            for worker in self._workers:
                worker.process.terminate()
            await self._end(asyncio.gather(*slots))
            return 0
        self._started(self._ready.result())
        systemd.tell("READY=1")
        offer = handover.offer(self._listeners) if self._is_offered else None
        slots += [asyncio.ensure_future(self._keep()) for _ in range(1, self._count)]
        await self._orders.drain.wait()
        systemd.tell("STOPPING=1")
        if offer is not None:
            offer.close()
        for one in self._listeners:
            one.close()
        await self._end(asyncio.gather(*slots))
        return 0

    async def _end(self, all_ended: "asyncio.Future[list[int]]") -> None:
        self._order("drain")
        second = asyncio.ensure_future(self._orders.end.wait())
        either: set[asyncio.Future[Any]] = {all_ended, second}
        await asyncio.wait(either, timeout=self._drain_s + END_S, return_when=asyncio.FIRST_COMPLETED)
        second.cancel()
        if not all_ended.done():
            self._order("end")
            await asyncio.wait({all_ended}, timeout=END_S)
        for worker in self._workers:  # stopped, or in a call that does not return
            with contextlib.suppress(ProcessLookupError):
                worker.process.kill()
        await all_ended

    def _order(self, what: str) -> None:
        for worker in self._workers:
            worker.channel.send(order=what)

    async def _keep(self) -> int:
        """Have one worker run at all times; return the exit code of the last one."""
        pause_s = 0.0
        while True:
            try:
                code, served_s = await self._work()
            except OSError as error:  # there is no process or descriptor to be had
                say(f"no worker: {error.strerror or error}")
                code, served_s = 1, 0.0
            if self._orders.drain.is_set() or not self._ready.done():
                return code if code >= 0 else 1
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S) if served_s < SOON_S else 0.0
            if code:
                self._died += 1
                say(
                    f"a worker has died ({_ending(code)}); another one begins"
                    + (f" in {pause_s:g} s" if pause_s else "")
                )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._orders.drain.wait(), pause_s)
            if self._orders.drain.is_set():
                return 0
            pause_s = pause_s or PAUSE_S

    async def _work(self) -> tuple[int, float]:
        """Run one worker to its end; return its exit code, and for how long it has answered requests."""
        ours, theirs = socket.socketpair()
        descriptors = (theirs.fileno(), *(one.fileno() for one in self._listeners))
        said = {VARIABLE: " ".join([self._name, *map(str, descriptors)])}
        with theirs, contextlib.ExitStack() as undone:
            undone.callback(ours.close)
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *sys.orig_argv[1:],
                stdin=DEVNULL,
                pass_fds=descriptors,
                env={name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"} | said,
            )
            undone.pop_all()
        worker = _Worker(process, await Channel.over(ours))
        self._workers.add(worker)
        if self._orders.drain.is_set():
            worker.channel.send(order="end" if self._orders.end.is_set() else "drain")
        hearing = asyncio.ensure_future(self._hear(worker))
        try:
            code = await process.wait()
            await asyncio.wait({hearing}, timeout=ANSWER_S)
        finally:
            hearing.cancel()
            self._workers.discard(worker)
            self._gone = added((self._gone, lasting(worker.numbers)))
            await worker.channel.close()
        return code, 0.0 if worker.ready_s is None else time.monotonic() - worker.ready_s

    async def _hear(self, worker: _Worker) -> None:
        asked = set()
        while (message := await worker.channel.receive()) is not None:
            worker.numbers = message.get("numbers", worker.numbers)
            if "ready" in message:
                worker.ready_s = time.monotonic()
                if not self._ready.done():
                    self._ready.set_result(message["ready"])
            if "re" in message and (answer := worker.answers.get(message["re"])) is not None and not answer.done():
                answer.set_result(None)
            if "ask" in message:
                asked.add(task := asyncio.ensure_future(self._total(worker, message["ask"])))
                task.add_done_callback(asked.discard)

    async def _total(self, worker: _Worker, number: int) -> None:
        """Tell a worker what all have done; of one that does not answer, what it has told before."""
        others = [other for other in self._workers if other.ready_s is not None and other is not worker]
        await asyncio.gather(*map(self._ask, others))
        died: Numbers = {"gateway_workers_died_total": ("counter", "Workers that died.", {"": self._died})}
        total = added((*(one.numbers for one in self._workers), self._gone, died))
        worker.channel.send(total=total, re=number)

    async def _ask(self, worker: _Worker) -> None:
        self._asked += 1
        number = self._asked
        answer = worker.answers[number] = asyncio.get_running_loop().create_future()
        try:
            worker.channel.send(tell=number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_S):
                    await answer
        finally:
            del worker.answers[number]


def _ending(code: int) -> str:
    """Return how a process has ended, in words."""
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"
