"""The spans and metrics of OpenTelemetry, as its SDK exports them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from absent import WITHOUT, run_python
from the_edge_agent.integrations.otel import instrument
from the_edge_agent.memory import SQLAlchemyBackend, SQLiteBackend

pytestmark = pytest.mark.highest_versions


class Telemetry:
    """Providers that keep what they get."""

    def __init__(self) -> None:
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers, self.meters = TracerProvider(), MeterProvider([self.reader])
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.tracers.get_tracer("test")

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}

    def metrics(self) -> dict[str, list[Any]]:
        data: Any = self.reader.get_metrics_data()
        if data is None:
            return {}
        return {
            metric.name: [*metric.data.data_points]
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
def memory(telemetry: Telemetry, tmp_path: Path) -> Iterator[SQLAlchemyBackend]:
    with SQLAlchemyBackend(f"sqlite:///{tmp_path / 'customers.db'}", catalog="sqlalchemy") as backend:
        instrument(backend, telemetry.tracers, telemetry.meters)
        yield backend


def test_a_call_is_a_span_with_the_attributes_of_the_conventions(memory: Any, telemetry: Telemetry) -> None:
    memory.namespace("acme").store("key", "wolpertinger")
    (span,) = telemetry.exporter.get_finished_spans()
    assert (span.name, span.kind) == ("store ltm_entries", SpanKind.CLIENT)
    assert span.attributes == {
        "db.system.name": "sqlite",
        "db.operation.name": "store",
        "db.namespace": "customers.db",
        "db.collection.name": "ltm_entries",
        "the_edge_agent.rows": 1,
        "the_edge_agent.retries": 0,
    }
    assert span.status.status_code is StatusCode.UNSET
    shown = span.to_json()
    assert not any(word in shown for word in ("acme", "wolpertinger"))


def test_a_failure_has_its_error_type(memory: Any, telemetry: Telemetry) -> None:
    memory.store("", 1)
    span: Any = telemetry.spans["store ltm_entries"]
    assert span.attributes["error.type"] == "validation_error"
    assert span.status.status_code is StatusCode.ERROR


def test_spans_nest_in_both_directions(memory: Any, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    def count(keys: Any) -> int:
        with telemetry.tracer.start_as_current_span("of the driver"):
            return 1

    monkeypatch.setattr(memory, "_count", count)
    with telemetry.tracer.start_as_current_span("of the program"):
        memory.count()
    with telemetry.tracer.start_as_current_span("after"):
        pass
    spans: Any = telemetry.spans
    call = spans["count ltm_entries"]
    assert call.parent.span_id == spans["of the program"].context.span_id
    assert spans["of the driver"].parent.span_id == call.context.span_id
    assert spans["after"].parent is None
    assert spans["of the program"].start_time <= call.start_time <= spans["of the driver"].start_time
    assert spans["of the driver"].end_time <= call.end_time <= spans["of the program"].end_time


def test_an_iteration_is_a_span_and_not_above_the_work_between_its_items(memory: Any, telemetry: Telemetry) -> None:
    memory.store("a", 1)
    for _ in memory.iterate_all():
        with telemetry.tracer.start_as_current_span("work"):
            pass
    spans: Any = telemetry.spans
    assert spans["work"].parent is None
    call = spans["iterate_all ltm_entries"]
    assert call.attributes["the_edge_agent.rows"] == 1
    assert call.start_time <= spans["work"].start_time <= spans["work"].end_time <= call.end_time


def test_the_catalog_of_the_memory_is_reported(memory: Any, telemetry: Telemetry) -> None:
    memory.catalog.list_entries()
    span: Any = telemetry.spans["catalog.list_entries ltm_catalog"]
    assert span.attributes["db.operation.name"] == "catalog.list_entries"


def test_durations_and_connections_are_metrics(memory: Any, telemetry: Telemetry) -> None:
    memory.store("a", 1)
    memory.store("", 1)
    found = telemetry.metrics()
    durations = {point.attributes.get("error.type"): point for point in found["db.client.operation.duration"]}
    assert durations.keys() == {None, "validation_error"}
    assert (durations[None].count, durations[None].explicit_bounds[0]) == (1, 0.001)
    assert 0 < durations[None].sum < 60
    states = {
        point.attributes["db.client.connection.state"]: point.value for point in found["db.client.connection.count"]
    }
    assert states == {"used": 0, "idle": 1}
    (most,) = found["db.client.connection.max"]
    assert (most.value, most.attributes["db.client.connection.pool.name"]) == (5, "sqlite/customers.db")
    assert [point.value for point in found["db.client.connection.pending_requests"]] == [0]


def test_after_remove_nothing_is_reported(telemetry: Telemetry) -> None:
    with SQLiteBackend() as memory:
        instrumentation = instrument(memory, telemetry.tracers, telemetry.meters)
        instrumentation.remove()
        memory.store("a", 1)
        assert telemetry.exporter.get_finished_spans() == ()
        assert not any(telemetry.metrics().values())


def test_without_opentelemetry_the_error_names_the_extra() -> None:
    code = "try: import the_edge_agent.integrations.otel\nexcept ImportError as error: print(error)"
    assert "the-edge-agent[otel]" in run_python(WITHOUT.format(package="opentelemetry") + code)
