"""The client and a session over a real socket pair, with a small model at the host's seam."""

import asyncio
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from msgspec.structs import replace as replace_struct

from carpool.errors import (
    InvalidRequest,
    ModelFailed,
    ModelLoading,
    ModelNotFound,
    PayloadTooLarge,
    StartError,
    Unavailable,
)
from carpool.worker import framing, protocol
from carpool.worker.client import WorkerClient
from carpool.worker.config import ModelConfig, WorkerConfig
from carpool.worker.protocol import Knobs
from tests.unit.worker.echo import CHAT, EMBED, Lives, idle, read_all, request, settled, started, until


async def test_a_generation_says_the_prompt() -> None:
    async with started() as (client, lives):
        generation = await client.generate(request("hello", "parrot"))
        assert generation.prompt_tokens == 5
        deltas = [delta async for delta in generation]
        assert "".join(delta.text for delta in deltas) == "hello"
        assert sum(len(delta.token_ids) for delta in deltas) == 5
        assert [delta.finish_reason for delta in deltas] == [None] * 4 + ["length"]
        await idle(client, lives)


async def test_logprobs_come_with_text_and_bytes() -> None:
    async with started() as (client, _):
        delta = await anext(await client.generate(request("é")))
    assert delta.text == ""  # half a character
    assert delta.logprobs is not None
    [logprob] = delta.logprobs
    assert (logprob.bytes_, logprob.text, logprob.logprob) == (b"\xc3", "\ufffd", -1.0)
    assert logprob.top == [(logprob.token_id, "\ufffd", b"\xc3", -1.0)]


async def test_special_tokens_are_text_only_where_they_mark_calls() -> None:
    text = "[INST]a[TOOL_CALLS]b"
    calls = protocol.Grammar("tool_calls", "{}", "tools")
    async with started() as (client, _):
        assert client.resolve("echo").tool_form == "mistral"
        with_tools = await client.generate(replace_struct(request(text), grammar=calls))
        assert await read_all(with_tools) == ["a[TOOL_CALLS]b"]
        assert await read_all(await client.generate(request(text))) == ["ab"]


async def test_streams_share_steps_and_frames() -> None:
    async with started() as (client, lives):
        lives.last.chat.going.clear()
        generations = [await client.generate(request(f"prompt {i}")) for i in range(8)]
        lives.last.chat.going.set()
        texts = await asyncio.gather(*map(read_all, generations))
        assert texts == [[f"prompt {i}"] for i in range(8)]
        assert lives.last.chat.steps == len("prompt 0")
        await idle(client, lives)


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        (["STOP"], "one "),
        (["P two", "nothing"], "one STO"),
        (["STOX"], "one STOP two"),
        (["two!"], "one STOP two"),  # held back at the end, then shown
        (["wo"], "one STOP t"),  # complete with the very last token
        ([], "one STOP two"),
    ],
)
async def test_stop_strings_end_a_choice_wherever_tokens_are_cut(stop: list[str], expected: str) -> None:
    async with started() as (client, lives):
        generation = await client.generate(request("one STOP two", n=2), stop=stop)
        deltas = [delta async for delta in generation]
        for index in (0, 1):
            own = [delta for delta in deltas if delta.index == index]
            assert "".join(delta.text for delta in own) == expected
            reason = "length" if expected == "one STOP two" else "stop"
            assert [delta.finish_reason for delta in own if delta.finish_reason] == [reason]
        await idle(client, lives)


async def test_a_stop_match_frees_the_choice_at_the_worker() -> None:
    async with started() as (client, lives):
        assert await read_all(await client.generate(request("a.bcdefghijkl" * 4), stop=["."])) == ["a"]
        await idle(client, lives)
        assert lives.last.chat.steps < 4 * len("a.bcdefghijkl")


async def test_closing_a_generation_frees_it() -> None:
    async with started() as (client, lives):
        lives.last.chat.going.clear()
        generation = await client.generate(request("hello", n=3))
        await generation.aclose()
        await generation.aclose()
        await idle(client, lives)
        assert not lives.last.chat.running
        assert [delta async for delta in generation] == []


async def test_cancelling_a_reader_and_closing_frees_it() -> None:
    async with started() as (client, lives):
        lives.last.chat.going.clear()
        generation = await client.generate(request("hello"))
        reader = asyncio.create_task(read_all(generation))
        await asyncio.sleep(0)
        reader.cancel()
        await asyncio.wait({reader})
        await generation.aclose()
        await idle(client, lives)
        assert not lives.last.chat.running


async def test_a_task_cancelled_before_it_is_accepted_leaves_nothing() -> None:
    async with started() as (client, lives):
        lives.last.chat.admitting.clear()
        tasks = [asyncio.create_task(client.generate(request("hello"))) for _ in range(4)]
        await until(lambda: lives.last.session.open_calls == len(tasks))
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await idle(client, lives)
        lives.last.chat.admitting.set()
        assert await read_all(await client.generate(request("next"))) == ["next"]
        assert lives.last.chat.steps == len("next")


async def test_a_task_cancelled_in_the_same_moment_leaves_nothing() -> None:
    async with started() as (client, lives):
        task = asyncio.create_task(client.generate(request("hello")))
        await asyncio.sleep(0)  # the frame is written, nothing has read it
        task.cancel()
        await asyncio.wait({task})
        await idle(client, lives)
        assert lives.last.chat.steps == 0


async def test_embeddings_come_as_a_read_only_matrix() -> None:
    async with started() as (client, lives):
        texts = await client.embed(protocol.Embed(0, "embed", ["abc", "x"]))
        np.testing.assert_array_equal(texts.vectors, np.array([[3, ord("a")], [1, ord("x")]], np.float32))
        assert texts.vectors.dtype == np.float32
        assert not texts.vectors.flags.writeable
        assert texts.tokens == [3, 1]
        ids = await client.embed(protocol.Embed(0, "embed", [[7, 8]]))
        np.testing.assert_array_equal(ids.vectors, np.array([[2, 7]], np.float32))
        await idle(client, lives)


async def test_a_large_result_comes_whole() -> None:
    async with started() as (client, _):
        inputs = [[i % 256] * 3 for i in range(100_000)]
        result = await client.embed(protocol.Embed(0, "embed", inputs))
        assert result.vectors.shape == (100_000, 2)
        np.testing.assert_array_equal(result.vectors[:, 1], np.arange(100_000) % 256)


async def test_a_message_that_is_too_large_is_refused_either_way(monkeypatch: pytest.MonkeyPatch) -> None:
    async with started() as (client, lives):
        monkeypatch.setattr(framing, "MAX_FRAME_BYTES", 500)
        with pytest.raises(PayloadTooLarge):
            await client.embed(protocol.Embed(0, "embed", ["a" * 500]))
        with pytest.raises(PayloadTooLarge):  # small inputs, large vectors
            await client.embed(protocol.Embed(0, "embed", ["a"] * 100))
        await idle(client, lives)


async def test_a_cancelled_embedding_leaves_nothing() -> None:
    async with started() as (client, lives):
        lives.last.encoder.going.clear()
        task = asyncio.create_task(client.embed(protocol.Embed(0, "embed", ["abc"])))
        await until(lambda: lives.last.session.open_calls > 0)
        task.cancel()
        await asyncio.wait({task})
        await idle(client, lives)
        assert lives.last.encoder.steps == 0


async def test_scores_come_in_the_order_of_the_documents() -> None:
    async with started() as (client, lives):
        answer = await client.score(protocol.Score(0, "embed", "abc", ["cab", "xyz", "bus"]))
        assert answer.scores.tolist() == [3, 0, 1]
        assert answer.scores.dtype == np.float32
        assert answer.tokens == 12
        await idle(client, lives)


async def test_a_cancelled_score_leaves_nothing() -> None:
    async with started() as (client, lives):
        lives.last.encoder.going.clear()
        task = asyncio.create_task(client.score(protocol.Score(0, "embed", "abc", ["abc"])))
        await until(lambda: lives.last.session.open_calls > 0)
        task.cancel()
        await asyncio.wait({task})
        await idle(client, lives)
        assert lives.last.encoder.steps == 0


async def test_a_prompt_is_counted_without_a_place() -> None:
    async with started(max_requests_per_model=1) as (client, lives):
        lives.last.chat.going.clear()
        generation = await client.generate(request("hello"))
        assert generation.prompt_tokens == 5
        assert await client.count_tokens(request("hello there", "parrot", max_tokens=3)) == 11
        with pytest.raises(InvalidRequest, match="does not generate"):
            await client.count_tokens(request("hello", "embed"))
        await generation.aclose()
        await idle(client, lives)
        assert lives.last.chat.steps == 0
        client.unload("echo")
        with pytest.raises(Unavailable, match="not up"):
            await client.count_tokens(request("hello"))


async def test_refusals_come_as_their_own_errors() -> None:
    async with started() as (client, lives):
        with pytest.raises(ModelNotFound, match="`nobody`"):
            await client.generate(request("hello", "nobody"))
        with pytest.raises(InvalidRequest, match="65 tokens") as refusal:
            await client.generate(request("x" * 65))
        assert refusal.value.param == "prompt"
        with pytest.raises(InvalidRequest, match="`embed` only makes embeddings"):
            await client.generate(request("hello", "embed"))
        with pytest.raises(InvalidRequest, match="`echo` only generates text"):
            await client.embed(protocol.Embed(0, "echo", ["hello"]))
        with pytest.raises(InvalidRequest, match="`echo` only generates text"):
            await client.score(protocol.Score(0, "echo", "hello", ["hello"]))
        await idle(client, lives)


async def test_states_tell_how_a_load_goes() -> None:
    lives = Lives()
    lives.loading.clear()
    async with WorkerClient(WorkerConfig(models=(CHAT, EMBED)), spawn=lives) as client:
        assert client.resolve("parrot").phase == "queued"
        version = 0
        while client.resolve("parrot").phase == "queued":
            version = await client.changed(version)
        assert (client.resolve("echo").phase, client.resolve("echo").percent) == ("building", 50.0)
        with pytest.raises(ModelLoading, match=r"building, 50 %") as loading:
            await client.generate(request("hello"))
        assert loading.value.retry_after_s
        lives.loading.set()
        await settled(client)
        chat, embed = client.resolve("echo"), client.resolve("embed")
        assert (chat.phase, chat.percent, chat.task, chat.context_length) == ("ready", 100.0, "generate", 64)
        assert (embed.task, embed.dimensions, chat.details) == ("embed", 2, {"kind": "echo"})


async def test_a_model_that_cannot_be_loaded_says_why_and_the_others_serve() -> None:
    bad = ModelConfig(reference="pypi:bad==1", options={"fail": "no such file"})
    buggy = ModelConfig(reference="pypi:buggy==1", options={"fail": "unforeseen"})
    async with started(CHAT, bad, buggy) as (client, lives):
        assert client.resolve("bad").error == "no such file"
        with pytest.raises(ModelFailed, match="no such file"):
            await client.generate(request("hello", "bad"))
        with pytest.raises(ModelFailed, match="ZeroDivisionError: a bug"):
            await client.generate(request("hello", "buggy"))
        assert await read_all(await client.generate(request("hello"))) == ["hello"]
        await idle(client, lives)


async def test_settings_change_while_the_worker_runs_and_survive_it() -> None:
    async with started(EMBED) as (client, lives):
        await client.configure(gate_policy="wfq")
        assert lives.last.host.gate.policy == "wfq"
        with pytest.raises(StartError, match="gate_policy must be one of"):
            await client.configure(gate_policy="nice")  # type: ignore[arg-type]
        assert client.config.gate_policy == "wfq"
        lives.last.kill()
        await until(lambda: lives.live)
        await settled(client)
        assert lives.last.host.gate.policy == "wfq"


async def test_knobs_change_while_a_model_runs_and_survive_its_worker() -> None:
    async with started(CHAT, replace(EMBED, preload=False)) as (client, lives):
        assert client.models["echo"].knobs == Knobs(4, 0.0, 1.0)
        await client.tune(Knobs(max_batch_size=2), "parrot")
        await client.tune(Knobs(batch_wait_ms=5.0))  # of all, loaded or not
        assert lives.last.chat.knobs == client.models["echo"].knobs == Knobs(2, 5.0, 1.0)
        client.load("embed")
        await settled(client)
        assert lives.last.encoder.knobs == client.models["embed"].knobs == Knobs(4, 5.0, 1.0)
        with pytest.raises(InvalidRequest, match="max_batch_size must not be 13"):
            await client.tune(Knobs(max_batch_size=13), "echo")
        lives.last.kill()
        await until(lambda: lives.live)
        await settled(client)
        assert lives.last.chat.knobs == client.models["echo"].knobs == Knobs(2, 5.0, 1.0)
        await idle(client, lives)


async def test_a_knob_that_is_set_while_its_model_loads_holds() -> None:
    async with started(replace(EMBED, preload=False)) as (client, lives):
        lives.loading.clear()
        client.load("embed")
        await until(lambda: client.models["embed"].phase == "building")
        await client.tune(Knobs(max_batch_size=2), "embed")
        lives.loading.set()
        await settled(client)
        assert lives.last.encoder.knobs == client.models["embed"].knobs == Knobs(2, 0.0, 1.0)


async def test_snapshots_hold_the_workers_metrics() -> None:
    async with started(EMBED) as (client, lives):
        lives.last.host.registry.counter("carpool_test_total", "A test.").add(3)
        await until(
            lambda: any(metric.name == "carpool_test_total" for _, s in client.snapshots() for metric in s)
        )
        [(labels, _)] = client.snapshots()
        assert labels == {"device": "cpu"}


def test_the_client_brings_no_runtime_into_its_process() -> None:
    code = "import sys, carpool.worker.client; print([m for m in ('openvino', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
