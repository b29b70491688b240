"""Metrics in the text form of Prometheus."""

import re

from ehrmeta.serving.metrics import Metrics


def test_every_line_is_of_the_text_form_and_counts_what_was_added():
    metrics = Metrics("abc")
    metrics.add_request(200, 0.004, 3, 2)
    metrics.add_request(422, 0.1, 0, 0)
    metrics.add_batch(2)
    lines = metrics.text(waiting=1).splitlines()
    value = re.compile(r'[a-z_]+(\{[a-z0-9]+="[^"]*"\})? [0-9.e+-]+|# (HELP|TYPE) [a-z_]+ .+')
    assert [line for line in lines if not value.fullmatch(line)] == []
    assert any(line.startswith("process_cpu_seconds_total ") for line in lines)
    for line in (
        'ehrmeta_model_info{sha256="abc"} 1',
        'ehrmeta_requests_total{status="200"} 1',
        'ehrmeta_requests_total{status="422"} 1',
        'ehrmeta_rows_total{kind="query"} 2',
        "ehrmeta_waiting_requests 1",
        'ehrmeta_request_seconds_bucket{le="0.005"} 1',
        'ehrmeta_request_seconds_bucket{le="+Inf"} 2',
        "ehrmeta_request_seconds_count 2",
        'ehrmeta_batch_requests_bucket{le="2"} 1',
    ):
        assert line in lines
