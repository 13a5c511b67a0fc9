"""Reports in a real browser: readable in every theme, and whole at every width."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import escape, unescape
from typing import TYPE_CHECKING

import pytest
from report_samples import ttbar_report

from jcache.report.faces.html import fragment, page
from jcache.report.merge import merge

if TYPE_CHECKING:
    from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDTHS = (400, 800, 1200)

# What JupyterLab says of text in its outputs, and its colours, as far as they matter here.
LAB = """
.jp-RenderedHTMLCommon{color:var(--jp-content-font-color1)}
.jp-RenderedHTMLCommon table{border-collapse:collapse;table-layout:fixed;color:var(--jp-ui-font-color1)}
.jp-RenderedHTMLCommon td,.jp-RenderedHTMLCommon th{color:var(--jp-ui-font-color1);white-space:normal}
.jp-RenderedHTMLCommon tbody tr:nth-child(odd){background:var(--jp-layout-color0)}
.jp-RenderedHTMLCommon tbody tr:nth-child(even){background:var(--jp-rendermime-table-row-background)}
.jp-RenderedHTMLCommon svg{max-width:100%;height:auto}
body{margin:0;background:var(--jp-layout-color0)}
"""
THEMES = {
    "true": "--jp-content-font-color1:rgba(0,0,0,.87);--jp-content-font-color2:rgba(0,0,0,.54);"
    "--jp-border-color2:#e0e0e0;--jp-layout-color0:#fff;--jp-layout-color2:#eee;--jp-ui-font-color1:rgba(0,0,0,.87);"
    "--jp-rendermime-table-row-background:#f5f5f5",
    "false": "--jp-content-font-color1:#fff;--jp-content-font-color2:rgba(255,255,255,.7);--jp-border-color2:#616161;"
    "--jp-layout-color0:#111;--jp-layout-color2:#424242;--jp-ui-font-color1:#fff;"
    "--jp-rendermime-table-row-background:#212121",
}
MEASURE = """
function channels(text) { return text.match(/[\\d.]+/g).map(Number).concat([1]).slice(0, 4) }
function light(rgb) {
  const [r, g, b] = rgb.map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
  return .2126 * r + .7152 * g + .0722 * b
}
function over(top, below) { return [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3])) }
function ground(e) {
  const own = channels(getComputedStyle(e).backgroundColor)
  return own[3] === 1 || !e.parentElement ? own.slice(0, 3) : over(own, ground(e.parentElement))
}
function measure(frame) {
  const doc = frame.contentDocument
  doc.querySelectorAll('details').forEach(d => d.open = true)
  let contrast = 99, right = 0, least = 99
  for (const e of doc.querySelectorAll('.jc *')) {
    const box = e.getBoundingClientRect()
    if (!box.width || e.closest('style,title,desc')) continue
    if (!e.closest('.jc-scroll')) right = Math.max(right, box.right)
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue
    const style = getComputedStyle(e), svg = e.closest('svg'), below = ground(e)
    const a = light(over(channels(svg ? style.fill : style.color), below)), b = light(below)
    contrast = Math.min(contrast, (Math.max(a, b) + .05) / (Math.min(a, b) + .05))
    if (svg) least = Math.min(least, parseFloat(style.fontSize) * svg.clientWidth / svg.viewBox.baseVal.width)
  }
  const shown = [...doc.querySelectorAll('figure svg')].map(e => e.getBoundingClientRect()).filter(b => b.width)
  return {contrast, right, least, drawings: shown.length, drawn: shown[0].width, page: doc.scrollingElement.scrollWidth}
}
onload = () => {
  const out = {}
  document.querySelectorAll('iframe').forEach(f => out[f.id] = measure(f))
  document.body.replaceChildren(Object.assign(document.createElement('pre'), {textContent: JSON.stringify(out)}))
}
"""


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here")
@pytest.mark.parametrize("system", ["light", "dark"])
def test_a_report_is_readable_and_whole_in_a_browser(system: str, tmp_path: Path) -> None:
    reports = [ttbar_report(seed=n, events=200, real_s=40.0 + n, warm=1.3, pid=n, host=f"node{n}") for n in range(3)]
    own = page(merge(reports), reports)
    documents = {"page": re.sub(r"<meta http-equiv[^>]*>", "", own)}
    for is_light, colors in THEMES.items():
        body = f'<div class="jp-RenderedHTMLCommon">{fragment(merge(reports), reports)}</div>'
        style = f"<style>:root{{{colors}}}{LAB}</style>"
        documents[f"lab light={is_light}"] = f'<html>{style}<body data-jp-theme-light="{is_light}">{body}</body></html>'
    frames = "".join(
        f'<iframe id="{name} {width}" width="{width}" height="900" style="border:0" srcdoc="{escape(text)}"></iframe>'
        for name, text in documents.items()
        for width in WIDTHS
    )
    seen = browse(f"<!doctype html><script>{MEASURE}</script><body>{frames}</body>", system, tmp_path)
    assert len(seen) == 9
    for name, found in seen.items():
        width = int(name.split()[-1])
        assert found["contrast"] >= 4, (name, found)
        assert found["right"] <= width, (name, found)
        assert found["page"] <= width, (name, found)
        assert found["drawings"] == 1, (name, found)
        assert found["drawn"] > 0.8 * min(width, 1040), (name, found)
        assert found["least"] > 9, (name, found)


def browse(document: str, system: str, tmp_path: Path) -> dict[str, dict[str, float]]:
    """What the document's script left in it, in a browser on an operating system of light or dark looks."""
    assert CHROMIUM is not None
    (tmp_path / "document.html").write_text(document)
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    command = [
        CHROMIUM,
        *flags.split(),
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={tmp_path}/user",
    ]
    command += [f"--blink-settings=preferredColorScheme={'0' if system == 'dark' else '1'}", "--window-size=1300,900"]
    command += ["--virtual-time-budget=10000", "--dump-dom", f"file://{tmp_path}/document.html"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    found = re.search(r"<pre>(.*?)</pre>", done.stdout)
    assert found is not None, done.stderr[-2000:]
    answer: dict[str, dict[str, float]] = json.loads(unescape(found[1]))
    return answer
