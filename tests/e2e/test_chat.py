"""Chat completions by the real starter model."""

import json
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from tests.e2e.server import Server, metric_sum

MODEL = "smollm2-135m-instruct"
PARIS = [{"role": "user", "content": "Name the capital of France."}]


def histogram(text: str, name: str) -> dict[float, int]:
    """Observations per upper bound of a Prometheus histogram, summed over its labels."""
    cumulative: dict[float, int] = {}
    for line in text.splitlines():
        if line.startswith(f"{name}_bucket"):
            bound = float(line.split('le="')[1].split('"')[0].replace("+Inf", "inf"))
            cumulative[bound] = cumulative.get(bound, 0) + int(line.rsplit(" ", 1)[1])
    bounds = sorted(cumulative)
    return {
        bound: cumulative[bound] - (cumulative[bounds[i - 1]] if i else 0) for i, bound in enumerate(bounds)
    }


def test_knows_the_capital_of_france(server: Server) -> None:
    with server.client() as client:
        reply = client.post(
            "/v1/chat/completions",
            json={"model": MODEL, "messages": PARIS, "temperature": 0, "max_tokens": 40},
        )
    body = reply.json()
    assert reply.status_code == 200, body
    assert body["object"] == "chat.completion"
    assert "Paris" in body["choices"][0]["message"]["content"]
    assert body["choices"][0]["finish_reason"] == "stop"
    usage = body["usage"]
    # The template's system turn and the question: 36 tokens by the model's own tokenizer.
    assert usage["prompt_tokens"] == 36
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert reply.headers["x-request-id"]


def test_stream_is_openai_sse_and_equals_the_plain_reply(server: Server) -> None:
    body = {
        "model": MODEL,
        "messages": PARIS,
        "temperature": 0,
        "max_tokens": 40,
        "carpool": {"cache": "off"},
    }
    with server.client() as client:
        plain = client.post("/v1/chat/completions", json=body).json()
        stream = client.post(
            "/v1/chat/completions",
            json={**body, "stream": True, "stream_options": {"include_usage": True}},
        )
    assert stream.headers["content-type"].startswith("text/event-stream")
    events = [line.removeprefix("data: ") for line in stream.text.split("\n\n") if line]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    text = "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])
    assert text == plain["choices"][0]["message"]["content"]
    assert [c["choices"][0]["finish_reason"] for c in chunks if c["choices"]][-1] == "stop"
    assert chunks[-1]["choices"] == []
    counted = ("prompt_tokens", "completion_tokens", "total_tokens")
    assert {k: chunks[-1]["usage"][k] for k in counted} == {k: plain["usage"][k] for k in counted}


def test_32_streams_share_decode_steps(server: Server) -> None:
    def ask(number: int) -> int:
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            stream = client.chat.completions.create(
                model=MODEL,
                messages=[{"role": "user", "content": f"Write a long story about the number {number}."}],
                max_tokens=48,
                stream=True,
                extra_body={"ignore_eos": True, "carpool": {"cache": "off"}},
                stream_options={"include_usage": True},
            )
            usage = [chunk.usage for chunk in stream if chunk.usage]
            return usage[-1].completion_tokens

    with server.client() as client:
        page = client.get("/metrics").text
        before = histogram(page, "carpool_step_batch_size")
        with ThreadPoolExecutor(32) as pool:
            assert list(pool.map(ask, range(32))) == [48] * 32
        generated = "carpool_generation_tokens_total"
        page = server.wait_metric(generated, metric_sum(page, generated) + 32 * 48)
        after = histogram(page, "carpool_step_batch_size")
    # 32 x 48 tokens one by one would be 1,536 steps.
    steps = {bound: after[bound] - before.get(bound, 0) for bound in after}
    assert sum(steps.values()) < 400
    assert sum(count for bound, count in steps.items() if bound >= 32) >= 24


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_length_is_a_finish_reason(server: Server, field: str) -> None:
    with server.client() as client:
        body = client.post("/v1/chat/completions", json={"model": MODEL, "messages": PARIS, field: 3}).json()
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 3


def test_stop_string_ends_the_text_before_it(server: Server) -> None:
    body = {"model": MODEL, "messages": PARIS, "temperature": 0, "max_tokens": 40, "stop": ["Paris"]}
    with server.client() as client:
        choice = client.post("/v1/chat/completions", json=body).json()["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert "capital" in choice["message"]["content"]
    assert "Paris" not in choice["message"]["content"]


def test_same_seed_same_text(server: Server) -> None:
    body = {
        "model": MODEL,
        "messages": PARIS,
        "temperature": 1.5,
        "seed": 7,
        "max_tokens": 24,
        "carpool": {"cache": "off"},
    }
    with server.client() as client:
        texts = {
            client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
            for _ in range(3)
        }
        other = client.post("/v1/chat/completions", json={**body, "seed": 8}).json()
    assert len(texts) == 1
    assert other["choices"][0]["message"]["content"] not in texts
