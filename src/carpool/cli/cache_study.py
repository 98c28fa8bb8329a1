"""`carpool cache eval | calibrate`: the cache on labelled pairs of one's own."""

import argparse
import json
from pathlib import Path
from typing import Any

from carpool.cli.admin_client import AdminClient, add_server, print_json
from carpool.cli.options import Commands
from carpool.cli.table import percent, table
from carpool.errors import StartError

_BOUNDS = (0.01, 0.03, 0.05, 0.1)
"""Values of `max_wrong` whose level is told."""


def add_to(actions: Commands) -> None:
    """Add the two actions."""
    evaluate = actions.add_parser(
        "eval", help="hits and wrong hits of the policy and of fixed cosines", allow_abbrev=False
    )
    evaluate.add_argument(
        "--calibration", type=Path, help="a file of `calibrate`, in place of the one in force"
    )
    evaluate.add_argument("--max-wrong", type=float, help="in place of cache.max_wrong")
    evaluate.add_argument("--json", action="store_true", help="the server's reply as it is")
    evaluate.set_defaults(run=_evaluate)
    calibrate = actions.add_parser(
        "calibrate", help="fit the probability of the same answer to an embedder", allow_abbrev=False
    )
    calibrate.add_argument("--out", type=Path, required=True, help="file to write, for cache.calibration")
    calibrate.add_argument("--embedder", help="a served embedding model; default: cache.embedder")
    calibrate.add_argument(
        "--floor", type=float, help="cosine below which nothing is a candidate (default 0.8)"
    )
    calibrate.set_defaults(run=_calibrate)
    for action in (evaluate, calibrate):
        add_server(action)
        action.add_argument(
            "pairs",
            type=Path,
            metavar="PAIRS.jsonl",
            help='labelled pairs, one a line: {"first": "...", "second": "...", "same": true}',
        )


def _evaluate(arguments: argparse.Namespace) -> int:
    body = {
        "pairs": _pairs(arguments.pairs),
        "calibration": None if arguments.calibration is None else _json(arguments.calibration),
        "max_wrong": arguments.max_wrong,
    }
    with AdminClient.of(arguments) as client:
        found = client.post("/admin/cache/eval", body)
    if arguments.json:
        print_json(found)
        return 0
    print(f"{found['questions']:,} questions, of which {found['repeats']:,} repeat an earlier one\n")
    header = ("", "hits", "hit rate", "wrong", "unlabelled", "wrong/hits", "wrong/all")
    rows = [
        [
            each["name"],
            each["hits"],
            _share(each["hit_rate"]),
            each["wrong"],
            each["unlabelled"],
            _share(each["wrong_of_hits"]),
            _share(each["wrong_of_all"]),
        ]
        for each in found["contestants"]
    ]
    print(table(header, rows))
    print(
        "\nIn brackets: 95 % Wilson intervals. Unlabelled: hits between questions that no pair compares; "
        "they count neither as right nor as wrong."
    )
    return 0


def _calibrate(arguments: argparse.Namespace) -> int:
    body = {"pairs": _pairs(arguments.pairs), "embedder": arguments.embedder, "floor": arguments.floor}
    with AdminClient.of(arguments) as client:
        found = client.post("/admin/cache/calibrate", body)
    try:
        arguments.out.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise StartError(f"--out {arguments.out} cannot be written: {error.strerror}") from None
    validation = found["validation"]
    print(
        f"{arguments.out}: for {found['embedder']}, fitted to {validation['rows']:,} candidates; held out, "
        f"the probability is off by {percent(validation['expected_calibration_error'])} on average\n"
    )
    rows = []
    for bound in _BOUNDS:
        level = next((each for each in found["levels"] if each["wrong_share"] <= bound), None)
        rows.append(
            (str(bound), "none", "")
            if level is None
            else (str(bound), f"{level['probability']:.2f}", percent(level["wrong_share"]))
        )
    print(table(("max_wrong", "level", "wrong/hits"), rows))
    print("\nWhere the level is none, nothing is served by meaning.")
    return 0


def _share(share: dict[str, Any]) -> str:
    if share["value"] is None:
        return "-"
    return f"{percent(share['value'])} ({percent(share['lower'])} to {percent(share['upper'])})"


def _pairs(path: Path) -> list[dict[str, Any]]:
    """The pairs of a file, other fields left out. Raises `StartError` that names the line at fault."""
    pairs = []
    for number, text in enumerate(_text(path).split("\n"), start=1):
        if not text.strip():
            continue
        try:
            pair = json.loads(text)
            pairs.append({name: pair[name] for name in ("first", "second", "same")})
        except (ValueError, TypeError, KeyError):
            form = '{"first": "...", "second": "...", "same": true}'
            raise StartError(f"{path}, line {number} is not {form}") from None
    return pairs


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except ValueError:
        raise StartError(f"{path} is not JSON") from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise StartError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise StartError(f"{path} is not UTF-8") from None
