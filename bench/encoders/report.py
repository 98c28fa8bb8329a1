"""The results as a page."""

from typing import Any

from bench.encoders.contestants import CONTESTANTS
from bench.encoders.workload import (
    BULK_CALL,
    BULK_CONNECTIONS,
    BULK_TEXTS,
    BULK_WORDS,
    CONNECTIONS,
    REFERENCES,
    WORDS,
)


def markdown(facts: dict[str, Any], figures: dict[str, Any]) -> str:
    """The page."""
    machine = (
        f"Python {facts['python']}, {facts['cores']} cores, {facts['threads']} threads each, "
        f"load average {facts['load average at the end']} at the end, {facts['minutes']} minutes"
    )
    parts = [
        f"# Encoders over HTTP\n\n`{facts['command']}` · {machine}",
        f"all-MiniLM-L6-v2. Carpool's default precision here is {facts['default precision']}. "
        "The load is `wrk` with one thread; every connection asks again as soon as it is "
        "answered. Contestants take turns, medians over the rounds.",
    ]
    if "singles" in figures:
        parts += [_singles(figures, words) for words in WORDS]
    if "bulk" in figures:
        parts.append(_bulk(figures))
    if "ingest" in figures:
        parts.append("## Single queries while 10,000 documents are embedded\n\n" + _facts(figures["ingest"]))
    if "event loop" in figures:
        parts.append("## The event loop during calls of 2,048 inputs\n\n" + _facts(figures["event loop"]))
    return "\n\n".join(parts) + "\n"


_COSINES = ["mean cosine to fp32", "lowest"]


def _name(key: str) -> str:
    contestant = CONTESTANTS[key]
    return f"{contestant.name}, {contestant.precision}"


def _singles(figures: dict[str, Any], words: int) -> str:
    by_name: dict[str, list[dict[str, Any]]] = {}
    for row in figures["singles"]:
        if row["words"] == words:
            by_name.setdefault(row["contestant"], []).append(row)
    head = ["contestant"] + [
        f"{connections}: {unit}" for connections in CONNECTIONS for unit in ("requests/s", "p50 ms", "p95 ms")
    ]
    head += _COSINES
    lines = []
    for name, each in by_name.items():
        cells = [_name(name)]
        for row in each:
            failed = f" ({row['failed']} failed)" if row["failed"] else ""
            cells += [f"{row['requests/s']:,.0f}{failed}", f"{row['p50 ms']:,.1f}", f"{row['p95 ms']:,.1f}"]
        lines.append(cells + _cosines(figures, name))
    return f"## One text of {words} words a request, by connections\n\n" + _table(head, lines)


def _bulk(figures: dict[str, Any]) -> str:
    lines = []
    for row in figures["bulk"]:
        padding = f"{row['padding']:.1%}" if "padding" in row else ""
        note = "" if row["texts"] == BULK_TEXTS else f" (of {row['texts']:,})"
        note += f" ({row['failed']} failed)" if row["failed"] else ""
        name = row["contestant"]
        rate = f"{row['texts/s']:,.0f}{note}"
        lines.append([_name(name), rate, *_shares(row), padding, *_cosines(figures, name)])
    for row in figures["bare"]:
        name = REFERENCES[row["way"]]
        lines.append([name, f"{row['texts/s']:,.0f}", *_shares(row), "", "", ""])
    head = ["contestant", "texts/s", "of OpenVINO alone", "of the runtime alone", "padding", *_COSINES]
    return (
        f"## {BULK_TEXTS:,} texts of {BULK_WORDS[0]} to {BULK_WORDS[1]} words\n\n"
        f"In calls of {BULK_CALL}, {BULK_CONNECTIONS} at once.\n\n" + _table(head, lines)
    )


def _shares(row: dict[str, Any]) -> list[str]:
    return [f"{row[way]:.0%}" for way in REFERENCES]


def _cosines(figures: dict[str, Any], name: str) -> list[str]:
    mean, least = figures["cosines"][name]
    return [f"{mean:.5f}", f"{least:.5f}"]


def _facts(values: dict[str, Any]) -> str:
    return _table(
        ["what", "measured"],
        [
            [name, f"{value:,.2f}" if isinstance(value, float) else str(value)]
            for name, value in values.items()
        ],
    )


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
