"""The servers that are compared, each in an environment and a process of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.encoders.workload import MODEL, THREADS, body
from bench.generation_cpu.environments import TORCH, VENVS, VLLM, Environment

HERE = Path(__file__).parent
START_TIMEOUT_S = 300

INFINITY = Environment("infinity", (TORCH, "infinity-emb[server,torch]==0.0.78"))
OPTIMUM = Environment(
    "infinity-optimum",
    # Infinity 0.0.78 hands optimum absolute paths, which versions from 2 on do not find, and wants NumPy 1.
    (
        *(TORCH, "infinity-emb[server,torch,optimum]==0.0.78", "optimum==1.24.0", "transformers==4.48.3"),
        *("pyarrow==20.0.0", "pandas==2.2.3"),
    ),
)
LITSERVE = Environment("litserve", (TORCH, "litserve==0.2.19", "sentence-transformers==6.2.0"))

Command = Callable[[Path, int, Path], list[str]]
"""From the model's directory, a port and a directory to write to: what follows the interpreter."""


@dataclass(frozen=True)
class Contestant:
    """How a server is started and asked."""

    name: str
    precision: str
    environment: Environment | None
    """None: that of the benchmark itself."""
    command: Command
    path: str = "/v1/embeddings"
    env: Mapping[str, str] = field(default_factory=dict)


def _infinity(engine: str, dtype: str) -> Command:
    def command(model: Path, port: int, _: Path) -> list[str]:
        program = "from infinity_emb.cli import cli; cli()"
        path = exported(model) if engine == "optimum" else model
        named = ["--model-id", str(path), "--served-model-name", MODEL, "--engine", engine, "--dtype", dtype]
        fixed = ["--device", "cpu", "--no-bettertransformer", "--batch-size", "32"]
        return ["-c", program, "v2", *named, *fixed, "--host", "127.0.0.1", "--port", str(port)]

    return command


# Optimum 1.24 does not know the files of PyTorch's newer exporter.
_OPTIMUM_CLI = """
import functools, torch.onnx
torch.onnx.export = functools.partial(torch.onnx.export, dynamo=False)
from optimum.commands.optimum_cli import main
main()
"""


def exported(model: Path) -> Path:
    """The model as ONNX, made by optimum on first use."""
    target = VENVS / "infinity-optimum" / f"{MODEL}-onnx"
    if not (target / "model.onnx").exists():
        asked = ["export", "onnx", "--model", str(model), "--task", "feature-extraction", str(target)]
        command = [OPTIMUM.python(), "-c", _OPTIMUM_CLI, *asked]
        subprocess.run(command, check=True, env=os.environ | _OFFLINE, stdout=subprocess.DEVNULL)
    return target


def _litserve(model: Path, port: int, _: Path) -> list[str]:
    return [str(HERE / "litserve_server.py"), str(model), str(port)]


def _vllm(dtype: str) -> Command:
    def command(model: Path, port: int, _: Path) -> list[str]:
        fixed = ["--runner", "pooling", "--dtype", dtype, "--no-enable-log-requests", "--disable-log-stats"]
        where = ["--host", "127.0.0.1", "--port", str(port)]
        server = ["-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
        return [*server, "--served-model-name", MODEL, *fixed, *where]

    return command


def _carpool(**options: str) -> Command:
    def command(model: Path, port: int, directory: Path) -> list[str]:
        config = directory / "carpool.yaml"
        settings = {
            "models": [{"reference": str(model), "name": MODEL, "options": options}],
            "worker": {"num_threads": THREADS},
            "cache": {"mode": "off"},
        }
        config.write_text(json.dumps(settings))  # JSON is YAML
        return ["-m", "carpool", "serve", "--config", str(config), "--port", str(port)]

    return command


_THREADS = {
    "OMP_NUM_THREADS": str(THREADS),
    "MKL_NUM_THREADS": str(THREADS),
    "TOKENIZERS_PARALLELISM": "true",
}
_OFFLINE = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "VLLM_NO_USAGE_STATS": "1"}
_VLLM = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": f"0-{THREADS - 1}",
    "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
}

CONTESTANTS = {
    "carpool": Contestant("Carpool", "default", None, _carpool()),
    "carpool-f32": Contestant("Carpool", "f32", None, _carpool(precision="f32")),
    "carpool-int8": Contestant("Carpool", "int8 weights", None, _carpool(weights="int8")),
    "infinity-fp32": Contestant(
        "Infinity 0.0.78, torch", "fp32", INFINITY, _infinity("torch", "float32"), "/embeddings"
    ),
    "infinity-bf16": Contestant(
        "Infinity 0.0.78, torch", "bf16", INFINITY, _infinity("torch", "bfloat16"), "/embeddings"
    ),
    "infinity-onnx": Contestant(
        "Infinity 0.0.78, optimum", "fp32", OPTIMUM, _infinity("optimum", "float32"), "/embeddings"
    ),
    "litserve": Contestant("sentence-transformers 6.2.0, LitServe 0.2.19", "fp32", LITSERVE, _litserve),
    "vllm": Contestant("vLLM 0.32.0 CPU, pooling", "fp32", VLLM, _vllm("float32"), env=_VLLM),
}


class Server:
    """A contestant's process. While `paused` it takes no processor time from the others."""

    def __init__(self, contestant: Contestant, model: Path) -> None:
        self.contestant = contestant
        self._directory = tempfile.TemporaryDirectory()
        folder = Path(self._directory.name)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.root = f"http://127.0.0.1:{port}"
        self.url = self.root + contestant.path
        self._log = folder / "log"
        python = sys.executable if contestant.environment is None else contestant.environment.python()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [python, *contestant.command(model, port, folder)],
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **_THREADS, **_OFFLINE, **contestant.env},
            )

    def wait_up(self) -> None:
        """Wait until it answers. Raises `RuntimeError` with its last words where it does not come up."""
        give_up = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < give_up and self._process.poll() is None:
            try:
                self.embed(["one", "two"])
                return
            except (OSError, KeyError, ValueError):
                time.sleep(0.5)
        raise RuntimeError("\n".join(self._log.read_text(errors="replace").splitlines()[-20:]))

    def embed(self, texts: list[str]) -> list[list[float]]:
        """The vectors of some texts."""
        reply = json.loads(self.get(self.url, body(texts)))
        return [row["embedding"] for row in sorted(reply["data"], key=lambda row: row["index"])]

    def get(self, url: str, content: Any = None) -> bytes:
        """The body of a page, or of the answer to a JSON body."""
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(url, data, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=START_TIMEOUT_S) as reply:
            answer: bytes = reply.read()
            return answer

    def settle(self) -> None:
        """Wait until an answer comes: who does not drop the work of clients that left has done it by then."""
        self.embed(["settled"])

    def pause(self) -> None:
        """Stop all of its processes until `resume`."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let them go on."""
        os.killpg(self._process.pid, signal.SIGCONT)

    def end(self) -> None:
        """End it and all that it started."""
        if self._process.poll() is None:
            self.resume()
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        self._directory.cleanup()
