"""The results as tables in the terminal, and as a picture."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from compare import paired
from rich.box import SIMPLE
from rich.table import Table
from workloads import MEANING, WORKLOADS

if TYPE_CHECKING:
    from rich.console import Console

# What the picture shows: one panel for each.
PANELS = (
    ("peers", "63 MB out of 1 GB, origin on the same machine"),
    ("seed-wan", "64 MB out of 1 GB, origin 20 ms away at 1 Gb/s"),
    ("agc", "uproot, seven of 950 columns, origin on the same machine"),
    ("agc-wan", "the same, 20 ms away at 1 Gb/s"),
)
SHOWN = (
    "origin", "local", "jcache-cold", "jcache-warm", "trusted-warm", "xcache-cold", "xcache-warm",
    "blockcache-cold", "blockcache-warm", "filecache-cold", "filecache-warm",
)  # fmt: skip


def print_tables(console: Console, report: dict[str, Any]) -> None:
    """Print what each workload took in each way, then every bar."""
    for name, ways in report["workloads"].items():
        console.print(table_of(name, ways))
    if report["checks"]:
        console.print(bars_of(report["checks"]))


def table_of(name: str, ways: dict[str, Any]) -> Table:
    table = Table(title=f"{name}: {WORKLOADS[name].help}", title_justify="left", box=SIMPLE, pad_edge=False)
    table.add_column("way", no_wrap=True)
    for column in ("ms", "later", "cpu", "/ origin", "/ local", "fetched", "on disk"):
        table.add_column(column, justify="right", no_wrap=True)
    asked = asked_bytes(name, ways)
    for way, result in ways.items():
        if not result["first"]:
            continue
        over = paired(result["first"], ways["origin"]["first"]) if "origin" in ways else None
        local = paired(result["first"], ways["local"]["first"]) if "local" in ways else None
        table.add_row(
            way,
            f"{1000 * median(result['first']):.1f}",
            f"{1000 * median(result['steady']):.1f}",
            f"{1000 * median(result['cpu']):.0f}",
            "-" if over is None else f"{over.median:.2f}",
            "-" if local is None else f"{local.median:.2f}",
            share(result["origin_bytes"], asked),
            share(result["disk_bytes"], asked) if result["disk_bytes"] else "-",
        )
    return table


def asked_bytes(name: str, ways: dict[str, Any]) -> int:
    """Return how many bytes of files were asked for; with uproot, which unpacks them, what the origin sent."""
    origin = ways.get("origin")
    if WORKLOADS[name].kind == "uproot" and origin is not None and origin["origin_bytes"]:
        return int(origin["origin_bytes"])
    return int(next(iter(ways.values()))["nbytes"])


def share(count: int | None, nbytes: int) -> str:
    """Return bytes as a multiple of what the application asked for."""
    return "-" if count is None else f"{count / nbytes:.3f}x"


def bars_of(checks: list[dict[str, Any]]) -> Table:
    table = Table(title="what must hold", title_justify="left", box=SIMPLE, pad_edge=False)
    table.add_column("bar", overflow="fold")
    table.add_column("limit", justify="right")
    table.add_column("measured", overflow="fold")
    table.add_column("")
    for check in checks:
        sign = ">=" if check["at_least"] else "<="
        verdict = {True: "[green]met[/]", False: "[red]missed[/]", None: "-"}[check["met"]]
        table.add_row(check["bar"], f"{sign} {check['limit']:g}", check["text"], verdict)
    return table


def markdown(report: dict[str, Any]) -> str:
    """Return bars and ratios as the tables of `docs/performance.md`."""
    lines = ["| bar | limit | measured (quartiles) | |", "|---|---:|---:|---|"]
    for check in report["checks"]:
        sign = "≥" if check["at_least"] else "≤"
        verdict = {True: "met", False: "missed", None: ""}[check["met"]]
        lines.append(f"| {check['bar']} | {sign} {check['limit']:g} | {check['text']} | {verdict} |")
    names = [name for name in report["workloads"] if "origin" in report["workloads"][name]]
    shown = [way for way in MEANING if any(way in report["workloads"][name] for name in names)]
    lines += ["", f"| time / origin alone | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
    for way in shown:
        cells = []
        for name in names:
            ways = report["workloads"][name]
            cells.append(f"{paired(ways[way]['first'], ways['origin']['first']).median:.2f}" if way in ways else "")
        lines.append(f"| {MEANING[way]} | {' | '.join(cells)} |")
    lines += ["", f"| on disk / asked for | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
    for way in shown:
        if not way.endswith("-cold"):
            continue
        cells = []
        for name in names:
            ways = report["workloads"][name]
            cells.append(f"{ways[way]['disk_bytes'] / asked_bytes(name, ways):.4f}" if way in ways else "")
        lines.append(f"| {MEANING[way].removesuffix(', cold')} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def faded(way: str) -> str:
    return ' fill-opacity="0.55"' if way.endswith("cold") else ""


def draw(report: dict[str, Any]) -> str:
    """Return a picture of times relative to the origin alone, one panel for each workload, as SVG."""
    width, bar, gap, label, head = 760, 15, 5, 190, 34
    colours = {"origin": "#8a8f98", "local": "#8a8f98", "jcache": "#1f77b4", "trusted": "#1f77b4"}
    body: list[str] = []
    y = 8
    for name, title in PANELS:
        ways = report["workloads"].get(name)
        if not ways or "origin" not in ways:
            continue
        rows = [(way, paired(ways[way]["first"], ways["origin"]["first"])) for way in SHOWN if way in ways]
        room = width - label - 150
        largest = max(ratio.median for _, ratio in rows)
        body.append(f'<text x="8" y="{y + 16}" class="title">{escape(name)}: {escape(title)}</text>')
        body.append(f'<text x="{width - 8}" y="{y + 16}" class="note" text-anchor="end">time / origin alone</text>')
        y += head - 8
        for way, ratio in rows:
            colour = colours.get(way.partition("-")[0], "#d8a25c")
            length = max(room * ratio.median / largest, 1)
            disk = ways[way]["disk_bytes"]
            note = f"{ratio.median:.2f}" + (f", {disk / asked_bytes(name, ways):.2f}x on disk" if disk else "")
            middle = y + bar - 4
            body.append(f'<text x="{label - 6}" y="{middle}" text-anchor="end">{escape(MEANING[way])}</text>')
            body.append(
                f'<rect x="{label}" y="{y}" width="{length:.1f}" height="{bar}" rx="2" fill="{colour}"{faded(way)}/>'
            )
            body.append(f'<text x="{label + length + 6:.1f}" y="{middle}" class="note">{escape(note)}</text>')
            y += bar + gap
        y += 14
    style = (
        "text{font:12px sans-serif;fill:#57606a}.title{font-weight:bold;font-size:13px}.note{font-size:11px}"
        "@media(prefers-color-scheme:dark){text{fill:#c9d1d9}}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y}" width="{width}" height="{y}" role="img" '
        f'aria-label="Time of each way of reading over that of the origin alone"><style>{style}</style>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )
