"""Run upstream suites without JCache, with it cold, and warm: `python tests/conformance [SUITE ...] [--quick]`.

Exit code 1 where a test that passes without JCache does not pass with it, or where JCache makes a suite say something.
"""

import argparse
import sys

from runner import compare, missing
from suites import SUITES

SLOWER = 1.2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suites", nargs="*", help=f"among {', '.join(suite.name for suite in SUITES)}; all by default")
    parser.add_argument("--quick", action="store_true", help="the parts that `make test` runs")
    parser.add_argument("--texts", action="store_true", help="print what each lost test said")
    options = parser.parse_args()
    chosen = [suite for suite in SUITES if not options.suites or suite.name in options.suites]
    failures = 0
    print(f"{'suite':20} {'plain':>6} {'cold':>6} {'warm':>6}  {'time cold, warm / plain':>24}")
    for suite in chosen:
        why = missing(suite)
        if why is not None:
            print(f"{suite.name:20} skipped: {why}", flush=True)
            continue
        seen = compare(suite, quick=options.quick)
        counts = [len(run.passed) for run in seen.runs.values()]
        times = [seen.slower(mode) for mode in ("cold", "warm")]
        print(
            f"{suite.name:20} {counts[0]:6} {counts[1]:6} {counts[2]:6}  {times[0]:15.2f} {times[1]:8.2f}", flush=True
        )
        for mode in ("cold", "warm"):
            for test, outcome in seen.lost(mode).items():
                failures += 1
                print(f"    {mode}: {test}: {outcome}", flush=True)
                if options.texts:
                    print(seen.runs[mode].texts.get(test, ""), flush=True)
            for line in dict.fromkeys(seen.runs[mode].said):
                print(f"    {mode}: {line}", flush=True)
        if not counts[0]:
            failures += 1
            print(f"    nothing passes without JCache: {seen.runs['plain'].end}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
