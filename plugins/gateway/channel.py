"""What a worker of a gateway and its parent tell each other: lines of JSON, on a pair of sockets."""

import asyncio
import contextlib
import itertools
import json
import os
import socket
from collections.abc import Callable
from typing import Any

from jcache_plugins.gateway.metrics import Numbers

__all__ = ["ANSWER_S", "VARIABLE", "Channel", "Link", "Orders", "inherited"]

VARIABLE = "_JCACHE_WORKER"
"""`<name of the gateway> <descriptor of the channel> <descriptor of a socket that listens>...`, for workers."""

ANSWER_S = 5.0
"""How long the other side may take to answer."""

_LINE_BYTES = 1 << 20


class Orders:
    """What a gateway was told to do, on its event loop.

    Attributes:
        drain: It is to take no more connections, and to end when there are none.
        end: It is to end at once.
    """

    def __init__(self) -> None:
        self.drain, self.end = asyncio.Event(), asyncio.Event()

    def advance(self) -> None:
        """Obey a signal: the first one drains, the second one ends."""
        (self.end if self.drain.is_set() else self.drain).set()


class Channel:
    """One end of the pair, on an event loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def over(cls, end: socket.socket) -> "Channel":
        """Return the channel over a socket."""
        return cls(*await asyncio.open_unix_connection(sock=end, limit=_LINE_BYTES))

    def send(self, **message: Any) -> None:
        """Send a message; whether it arrives is not known."""
        self._writer.write(json.dumps(message).encode() + b"\n")

    async def receive(self) -> dict[str, Any] | None:
        """Return the next message; None where there will be no more."""
        try:
            line = await self._reader.readline()
            message: dict[str, Any] | None = json.loads(line) if line.endswith(b"\n") else None
        except (OSError, ValueError):
            return None
        return message

    async def close(self) -> None:
        """Send what waits to be sent, and close it."""
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                await self._writer.wait_closed()


class Link:
    """A worker's end: its parent tells it to end, and knows what all workers have done.

    Args:
        end: The socket of its channel.
        name: What the gateway is called towards origins.
        listeners: The sockets that it shares with the others.
    """

    def __init__(self, end: socket.socket, name: str, listeners: list[socket.socket]) -> None:
        self.name, self.listeners = name, listeners
        self._end = end
        self._channel: Channel | None = None
        self._numbers: Callable[[], Numbers] = dict
        self._asked: dict[int, asyncio.Future[Numbers]] = {}
        self._ids = itertools.count()

    async def open(self, orders: Orders, numbers: Callable[[], Numbers]) -> None:
        """Listen to the parent from now on; where it is gone, the worker is to drain.

        Args:
            orders: Where its orders go.
            numbers: Returns what this worker has done.
        """
        self._channel = await Channel.over(self._end)
        self._numbers = numbers
        self._task = asyncio.ensure_future(self._run(self._channel, orders))

    def ready(self, address: str) -> None:
        """Tell the parent that requests are answered."""
        assert self._channel is not None, "it is open"
        self._channel.send(ready=address)

    async def total(self) -> Numbers:
        """Return what all workers have done.

        Raises:
            TimeoutError: The parent does not answer.
        """
        assert self._channel is not None, "it is open"
        number = next(self._ids)
        self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            self._channel.send(ask=number, numbers=self._numbers())
            async with asyncio.timeout(2 * ANSWER_S):
                return await self._asked[number]
        finally:
            del self._asked[number]

    async def close(self) -> None:
        """Tell the parent what this worker has done, and nothing more."""
        if self._channel is not None:
            self._task.cancel()
            self._channel.send(numbers=self._numbers())
            await self._channel.close()

    async def _run(self, channel: Channel, orders: Orders) -> None:
        while (message := await channel.receive()) is not None:
            if "total" in message:
                asked = self._asked.get(message["re"])
                if asked is not None and not asked.done():
                    asked.set_result(message["total"])
            elif "tell" in message:
                channel.send(numbers=self._numbers(), re=message["tell"])
            else:
                orders.drain.set()
                if message.get("order") == "end":
                    orders.end.set()
        orders.drain.set()


def inherited() -> Link | None:
    """Return the link to the parent of this process, once; None where it is no worker."""
    said = os.environ.pop(VARIABLE, "")
    if not said:
        return None
    name, *numbers = said.split()
    end, *listeners = [int(number) for number in numbers]
    for number in (end, *listeners):
        os.set_inheritable(number, False)
    return Link(socket.socket(fileno=end), name, [socket.socket(fileno=number) for number in listeners])
