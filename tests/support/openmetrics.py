"""OpenMetrics, read by its grammar alone; and a job that has something to tell."""

from __future__ import annotations

import re
from typing import NamedTuple

RUN = ("-c", "from jcache.cli.run import run; run()")
READ = "import faraway; faraway.read(10)"

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
ESCAPED = r'(?:[^"\\\n]|\\[\\n"])*'
LABELS = rf'\{{(?:[a-zA-Z_][a-zA-Z0-9_]*="{ESCAPED}"(?:,[a-zA-Z_][a-zA-Z0-9_]*="{ESCAPED}")*)?\}}'
NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*(?:e[+-]?[0-9]+)?)"
HELP = re.compile(rf"# HELP ({NAME}) ((?:[^\\\n\"]|\\[\\n\"])*)")
TYPE = re.compile(rf"# TYPE ({NAME}) (counter|gauge|info)")
SAMPLE = re.compile(rf"({NAME})({LABELS})? ({NUMBER})")
LABEL = re.compile(rf'([a-zA-Z_][a-zA-Z0-9_]*)="({ESCAPED})"')
SUFFIX = {"counter": "_total", "info": "_info", "gauge": ""}


class Sample(NamedTuple):
    name: str
    labels: tuple[tuple[str, str], ...]
    value: float


def unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], text)


def parsed(text: str) -> dict[Sample, float]:
    """Read OpenMetrics 1.0 as its grammar has it, with the rules that are beside that; anything else fails."""
    *lines, eof, end = text.split("\n")
    assert (eof, end) == ("# EOF", "")
    families: dict[str, str] = {}
    samples: dict[Sample, float] = {}
    helped, now = "", ""
    for line in lines:
        if found := HELP.fullmatch(line):
            helped = found[1]
        elif found := TYPE.fullmatch(line):
            now, kind = found[1], found[2]
            assert now == helped, "the metadata of a family stands together"
            assert now not in families, "a family is in one piece"
            assert not now.endswith(("_total", "_info", "_created", "_bucket", "_count", "_sum"))
            families[now] = kind
        else:
            found = SAMPLE.fullmatch(line)
            assert found, line
            kind = families[now]
            assert found[1] == now + SUFFIX[kind], line
            labels = [(name, unescaped(value)) for name, value in LABEL.findall(found[2] or "")]
            assert len({name for name, _ in labels}) == len(labels), line
            value = float(found[3])
            assert kind == "gauge" or value >= 0, line
            assert kind != "info" or value == 1, line
            sample = Sample(found[1], tuple(sorted(labels)), 0.0)
            assert sample not in samples, f"twice: {line}"
            samples[sample] = value
    names = {name + SUFFIX[kind] for name, kind in families.items()}
    assert len(names) == len(families)
    return samples


def value(text: str, name: str, **labels: str) -> float:
    found = [
        number
        for sample, number in parsed(text).items()
        if sample.name == name and labels.items() <= dict(sample.labels).items()
    ]
    return sum(found)
