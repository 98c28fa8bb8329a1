"""Where settings come from, which wins, and what is said about bad ones."""

from pathlib import Path

import pytest

from carpool.errors import StartError
from carpool.settings import load


def write(directory: Path, text: str) -> Path:
    path = directory / "carpool.yaml"
    path.write_text(text)
    return path


def test_the_defaults_serve_the_starter_set() -> None:
    settings = load(environ={})
    assert [model.name for model in settings.worker_config().models] == [
        "smollm2-135m-instruct",
        "all-minilm-l6-v2",
    ]
    gateway = settings.gateway_config()
    assert (gateway.host, gateway.port, gateway.keys) == ("127.0.0.1", 8000, ())


def test_flags_win_over_environment_over_file(tmp_path: Path) -> None:
    path = write(tmp_path, "port: 1\ncache: {threshold: 0.9, ttl_s: 5}\ngateway: {max_body_bytes: 7}\n")
    environ = {
        "CARPOOL_PORT": "2",
        "CARPOOL_CACHE__THRESHOLD": "0.95",
        "CARPOOLING": "is fine",
        "CARPOOL_API_KEY": "sk-for-carpool-cache",
    }
    settings = load(config=path, flags={"port": 3}, environ=environ)
    assert settings.gateway_config().port == 3
    assert load(config=path, environ=environ).gateway_config().port == 2
    assert (settings.cache.threshold, settings.cache.ttl_s) == (0.95, 5)
    assert settings.gateway_config().max_body_bytes == 7


@pytest.mark.parametrize("text", ["", "{}", "# nothing"])
def test_an_empty_file_changes_nothing(tmp_path: Path, text: str) -> None:
    assert load(config=write(tmp_path, text), environ={}) == load(environ={})


def test_the_plain_names_of_the_environment(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    environ = {"MAX_BATCH_SIZE": "8", "BATCH_WAIT_MS": "50", "MODEL_NAME": str(tmp_path / "model")}
    worker = load(environ=environ).worker_config()
    assert (worker.max_batch_size, worker.batch_wait_ms) == (8, 50.0)
    assert [model.name for model in worker.models] == ["model", "all-minilm-l6-v2"]


def test_lists_and_mappings_come_from_the_environment_as_yaml() -> None:
    environ = {"CARPOOL_MODELS": "[{reference: 'gpt2', aliases: [old], options: {weights: f32}}]"}
    (model,) = load(environ=environ).worker_config().models
    assert (model.name, model.aliases, model.options) == ("gpt2", ("old",), {"weights": "f32"})


def test_keys_reach_the_gateway(tmp_path: Path) -> None:
    path = write(
        tmp_path, f"keys: [{{name: web, hash: 'sha256:{'0' * 64}', scopes: [metrics]}}]\nhost: 0.0.0.0\n"
    )
    gateway = load(config=path, environ={}).gateway_config()
    assert (gateway.keys[0].tenant, gateway.keys[0].scopes) == ("web", ("metrics",))


@pytest.mark.parametrize(
    ("yaml", "environ", "words"),
    [
        ("prot: 1", {}, ["prot", "carpool.yaml"]),
        ("cache: {tresh: 1}", {}, ["cache.tresh", "carpool.yaml"]),
        ("", {"CARPOOL_CACHE__TRESH": "1"}, ["cache.tresh", "CARPOOL_CACHE__TRESH"]),
        ("", {"CARPOOL_PORT": "http"}, ["port", "'http'", "CARPOOL_PORT"]),
        ("port: 1.5", {}, ["port", "1.5"]),
        ("cache: {threshold: 1.5}", {}, ["threshold", "1.5"]),
        ("cache: {mode: of}", {}, ["cache.mode", "of"]),
        ("cache: 5", {}, ["cache"]),
        ("models: [{}]", {}, ["models.0.reference"]),
        ("models: [{reference: gpt2}, {reference: gpt2}]", {}, ["gpt2", "more than once"]),
        ("gateway: {port: 1}", {}, ["gateway.port", "it is port"]),
        ("worker: {batch_wait_ms: 1}", {}, ["it is batch_wait_ms"]),
        ("keys: [{name: a, hash: secret}]", {}, ["hash", "sha256"]),
        ("auth: {required: true}", {}, ["auth.required", "keys"]),
        ("host: 0.0.0.0", {}, ["0.0.0.0", "keys"]),
        ("[1, 2]", {}, ["carpool.yaml"]),
        ("a: b: c", {}, ["carpool.yaml", "YAML"]),
        ("max_batch_size: 0", {}, ["max_batch_size"]),
        ("models: []", {}, ["models"]),
        ("port: 1\nport: 2", {}, ["port", "twice"]),
        ("cache: &a\n  threshold: *a\n", {}, ["anchor"]),
        ("cache: off", {"CARPOOL_CACHE__TTL_S": "5"}, ["cache", "'off'"]),
        ("port: 1:20", {}, ["port", "1:20"]),
        ("worker: {drain_s: .inf}", {}, ["drain_s"]),
    ],
)
def test_a_bad_setting_is_named_in_one_line(
    tmp_path: Path, yaml: str, environ: dict[str, str], words: list[str]
) -> None:
    path = write(tmp_path, yaml)

    def start() -> None:
        settings = load(config=path, environ=environ)
        settings.gateway_config()
        settings.worker_config()

    with pytest.raises(StartError) as raised:
        start()
    assert "\n" not in raised.value.message
    assert [word for word in words if word not in raised.value.message] == [], raised.value.message


def test_the_example_file_holds_the_defaults() -> None:
    example = Path(__file__).parents[2] / "carpool.example.yaml"
    assert load(config=example, environ={}) == load(environ={})
