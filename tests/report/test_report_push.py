"""`JCACHE_METRICS_PUSH`: what a push gateway and a collector of OpenTelemetry get is what the report says."""

from __future__ import annotations

import base64
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from openmetrics import READ, RUN, value

from jcache.settings.config import Config, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from activation import Site

SECRET = "hunter2"


class Taker(ThreadingHTTPServer):
    """Takes what is sent, and answers with `status`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Taking)
        self.taken: list[tuple[str, str, dict[str, str], bytes]] = []
        self.status = 200
        self.address = f"127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Taking(BaseHTTPRequestHandler):
    server: Taker

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.taken.append((self.command, self.path, dict(self.headers.items()), body))
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_PUT  # noqa: N815 - the server looks for this name

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def taker() -> Iterator[Taker]:
    made = Taker()
    yield made
    made.shutdown()
    made.server_close()


@pytest.mark.parametrize("is_run", [False, True], ids=["process", "jcache run"])
def test_a_push_gateway_gets_what_is_in_the_file(site: Site, taker: Taker, *, is_run: bool) -> None:
    parser = pytest.importorskip("prometheus_client.openmetrics.parser")
    where = f"http://me:{SECRET}@{taker.address}/metrics/job/ttbar"
    command = (*RUN, sys.executable, site.script(READ)) if is_run else (site.script(READ),)
    ran = site.run(*command, JCACHE_METRICS_PUSH=where, JCACHE_METRICS="/dev/stdout", JCACHE_SUMMARY="0")
    assert (ran.code, ran.err) == (0, "")
    method, path, headers, body = taker.taken[-1]
    assert (method, path) == ("PUT", "/metrics/job/ttbar")
    assert headers["Authorization"] == "Basic " + base64.b64encode(f"me:{SECRET}".encode()).decode()
    assert headers["Host"] == taker.address
    assert headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert body.decode() == ran.out[-len(body) :]
    assert value(body.decode(), "jcache_read_bytes_total", source="hit") == 10
    assert list(parser.text_string_to_metric_families(body.decode()))


@pytest.mark.parametrize("why", ["refused", "503"])
def test_who_does_not_take_them_is_one_line_without_secrets(site: Site, taker: Taker, why: str) -> None:
    taker.status = 503
    if why == "refused":
        taker.shutdown()
        taker.server_close()
    where = f"http://me:{SECRET}@{taker.address}/metrics/job/ttbar"
    ran = site.run(site.script(READ), JCACHE_METRICS_PUSH=where, JCACHE_SUMMARY="0")
    assert ran.code == 0
    assert ran.err.startswith(f"jcache: no metrics in http://{taker.address}/metrics/job/ttbar: ")
    assert ran.err.count("\n") == 1
    assert SECRET not in ran.err
    assert len(ran.reports) == 1


def test_a_collector_gets_them_by_otlp(site: Site, taker: Taker) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http.metric_exporter")
    service = pytest.importorskip("opentelemetry.proto.collector.metrics.v1.metrics_service_pb2")
    told = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{taker.address}", "OTEL_EXPORTER_OTLP_HEADERS": "x-who=me"}
    ran = site.run(site.script(READ), JCACHE_METRICS_PUSH="otlp", JCACHE_SUMMARY="0", JCACHE_APPNAME="ttbar", **told)
    assert (ran.code, ran.err) == (0, "")
    method, path, headers, body = taker.taken[-1]
    assert (method, path, headers["x-who"]) == ("POST", "/v1/metrics", "me")
    asked = service.ExportMetricsServiceRequest()
    asked.ParseFromString(body)
    (resource,) = asked.resource_metrics
    attributes = {one.key: one.value.string_value for one in resource.resource.attributes}
    assert attributes["service.name"] == "ttbar"
    (scope,) = resource.scope_metrics
    assert scope.scope.name == "jcache"
    found = {metric.name: metric for metric in scope.metrics}
    reads = found["jcache_read_bytes"]
    assert reads.sum.is_monotonic
    hit = [
        point.as_int
        for point in reads.sum.data_points
        if ("source", "hit") in {(one.key, one.value.string_value) for one in point.attributes}
    ]
    assert sum(hit) == 10
    assert [point.as_int for point in found["jcache_processes"].gauge.data_points] == [1]


def test_a_collector_that_refuses_is_one_line(site: Site, taker: Taker) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http.metric_exporter")
    taker.status = 400
    told = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{taker.address}"}
    ran = site.run(site.script(READ), JCACHE_METRICS_PUSH="otlp", JCACHE_SUMMARY="0", **told)
    assert (ran.code, ran.err) == (0, "jcache: no metrics in otlp: the collector has not taken them\n")


def test_where_they_may_go() -> None:
    for wrong in ("ftp://h/x", "http://", f"htp://me:{SECRET}@h/", "h:9091"):
        with pytest.raises(ConfigError, match=r"JCACHE_METRICS_PUSH=.* is wrong: give a URL, or otlp") as raised:
            Config.from_environ({"JCACHE_METRICS_PUSH": wrong})
        assert SECRET not in str(raised.value)


def test_jcache_config_keeps_the_secret(site: Site) -> None:
    where = f"https://me:{SECRET}@h/metrics/job/a"
    for options in ((), ("--json",)):
        ran = site.run("-m", "jcache", "config", *options, JCACHE_METRICS_PUSH=where)
        assert "https://***@h/metrics/job/a" in ran.out
        assert SECRET not in ran.out
    assert json.loads(ran.out)["settings"]["metrics_push"]["source"] == "JCACHE_METRICS_PUSH"
