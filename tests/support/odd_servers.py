"""HTTP servers that answer in odd ways, each of them chosen by a seed, and the reads that are tried on them.

Run as a script it is a client: `python odd_servers.py BASE SEED...` prints what each read gave, as JSON.
"""

from __future__ import annotations

import gzip
import hashlib
import http.server
import json
import os
import random
import sys
import tempfile
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from typing import Any

__all__ = ["OddOrigin", "OddServer", "attempts", "outcomes", "right"]

LONG_AGO = 1_600_000_000
# How long any one read may take before it is taken to hang.
HANG_S = 60

BLOCK_BYTES = 1000
IN_BLOCKS = [
    [["read", -1]],
    [["read", -1], ["seek", 0, 0], ["read", -1]],
    [["read", -1], ["read", 10], ["seek", 5, 0], ["read", 100]],
    [["read", 10], ["seek", 0, 0], ["read", -1]],
    [["read", 10], ["read", -1]],
]


def chosen(rng: random.Random, *ways: Any, usual: float = 0.5) -> Any:
    """The first way with the given chance, else any other."""
    return ways[0] if rng.random() < usual else rng.choice(ways[1:])


class OddOrigin:
    """One file and the odd ways of its server; all of it follows from the seed."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        self.data = random.Random(-seed).randbytes(chosen(rng, 5000, 0, 1, 300_000, usual=0.7))
        tags = ("strong", "weak", "none", "unquoted", "changing", "two", "other")
        times = ("old", "none", "wrong", "future", "now", "changing", "other")
        self.head = chosen(
            rng, "ok", "drop", 403, 405, 404, 500, "zero", "unsized", "longer", "shorter", "whole", usual=0.4
        )
        self.get_tag, self.get_time = chosen(rng, *tags), chosen(rng, *times)
        same = rng.random() < 0.6
        self.head_tag = self.get_tag if same else rng.choice(tags)
        self.head_time = self.get_time if same else rng.choice(times)
        self.ranges = chosen(
            rng, "206", "200", "200 with Content-Range", "200 the range alone", "206 of *", "206 alone", 416, 501,
        )  # fmt: skip
        self.framing = chosen(rng, "length", "chunked", "close", usual=0.7)
        self.encoding = chosen(rng, "identity", "gzip", "gzip if accepted", usual=0.8)
        self.if_match = chosen(rng, "honoured", "ignored", 412, 400, usual=0.4)
        self.if_none_match = rng.random() < 0.5
        self.accept_ranges = rng.choice(["bytes", "none", None, None])
        self.redirect = chosen(rng, None, "both", "get", "head", usual=0.8)
        self.beyond = chosen(rng, 416, "416 alone", 200, usual=0.7)
        # Where the end of the connection is the end of the body, nobody could tell.
        self.drop_after = None if self.framing == "close" else chosen(rng, None, 1, 100, usual=0.9)
        self.client = chosen(rng, {}, {"raise_for_status": True}, usual=0.8)
        # What was thought of later is by a chance of its own, so that the seeds keep their other ways.
        rng = random.Random(seed + 2 * 10**9)
        self.head = chosen(rng, self.head, 204, 501, "garbled", usual=0.9)
        if self.ranges.__class__ is str and self.ranges.startswith("206"):
            self.ranges = chosen(rng, self.ranges, "206 wider", "206 shorter", "206 garbled", usual=0.8)
        self.encoding = chosen(rng, self.encoding, "deflate", "identity by name", usual=0.9)
        self.success = chosen(rng, 200, 203, usual=0.9)
        self.moved = chosen(rng, 302, 301, 303, 307, 308)
        self.date = chosen(rng, None, "none", "wrong", LONG_AGO - 10, 4_100_000_000, usual=0.7)
        self.shared = chosen(
            rng, {}, {"Cache-Control": "no-store"}, {"Cache-Control": "private"}, {"Vary": "*"}, {"Vary": "Cookie"},
            {"Vary": "Accept-Encoding"}, usual=0.7,
        )  # fmt: skip
        # Every so many bodies one is cut in its middle; who asks again gets it.
        may_cut = self.framing != "close" and self.drop_after is None
        self.drop_every = chosen(rng, None, 2, 3, usual=0.9) if may_cut else None
        self.asked = 0

    def __repr__(self) -> str:
        said = {name: value for name, value in vars(self).items() if name not in ("data", "asked")}
        return f"{len(self.data)} bytes, {said}"

    def validators(self, method: str) -> dict[str, str]:
        self.asked += 1
        tag, moment = (self.head_tag, self.head_time) if method == "HEAD" else (self.get_tag, self.get_time)
        tags = {
            "strong": '"v1"', "weak": 'W/"v1"', "unquoted": "v1", "changing": f'"{self.asked}"',
            "two": f'"{self.asked % 2}"', "other": f'"{method}"',
        }  # fmt: skip
        times = {
            "old": LONG_AGO, "future": 4_000_000_000, "now": None, "changing": LONG_AGO + self.asked,
            "other": LONG_AGO + len(method),
        }  # fmt: skip
        out = dict(self.shared)
        if tag in tags:
            out["ETag"] = tags[tag]
        if moment in times:
            out["Last-Modified"] = formatdate(times[moment], usegmt=True)
        elif moment == "wrong":
            out["Last-Modified"] = "yesterday, 25:61 Uhr"
        return out


class OddServer(http.server.ThreadingHTTPServer):
    """Serves `/SEED/f`; with `cuts`, those bodies that are cut every so often are."""

    cuts = False
    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        self.origins: dict[int, OddOrigin] = {}
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)
        self.base = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def origin(self, seed: int) -> OddOrigin:
        with self.lock:
            return self.origins.setdefault(seed, OddOrigin(seed))

    def handle_error(self, *_: object) -> None:
        pass


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: OddServer
    date: int | str | None = None

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        seed, _, name = self.path[1:].partition("/")
        origin = self.server.origin(int(seed))
        self.date = origin.date
        if origin.redirect in ("both", self.command.lower()) and name == "f":
            self.reply(origin.moved, {"Location": f"/{seed}/elsewhere?X-Amz-Signature=abc"})
            return
        headers = origin.validators(self.command)
        if origin.accept_ranges is not None:
            headers["Accept-Ranges"] = origin.accept_ranges
        if self.command == "HEAD":
            self.answer_head(origin, headers)
        else:
            self.answer_get(origin, headers)

    do_HEAD = do_GET  # noqa: N815 - the name is http.server's

    def answer_head(self, origin: OddOrigin, headers: dict[str, str]) -> None:
        size, way = len(origin.data), origin.head
        if way == "drop":
            self.close_connection = True
        elif isinstance(way, int):
            self.reply(way)
        elif way == "unsized":
            self.reply(200, headers, length=None)
        elif way == "whole":  # as a server says that only thinks of GET
            self.reply(
                200, {**headers, "Content-Encoding": "gzip"} if origin.encoding == "gzip" else headers, length=size
            )
        else:
            lengths = {"zero": 0, "longer": size + 7, "shorter": max(size - 7, 0), "garbled": "many"}
            self.reply(origin.success, headers, length=lengths.get(way, size))

    def answer_get(self, origin: OddOrigin, headers: dict[str, str]) -> None:
        condition = self.headers.get("If-Match")
        if condition is not None and origin.if_match != "ignored":
            if origin.if_match != "honoured":
                self.reply(origin.if_match, headers)
                return
            if headers.get("ETag", "").startswith("W/") or headers.get("ETag") != condition:
                self.reply(412, headers)
                return
        if origin.if_none_match and headers.get("ETag") and headers["ETag"] == self.headers.get("If-None-Match"):
            self.reply(304, headers)
            return
        data, size, ranges = origin.data, len(origin.data), origin.ranges
        asked = self.headers.get("Range")
        status = origin.success
        if asked is not None and ranges != "200":
            if ranges in (416, 501):
                self.reply(ranges)
                return
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start = int(first) if first else max(0, size - int(last))
            stop = min(size, int(last) + 1) if first and last else size
            if start < stop:
                if ranges == "206 wider":
                    start, stop = start // 512 * 512, min(size, -(-stop // 512) * 512)
                elif ranges == "206 shorter":
                    stop = min(stop, start + 300)
                data = data[start:stop]
                status = 206 if ranges.startswith("206") else status
                if ranges == "206 garbled":
                    headers["Content-Range"] = f"{start}-{stop}"
                elif "alone" not in ranges:
                    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{'*' if ranges.endswith('*') else size}"
            elif origin.beyond != 200:
                self.reply(416, {} if origin.beyond == "416 alone" else {"Content-Range": f"bytes */{size}"})
                return
        accepts = "gzip" in self.headers.get("Accept-Encoding", "")
        if origin.encoding == "gzip" or (origin.encoding == "gzip if accepted" and accepts):
            data = gzip.compress(data, mtime=0)
            headers["Content-Encoding"] = "gzip"
        elif origin.encoding == "deflate":
            data, headers["Content-Encoding"] = zlib.compress(data), "deflate"
        elif origin.encoding == "identity by name":
            headers["Content-Encoding"] = "identity"
        drop_after = origin.drop_after
        if self.server.cuts and origin.drop_every is not None and origin.asked % origin.drop_every == 0:
            drop_after = len(data) // 2
        self.reply(status, headers, data, framing=origin.framing, drop_after=drop_after)

    def reply(
        self,
        status: int,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        *,
        framing: str = "length",
        length: int | str | None = -1,
        drop_after: int | None = None,
    ) -> None:
        self.send_response_only(status)
        if self.date != "none":
            right = formatdate(self.date if isinstance(self.date, int) else None, usegmt=True)
            self.send_header("Date", "today" if self.date == "wrong" else right)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if self.command == "HEAD" and length is None:
            pass
        elif framing == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
        elif framing == "close":
            self.send_header("Connection", "close")
            self.close_connection = True
        elif status not in (204, 304):
            self.send_header("Content-Length", str(len(body) if length in (-1, None) else length))
        self.end_headers()
        if self.command == "HEAD":
            return
        sent = body if drop_after is None else body[:drop_after]
        if framing == "chunked":
            for at in range(0, len(sent), 70_000):
                piece = sent[at : at + 70_000]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            if len(sent) == len(body):
                self.wfile.write(b"0\r\n\r\n")
        else:
            self.wfile.write(sent)
        if len(sent) < len(body):
            self.close_connection = True


# -- what is tried -------------------------------------------------------------------------------------------------


def attempts(seed: int) -> list[list[Any]]:
    """The reads that are tried on a seed's file, in order."""
    rng = random.Random(seed + 10**9)
    size = len(OddOrigin(seed).data)

    def span() -> list[int | None]:
        a, b = sorted(rng.randint(0, size) for _ in range(2))
        return rng.choice(
            [
                [a, b], [a, b], [0, b], [a, None], [None, b], [-rng.randint(1, size + 1), None], [a, size + 50],
                [-rng.randint(1, size + 1), -rng.randint(0, 3) or None], [a, a], [size + 10, size + 20], [None, None],
            ]
        )  # fmt: skip

    def steps() -> list[list[Any]]:
        kind = rng.randrange(4)
        if kind == 0:
            return [["read", -1]]
        if kind == 1:
            return [["read", rng.choice([100, 1000, 70_000])] for _ in range(8)]
        if kind == 2:
            return [["read", 0], ["read", 10], ["read", -1], ["read", 10]]
        return [rng.choice([["read", rng.randint(1, 300)], ["seek", rng.randint(0, size), 0]]) for _ in range(6)]

    ways = {
        "cat_file": span,
        "cat_ranges": lambda: [span() for _ in range(rng.randint(1, 4))],
        "cat": list,
        "open": steps,
        "info": list,
        "exists": list,
        "isfile": list,
        "get_file": list,
    }
    names = ["cat_file"] * 4 + ["cat_ranges"] * 2 + ["open"] * 3 + ["cat", "info", "exists", "isfile", "get_file"]
    tried = [[name, ways[name]()] for name in rng.choices(names, k=8)]
    # Under names of their own, by a file object whose blocks are smaller than the file.
    return tried + [["blocks", rng.choice(IN_BLOCKS)] for _ in range(2)]


def said(value: Any) -> Any:
    """A result as JSON can hold it, short."""
    if isinstance(value, bytes | bytearray | memoryview):
        value = bytes(value)
        return [len(value), hashlib.sha1(value).hexdigest()[:12]]
    if isinstance(value, BaseException):
        return type(value).__name__
    if isinstance(value, list):
        return [said(part) for part in value]
    return value


def right(data: bytes, name: str, what: Any) -> Any:
    """What a read gives of these bytes, as slices and files do; None where that is not the question."""
    if name == "cat_file":
        return said(data[what[0] : what[1]])
    if name == "cat_ranges":
        return said([data[a:b] for a, b in what])
    if name in ("cat", "get_file"):
        return said(data)
    if name in ("open", "blocks"):
        at, out = 0, []
        for step, number, *_ in what:
            if step == "seek":
                at = number
                out.append(at)
                continue
            piece = data[at:] if number < 0 else data[at : at + number]
            at += len(piece)
            out.append(said(piece))
        return out
    return None


def outcomes(base: str, seed: int) -> list[Any]:
    """What each read of a seed gives."""
    import fsspec  # by the client alone

    url = f"{base}/{seed}/f"
    fs = fsspec.filesystem("http", client_kwargs=OddOrigin(seed).client)
    tried = enumerate(attempts(seed))
    return [said(outcome(fs, f"{url}{i}" if name == "blocks" else url, name, what)) for i, (name, what) in tried]


def outcome(fs: Any, url: str, name: str, what: Any) -> Any:
    try:
        if name == "cat_file":
            return fs.cat_file(url, *what)
        if name == "cat_ranges":
            return fs.cat_ranges([url] * len(what), [a for a, _ in what], [b for _, b in what], on_error="return")
        if name == "cat":
            return fs.cat([url, url + "?other"], on_error="return")[url]
        if name == "get_file":
            with tempfile.TemporaryDirectory() as directory:
                place = os.path.join(directory, "f")
                fs.get_file(url, place)
                with open(place, "rb") as file:
                    return file.read()
        if name == "info":
            told = fs.info(url)
            return [told.get("size"), told.get("type"), sorted(told)]
        if name not in ("open", "blocks"):
            return getattr(fs, name)(url)
    except Exception as error:  # it is what is compared
        return error
    out: list[Any] = []
    try:
        with fs.open(url, block_size=BLOCK_BYTES if name == "blocks" else None) as file:
            for step, *numbers in what:
                value = getattr(file, step)(*numbers)
                if type(file).__name__ == "HTTPStreamFile" and step == "read" and value:
                    # It gives what has arrived: run again, plain fsspec gives other pieces (in 95 of 300 runs).
                    while len(value) < numbers[0] and (more := file.read(numbers[0] - len(value))):
                        value += more
                out.append(file.tell() if step == "seek" else value)
    except Exception as error:  # it is what is compared
        out.append(error)
    return out


def main() -> None:
    base, *seeds = sys.argv[1:]
    results: dict[str, Any] = {}
    with ThreadPoolExecutor(8) as pool:
        begun = {seed: pool.submit(outcomes, base, int(seed)) for seed in seeds}
        for seed, task in begun.items():
            try:
                results[seed] = task.result(HANG_S)
            except TimeoutError:
                results[seed] = "hangs"
    sys.stdout.write(json.dumps(results))
    sys.stdout.flush()
    if "hangs" in results.values():
        os._exit(0)


if __name__ == "__main__":
    main()
