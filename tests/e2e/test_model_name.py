"""`MODEL_NAME` with a name from the hub, on a small stand-in for the hub."""

from pathlib import Path

from tests.e2e.conftest import Start
from tests.unit.models.file_server import FileServer, hub_environment, publish_repository, serve
from tests.unit.models.tiny_vocabulary import write_vocabulary
from tests.unit.runtimes.tiny_decoders import CONTEXT_LENGTH, DECODERS, VOCAB_SIZE


def test_gpt2_is_fetched_and_answers(start: Start, minilm_path: Path, tmp_path: Path) -> None:
    directory = write_vocabulary(DECODERS["gpt2"].write(tmp_path / "gpt2"), VOCAB_SIZE)
    model_dir = tmp_path / "models"
    model_dir.mkdir()
    (model_dir / "pypi").symlink_to(minilm_path.parent)  # the embedding model is there already
    with serve(FileServer()) as hub:
        publish_repository(hub, "gpt2", {path.name: path.read_bytes() for path in directory.iterdir()})
        environment = {"MODEL_NAME": "gpt2", "CARPOOL_MODEL_DIR": str(model_dir)}
        server = start(env=environment | hub_environment(hub, tmp_path)).wait_ready()
    with server.client() as client:
        models = {model["id"]: model for model in client.get("/v1/models").json()["data"]}
        assert models["gpt2"]["details"]["chat_template"] == "fallback"
        assert models["gpt2"]["max_model_len"] == CONTEXT_LENGTH
        body = {"model": "gpt2", "prompt": "the ride", "max_tokens": 9, "temperature": 0}
        answer = client.post("/v1/completions", json=body).json()
        assert answer["usage"] == answer["usage"] | {"prompt_tokens": 4, "completion_tokens": 9}
        messages = [{"role": "user", "content": "the ride"}]
        answer = client.post(
            "/v1/chat/completions", json={"model": "gpt2", "messages": messages, "max_tokens": 5}
        )
        assert answer.status_code == 200
        too_long = client.post("/v1/completions", json=body | {"max_tokens": 800})
        assert too_long.status_code == 400
    server.stop()
