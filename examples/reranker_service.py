"""A reranking microservice: the pairs of all requests ride in shared model calls.

uvicorn reranker_service:app --app-dir examples
curl localhost:8000/rerank -H 'content-type: application/json' \
    -d '{"query": "shared car", "documents": ["a bicycle", "a shared ride in a car"]}'
"""

import asyncio
import re
from typing import Annotated

from fastapi import Body, FastAPI

from carpool.inference_engine import EngineConfig, Priority, batched

app = FastAPI()


@batched(config=EngineConfig(max_batch_size=64, max_batch_cost=16_384), name="reranker")
def score(pairs: list[tuple[str, str]]) -> list[float]:
    """Shared words over the query's words; put a cross-encoder's `predict` here."""
    words = [[set(re.findall(r"\w+", text.lower())) for text in pair] for pair in pairs]
    return [len(query & document) / max(1, len(query)) for query, document in words]


@app.post("/rerank")
async def rerank(
    query: Annotated[str, Body()],
    documents: Annotated[list[str], Body()],
    bulk: Annotated[bool, Body()] = False,
) -> list[dict[str, float]]:
    """The documents, best first; `bulk` requests give way to the others."""
    lane = Priority.BULK if bulk else Priority.INTERACTIVE
    pairs = [(query, document) for document in documents]
    scores = await asyncio.gather(
        *(score(pair, cost=len("".join(pair)) + 1, priority=lane) for pair in pairs)
    )
    ranked = sorted(enumerate(scores), key=lambda pair: -pair[1])
    return [{"index": index, "relevance_score": score} for index, score in ranked]
