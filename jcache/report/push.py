"""A report as metrics that are sent: to a push gateway of Prometheus, or by OTLP over HTTP (extra `otlp`)."""

from __future__ import annotations

import base64
import logging
import urllib.request
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from jcache import __version__
from jcache.report.metrics import families, openmetrics

if TYPE_CHECKING:
    from jcache.report.model import Report

__all__ = ["prepare_for", "send"]

# A job's end does not wait for longer.
LIMIT_S = 5.0
KIND = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def send(report: Report, where: str) -> None:
    """Send the numbers of a report; those that were sent before are replaced.

    Args:
        report: Of one process or of many.
        where: `otlp`, which OpenTelemetry's own variables say more of (`OTEL_EXPORTER_OTLP_ENDPOINT`), or the URL of a
            group at a push gateway, `http://host:9091/metrics/job/ttbar`.

    Raises:
        OSError: They were not taken.
        ImportError: OpenTelemetry is not installed.
    """
    if where == "otlp":
        _export(report)
    else:
        _push(where, openmetrics(report).encode())


def prepare_for(where: str) -> None:
    """Import what sending needs, and takes long to import.

    Raises:
        ImportError: OpenTelemetry is not installed.
    """
    if where == "otlp":
        import opentelemetry.exporter.otlp.proto.http.metric_exporter
        import opentelemetry.sdk.metrics.export  # noqa: F401


def _push(where: str, data: bytes) -> None:
    url = urlsplit(where)
    headers = {"Content-Type": KIND}
    if url.username is not None:
        user = f"{unquote(url.username)}:{unquote(url.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"
        url = url._replace(netloc=url.netloc.rpartition("@")[2])
    request = urllib.request.Request(urlunsplit(url), data, headers, method="PUT")  # noqa: S310 - http or https
    urllib.request.urlopen(request, timeout=LIMIT_S).close()  # noqa: S310


def _export(report: Report) -> None:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.metrics import CallbackOptions, Observation
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricExportResult
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    told = {"service.name": report.appname, "service.instance.id": report.run, "host.name": report.host}
    reader = InMemoryMetricReader()
    # `Resource.create` begins threads, which a process's end has no more.
    resource = Resource(told).merge(OTELResourceDetector().detect())
    provider = MeterProvider([reader], resource, shutdown_on_exit=False)
    meter = provider.get_meter("jcache", __version__)
    for name, kind, text, samples in families(report):
        found = [Observation(value, labels) for labels, value in samples]

        def observed(_: CallbackOptions, found: list[Observation] = found) -> list[Observation]:
            return found

        if kind == "counter":
            meter.create_observable_counter(name, [observed], description=text)
        elif kind == "gauge":
            meter.create_observable_gauge(name, [observed], description=text)
    data = reader.get_metrics_data()
    log = logging.getLogger("opentelemetry.exporter.otlp.proto.http.metric_exporter")
    was_disabled, log.disabled = log.disabled, True  # what it says of a failure is said here, in one line
    try:
        if data is not None and OTLPMetricExporter(timeout=LIMIT_S).export(data) != MetricExportResult.SUCCESS:
            raise OSError("the collector has not taken them")
    finally:
        log.disabled = was_disabled
        provider.shutdown()
