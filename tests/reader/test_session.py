"""What a whole process does by itself with the journals that it used."""

CODE = """
import sys, fsspec
fs, path = fsspec.url_to_fs(sys.argv[1])
for i in range(int(sys.argv[2]), int(sys.argv[3])):
    sys.stdout.write(fs.cat_file(path, i * 1000, i * 1000 + 500).hex())
"""


def test_a_journal_of_many_segments_is_compacted_by_who_closes_it(run_python, http_origin, cache_dir) -> None:
    data = bytes(range(251)) * 100
    url = http_origin.url("a")
    http_origin.put("a", data)
    for i in range(8):
        ran = run_python(CODE, url, str(i), str(i + 1))
        assert bytes.fromhex(ran.stdout) == data[i * 1000 : i * 1000 + 500]
    assert len(list(cache_dir.rglob("*.seg"))) == 1
    before = http_origin.body_bytes
    ran = run_python(CODE, url, "0", "8")
    assert bytes.fromhex(ran.stdout) == b"".join(data[i * 1000 : i * 1000 + 500] for i in range(8))
    assert http_origin.body_bytes == before
    assert ran.report["read"]["hit_bytes"] == 8 * 500
