"""Directories of decoders, loaded as a worker loads them."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from carpool.errors import ModelFailed
from carpool.inference_engine import DeviceGate
from carpool.telemetry import Registry
from carpool.worker.config import WorkerConfig
from carpool.worker.host import Surroundings
from carpool.worker.hosted import GeneratingModel, HostedModel
from carpool.worker.loading import FileLoader
from carpool.worker.protocol import Generate, Knobs, Load
from tests.unit.models.tiny_vocabulary import write_vocabulary
from tests.unit.runtimes.tiny_decoders import CONTEXT_LENGTH, DECODERS, VOCAB_SIZE

NAMES = ["gpt2", "gpt-neo", "llama", "mistral", "qwen2", "qwen3"]


def write(directory: Path, name: str = "gpt2", **config: Any) -> Path:
    write_vocabulary(DECODERS[name].write(directory), VOCAB_SIZE)
    (directory / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    merged = DECODERS[name].full_config | config
    (directory / "config.json").write_text(json.dumps(merged))
    return directory


async def load(directory: Path) -> HostedModel:
    surroundings = Surroundings(
        WorkerConfig(num_threads=1), DeviceGate(), Registry(), lambda _: None, lambda _: None
    )
    return await FileLoader().load(Load(1, "tiny", str(directory), {"kv_cache_bytes": 8 << 20}), surroundings)


@pytest.mark.parametrize("name", NAMES)
async def test_every_architecture_becomes_a_generating_model(tmp_path: Path, name: str) -> None:
    model = await load(write(tmp_path / name, name))
    assert isinstance(model, GeneratingModel)
    description = model.description
    assert (description.task, description.context_length) == ("generate", CONTEXT_LENGTH)
    assert description.details["architecture"] == DECODERS[name].architecture
    assert description.details["chat_template"] == "fallback"
    assert description.tool_form == "hermes"
    assert description.memory_bytes > 8 << 20  # KV memory and the weights
    model.tune(Knobs(max_batch_size=600, weight=2.0))
    assert model.knobs == Knobs(600, 0.0, 2.0)
    await model.close()


async def test_end_tokens_without_logits_end_nothing(tmp_path: Path) -> None:
    """A tokenizer may have been given tokens that its model was not."""
    model = await load(write(tmp_path / "m", eos_token_id=[VOCAB_SIZE, VOCAB_SIZE + 5, -1]))
    assert isinstance(model, GeneratingModel)
    accepted: list[int] = []
    await model.generate(Generate(1, "tiny", prompt_ids=[1, 2, 3], max_tokens=2), accepted.append)
    assert accepted == [3]
    await model.close()


async def test_prompts_that_come_together_start_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("carpool.generation.engine._LONGEST_WAIT_S", 60.0)  # however slow the threads are
    model = await load(write(tmp_path / "m"))
    assert isinstance(model, GeneratingModel)
    calls = [
        model.generate(Generate(id_, "tiny", prompt_ids=[id_, 2, 3], max_tokens=2), lambda _: None)
        for id_ in range(1, 9)
    ]
    await asyncio.gather(*calls)
    await model.close()
    assert model.steps == 2


async def test_the_chat_template_tells_the_form_of_tool_calls(tmp_path: Path) -> None:
    directory = write(tmp_path / "m")
    template = "{% if tools %}{{ tools }}{% endif %}[TOOL_CALLS]{{ messages }}"
    (directory / "chat_template.jinja").write_text(template)
    model = await load(directory)
    assert model.description.tool_form == "mistral"
    await model.close()


@pytest.mark.parametrize("architecture", ["GPTJForCausalLM", "TransfoXLLMHeadModel"])
async def test_other_decoders_are_refused_with_what_is_supported(tmp_path: Path, architecture: str) -> None:
    directory = write(tmp_path / "m", architectures=[architecture])
    with pytest.raises(
        ModelFailed, match=rf"^{architecture} .*supported: GPT2LMHeadModel, GPTNeoForCausalLM"
    ):
        await load(directory)


async def test_pickle_files_are_refused(tmp_path: Path) -> None:
    directory = write(tmp_path / "m")
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    with pytest.raises(ModelFailed, match=r"has no safetensors file; pytorch_model\.bin is a pickle file"):
        await load(directory)
