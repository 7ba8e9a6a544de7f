import pytest
from opentelemetry import trace

from telemetry.exporting import TracingError, exporters_wanted, protocol_wanted
from telemetry.tracing import recorded_span, server_span, shared_span, span, tracing

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, ()),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ("otlp",)),
        ({"OTEL_TRACES_EXPORTER": "console, otlp"}, ("console", "otlp")),
        ({ENDPOINT: "http://collector:4317"}, ("otlp",)),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4317"}, ("otlp",)),
        ({ENDPOINT: ""}, ()),
        ({ENDPOINT: "http://collector:4317", "OTEL_TRACES_EXPORTER": "none"}, ()),
        ({ENDPOINT: "http://collector:4317", "OTEL_SDK_DISABLED": "TRUE"}, ()),
    ],
)
def test_traces_are_exported_where_the_standard_variables_say_so(
    environment: dict[str, str], wanted: tuple[str, ...]
) -> None:
    assert exporters_wanted(environment) == wanted


def test_the_protocol_of_traces_goes_before_that_of_all_signals() -> None:
    everything = {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
    assert protocol_wanted({}) == "grpc"
    assert protocol_wanted(everything) == "http/protobuf"
    assert protocol_wanted({**everything, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}) == "grpc"


def test_what_is_not_known_is_refused() -> None:
    with pytest.raises(TracingError, match="'jaeger' is none of otlp, console, none"):
        exporters_wanted({"OTEL_TRACES_EXPORTER": "jaeger"})
    with pytest.raises(TracingError, match="'http/json' is none of"):
        protocol_wanted({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"})


def test_while_it_is_off_no_span_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    header = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    with tracing("test"), server_span("outer", [header]) as outer, span("inner") as inner:
        assert outer is inner is trace.INVALID_SPAN
        assert recorded_span() is None
        assert shared_span("batch", [None]) is None
