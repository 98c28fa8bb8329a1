"""Instruments, and Prometheus' text format."""

import pytest

from carpool.telemetry import Registry, render


def test_counters_gauges_and_histograms_render() -> None:
    registry = Registry()
    requests = registry.counter("requests_total", "Requests")
    requests.add(route='/a"b\\c\n')
    requests.add(2, route="/b")
    registry.gauge("running", "Running now").set(3)
    seconds = registry.histogram("seconds", "Time", (0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7):
        seconds.observe(value)

    text = render([({"worker": "cpu"}, registry.snapshot())])

    assert text.splitlines() == [
        "# HELP requests_total Requests",
        "# TYPE requests_total counter",
        'requests_total{route="/a\\"b\\\\c\\n",worker="cpu"} 1',
        'requests_total{route="/b",worker="cpu"} 2',
        "# HELP running Running now",
        "# TYPE running gauge",
        'running{worker="cpu"} 3',
        "# HELP seconds Time",
        "# TYPE seconds histogram",
        'seconds_bucket{worker="cpu",le="0.1"} 2',
        'seconds_bucket{worker="cpu",le="1"} 3',
        'seconds_bucket{worker="cpu",le="+Inf"} 4',
        'seconds_sum{worker="cpu"} 7.65',
        'seconds_count{worker="cpu"} 4',
    ]
    assert requests.total() == 3


def test_a_snapshot_does_not_change() -> None:
    registry = Registry()
    seconds = registry.histogram("seconds", "Time", (1.0,))
    seconds.observe(0.5)
    before = registry.snapshot()
    seconds.observe(0.5)
    assert (before[0].series[0].count, before[0].series[0].buckets) == (1, [1, 0])


def test_a_name_means_one_thing() -> None:
    registry = Registry()
    assert registry.counter("a", "A") is registry.counter("a", "A")
    with pytest.raises(ValueError, match="a is already a counter"):
        registry.gauge("a", "A")
