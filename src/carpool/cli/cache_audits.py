"""`carpool cache audits | verdict`: what of the cache's judgements waits for a person, and giving it."""

import argparse
import shutil
from typing import Any
from urllib.parse import quote

from carpool.cli.admin_client import AdminClient, add_server, print_json
from carpool.cli.options import Commands
from carpool.cli.table import line

_PATH = "/admin/cache/audits"
_INDENT = 12
_VERDICTS = ("same", "different")
"""Whether the stored answer serves the question."""


def add_to(actions: Commands) -> None:
    """Add the two actions."""
    audits = actions.add_parser("audits", help="judgements that wait for a verdict", allow_abbrev=False)
    audits.add_argument("--tenant", help="of this tenant")
    audits.add_argument("--model", help="of this model")
    audits.add_argument("--limit", type=int, default=20, help="how many, at most 1000 (default 20)")
    audits.set_defaults(run=_audits)
    verdict = actions.add_parser("verdict", help="judge one of them", allow_abbrev=False)
    verdict.add_argument("id", metavar="ID", help="as `audits` shows it")
    verdict.add_argument(
        "verdict",
        choices=_VERDICTS,
        help="same: the stored answer is right and complete for the question; different: it is not",
    )
    verdict.set_defaults(run=_verdict)
    for action in (audits, verdict):
        add_server(action)
        action.add_argument("--json", action="store_true", help="the server's reply as it is")


def _audits(arguments: argparse.Namespace) -> int:
    query = {"tenant": arguments.tenant, "model": arguments.model, "limit": arguments.limit}
    with AdminClient.of(arguments) as client:
        reply = client.get(_PATH, query)
    if arguments.json:
        print_json(reply)
        return 0
    width = shutil.get_terminal_size().columns - _INDENT
    for case in reply["data"]:
        print(
            f"{case['id']}, {case['tenant']}, {case['model']}, probability {case['probability']:.2f}, "
            f"{'served' if case['served'] else 'near miss: not served'}\n"
            f"  question  {line(case['question'], width)}\n"
            f"  stored    {line(case['stored_question'], width)}\n"
            f"  answer    {line(case['stored_answer'], width)}\n"
        )
    shown = len(reply["data"])
    print(f"{shown} shown, oldest first" if shown else "nothing waits for a verdict")
    return 0


def _verdict(arguments: argparse.Namespace) -> int:
    body: dict[str, Any] = {"wrong": arguments.verdict == "different"}
    with AdminClient.of(arguments) as client:
        reply = client.post(f"{_PATH}/{quote(arguments.id, safe='')}", body)
    if arguments.json:
        print_json(reply)
    else:
        print(f"{reply['id']}: the stored answer counts as {'wrong' if reply['wrong'] else 'right'}")
    return 0
