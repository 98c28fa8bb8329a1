"""Tables of hits and wrong hits, by the labels and by what was read."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.cache_stream.reading import Reading
from carpool.cache.confidence import wilson_interval
from carpool.cache.evaluation import Hits
from carpool.cache.labelled import Question

RESULTS = Path(__file__).parents[1] / "results"
LENGTHS = (1_000, 2_500, 5_000, 10_000)
_MAX_OF_HITS, _MAX_OF_ALL = 0.05, 0.01
"""What an operator can live with; contestants are compared within both."""


def write(stream: Sequence[Question], hits: dict[str, Hits], read: Reading, digest: str) -> None:
    """Print the tables and write both files."""
    rows = [_row(name, stream, each, read, length) for name, each in hits.items() for length in LENGTHS]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "cache_stream.json").write_text(
        json.dumps({"stream_sha256": digest, "rows": rows}, indent=1) + "\n"
    )
    table = _markdown(rows)
    (RESULTS / "cache_stream.md").write_text(table)
    print(table)


def _row(name: str, stream: Sequence[Question], hits: Hits, read: Reading, length: int) -> dict[str, Any]:
    hits = [pair for pair in hits if pair[0] < length]
    labelled = [pair for pair in hits if stream[pair[0]].cluster != stream[pair[1]].cluster]
    estimate = read.wrong(name, [(stream[asked].text, stream[stored].text) for asked, stored in labelled])
    return {
        "contestant": name,
        "questions": length,
        "hits": len(hits),
        "wrong_by_label": len(labelled),
        "read": estimate.read,
        "wrong_as_read": round(estimate.wrong),
        "wrong_of_hits_by_label": wilson_interval(len(labelled), len(hits)),
        "wrong_of_hits_as_read": estimate.interval(len(hits)),
        "wrong_of_all_by_label": wilson_interval(len(labelled), length),
        "wrong_of_all_as_read": estimate.interval(length),
    }


def _markdown(rows: list[dict[str, Any]]) -> str:
    parts = [
        "# The semantic cache on 10,000 questions\n",
        "`python -m bench.cache_stream --data DIR`. wrong/hits and wrong/all in %, with 95 % Wilson"
        " intervals; by the labels, and as read. A language model, not a person, read the hits that the"
        " labels call wrong: the two texts alone, in random order, without the contestant or a score. Hits"
        " that the labels call right count as right, unread. Column `read`: how many of those that the labels"
        " call wrong were read. Where that is not all, the rest count with the share of wrong ones in a"
        " random sample of what no other contestant serves (as wrong, if there is none), and the interval is"
        " Wilson's of as many hits as would have the variance of hits and sample together.\n",
    ]
    for length in LENGTHS:
        parts.append(f"\n## After {length:,} questions\n")
        parts.append(
            "| | hits | hit rate | wrong/hits, labels | wrong/all, labels"
            " | read | wrong/hits, read | wrong/all, read |"
        )
        parts.append("|---|--:|--:|--:|--:|--:|--:|--:|")
        parts += [_line(row) for row in rows if row["questions"] == length]
    last = [row for row in rows if row["questions"] == LENGTHS[-1]]
    best = {kind: _best(last, kind) for kind in ("cosine", "verified")}
    if best["cosine"] and best["verified"]:
        fixed, verified = best["cosine"], best["verified"]
        parts.append(
            f"\nWithin wrong/hits of {_MAX_OF_HITS:.0%} and wrong/all of {_MAX_OF_ALL:.0%} as read: the best"
            f" fixed cosine is `{fixed['contestant']}` with {fixed['hits']} hits, the best bound"
            f" `{verified['contestant']}` with {verified['hits']},"
            f" {verified['hits'] / fixed['hits']:.2f} times as many."
        )
    return "\n".join(parts) + "\n"


def _best(rows: list[dict[str, Any]], kind: str) -> dict[str, Any] | None:
    fitting = [
        row
        for row in rows
        if row["contestant"].startswith(kind)
        and row["hits"]
        and row["wrong_as_read"] <= _MAX_OF_HITS * row["hits"]
        and row["wrong_as_read"] <= _MAX_OF_ALL * row["questions"]
    ]
    return max(fitting, key=lambda row: int(row["hits"]), default=None)


def _line(row: dict[str, Any]) -> str:
    cells = [row["contestant"], str(row["hits"]), f"{row['hits'] / row['questions']:.2%}"]
    for kind, wrong in (("by_label", row["wrong_by_label"]), ("as_read", row["wrong_as_read"])):
        if kind == "as_read":
            cells.append(f"{row['read']} of {row['wrong_by_label']}")
        for of, total in (("hits", row["hits"]), ("all", row["questions"])):
            lower, upper = row[f"wrong_of_{of}_{kind}"]
            share = wrong / total if total else 0.0
            cells.append(f"{share:.2%} ({lower:.2%}-{upper:.2%})".replace("%", ""))
    return f"| {' | '.join(cells)} |"
