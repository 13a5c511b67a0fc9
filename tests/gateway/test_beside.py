"""`jcache run --gateway`: programs that read past fsspec, as they are, plain, cold and warm; and the gateway's life."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import s3_servers
from libraries import geotiff, needs
from s3_jobs import JOBS, MADE, NEEDED
from s3_servers import KEYS, Moto

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from servers import Nginx

WHEN = 1_700_000_000
DATA = random.Random(21).randbytes(900_000)
NAMES = ("a.bin", "dir/b c.bin", "dir/deep/c+d=&.bin")
LIMIT_S = 300


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    pytest.importorskip("moto.server", reason="moto's server is not installed")
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    out = io.BytesIO()
    pq.write_table(pa.table({"x": list(range(5000)), "y": [str(i) for i in range(5000)]}), out)
    with Moto(tmp_path_factory.mktemp("moto")) as server:
        client = s3_servers.client(server.url)
        client.create_bucket(Bucket="bucket")
        for name in NAMES:
            client.put_object(Bucket="bucket", Key=name, Body=DATA)
        client.put_object(Bucket="bucket", Key="t/t.parquet", Body=out.getvalue())
        server.requests()
        yield server


def environ_of(moto: Moto | None, **more: str) -> dict[str, str]:
    """What a user has set who reads from that server."""
    named = ("JCACHE_", "_JCACHE_", "AWS_")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(named) and not k.lower().endswith("_proxy")}
    of_server = {} if moto is None else {**KEYS, "AWS_ENDPOINT_URL": moto.url, "AWS_REGION": "us-east-1"}
    return {**clean, **of_server, "AWS_ALLOW_HTTP": "true", "JCACHE_RETRIES": "0", **more}


def start(cache: Path, options: Sequence[str], command: Sequence[str], environ: dict[str, str]) -> Any:
    return subprocess.Popen(
        [sys.executable, "-m", "jcache", "run", "--dir", str(cache), *options, "--", *command],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # without a terminal, so that signals are handed on
    )


def run(cache: Path, options: Sequence[str], command: Sequence[str], environ: dict[str, str]) -> Any:
    process = start(cache, options, command, environ)
    out, err = process.communicate(timeout=LIMIT_S)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def plain(command: Sequence[str], environ: dict[str, str]) -> Any:
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=LIMIT_S, check=True)


def bodies(moto: Moto) -> list[str]:
    """The requests that were answered with what is in objects since this was last asked."""
    found = [one for one in moto.requests() if one.method == "GET" and one.path.startswith("/bucket/")]
    found = [one for one in found if one.status in {200, 206}]
    return [str(one) for one in found if one.path != "/bucket/"]


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.long) if name in {"icechunk", "obstore", "s3fs"} else name for name in JOBS],
)
def test_clients_of_s3_are_cached_as_they_are(moto: Moto, cache_dir: Path, tmp_path: Path, name: str) -> None:
    needs(*NEEDED.get(name, (name,)))
    if name == "rasterio":
        geotiff(tmp_path / "image.tif")
        image = (tmp_path / "image.tif").read_bytes()
        s3_servers.client(moto.url).put_object(Bucket="bucket", Key="image.tif", Body=image)
        moto.requests()
    script = tmp_path / "job.py"
    script.write_text(JOBS[name])
    command, environ = [sys.executable, str(script)], environ_of(moto)
    if name in MADE:
        plain([sys.executable, "-c", MADE[name]], environ)
    expected = plain(command, environ).stdout
    assert expected
    assert bodies(moto)
    cold = run(cache_dir, ["--gateway"], command, environ)
    assert (cold.returncode, cold.stdout) == (0, expected), cold.stderr
    assert bodies(moto)
    warm = run(cache_dir, ["--gateway"], command, environ)
    assert (warm.returncode, warm.stdout) == (0, expected), warm.stderr
    assert bodies(moto) == []
    for ran in (cold, warm):
        assert ran.stderr.count("cache combined hit rate") == 1, ran.stderr
        assert "jcache:" not in ran.stderr
    assert "100.00" in warm.stderr
    # What is read through fsspec is not counted twice.
    reports = list((cache_dir / ".reports").glob("*.json"))
    assert {json.loads(path.read_text())["appname"] for path in reports} == {"jcache-serve"}


def test_who_has_no_key_of_the_run_is_refused(moto: Moto, cache_dir: Path, tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text("""
import os, sys, urllib.error, urllib.request, boto3, botocore
url = os.environ["AWS_ENDPOINT_URL"]
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
for path in ("/bucket/a.bin", "/metrics", "/http://127.0.0.1:1/"):
    try:
        direct.open(url + path)
    except urllib.error.HTTPError as error:
        print(error.code)
try:
    direct.open(urllib.request.Request(url + "/bucket/a.bin", headers={"Authorization": "Bearer x"}))
except urllib.error.HTTPError as error:
    print(error.code)
for keys in (("key", "secret"), (os.environ["AWS_ACCESS_KEY_ID"], "secret")):
    client = boto3.client("s3", aws_access_key_id=keys[0], aws_secret_access_key=keys[1])
    try:
        client.get_object(Bucket="bucket", Key="a.bin")
    except botocore.exceptions.ClientError as error:
        print(error.response["Error"]["Code"])
print(len(boto3.client("s3").get_object(Bucket="bucket", Key="a.bin")["Body"].read()))
""")
    options = ["--gateway", "--gateway-allow", "127.0.0.1:1"]
    ran = run(cache_dir, options, [sys.executable, str(script)], environ_of(moto, AWS_SESSION_TOKEN="old"))
    told = ["403", "401", "401", "400", "InvalidAccessKeyId", "SignatureDoesNotMatch", str(len(DATA))]
    assert ran.stdout.split() == told, ran.stderr


def test_without_keys_it_asks_anonymously(moto: Moto, cache_dir: Path, tmp_path: Path) -> None:
    """A bucket that anybody may read: the command signs, for the gateway; the gateway does not, having no keys."""
    client = s3_servers.client(moto.url)
    client.create_bucket(Bucket="public", ACL="public-read")
    client.put_object(Bucket="public", Key="a.bin", Body=DATA, ACL="public-read")
    moto.requests()
    script = "import boto3; print(len(boto3.client('s3').get_object(Bucket='public', Key='a.bin')['Body'].read()))"
    environ = environ_of(moto, HOME=str(tmp_path))
    del environ["AWS_ACCESS_KEY_ID"], environ["AWS_SECRET_ACCESS_KEY"]
    ran = run(cache_dir, ["--gateway"], [sys.executable, "-c", script], environ)
    assert ran.stdout.split() == [str(len(DATA))], ran.stderr
    assert {one.key for one in moto.requests()} == {""}


@pytest.fixture
def files(nginx_server: Nginx) -> Nginx:
    for name in ("a.bin", "other/b.bin"):
        path = nginx_server.directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(DATA)
        os.utime(path, (WHEN, WHEN))
    return nginx_server


URLLIB = "import sys, urllib.request as r; sys.stdout.buffer.write(r.urlopen(sys.argv[1]).read()[5:505].hex().encode())"
CLIENTS: dict[str, Callable[[str], list[str]]] = {
    "curl": lambda url: ["sh", "-c", f"curl -sS --fail -r 5-504 {url} | od -An -v -tx1 | tr -d ' \\n'"],
    "wget": lambda url: [
        "sh",
        "-c",
        f"wget -q -O - {url} | od -An -v -tx1 | tr -d ' \\n' | cut -c 11-1010 | tr -d '\\n'",
    ],
    "python": lambda url: [sys.executable, "-c", URLLIB, url],
    "aria2c": lambda url: [
        "sh",
        "-c",
        f"cd $(mktemp -d) && aria2c --no-conf -q -o a {url} && od -j 5 -N 500 -An -v -tx1 a | tr -d ' \\n'; rm -r $PWD",
    ],
    # By its path, as https:// URLs have to be.
    "curl by path": lambda url: [
        "sh",
        "-c",
        f"curl -sS --fail -r 5-504 ${{http_proxy:+$http_proxy/}}{url} | od -An -v -tx1 | tr -d ' \\n'",
    ],
}


@pytest.mark.parametrize("name", CLIENTS)
def test_clients_of_http_are_cached_by_http_proxy(files: Nginx, cache_dir: Path, name: str) -> None:
    if shutil.which(name.split(maxsplit=1)[0]) is None and name != "python":
        pytest.skip(f"{name} is not installed")
    command, environ = CLIENTS[name](files.url("a.bin")), environ_of(None)
    expected = plain(command, environ).stdout
    assert expected == DATA[5:505].hex()
    options = ["--gateway-allow", f"http://127.0.0.1:{files.port}/a*"]
    files.reset()
    cold = run(cache_dir, options, command, environ)
    assert (cold.returncode, cold.stdout) == (0, expected), cold.stderr
    assert files.body_bytes() > 0
    files.reset()
    warm = run(cache_dir, options, command, environ)
    assert (warm.returncode, warm.stdout) == (0, expected), warm.stderr
    assert files.body_bytes() == 0, files.requests()
    assert "100.00" in warm.stderr


def test_what_no_pattern_names_is_not_forwarded(files: Nginx, cache_dir: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    ask = "curl -sS -o /dev/null -w '%{http_code} '"
    shell = f"{ask} {files.url('other/b.bin')}; {ask} -x ${{http_proxy#*@}} {files.url('a.bin')}"
    options = ["--gateway-allow", f"http://127.0.0.1:{files.port}/a*"]
    assert run(cache_dir, options, ["sh", "-c", shell], environ_of(None)).stdout.split() == ["403", "407"]
    assert not files.requests()


def test_s3_and_a_proxy_at_once(moto: Moto, files: Nginx, cache_dir: Path) -> None:
    """Clients of S3 that take http_proxy reach the gateway through itself."""
    script = f"""
import boto3, urllib.request
print(len(boto3.client("s3").get_object(Bucket="bucket", Key="dir/b c.bin")["Body"].read()))
print(len(urllib.request.urlopen({files.url("a.bin")!r}).read()))
"""
    options = ["--gateway", "--gateway-allow", f"127.0.0.1:{files.port}"]
    for no_proxy in ({}, {"no_proxy": "127.0.0.1"}):
        ran = run(cache_dir, options, [sys.executable, "-c", script], environ_of(moto, **no_proxy))
        assert ran.stdout.split() == [str(len(DATA))] * 2, ran.stderr


def test_a_proxy_of_the_users_own_does_not_come_between(moto: Moto, cache_dir: Path) -> None:
    script = """
import boto3
print(len(boto3.client("s3").get_object(Bucket="bucket", Key="a.bin")["Body"].read()))
"""
    # The gateway's own requests go as the user has set it: the server, by this name of it, is reached directly.
    own = {"http_proxy": "http://127.0.0.1:9", "no_proxy": "localhost"}
    own["AWS_ENDPOINT_URL"] = moto.url.replace("127.0.0.1", "localhost")
    ran = run(cache_dir, ["--gateway"], [sys.executable, "-c", script], environ_of(moto, **own))
    assert ran.stdout.split() == [str(len(DATA))], ran.stderr


# -- its life ----------------------------------------------------------------------------------------------------------

SHOW = "import os; print(os.environ['_JCACHE_GATEWAY'], flush=True)"


def is_up(address: str) -> bool:
    host, _, port = address.strip().rpartition(":")
    with socket.socket() as asking:
        return asking.connect_ex((host, int(port))) == 0


def wait_until_down(address: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while is_up(address):
        assert time.monotonic() < deadline, "the gateway goes on"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("shell", "code"),
    [("true", 0), ("exit 77", 77), ("kill -9 $$", 137), ("kill -TERM $$", 143), ("exec /nowhere/at/all", 127)],
)
def test_it_ends_with_the_command_whatever_ends_that(cache_dir: Path, shell: str, code: int) -> None:
    command = ["sh", "-c", f'{sys.executable} -c "{SHOW}"; {shell}']
    ran = run(cache_dir, ["--no-summary", "--gateway-allow", "example.org"], command, environ_of(None))
    assert ran.returncode == code, ran.stderr
    assert not is_up(ran.stdout)


def test_it_ends_where_there_is_no_command(cache_dir: Path) -> None:
    ran = run(cache_dir, ["--gateway-allow", "example.org"], ["/nowhere/at/all"], environ_of(None))
    assert (ran.returncode, ran.stderr.count("\n")) == (127, 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_it_ends_with_the_run(cache_dir: Path, number: signal.Signals) -> None:
    wait = f"{SHOW}\nimport time\nwhile True: time.sleep(0.1)"
    command = [sys.executable, "-c", wait]
    process = start(cache_dir, ["--no-summary", "--gateway-allow", "example.org"], command, environ_of(None))
    with process:
        address = process.stdout.readline()
        assert is_up(address)
        process.send_signal(number)
        if number == signal.SIGKILL:
            process.wait(LIMIT_S)
            os.killpg(process.pid, signal.SIGKILL)  # the command goes on without the run
        else:
            assert process.wait(LIMIT_S) == 128 + number, process.stderr.read()
            assert not is_up(address)
    wait_until_down(address)


def test_a_signal_to_the_whole_group_leaves_it_to_the_command(files: Nginx, cache_dir: Path) -> None:
    """A terminal's interrupt goes to all in its foreground; what the command reads after it is served."""
    script = f"""
import os, signal, urllib.request
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
print("up", flush=True)
signal.sigwait([signal.SIGINT])
print(len(urllib.request.urlopen({files.url("a.bin")!r}).read()), flush=True)
"""
    options = ["--gateway-allow", f"127.0.0.1:{files.port}"]
    process = start(cache_dir, options, [sys.executable, "-c", script], environ_of(None))
    with process:
        assert process.stdout.readline() == "up\n"
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, out) == (0, f"{len(DATA)}\n"), err


def test_signals_that_are_for_the_command_leave_the_gateway(files: Nginx, cache_dir: Path) -> None:
    """As a batch system sends them, to all processes of a step."""
    psutil = pytest.importorskip("psutil")
    script = f"""
import os, psutil, signal, urllib.request
gateway, = [one for one in psutil.Process(os.getppid()).children() if one.pid != os.getpid()]
for number in ("HUP", "INT", "TERM", "USR1", "USR2", "ALRM"):
    gateway.send_signal(signal.Signals["SIG" + number])
try:
    print("it has ended", gateway.wait(1))
except psutil.TimeoutExpired:
    pass
print(len(urllib.request.urlopen({files.url("a.bin")!r}).read()), flush=True)
"""
    assert psutil.Process().is_running()
    options = ["--gateway-allow", f"127.0.0.1:{files.port}"]
    done = run(cache_dir, options, [sys.executable, "-c", script], environ_of(None))
    assert (done.returncode, done.stdout) == (0, f"{len(DATA)}\n"), done.stderr


@pytest.mark.parametrize(
    ("options", "environ", "said"),
    [
        (["--gateway-allow", "not an origin"], {}, "names no origin"),
        (["--gateway"], {"JCACHE_VALIDATE": "sometimes"}, "JCACHE_VALIDATE"),
    ],
)
def test_without_a_gateway_there_is_no_command(
    cache_dir: Path, options: list[str], environ: dict[str, str], said: str
) -> None:
    ran = run(cache_dir, options, ["echo", "ran"], environ_of(None, **environ))
    assert (ran.returncode, ran.stdout) == (2, "")
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr
