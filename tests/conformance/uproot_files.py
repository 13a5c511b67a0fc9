"""Read every branch and basket of files that uproot writes, over XRootD, without JCache, cold and warm: equal results.

Exit code 1 where they are not, or where the report is lost.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

READ = """
import hashlib, json, sys, numpy, uproot
out = {}
for url in sys.argv[1:]:
    with uproot.open(url) as file:
        for name, kind in file.classnames().items():
            found = file[name]
            if kind.startswith("TH"):
                out[f"{url} {name}"] = repr([numpy.asarray(part).tolist() for part in found.to_numpy()])
                continue
            for branch in found.keys():
                out[f"{url} {name} {branch}"] = repr(found[branch].array().tolist())
                for i in range(getattr(found[branch], "num_baskets", 0)):  # numpy's integers are the bounds
                    basket = found[branch].basket(i)
                    out[f"{url} {name} {branch} {i}"] = repr((basket.num_entries, bytes(basket.data).hex()))
print(json.dumps({key: hashlib.sha256(value.encode()).hexdigest() for key, value in out.items()}))
"""


def write(path: Path) -> None:
    import awkward
    import numpy as np
    import uproot

    numbers = np.random.default_rng(1).normal(size=20_000)
    columns = {
        "plain": numbers,
        "whole": np.arange(20_000, dtype=np.int16),
        "fixed": numbers.reshape(10_000, 2).repeat(2, axis=0),
        "jagged": awkward.unflatten(numbers, [0, 1, 2, 3, 4] * 2000 + [0] * 10_000),
    }
    with uproot.recreate(path) as file:
        file.mktree("tree", columns)
        file["tree"].extend(columns)
        file["histogram"] = np.histogram(numbers, bins=50)
        file["plane"] = np.histogram2d(numbers, numbers[::-1], bins=10)
        file.mkrntuple("tuple", {**columns, "text": awkward.Array([str(n) for n in range(20_000)])})


def main() -> int:
    from servers import XrootdServer

    with tempfile.TemporaryDirectory(prefix="conformance-", dir="/tmp") as directory:
        os.chmod(directory, 0o755)
        exported, cache, reports = (Path(directory, name) for name in ("exported", "cache", "reports"))
        exported.mkdir(mode=0o755)
        write(exported / "all.root")
        results = {}
        with XrootdServer(exported) as server:
            for mode in ("plain", "cold", "warm"):
                environ = {name: value for name, value in os.environ.items() if not name.startswith("JCACHE")}
                if mode != "plain":
                    environ |= {"JCACHE_DIR": str(cache), "JCACHE_JSON": str(reports / mode), "JCACHE_SUMMARY": "0"}
                command = [sys.executable, "-c", READ, server.url("all.root")]
                done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
                results[mode] = json.loads(done.stdout)
        print({mode: len(found) for mode, found in results.items()})
        told = [json.loads(path.read_text()) for path in (reports / "warm").glob("*.json")]
        missed = sum(one["read"]["miss_bytes"] + one["readv"]["miss_bytes"] for one in told)
        print(f"{len(told)} report, {missed} bytes missed once warm")
        return int(not (results["plain"] == results["cold"] == results["warm"] and told and not missed))


if __name__ == "__main__":
    sys.exit(main())
