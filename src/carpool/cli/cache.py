"""`carpool cache`: what a running server's answer cache holds, how often it is wrong, and what to drop."""

import argparse
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from carpool.cli import cache_audits, cache_study
from carpool.cli.admin_client import AdminClient, add_server, print_json
from carpool.cli.options import Commands
from carpool.cli.table import Cell, age, line, percent, table
from carpool.errors import StartError

_PATH = "/admin/cache"
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")
_OUTCOMES = ("exact", "joined", "semantic", "miss", "bypass")


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("cache", help="ask a running server about its answer cache")
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")

    stats = _action(actions, "stats", _stats, "what it holds, and how often it is wrong")
    inspect = _action(actions, "inspect", _inspect, "the newest stored answers")
    inspect.add_argument("--limit", type=int, default=20, help="how many, at most 1000 (default 20)")
    invalidate = _action(actions, "invalidate", _invalidate, "drop stored answers")
    invalidate.add_argument("--all", action="store_true", help="every one, without any condition")
    invalidate.add_argument("--dry-run", action="store_true", help="only count them")
    export = _action(actions, "export", _export, "stored answers as JSON lines")
    export.add_argument("--out", type=Path, help="file to write; default: standard output")
    for action in (inspect, invalidate, export):
        _add_conditions(action)
    cache_audits.add_to(actions)
    cache_study.add_to(actions)
    for action in (stats, inspect, invalidate):
        action.add_argument("--json", action="store_true", help="the server's reply as it is")


def _action(actions: Commands, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    # Abbreviations would take `--key sk-...` for `--key-file`.
    parser = actions.add_parser(name, help=text, allow_abbrev=False)
    add_server(parser)
    parser.set_defaults(run=run)
    return parser


def _add_conditions(parser: argparse.ArgumentParser) -> None:
    conditions = parser.add_argument_group("conditions, all of which must be met")
    conditions.add_argument("--tenant", help="answered to this tenant")
    conditions.add_argument("--model", help="answered by this model")
    conditions.add_argument(
        "--older-than", type=_seconds, metavar="AGE", help="answered longer ago than this: 90s, 30m, 12h, 7d"
    )
    conditions.add_argument(
        "--request-id", metavar="ID", help="answered to this request: what x-carpool-cache-match names"
    )
    conditions.add_argument("--digest", help="of the exact request, in 64 hexadecimal digits")


def _conditions(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "tenant": arguments.tenant,
        "model": arguments.model,
        "older_than_s": arguments.older_than,
        "request_id": arguments.request_id,
        "digest": arguments.digest,
    }


def _stats(arguments: argparse.Namespace) -> int:
    with AdminClient.of(arguments) as client:
        status = client.get(_PATH)
    if arguments.json:
        print_json(status)
        return 0
    facts = {
        "mode": status["mode"],
        "policy": _policy(status),
        "entries": f"{status['entries']:,} of {status['max_entries']:,}; {status['vectors']:,} can be found "
        "by meaning",
        "memory": f"{status['bytes'] / 2**20:.1f} of {status['max_bytes'] / 2**20:.0f} MiB",
        "in flight": f"{status['in_flight']:,}",
        "store": status["store"] + ("" if status["store_up"] else " (down: answers are kept in memory only)"),
    }
    if status["audits_pending"] is not None:
        facts["audits"] = f"{status['audits_pending']:,} wait for a verdict"
    for name, value in facts.items():
        print(f"{name:12}{value}")
    if status["traffic"]:
        header = ("tenant", "model", *_OUTCOMES, "level", "standing", "audits", "wrong/hits", "wrong/all")
        print("\n" + table(header, [_traffic(each) for each in status["traffic"]]))
    return 0


def _policy(status: dict[str, Any]) -> str:
    if status["policy"] == "verified":
        return f"verified: at most {percent(status['max_wrong'])} of the hits by meaning wrong"
    if status["policy"] == "threshold":
        return f"threshold: cosine above {status['threshold']}; nothing is known of wrong hits"
    return f"exact only: there is no calibration for the embedder {status['embedder']}"


def _traffic(each: dict[str, Any]) -> list[Cell]:
    counts: list[Cell] = [each["lookups"].get(outcome, 0) for outcome in _OUTCOMES]
    found = each["in_force"]
    if found is None:
        return [each["tenant"], each["model"], *counts, None, None, None, None, None]
    return [
        each["tenant"],
        each["model"],
        *counts,
        "none" if found["level"] is None else f"{found['level']:.2f}",
        found["standing"],
        found["audits"],
        _share(found["wrong_of_hits"]),
        _share(found["wrong_of_all"]),
    ]


def _share(share: dict[str, float | None]) -> str:
    """As expected by the calibration, and by verdicts where there are any."""
    text = percent(share["expected"] or 0.0)
    if share["lower"] is None or share["upper"] is None:
        return text
    return f"{text} ({percent(share['lower'])} to {percent(share['upper'])})"


def _inspect(arguments: argparse.Namespace) -> int:
    with AdminClient.of(arguments) as client:
        reply = client.get(f"{_PATH}/entries", {**_conditions(arguments), "limit": arguments.limit})
    if arguments.json:
        print_json(reply)
        return 0
    width = shutil.get_terminal_size().columns - 10
    for entry in reply["data"]:
        print(
            f"{age(entry['age_s'])} ago, {entry['tenant']}, {entry['model']}, {entry['hits']:,} hits, "
            f"{entry['cost_ms']:,.0f} ms, "
            f"{entry['prompt_tokens']:,} + {entry['completion_tokens']:,} tokens\n"
            f"  digest    {entry['digest']}\n"
            f"  request   {entry['request_id']}\n"
            f"  question  {line(entry['question'] or '(not kept: matched by repetition only)', width - 2)}\n"
            f"  answer    {line(entry['answer'], width - 2)}\n"
        )
    shown = len(reply["data"])
    print(f"{shown} shown, newest first" if shown else "no such entries")
    return 0


def _invalidate(arguments: argparse.Namespace) -> int:
    body = {**_conditions(arguments), "all": arguments.all or None, "dry_run": arguments.dry_run}
    if not arguments.all and all(value is None for value in _conditions(arguments).values()):
        raise StartError("give a condition such as --tenant, or --all")
    with AdminClient.of(arguments) as client:
        reply = client.post(f"{_PATH}/invalidate", body)
    if arguments.json:
        print_json(reply)
    else:
        print(f"{reply['entries']:,} entries {'would be' if reply['dry_run'] else 'were'} dropped")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    with AdminClient.of(arguments) as client:
        parts = client.lines(f"{_PATH}/export", _conditions(arguments))
        if arguments.out is None:
            try:
                for part in parts:
                    sys.stdout.buffer.write(part)
                sys.stdout.buffer.flush()
            except BrokenPipeError:  # the reader, such as `head`, has seen enough
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        unfinished = arguments.out.with_name(f"{arguments.out.name}.part")
        try:
            # Questions and answers are private.
            with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                for part in parts:
                    file.write(part)
            unfinished.replace(arguments.out)
        except OSError as error:
            raise StartError(f"--out {arguments.out} cannot be written: {error.strerror}") from None
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
    return 0


def _seconds(text: str) -> float:
    found = _DURATION.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not an age such as 90s, 30m, 12h or 7d")
    return float(found[1]) * _UNITS[found[2]]
