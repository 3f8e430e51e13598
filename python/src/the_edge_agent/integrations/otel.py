"""OpenTelemetry: a span and a duration for each call of a memory, and the numbers of its connections.

The names are those of the semantic conventions for databases.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final
from weakref import WeakKeyDictionary, ref

try:
    from opentelemetry import context, metrics, trace
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
    from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider
except ImportError as error:
    raise ImportError('OpenTelemetry is missing; install it with: pip install "the-edge-agent[otel]"') from error

from the_edge_agent.memory import CallEvent, LTMBackend

_SCOPE: Final = "the_edge_agent.memory"
_UNKNOWN_SYSTEM: Final = "other_sql"
_BUCKETS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)  # seconds; those of the conventions


def instrument(
    memory: LTMBackend, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
) -> Instrumentation:
    """Report the calls of a memory, of its namespaces and of the catalog that it opened to OpenTelemetry.

    Each call is a span of the kind CLIENT below the current span, named ``{operation} {table}``, such as ``search
    ltm_entries``. Spans that are made during the call are below it. An iteration is a span from its first to its last
    item, but spans that the program makes between two items are not below it. A failure has ``error.type``. The
    metrics are ``db.client.operation.duration``, and, if the memory counts its connections,
    ``db.client.connection.count``, ``db.client.connection.max`` and ``db.client.connection.pending_requests``. Nothing
    that is stored or searched is reported, and no key and no name of a namespace. A catalog that the program has made
    is not reported.

    Args:
        memory: any memory. It is not kept alive.
        tracer_provider: makes the spans; None for the global one.
        meter_provider: makes the metrics; None for the global one.

    Returns:
        An object whose ``remove`` ends this. Call ``instrument`` once for each memory: a second call reports each call
        twice. Many threads may use the memory.
    """
    listener = Instrumentation(memory, tracer_provider, meter_provider)
    memory.add_listener(listener)
    return listener


class Instrumentation:
    """A listener that reports calls to OpenTelemetry; ``instrument`` makes it."""

    def __init__(
        self, memory: LTMBackend, tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None
    ) -> None:
        """Make the instruments."""
        self._memory = ref(memory)
        self._is_removed = False
        self._spans: WeakKeyDictionary[CallEvent, tuple[Span, Any]] = WeakKeyDictionary()
        self._tracer = trace.get_tracer(_SCOPE, tracer_provider=tracer_provider)
        meter = metrics.get_meter(_SCOPE, meter_provider=meter_provider)
        self._duration = meter.create_histogram(
            "db.client.operation.duration",
            unit="s",
            description="Duration of database client operations.",
            explicit_bucket_boundaries_advisory=_BUCKETS,
        )
        meter.create_observable_up_down_counter(
            "db.client.connection.count",
            [self._connections],
            unit="{connection}",
            description="The number of connections that are in the state of the attribute.",
        )
        meter.create_observable_up_down_counter(
            "db.client.connection.max",
            [self._most_connections],
            unit="{connection}",
            description="The number of connections that stay open at most.",
        )
        meter.create_observable_up_down_counter(
            "db.client.connection.pending_requests",
            [self._waiting],
            unit="{request}",
            description="The number of threads that wait for a connection.",
        )

    def remove(self) -> None:
        """Report no further call, and no connections."""
        self._is_removed = True
        memory = self._memory()
        if memory is not None:
            memory.remove_listener(self)

    def call_started(self, event: CallEvent) -> None:
        """Begin the span of a call."""
        name = f"{event.operation} {event.table or event.database}".rstrip()
        span = self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=_attributes(event))
        token = None if event.is_iteration else context.attach(trace.set_span_in_context(span))
        self._spans[event] = span, token

    def call_ended(self, event: CallEvent) -> None:
        """End the span of a call, and record its duration."""
        span, token = self._spans.pop(event, (None, None))
        if token is not None:
            context.detach(token)
        attributes = _attributes(event)
        if event.error_type is not None:
            attributes["error.type"] = event.error_type
        if span is not None:
            span.set_attributes({"the_edge_agent.rows": event.rows, "the_edge_agent.retries": event.retries})
            if event.error_type is not None:
                span.set_attribute("error.type", event.error_type)
                span.set_status(Status(StatusCode.ERROR))
            span.end()
        self._duration.record(event.seconds, attributes)

    def _pool(self) -> tuple[Any, dict[str, str]]:
        """Return the state of the connections, or None, and the attributes of their pool."""
        memory = self._memory()
        if memory is None or self._is_removed:
            return None, {}
        system, database, _ = memory._target()
        return memory.stats()["pool"], {"db.client.connection.pool.name": f"{system or _UNKNOWN_SYSTEM}/{database}"}

    def _connections(self, _: CallbackOptions) -> Iterable[Observation]:
        pool, attributes = self._pool()
        if pool is not None:
            yield Observation(pool["in_use"], {**attributes, "db.client.connection.state": "used"})
            yield Observation(pool["idle"], {**attributes, "db.client.connection.state": "idle"})

    def _most_connections(self, _: CallbackOptions) -> Iterable[Observation]:
        pool, attributes = self._pool()
        if pool is not None and pool["size"] is not None:
            yield Observation(pool["size"], attributes)

    def _waiting(self, _: CallbackOptions) -> Iterable[Observation]:
        pool, attributes = self._pool()
        if pool is not None and pool["waiting"] is not None:
            yield Observation(pool["waiting"], attributes)


def _attributes(event: CallEvent) -> dict[str, Any]:
    attributes = {
        "db.system.name": event.system or _UNKNOWN_SYSTEM,
        "db.operation.name": event.operation,
        "db.namespace": event.database,
        "db.collection.name": event.table,
    }
    return {name: value for name, value in attributes.items() if value}
