"""An in-process registry of counters, gauges and histograms, rendered in Prometheus' text format.

Only the thread that owns an instrument writes it (the event loop's, in every process). A worker ships
`Registry.snapshot()` to the gateway, which keeps the newest one per worker and renders all of them together.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

Labels = tuple[tuple[str, str], ...]
Kind = Literal["counter", "gauge", "histogram"]

LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
SIZE_BUCKETS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)


class Series(msgspec.Struct, array_like=True):
    """One labelled line of an instrument. `buckets` holds a histogram's counts per bucket."""

    labels: Labels
    value: float = 0.0
    count: int = 0
    buckets: list[int] = msgspec.field(default_factory=list)


class Instrument(msgspec.Struct):
    """A named metric with its series. `bounds`: a histogram's upper bucket bounds."""

    name: str
    kind: Kind
    help: str
    bounds: tuple[float, ...] = ()
    series: dict[Labels, Series] = msgspec.field(default_factory=dict)
    _as_given: dict[tuple[str, ...], Series] = msgspec.field(default_factory=dict)
    """The same by names and values of labels as a caller gives them: spares sorting them each time."""

    def labelled(self, labels: Mapping[str, str]) -> Series:
        """The series with these labels, made on first use."""
        given = (*labels, *labels.values())
        series = self._as_given.get(given)
        if series is None:
            series = self._as_given[given] = self._sorted(tuple(labels.items()))
        return series

    def _sorted(self, labels: Labels) -> Series:
        key = tuple(sorted(labels))
        series = self.series.get(key)
        if series is None:
            series = self.series[key] = Series(
                key, buckets=[0] * (len(self.bounds) + 1) if self.bounds else []
            )
        return series

    def add(self, amount: float = 1.0, **labels: str) -> None:
        """Add to a counter or gauge."""
        self.labelled(labels).value += amount

    def set(self, value: float, **labels: str) -> None:
        """Set a gauge."""
        self.labelled(labels).value = value

    def observe(self, value: float, **labels: str) -> None:
        """Record one observation in a histogram."""
        series = self.labelled(labels)
        series.value += value
        series.count += 1
        series.buckets[bisect_left(self.bounds, value)] += 1

    def total(self) -> float:
        """Sum of the values over all series."""
        return sum(series.value for series in self.series.values())


class Metric(msgspec.Struct, frozen=True):
    """An instrument as plain data, as it travels from a worker to the gateway."""

    name: str
    kind: Kind
    help: str
    bounds: tuple[float, ...]
    series: list[Series]


Snapshot = list[Metric]


class Registry:
    """The metrics of one process."""

    def __init__(self) -> None:
        self._instruments: dict[str, Instrument] = {}

    def counter(self, name: str, help_: str) -> Instrument:
        """A monotonic count; by convention its name ends in `_total`."""
        return self._instrument(name, "counter", help_)

    def gauge(self, name: str, help_: str) -> Instrument:
        """A value that goes up and down."""
        return self._instrument(name, "gauge", help_)

    def histogram(self, name: str, help_: str, bounds: tuple[float, ...] = LATENCY_BUCKETS_S) -> Instrument:
        """A distribution over fixed buckets with the given ascending upper bounds."""
        return self._instrument(name, "histogram", help_, bounds)

    def _instrument(self, name: str, kind: Kind, help_: str, bounds: tuple[float, ...] = ()) -> Instrument:
        instrument = self._instruments.get(name)
        if instrument is None:
            instrument = self._instruments[name] = Instrument(name, kind, help_, bounds)
        if instrument.kind != kind or instrument.bounds != bounds:
            raise ValueError(f"metric {name} is already a {instrument.kind} with other bounds")
        return instrument

    def snapshot(self) -> Snapshot:
        """All metrics as plain data, safe to encode while the instruments go on changing."""
        return [
            Metric(
                i.name,
                i.kind,
                i.help,
                i.bounds,
                [msgspec.structs.replace(s, buckets=s.buckets[:]) for s in i.series.values()],
            )
            for i in self._instruments.values()
        ]


def render(snapshots: Iterable[tuple[Mapping[str, str], Snapshot]]) -> str:
    """Prometheus text exposition of several processes' snapshots, each with labels of its own added."""
    merged: dict[str, tuple[Metric, list[tuple[Labels, Series]]]] = {}
    for extra, snapshot in snapshots:
        for metric in snapshot:
            _, rows = merged.setdefault(metric.name, (metric, []))
            rows += [(tuple(sorted({**dict(s.labels), **extra}.items())), s) for s in metric.series]
    lines: list[str] = []
    for name, (metric, rows) in sorted(merged.items()):
        lines += [f"# HELP {name} {metric.help}", f"# TYPE {name} {metric.kind}"]
        for labels, series in rows:
            if metric.kind != "histogram":
                lines.append(f"{name}{_braces(labels)} {series.value:.10g}")
                continue
            cumulative = 0
            for bound, count in zip((*metric.bounds, float("inf")), series.buckets, strict=True):
                cumulative += count
                le = "+Inf" if bound == float("inf") else f"{bound:g}"
                lines.append(f"{name}_bucket{_braces((*labels, ('le', le)))} {cumulative}")
            lines.append(f"{name}_sum{_braces(labels)} {series.value:.10g}")
            lines.append(f"{name}_count{_braces(labels)} {series.count}")
    return "\n".join(lines) + "\n"


def _braces(labels: Labels) -> str:
    def escape(text: str) -> str:
        return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

    return "{" + ",".join(f'{key}="{escape(value)}"' for key, value in labels) + "}" if labels else ""
