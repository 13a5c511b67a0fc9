"""Run the benchmark: `python bench --help`."""

from __future__ import annotations

import json
import platform
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

COSTS = ("attach", "calls", "passed", "profile", "start", "two")
USES = ("ahead", "replay", "serving", "warm", "whatif")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", help="Workloads and costs, with commas between them; all by default.")
@click.option("--ways", help="Ways of reading, with commas between them; all by default.")
@click.option("--rounds", type=click.IntRange(1), default=9, show_default=True, help="How often each is measured.")
@click.option("--size", type=click.Choice(["smoke", "small", "full"]), default="small", show_default=True)
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the results there.")
@click.option("--svg", type=click.Path(dir_okay=False, path_type=Path), help="Draw the picture of the README there.")
@click.option(
    "--data", type=click.Path(file_okay=False, path_type=Path), help="Keep what is read there, for next time."
)
@click.option(
    "--work",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the caches are; the temporary directory by default.",
)
@click.option(
    "--show", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Measure nothing; show these results."
)
@click.option(
    "--markdown",
    "markdown_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write tables for documents there.",
)
@click.option("--list", "listing", is_flag=True, help="Name what can be measured.")
def main(
    only: str | None, ways: str | None, rounds: int, size: str, json_file: Path | None, svg: Path | None,
    data: Path | None, work: Path | None, show: Path | None,
    markdown_file: Path | None, listing: bool,
) -> None:  # fmt: skip
    """Measure JCache against its origin, local files and other caches, and hold it against its bars."""
    from workloads import FAMILIES, WORKLOADS

    # So that servers end with the benchmark also where a batch system ends it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console()
    if listing:
        for workload in WORKLOADS.values():
            console.print(f"{workload.name:18} {workload.help}")
        console.print(f"costs: {', '.join(COSTS)}; uses of profiles: {', '.join(USES)}; ways: {', '.join(FAMILIES)}")
        return
    if show is not None:
        report = json.loads(show.read_text())
    else:
        wanted = only.split(",") if only else [*WORKLOADS, *COSTS, *USES]
        if unknown := set(wanted) - {*WORKLOADS, *COSTS, *USES}:
            raise click.UsageError(f"no such workload: {', '.join(sorted(unknown))}; see --list")
        families = ways.split(",") if ways else list(FAMILIES)
        if unknown := set(families) - set(FAMILIES):
            raise click.UsageError(f"no such way: {', '.join(sorted(unknown))}; see --list")
        own = None if work is not None else tempfile.mkdtemp(prefix="jcache-bench-")
        try:
            place = work or Path(own or "")
            place.mkdir(parents=True, exist_ok=True)
            # Servers that do not run as root have to reach what they export.
            place.chmod(0o755)
            report = measure_all(console, wanted, families, rounds, size, data or place / "data", place, json_file)
        finally:
            if own is not None:
                shutil.rmtree(own, ignore_errors=True)
    from show import draw, markdown, print_tables

    print_tables(console, report)
    if markdown_file is not None:
        markdown_file.write_text(markdown(report))
    if svg is not None:
        svg.write_text(draw(report))


def measure_all(
    console: Console,
    wanted: list[str],
    families: list[str],
    rounds: int,
    size: str,
    data: Path,
    work: Path,
    json_file: Path | None,
) -> dict[str, Any]:
    """Measure what is wanted, one after the other."""
    import costs
    import serving
    import uses
    from bars import checks
    from compare import measure
    from daemons import has_xcache
    from data import SIZES, Data
    from stage import Stage
    from workloads import WORKLOADS

    if not has_xcache():
        console.print("XCache is not installed (Debian: xrootd-server with libXrdPfc); it is left out")
        families = [family for family in families if family != "xcache"]
    report: dict[str, Any] = {
        "schema": 1, "size": size, "rounds": rounds, "python": platform.python_version(), "workloads": {}, "costs": {},
        "checks": [],
    }  # fmt: skip
    results: dict[str, Any] = {}
    data.parent.mkdir(parents=True, exist_ok=True)
    with Stage(Data(data / size, SIZES[size]), work) as stage, console.status("servers") as status:
        for name in wanted:
            began = time.monotonic()
            if name in WORKLOADS:
                results[name] = measure(stage, WORKLOADS[name], families, rounds=rounds, tell=status.update)
                report["workloads"][name] = {way: one.to_json() for way, one in results[name].items()}
            elif name == "calls":
                report["costs"][name] = costs.calls(stage, status.update)
            else:
                where = serving if name == "serving" else uses if name in USES else costs
                report["costs"][name] = getattr(where, name)(stage, rounds, status.update)
            report["checks"] = [check.to_json() for check in checks(results, report["costs"])]
            console.print(f"{name}: {time.monotonic() - began:.0f} s", style="dim")
            if json_file is not None:
                # After each, so that an interrupted run has not measured in vain.
                json_file.write_text(json.dumps(report, indent=1))
    return report


if __name__ == "__main__":
    main()
