"""Log lines and own metrics; the slow-query log of a real server."""

import json
import logging
import re
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest

from benchmarks.peers import treering
from tests.treering.server import call
from treering.telemetry import MAX_LOGGED_TEXT, Gauge, LineFormatter, Telemetry

_PAIR = re.compile(r'([a-z_]+)=("(?:[^"\\]|\\.)*"|[^ "=]*)(?: |$)')


def line(fields: Mapping[str, object], message: str = "told", *, as_json: bool = False, error: Exception | None = None) -> str:
    info = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord("treering", logging.WARNING, "file", 1, message, None, info)
    record.fields = dict(fields)
    return LineFormatter(as_json=as_json).format(record)


def parsed(text: str) -> dict[str, str]:
    """The fields of a logfmt line, each character of which must belong to one."""
    found = {name: json.loads(value) if value.startswith('"') else value for name, value in _PAIR.findall(text)}
    assert "".join(pair.group(0) for pair in _PAIR.finditer(text)) == text
    return found


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        ("", '""'),
        ("two words", '"two words"'),
        ("a=b", '"a=b"'),
        ('say "hi"', r'"say \"hi\""'),
        ("back\\slash", r'"back\\slash"'),
        ("line\nbreak\r\t", r'"line\nbreak\r\t"'),
        ("\x1b[31mred\x9b0m\x7f", r'"\u001b[31mred\u009b0m\u007f"'),
        ("next\u2028line\x85", r'"next\u2028line\u0085"'),
        ("größe 温度", '"größe 温度"'),
        ("größe", "größe"),
        (3.5, "3.5"),
        (None, "None"),
    ],
)
def test_logfmt_values(value: object, shown: str) -> None:
    assert line({"key": value}).endswith(f" key={shown}")


@given(st.text(max_size=50), st.text(st.characters(), max_size=2000))
def test_every_line_can_be_read_back_and_is_one_line(message: str, value: str) -> None:
    text = line({"key": value}, message)
    assert text.isprintable()
    found = parsed(text)
    assert (found["level"], found["msg"], found["key"]) == ("warning", message, value[:MAX_LOGGED_TEXT])
    as_json = line({"key": value}, message, as_json=True)
    assert "\n" not in as_json and json.loads(as_json)["key"] == value[:MAX_LOGGED_TEXT]


def test_lines_are_bounded_and_keep_the_end_of_a_traceback() -> None:
    def deep(n: int) -> None:
        if n == 0:
            raise ValueError("the reason")
        deep(n - 1)

    try:
        deep(200)
    except ValueError as error:
        text = line({"query": "x" * 50_000_000, "other": "\x00" * 10_000}, "y" * 10_000, error=error)
    assert len(text) < 12 * MAX_LOGGED_TEXT
    found = parsed(text)
    assert found["error"].endswith("ValueError: the reason") and len(found["error"]) <= MAX_LOGGED_TEXT
    assert len(found["query"]) == len(found["msg"]) == len(found["other"]) == MAX_LOGGED_TEXT


def test_metrics() -> None:
    telemetry = Telemetry()
    telemetry.watch(lambda: [Gauge("treering_rings", "How many.", 3.0)])
    telemetry.note_request("/api/v1/query", 200, 0.02)
    telemetry.note_request("/api/v1/query", 200, 0.02)
    telemetry.note_request("/api/v1/query", 400, 0.02)
    text = generate_latest(telemetry.registry).decode()
    assert 'treering_http_requests_total{code="200",route="/api/v1/query"} 2.0' in text
    assert 'treering_http_request_duration_seconds_bucket{le="0.025",route="/api/v1/query"} 3.0' in text
    assert "treering_rings 3.0" in text and "process_cpu_seconds_total" in text
    Telemetry()  # a second one in the process has a registry of its own


GRAFANA = {
    "X-Dashboard-Uid": "abc",
    "X-Dashboard-Title": 'The "load", =',
    "X-Panel-Id": "7",
    "X-Panel-Title": "Last größe".encode(),
    "X-Panel-Plugin-Id": "timeseries",
    "X-Query-Group-Id": "g1",
    "X-Grafana-Org-Id": "1",
    "X-Grafana-User": "admin",
    "X-Rule-Uid": "r" * 5000,
    "X-Rule-Name": "Too hot",
    "X-Rule-Folder": "ops",
    "FromAlert": "true",
}
LOGGED = {
    "dashboard": "abc",
    "dashboard_title": 'The "load", =',
    "panel": "7",
    "panel_title": "Last größe",
    "panel_plugin": "timeseries",
    "query_group": "g1",
    "grafana_org": "1",
    "user": "admin",
    "rule": "r" * MAX_LOGGED_TEXT,
    "rule_name": "Too hot",
    "rule_folder": "ops",
    "from_alert": "true",
}


def test_the_slow_query_log_has_grafanas_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TREERING_SLOW_QUERY_S", "0")
    monkeypatch.setenv("TREERING_SELF_SCRAPE_S", "0")
    now_s, long = int(time.time()), 'up{job="' + "x" * 3000 + '"}'
    with treering(tmp_path / "store") as program:
        range_ = {"query": "sum(up)\n# why\x07", "start": now_s - 60, "end": now_s, "step": 30}
        assert call(program.url, "POST", "/api/v1/query_range", range_, GRAFANA).status == 200  # type: ignore[arg-type]
        assert call(program.url, "POST", "/api/v1/query", {"query": long, "time": now_s}).status == 200
        assert call(program.url, "POST", "/api/v1/query", {"query": "sum(", "time": now_s}).status == 400
        assert "treering_slow_queries_total 3.0" in call(program.url, "GET", "/metrics").body.decode()
    lines = [parsed(text) for text in program.log.read_text().split("\n") if "slow query" in text]
    assert [found["query"] for found in lines] == ["sum(up)\n# why\x07", long[:MAX_LOGGED_TEXT], "sum("]
    first = lines[0]
    assert {name: first[name] for name in LOGGED} == LOGGED
    assert (first["msg"], first["level"], first["tenant"]) == ("slow query", "warning", "anonymous")
    assert (first["start_ms"], first["end_ms"], first["step_ms"]) == (str((now_s - 60) * 1000), str(now_s * 1000), "30000")
    assert float(first["seconds"]) >= 0 and "error" not in first
    assert "parse error" in lines[2]["error"] and "dashboard" not in lines[1]
