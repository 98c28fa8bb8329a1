"""`carpool bench chat`: load a running server with chat requests and tell how long they took."""

import argparse

from carpool.cli.admin_client import AdminClient, add_server, print_json
from carpool.cli.chat_load import ChatLoad, Report, run_chat_load
from carpool.cli.options import Commands
from carpool.cli.table import Cell, line, table
from carpool.errors import StartError


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("bench", help="measure a running server; `bench chat` asks questions")
    kinds = parser.add_subparsers(title="what to measure", required=True, metavar="KIND")
    chat = kinds.add_parser("chat", help="users who ask one question after the other")
    add_server(chat)
    chat.add_argument("--model", help="default: the server's first chat model")
    chat.add_argument("--users", type=int, default=50, help="who ask at the same time (default 50)")
    chat.add_argument("--requests", type=int, default=200, help="in all (default 200)")
    chat.add_argument(
        "--repeats",
        type=float,
        default=0.3,
        help="share of questions that were answered before: 0 none, 1 all (default 0.3)",
    )
    chat.add_argument("--tokens", type=int, default=64, help="about how long replies are (default 64)")
    chat.add_argument("--seed", type=int, default=0, help="of the choice of questions (default 0)")
    chat.add_argument("--json", action="store_true", help="for machines")
    chat.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Load the server; 1 if a request failed. Raises `StartError`."""
    for name in ("users", "requests", "tokens"):
        if getattr(arguments, name) < 1:
            raise StartError(f"--{name} must be at least 1, not {getattr(arguments, name)}")
    if not 0 <= arguments.repeats <= 1:
        raise StartError(f"--repeats must be from 0 to 1, not {arguments.repeats}")
    with AdminClient.of(arguments) as client:
        model = arguments.model or _chat_model(client)
        report = run_chat_load(
            client.url,
            client.headers,
            ChatLoad(
                model=model,
                users=arguments.users,
                requests=arguments.requests,
                repeats=arguments.repeats,
                tokens=arguments.tokens,
                seed=arguments.seed,
            ),
        )
    if arguments.json:
        print_json(report.fields())
    else:
        _show(report)
    return 1 if report.failures else 0


def _chat_model(client: AdminClient) -> str:
    for model in client.get("/v1/models")["data"]:
        if model["task"] == "generate":
            return str(model["id"])
    raise StartError("the server has no chat model that is ready")


def _show(report: Report) -> None:
    rows: list[list[Cell]] = [
        [name, each.count, *(round(ms) for ms in (each.mean, each.p50, each.p95, each.p99))]
        for name, each in report.outcomes.items()
    ]
    print(table(["cache", "requests", "mean ms", "p50", "p95", "p99"], rows))
    print(
        f"\n{report.answered / report.seconds:,.1f} requests/s, "
        f"{report.tokens / report.seconds:,.0f} generated tokens/s"
    )
    if report.repeats:
        print(f"planted repeats that hit: {report.repeats_hit} of {report.repeats}")
    print(f"wrong hits: {report.wrong} of {report.semantic} by meaning")
    for reason, count in report.failures.items():
        print(f"failed: {count} x {line(reason, 200)}")
