"""One list of what is secret, and whatever is stored or shown of a command line goes by it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jcache.naming.credentials import is_secret
from jcache.report.redact import redact

SECRET = "s3cr3t"

SECRET_NAMES = """
    token X-Auth-Token mySecretKey AWSAccessKeyId AWS_SECRET_ACCESS_KEY api-key apiKey sig Authorization cookie jwt pwd
    auth passphrase hmac bearer private-key private_key account-key accountKey X-Api-Token macaroon client-secret
    PGPASSWORD MYSQL_PWD refresh_token id-token session_token credential creds X-Amz-Signature sas_token otp psk
    access.key subscription-key ssl-key-file oauth2_token authtoken customer_key set-cookie
""".split()  # noqa: SIM905 - a list of names reads better as a text
OTHER_NAMES = """
    author tokenizer design significance nextPageToken page_token max-tokens key id monkey_id compass bypass input
    passenger passes output-dir hamming secretary authority
""".split()  # noqa: SIM905 - likewise


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_names_of_secrets(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", OTHER_NAMES)
def test_names_of_other_things(name: str) -> None:
    assert not is_secret(name)


SPELLINGS = (
    ["job.py", "--{name}", SECRET, "--more"],
    ["job.py", "--{name}={secret}"],
    ["job.py", "--{name}={secret} with blanks"],
    ["job.py", "-{name}", SECRET],
    ["env", "{name}={secret}", "job.py"],
    ["curl", "-H", "{name}: {secret}", "http://h/a"],
    ["curl", "-H", "{name}: Bearer {secret}; more={secret}", "http://h/a"],
    ["curl", "--header={name}: {secret}", "http://h/a"],
    ["curl", "-H{name}:{secret}"],
    ["python", "-c", "f(key='A', {name}='{secret}')"],
    ["python", "-c", 'f(**{{"{name}": "{secret}", "a": 1}})'],
    ["python", "-c", "f({{'{name}':'{secret}'}})"],
    ["python", "-c", 'os.environ["{name}"] = "{secret}"'],
    ["job.py", "--options", '{{"{name}": "{secret}"}}'],
    ["job.py", "https://h/a?{name}={secret}&b=1"],
    ["job.py", "--in=https://{secret}:{secret}@h/a"],
    ["job.py", "s3://h/a#{name}={secret}"],
    ["job.py", "--conn", "AccountName=a;{name}={secret}"],
)


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_secrets_are_cut_from_command_lines_however_they_are_given(name: str) -> None:
    for words in SPELLINGS:
        command = [word.format(name=name, secret=SECRET) for word in words]
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            command = [word for word in command if f", {name}='" not in word]
        shown = redact(command)
        assert SECRET not in shown, (command, shown)
        assert command[0] in shown
        assert redact(shown) == shown


@pytest.mark.parametrize("name", OTHER_NAMES)
def test_what_is_no_secret_stays(name: str) -> None:
    for words in (["job.py", f"--{name}", "7"], ["job.py", f"--{name}=7"], ["job.py", f"{name}: 7"], [f"{name}=7"]):
        assert "7" in redact(words)


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (["curl", "-u", f"me:{SECRET}", "http://h/a"], "curl -u me:*** http://h/a"),
        (["curl", "--proxy", f"me:{SECRET}@proxy:3128"], "curl --proxy me:***@proxy:3128"),
        (f"curl -H Authorization: Bearer {SECRET} http://h/a", "curl -H Authorization: *** *** http://h/a"),
        (f"curl -H 'Authorization: Bearer {SECRET}' http://h/a", "curl -H 'Authorization: ***' http://h/a"),
        (f"TOKEN='a {SECRET}' job.py --in x", "TOKEN='***' job.py --in x"),
        (["job.py", "--token", "--verbose"], "job.py --token --verbose"),
        (["job.py", "make_tokens.py", "data"], "job.py make_tokens.py data"),
    ],
)
def test_command_lines(command: str | list[str], shown: str) -> None:
    assert redact(command) == shown


@given(st.one_of(st.text(max_size=200), st.lists(st.text(max_size=60), max_size=5)))
def test_anything_is_taken(command: str | list[str]) -> None:
    shown = redact(command)
    assert isinstance(shown, str)


def test_no_report_has_a_secret_of_its_command_line(tmp_path: Path) -> None:
    job, cache = tmp_path / "job.py", tmp_path / "cache"
    job.write_text(
        "import fsspec\nfsspec.filesystem('http')\nimport jcache.session as s\ns.current().counters.read(1, 0, 0, 1)\n"
    )
    words = [
        "--auth",
        f"me:{SECRET}",
        "--header",
        f"X-Auth-Token: {SECRET}",
        f"--jwt={SECRET}",
        f"https://h/a?x={SECRET}",
    ]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("JCACHE", "_JCACHE"))}
    done = subprocess.run(
        [sys.executable, str(job), *words],
        env={**environ, "JCACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        check=True,
    )
    reports = [path.read_text() for path in (cache / ".reports").glob("*.json")]
    assert reports
    assert "--auth ***" in json.loads(reports[0])["command"]
    for text in (done.stderr, *reports):
        assert SECRET not in text
