"""Files that are replaced at the origin: between two runs the new bytes, during one the old version or an error."""

from __future__ import annotations

import hashlib
import json
import os
import random
import time

import pytest
from analysis import CLIENT, COLUMNS, JOB, OLD_S, write
from proxy import CountingProxy

pytestmark = pytest.mark.turns("served")

SIZE = 8_000_000
PIECE = 50_000
MODES = ["rename", "in_place"]


def put(path, data, *, mtime_s, mode="rename"):
    """Replace a file as a whole, under its name or in its place, and set its modification time."""
    if mode == "rename":
        partial = path.with_name(f".{path.name}.new")
        partial.write_bytes(data)
        partial.chmod(0o644)
        os.utime(partial, (mtime_s, mtime_s))
        partial.replace(path)
    else:
        with path.open("r+b") as file:
            file.write(data)
            file.truncate()
        os.utime(path, (mtime_s, mtime_s))


def ranges(*starts):
    return [[start, start + PIECE] for start in starts]


# -- between two runs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rntuple", [pytest.param(False, id="ttree"), pytest.param(True, id="rntuple", marks=pytest.mark.long)]
)
def test_replaced_twice_between_runs(served, rntuple, run_python, tmp_path):
    """Same size, a second later: each run has the arrays of the file as it is then, and no byte of an older one."""
    path = served.directory / "events.root"
    sources = [tmp_path / str(version) / path.name for version in range(3)]
    for version, source in enumerate(sources):
        source.parent.mkdir()
        write(source, rntuple=rntuple, seed=version)
    assert len({source.stat().st_size for source in sources}) == 1
    local = run_python(JOB, ",".join(COLUMNS), *map(str, sources), cache=None).stdout.splitlines()
    assert len(set(local)) == 3 * len(COLUMNS)

    data_bytes = []
    for version, source in enumerate(sources):
        put(path, source.read_bytes(), mtime_s=OLD_S + version)
        expected = local[version * len(COLUMNS) : (version + 1) * len(COLUMNS)]
        for warm in (False, True):
            if warm and version == 1:
                continue  # this version is replaced before any run was served from its journal
            served.reset()
            ran = run_python(JOB, ",".join(COLUMNS), served.url(path.name))
            assert ran.stdout.splitlines() == expected, (version, warm)
            data_bytes.append(served.data_bytes())
    cold = data_bytes[0]
    assert cold > 0
    assert data_bytes == [cold, 0, cold, cold, 0]


@pytest.mark.parametrize("mode", MODES)
def test_replaced_within_the_second_of_its_modification(served, mode, run_python, vectors_file):
    """Neither mtime in whole seconds nor an entity tag made of it tells two versions of one second apart."""
    path, vectors = served.directory / "a.bin", [ranges(0, 200_000), ranges(100_000)]
    pattern = vectors_file(vectors)
    # The second in which the first version is read, however long its process takes to start.
    second = int(time.time()) + 30
    for version in range(2):
        data = content(version, 500_000)
        put(path, data, mtime_s=second, mode="rename" if version == 0 else mode)
        ran = run_python(READ, pattern, served.url(path.name))
        assert ran.stdout.split() == checksums(data, vectors)


# argv: file with vectors of [start, stop], URL. For each range its checksum; what an exception says.
READ = """
import hashlib, json, sys
import fsspec

fs, path = fsspec.core.url_to_fs(sys.argv[2])
for vector in json.load(open(sys.argv[1])):
    starts, stops = map(list, zip(*vector))
    for data in fs.cat_ranges([path] * len(vector), starts, stops):
        print(hashlib.sha256(data).hexdigest())
"""


def content(seed, size=SIZE):
    return random.Random(seed).randbytes(size)


def checksums(data, vectors):
    return [hashlib.sha256(data[start:stop]).hexdigest() for vector in vectors for start, stop in vector]


@pytest.fixture
def vectors_file(tmp_path):
    def write_vectors(vectors):
        path = tmp_path / "vectors.json"
        path.write_text(json.dumps(vectors))
        return str(path)

    return write_vectors


def test_replaced_by_etag_alone(http_origin, run_python, vectors_file):
    """Same size, same Last-Modified: the entity tag tells."""
    vectors = [[[i, i + PIECE] for i in range(at, at + 5 * PIECE, PIECE)] for at in (0, 1_000_000)]
    pattern = vectors_file(vectors)
    resource = http_origin.put("a.bin", content(0, 2_000_000), etag='"0"', modified_s=OLD_S)
    for version in range(3):
        data = content(version, 2_000_000)
        resource.change(data, etag=f'"{version}"', modified_s=OLD_S)
        for warm in (False, True):
            resource.reset()
            ran = run_python(READ, pattern, http_origin.url("a.bin"))
            assert ran.stdout.split() == checksums(data, vectors)
            # The tag shows in the first answer or in a stat before it: at most one vector is asked for in vain.
            assert resource.body_bytes == (0 if warm else 10 * PIECE)


# -- during a run ---------------------------------------------------------------------------------------------------

# argv: file with vectors, URL, the file at the server, its next version, how to replace it. The file is replaced behind
# the first vector. Prints the checksums, and ends with the error if there is one.
READ_AND_REPLACE = """
import hashlib, json, os, shutil, sys
import fsspec

vectors, url, path_there, next_version, mode = sys.argv[1:]
fs, path = fsspec.core.url_to_fs(url)
for number, vector in enumerate(json.load(open(vectors))):
    if number == 1:
        if mode == "rename":
            os.replace(next_version, path_there)
        else:
            with open(path_there, "r+b") as file:
                file.write(open(next_version, "rb").read())
            shutil.copystat(next_version, path_there)
    starts, stops = map(list, zip(*vector))
    for data in fs.cat_ranges([path] * len(vector), starts, stops):
        print(hashlib.sha256(data).hexdigest(), flush=True)
"""


VECTORS = [ranges(0, 1_000_000, 2_000_000), ranges(500_000, 1_500_000), ranges(0, 3_000_000, 4_000_000)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("recorded", ["nothing", "first", "all"])
def test_replaced_between_vectors(served, mode, recorded, run_python, vectors_file, cache_dir, tmp_path):
    """With nothing, the first vector or all of the old version in the journal when the run begins."""
    old, new = content(1), content(2)
    there, next_version = served.directory / "a.bin", served.directory / "next.bin"
    put(there, old, mtime_s=OLD_S)
    put(next_version, new, mtime_s=OLD_S + 1)
    url, pattern = served.url("a.bin"), vectors_file(VECTORS)
    if recorded != "nothing":
        warmed = VECTORS if recorded == "all" else VECTORS[:1]
        run_python(READ, vectors_file(warmed), url)
        vectors_file(VECTORS)

    ran = run_python(READ_AND_REPLACE, pattern, url, str(there), str(next_version), mode, check=False)
    found = ran.stdout.split()
    assert found == checksums(old, VECTORS)[: len(found)]
    assert len(found) >= len(VECTORS[0])
    if len(found) < len(checksums(old, VECTORS)):
        assert ran.returncode == 1
        assert "OriginChangedError: the remote file was replaced while it was being read" in ran.stderr
    else:
        assert ran.returncode == 0
    assert recorded != "all" or ran.returncode == 0

    served.reset()
    after = run_python(READ, pattern, url)
    assert after.stdout.split() == checksums(new, VECTORS)
    if recorded == "all":
        assert served.data_bytes() == sum(stop - start for vector in VECTORS for start, stop in vector) - PIECE


class Trigger(CountingProxy):
    """A proxy that calls `at_bytes[1]` before it passes on what brings the bytes to the client to `at_bytes[0]`."""

    at_bytes = None
    _counted = 0

    @property
    def bytes_to_client(self):
        return self._counted

    @bytes_to_client.setter
    def bytes_to_client(self, count):
        self._counted = count
        if self.at_bytes is not None and count >= self.at_bytes[0]:
            call, self.at_bytes = self.at_bytes[1], None
            call()


@pytest.fixture
def trigger(served):
    with Trigger(served.server.port, xrootd=served.is_xrootd) as proxy:
        yield proxy


BIG = 48_000_000


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("at", [1, BIG // 4], ids=["first_byte", "middle"])
def test_replaced_within_a_vector(served, mode, at, trigger, run_python, vectors_file):
    """One vector of half of the file; it is replaced while the server sends it."""
    old, new = content(1, BIG // 64) * 64, content(2, BIG // 64) * 64
    there = served.directory / "a.bin"
    put(there, old, mtime_s=OLD_S)
    vectors = [[[start, start + 1_000_000] for start in range(0, BIG, 2_000_000)]]
    url, pattern = served.url("a.bin", port=trigger.port), vectors_file(vectors)

    replaced = []
    trigger.at_bytes = (at, lambda: replaced.append(put(there, new, mtime_s=OLD_S + 1, mode=mode)))
    ran = run_python(READ, pattern, url, check=False, env=CLIENT)
    assert replaced
    found = ran.stdout.split()
    if ran.returncode:
        assert found == []
        assert "OriginChangedError" in ran.stderr
    else:
        assert found in (checksums(old, vectors), checksums(new, vectors))

    offline = run_python(READ, pattern, url, check=False, env={"JCACHE_OFFLINE": "1"})
    if offline.returncode:
        assert "OfflineMissError" in offline.stderr
    else:
        assert offline.stdout.split() in (checksums(old, vectors), checksums(new, vectors))
    after = run_python(READ, pattern, url)
    assert after.stdout.split() == checksums(new, vectors)


# argv: URL, the file at the server, its next version. Reads two columns, replaces the file, reads two more.
JOB_AND_REPLACE = """
import hashlib, os, sys
import awkward as ak, uproot

url, path_there, next_version = sys.argv[1:]
with uproot.open(url) as file:
    for columns in (["Jet_pt", "MET_pt"], ["Jet_eta", "Muon_pt"]):
        arrays = file["Events"].arrays(columns)
        for name in columns:
            print(name, hashlib.sha256(ak.to_numpy(ak.flatten(arrays[name], axis=None)).tobytes()).hexdigest())
        if os.path.exists(next_version):
            os.replace(next_version, path_there)
"""


@pytest.mark.parametrize("rntuple", [False, True], ids=["ttree", "rntuple"])
def test_replaced_under_an_open_tree(served, rntuple, run_python, tmp_path):
    """The analysis gets columns of one version or an error; run again it gets the new ones."""
    there, next_version = served.directory / "events.root", served.directory / "next" / "events.root"
    next_version.parent.mkdir()
    write(there, rntuple=rntuple, seed=1)
    write(next_version, rntuple=rntuple, seed=2)
    os.utime(next_version, (OLD_S + 1, OLD_S + 1))
    arguments = served.url(there.name), str(there), str(next_version)
    old = run_python(JOB_AND_REPLACE, *map(str, (there, there, tmp_path / "none")), cache=None).stdout.splitlines()
    new = run_python(JOB_AND_REPLACE, *map(str, (next_version, there, tmp_path / "none")), cache=None)

    ran = run_python(JOB_AND_REPLACE, *arguments, check=False)
    found = ran.stdout.splitlines()
    assert not next_version.exists()
    assert found == old[: len(found)]
    if ran.returncode:
        assert len(found) == 2
        assert "OriginChangedError: the remote file was replaced while it was being read" in ran.stderr
    else:
        assert found == old
    assert run_python(JOB_AND_REPLACE, *arguments).stdout == new.stdout
