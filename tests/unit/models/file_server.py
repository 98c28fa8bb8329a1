"""A small HTTP server for files, with byte ranges and the faults that downloads meet."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class FileServer:
    """Files by path, with their content type; set the faults before a request meets them."""

    files: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    """Sent with every file."""
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    """(method, path, Range header) of every request, in order."""
    authorizations: list[str | None] = field(default_factory=list)
    break_after: list[int] = field(default_factory=list)
    """Each answer with a wheel takes one and drops the connection after that many bytes."""
    ignores_ranges: bool = False
    stall_after: int | None = None
    """Stop sending after that many bytes, set `stalled`, and go on when `go_on` is set."""
    stalled: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    @property
    def ranges(self) -> list[str | None]:
        """Range headers of the requests for wheels."""
        return [range_ for _, path, range_ in self.requests if path.endswith(".whl")]


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def publish_repository(
    server: FileServer, name: str, files: Mapping[str, bytes], commit: str = COMMIT
) -> None:
    """Answer as the hub does for the repository `name` with these files."""
    server.headers |= {"X-Repo-Commit": commit, "ETag": '"abc"'}
    tree = [
        {"type": "file", "path": path, "size": len(data), "oid": "0" * 40} for path, data in files.items()
    ]
    info = {"id": name, "sha": commit, "siblings": []}
    server.files[f"/api/models/{name}/revision/main"] = ("application/json", json.dumps(info).encode())
    server.files[f"/api/models/{name}/tree/{commit}"] = ("application/json", json.dumps(tree).encode())
    for path, data in files.items():
        server.files[f"/{name}/resolve/{commit}/{path}"] = ("application/octet-stream", data)


def hub_environment(server: FileServer, directory: Path) -> dict[str, str]:
    """What makes the hub's client ask this server and keep its own files in `directory`."""
    return {
        "HF_ENDPOINT": server.url,
        "NO_PROXY": "127.0.0.1",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(directory / "hub_home"),
    }


@contextmanager
def serve(server: FileServer) -> Iterator[FileServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:  # the name is http.server's
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            path = self.path.partition("?")[0]
            range_ = self.headers["Range"]
            server.requests.append((self.command, path, range_))
            server.authorizations.append(self.headers["Authorization"])
            if path not in server.files:
                self.send_error(404)
                return
            content_type, content = server.files[path]
            begin = 0
            if range_ and not server.ignores_ranges:
                begin = int(range_.removeprefix("bytes=").rstrip("-"))
            if begin and begin >= len(content):
                self.send_error(416)
                return
            self.send_response(206 if begin else 200)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(content) - begin))
            for name, value in server.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.send(content[begin:], path.endswith(".whl"))

        def send(self, content: bytes, is_wheel: bool) -> None:
            if is_wheel and server.break_after:
                self.wfile.write(content[: server.break_after.pop(0)])
                self.close_connection = True
                return
            if is_wheel and server.stall_after is not None:
                self.wfile.write(content[: server.stall_after])
                server.stalled.set()
                server.go_on.wait()
                return
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    http_server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http_server.serve_forever)
    thread.start()
    server.url = f"http://127.0.0.1:{http_server.server_address[1]}"
    try:
        yield server
    finally:
        server.go_on.set()
        http_server.shutdown()
        thread.join()
        http_server.server_close()
