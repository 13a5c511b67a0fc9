"""A door for clients of XRootD: the real `xrootd`, as a proxy (`libXrdPss` over XrdClHttp) before a gateway."""

import os
import signal
import subprocess
import threading
from pathlib import Path
from urllib.parse import urlsplit

from jcache.activate.notice import say
from jcache.demo.xrootd_server import XrootdServer, XrootdUnavailableError, find_xrootd, free_port

__all__ = ["Door", "XrootdProxy", "XrootdUnavailableError"]

START_S = 60.0
LOOPBACK = "127.0.0.1"
PLUGIN = "libXrdClHttp.so"
PACKAGES = "Debian: apt-get install xrootd-server xrootd-client-http-plugins"
# It ends the daemon where the gateway, whose end of the pipe it reads, ends without having done so.
_WATCH = 'read -r _; kill "$1" 2>/dev/null'


class XrootdProxy(XrootdServer):
    """A running `xrootd` whose files are those of a gateway; it listens where the gateway does.

    It counts as started when the gateway answers through it.

    Args:
        gateway: The gateway's URL.
        host: The address to listen on.
        port: The port.

    Raises:
        XrootdUnavailableError: It is not installed, has no plug-in for HTTP, or does not start.
    """

    kind = "xrootd in front of a gateway"
    has_own_session = True  # it ends with the gateway, which lets requests end first

    def __init__(self, gateway: str, *, host: str, port: int) -> None:
        where = urlsplit(gateway)
        if ":" in (where.hostname or "") or ":" in host:
            raise XrootdUnavailableError("xrootd and the gateway speak IPv4 with each other: give an address of that")
        self.host = host
        self._watch: subprocess.Popen[bytes] | None = None
        self._origin = f"http://{where.hostname if where.hostname != '0.0.0.0' else LOOPBACK}:{where.port}"  # noqa: S104 - compared
        super().__init__(Path("/"), probe="healthz", port=port, startup_s=START_S)

    def _settings(self) -> list[str]:
        is_local = self.host == "localhost" or self.host.startswith("127.")
        only_here = [f"xrd.allow host {LOOPBACK}"] if is_local else []
        return [
            *only_here,
            "ofs.osslib libXrdPss.so",
            f"pss.origin {self._origin}",
            "xrootd.async off",  # else it asks for 64 KiB at once
            "xrootd.log -all",
        ]

    def _environ(self) -> dict[str, str]:
        plugins = self._work / "plugins"
        plugins.mkdir(exist_ok=True)
        (plugins / "http.conf").write_text(f"url = http://*\nlib = {PLUGIN}\nenable = true\n")
        return {**os.environ, "XRD_PLUGINCONFDIR": os.fspath(plugins)}

    def _wait_until_ready(self, port: int, startup_s: float, *, log_start: int) -> None:
        self._end_watch()
        command = ["/bin/sh", "-c", _WATCH, "sh", str(self.pid)]
        # In a session of its own, whose processes no terminal interrupts.
        self._watch = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)  # noqa: S603 - as it is here
        super()._wait_until_ready(port, startup_s, log_start=log_start)

    def stop(self) -> None:
        """End the daemon and wait for it. Does nothing when it is stopped."""
        super().stop()
        self._end_watch()

    def wait(self) -> int:
        """Wait until the daemon has ended; return its exit code."""
        process = self._process
        code = 0 if process is None else process.wait()
        self._end_watch()
        return code

    def _end_watch(self) -> None:
        """End what would end a process that by then may be another one of that number."""
        watch = self._watch
        if watch is not None:
            watch.kill()
            watch.communicate()


class Door:
    """Starts a proxy once a gateway serves, and ends the gateway where that fails or the proxy ends.

    Args:
        host: The address to listen on.
        port: The port; 0 for one that is free.

    Attributes:
        problem: What went wrong; empty where nothing did.

    Raises:
        XrootdUnavailableError: `xrootd` is not installed.
    """

    def __init__(self, *, host: str, port: int) -> None:
        find_xrootd()
        self.problem = ""
        self._host, self._port = host, port or free_port()
        self._proxy: XrootdProxy | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._closed = False

    def open(self, gateway: str) -> None:
        """Start it from a thread of its own, for the gateway has to answer meanwhile.

        Args:
            gateway: The gateway's URL.
        """
        self._thread = threading.Thread(target=self._run, args=(gateway,), name="jcache-xrootd", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it."""
        with self._lock:
            self._closed = True
            if self._proxy is not None:
                self._proxy.close()
        if self._thread is not None:
            self._thread.join(START_S)  # one that is just being started finds no gateway, and ends

    def _run(self, gateway: str) -> None:
        try:
            proxy = XrootdProxy(gateway, host=self._host, port=self._port)
        except (XrootdUnavailableError, OSError) as error:
            self._fail(f"{error} ({PACKAGES})")
            return
        with self._lock:
            if self._closed:
                proxy.close()
                return
            self._proxy = proxy
        say(f"serving at root://{self._host}:{proxy.port}")
        code = proxy.wait()
        if not self._closed:
            self._fail(f"xrootd has ended, with {code}")

    def _fail(self, problem: str) -> None:
        if not self._closed:
            self.problem = problem
            os.kill(os.getpid(), signal.SIGTERM)
