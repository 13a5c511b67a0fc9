"""The report as HTML: one page that needs nothing from anywhere else, or a fragment for a notebook."""

from __future__ import annotations

import time
from html import escape
from typing import TYPE_CHECKING

from jcache import __version__
from jcache.report.faces import svg
from jcache.report.faces.compare import Difference, compare, ratio_shown, shown
from jcache.report.faces.rows import INTERIM, groups, unfinished
from jcache.report.faces.savings import savings
from jcache.report.faces.tables import Line, coldest, slowest, table
from jcache.report.faces.units import duration, human, number_of, percent, visible
from jcache.report.merge import describe

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jcache.report.model import Report

LONGEST = 100
"""Rows of a table that are shown; the text says how many are left out."""

# `.jc.jc`: a notebook has rules of its own for what stands in its outputs, which a single class would not overrule.
STYLE = (
    svg.STYLE
    + f"""
.jc{{color:var(--jc-ink);background:var(--jc-paper);font:15px/1.5 {svg.FONT};font-variant-numeric:tabular-nums}}
.jc.jc *{{box-sizing:border-box}}
.jc.jc main,.jc.jc .jc-part{{max-width:1040px;margin:0 auto;padding:28px 24px 48px}}
.jc.jc .jc-part{{padding:16px}}
.jc.jc h1{{font-size:26px;font-weight:700;line-height:1.25;margin:0;overflow-wrap:anywhere}}
.jc.jc h2{{font-size:17px;font-weight:700;line-height:1.5;margin:36px 0 10px}}
.jc.jc p{{margin:4px 0}}
.jc.jc .jc-soft{{color:var(--jc-muted)}}
.jc.jc .jc-alarm{{color:var(--jc-bad);font-weight:600}}
.jc.jc code.jc-command{{display:block;margin-top:10px;padding:8px 12px;background:var(--jc-card);border-radius:6px;
 font:13px/1.5 ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace;overflow-wrap:anywhere}}
.jc.jc .jc-cards{{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(168px,100%),1fr));gap:12px;
 margin:22px 0 0}}
.jc.jc .jc-card{{background:var(--jc-card);border-radius:10px;padding:14px 16px}}
.jc.jc .jc-card dt{{color:var(--jc-muted);font-size:13px;font-weight:400}}
.jc.jc .jc-card dt,.jc.jc .jc-card dd{{float:none;clear:none;width:auto;padding:0}}
.jc.jc .jc-card dd{{margin:2px 0 0;font-size:25px;font-weight:600;line-height:1.25}}
.jc.jc .jc-card small{{display:block;font-size:13px;font-weight:400;color:var(--jc-muted)}}
.jc.jc figure{{margin:28px 0 0;container-type:inline-size}}
.jc.jc figure svg{{display:block;max-width:none;height:auto}}
.jc.jc figure svg+svg{{display:none}}
@container (max-width:640px){{.jc.jc figure svg{{display:none}}.jc.jc figure svg+svg{{display:block}}}}
.jc.jc details{{margin-top:36px}}
.jc.jc summary{{font-size:17px;font-weight:700;line-height:1.5;margin-bottom:10px;cursor:pointer}}
.jc.jc .jc-groups{{columns:2 400px;column-gap:40px}}
.jc.jc .jc-groups table{{break-inside:avoid;margin-bottom:14px}}
.jc.jc .jc-scroll{{overflow-x:auto}}
.jc.jc table{{border-collapse:collapse;table-layout:auto;width:100%;font-size:14px;margin:0}}
.jc.jc caption{{text-align:left;color:var(--jc-muted);font-size:13px;padding:0 0 6px}}
.jc.jc th,.jc.jc td{{color:var(--jc-ink);padding:5px 10px 5px 0;border-bottom:1px solid var(--jc-line);
 text-align:right;white-space:nowrap;background:none}}
.jc.jc thead th{{color:var(--jc-muted);font-weight:500;vertical-align:bottom}}
.jc.jc tr:nth-child(n){{background:none}}
.jc.jc tr>:first-child{{text-align:left;white-space:normal;overflow-wrap:anywhere;width:46%}}
.jc.jc .jc-scroll tr>:first-child{{min-width:200px}}
.jc.jc tbody th{{font-weight:400}}
.jc.jc .jc-groups td{{font-weight:600;white-space:normal}}
.jc.jc .jc-groups .jc-bad{{color:var(--jc-bad)}}
.jc.jc .jc-bar{{display:inline-block;width:64px;height:9px;border-radius:2px;margin-right:8px;overflow:hidden;
 background:var(--jc-origin)}}
.jc.jc .jc-bar i{{display:block;height:100%;background:var(--jc-cache)}}
.jc.jc footer{{margin-top:40px;color:var(--jc-muted);font-size:13px}}
@media print{{.jc{{{svg.COLORS}}}.jc.jc h2{{break-after:avoid}}}}
""".replace("\n", "")
)


def page(report: Report, reports: Sequence[Report], *, sections: Sequence[str] = ()) -> str:
    """Return a whole page about one run.

    Args:
        report: The run, merged.
        reports: What it was merged of, for the tables.
        sections: What else there is to be shown of it, as HTML.
    """
    body = [*_run(report, is_open=True), *sections, *_parts(reports), _footer()]
    return _page(f"{report.appname} on {report.host}", body)


def fragment(report: Report, reports: Sequence[Report] = ()) -> str:
    """Return a run as an element to put into another page, such as a notebook's output; no document around it.

    Args:
        report: The run, merged.
        reports: What it was merged of, for tables by host, process and file; none where there are none.
    """
    body = [*_run(report, is_open=False), *(_parts(reports) if reports else [])]
    return f'<div class="jc"><style>{STYLE}</style><div class="jc-part">{"".join(body)}</div></div>'


def comparison(a: Report, b: Report, names: tuple[str, str]) -> str:
    """Return a whole page about two runs.

    Args:
        a: The first, such as a cold one.
        b: The second.
        names: What the user called them.
    """
    body = ['<header><p class="jc-soft">JCache, two runs compared</p>']
    body.append(f"<h1>{_text(names[0])} and {_text(names[1])}</h1></header>")
    body.append(_differences(compare(a, b), names))
    scale = svg.scale_of(a, b)
    for name, report in zip(names, (a, b), strict=True):
        body.append(f"<section><h2>{_text(name)}</h2>{_heading(report)}{_figure(report, scale)}</section>")
    return _page(f"{names[0]} and {names[1]}", [*body, _footer()])


def _page(title: str, body: Iterable[str]) -> str:
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{_text(title)} · JCache report</title><style>html{{color-scheme:light dark}}body{{margin:0}}"
        f'{STYLE}</style></head>\n<body class="jc"><main>{"".join(body)}</main></body></html>\n'
    )


def _run(report: Report, *, is_open: bool) -> list[str]:
    return [
        f'<header><p class="jc-soft">JCache report</p><h1>{_text(report.appname)}</h1>{_heading(report)}</header>',
        _cards(report),
        _figure(report, None),
        _numbers(report, is_open=is_open),
    ]


def _heading(report: Report) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(report.start_time))
    lines = [f'<p class="jc-soft">{_text(report.host)}, pid {report.pid}, {when}</p>']
    if describe(report):
        lines.append(f"<p>{_text(describe(report))}</p>")
    if state := unfinished(report):
        lines.append(f'<p class="{"jc-alarm" if state == INTERIM else "jc-soft"}">{state}</p>')
    if report.cache.bypassed is not None:
        lines.append(f'<p class="jc-alarm">cache not used: {_text(report.cache.bypassed)}</p>')
    lines.append(f'<code class="jc-command">{_text(report.command)}</code>')
    return "".join(lines)


def _cards(report: Report) -> str:
    rate = percent(report.hit_bytes, report.requested_bytes)
    saved = savings(report)
    time_saved = duration(saved.seconds)
    cards = [
        ("hit rate", f"{rate} %" if rate != "-" else rate, f"{_bytes(report.hit_bytes)} from cache"),
        ("bytes requested", _bytes(report.requested_bytes), number_of(report.files.unique, "file")),
        ("bytes from the origin", _bytes(report.origin.bytes), number_of(report.origin.requests, "request")),
        ("real time", duration(report.real_s), f"{duration(report.user_s)} user time"),
        ("time saved, estimated", time_saved, f"{_bytes(saved.bytes)} not fetched"),
    ]
    items = "".join(
        f'<div class="jc-card"><dt>{label}</dt><dd>{value}<small>{more}</small></dd></div>'
        for label, value, more in cards
    )
    return f'<dl class="jc-cards">{items}</dl>'


def _figure(report: Report, scale: svg.Scale | None) -> str:
    """Return the drawing for where there is room, and the one for where there is not; the style shows one of them."""
    if not svg.has_profile(report):
        return ""
    narrow = svg.draw(report, scale=scale, width=svg.NARROW_WIDTH)
    return f"<figure>{svg.draw(report, scale=scale)}{narrow}</figure>"


def _numbers(report: Report, *, is_open: bool) -> str:
    tables = []
    for group in groups(report):
        rows = "".join(
            f'<tr><th scope="row">{label}</th><td class="jc-{style}">{number} {_text(unit)}</td></tr>'
            for label, number, unit, style in group
        )
        tables.append(f"<table><tbody>{rows}</tbody></table>")
    opened = " open" if is_open else ""
    numbers = f'<div class="jc-groups">{"".join(tables)}</div>'
    return f"<details{opened}><summary>All numbers</summary>{numbers}</details>"


def _parts(reports: Sequence[Report]) -> list[str]:
    files = table(reports, "url")
    parts = []
    slow, cold = slowest(files), coldest(files)
    if slow:
        parts.append(_lines("Slowest files", "Files that openings and reads waited for longest.", slow, of_files=True))
    if cold:
        parts.append(
            _lines("Coldest files", "Files of which most bytes did not come from the cache.", cold, of_files=True)
        )
    parts.append(_lines("By host", "", table(reports, "host"), head="host"))
    if len(reports) > 1:
        parts.append(_lines("By process", "", table(reports, "process"), head="process"))
    if files:
        parts.append(_lines("By file", "", files, of_files=True))
    return parts


def _lines(title: str, caption: str, lines: Sequence[Line], *, of_files: bool = False, head: str = "file") -> str:
    """Return a table of parts of a run, at most `LONGEST` of them."""
    names = ["size", "read", "of it"] if of_files else ["processes", "read"] if head == "host" else ["read"]
    heads = [head, *names, "hit rate", "not from cache", "opened", "waited", *([] if of_files else ["real time"])]
    rows = []
    for line in lines[:LONGEST]:
        cells = [_bytes(line.bytes)]
        if of_files:
            size = "-" if line.size is None else _bytes(line.size)
            cells = [size, *cells, _percent(line.bytes, line.size or 0)]
        elif head == "host":
            cells = [str(line.processes), *cells]
        cells += [_rate(line), _bytes(line.missed_bytes), str(line.opens), duration(line.waited_s)]
        cells += [] if of_files else [duration(line.real_s)]
        rows.append(f'<tr><th scope="row">{_text(line.name)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>')
    if len(lines) > LONGEST:
        caption += f" The first {LONGEST} of {len(lines)}; 'jcache report --json --by ...' has them all."
    first = "".join(f'<th scope="col">{name}</th>' for name in heads)
    return (
        f'<section><h2>{title}</h2><div class="jc-scroll"><table>'
        + (f"<caption>{caption.strip()}</caption>" if caption else "")
        + f"<thead><tr>{first}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _differences(differences: Sequence[Difference], names: tuple[str, str]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{line.label}</th><td>{shown(line.a, line.unit)}</td><td>{shown(line.b, line.unit)}</td>'
        f"<td>{shown(line.change, line.unit, sign=True)}</td><td>{ratio_shown(line.ratio)}</td></tr>"
        for line in differences
    )
    heads = "".join(f'<th scope="col">{_text(name)}</th>' for name in ("", *names, "difference", "ratio"))
    return (
        f'<section><h2>Side by side</h2><div class="jc-scroll"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _rate(line: Line) -> str:
    if not line.bytes:
        return "-"
    width = 100 * line.hit_bytes / line.bytes
    bar = f'<span class="jc-bar" aria-hidden="true"><i style="width:{width:.1f}%"></i></span>'
    return bar + _percent(line.hit_bytes, line.bytes)


def _percent(part: int, whole: int) -> str:
    share = percent(part, whole)
    return share if share == "-" else f"{share} %"


def _bytes(value: float) -> str:
    return " ".join(human(value))


def _text(text: str) -> str:
    return escape(visible(text))


def _footer() -> str:
    return (
        "<footer><p>Saved time is an estimate: the bytes that came from the cache at the throughput that the origin "
        "was measured to have in these reports; '-' where nobody measured it. What reading the cache took is not "
        f"subtracted, and waiting of several processes at a time is added up.</p><p>JCache {__version__}</p></footer>"
    )
