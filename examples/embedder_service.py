"""An embedding microservice: the texts of all requests ride in shared model calls.

uvicorn embedder_service:app --app-dir examples
curl localhost:8000/embed -H 'content-type: application/json' -d '["a car pool", "a shared ride"]'
"""

import asyncio
import zlib

import numpy as np
from fastapi import FastAPI, HTTPException

from carpool.inference_engine import QueueFull, batched

app = FastAPI()


@batched
def encode(texts: list[str]) -> list[list[float]]:
    """Hashed character trigrams in 256 dimensions; put a model's `encode` here."""
    vectors = np.zeros((len(texts), 256))
    for row, text in zip(vectors, texts, strict=True):
        for start in range(len(text) - 2):
            row[zlib.crc32(text[start : start + 3].encode()) % 256] += 1
    unit: list[list[float]] = (
        vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    ).tolist()
    return unit


@app.post("/embed")
async def embed(texts: list[str]) -> list[list[float]]:
    """One vector for each text; 503 and when to come back if too much waits already."""
    try:
        return list(await asyncio.gather(*(encode(text, cost=max(1, len(text))) for text in texts)))
    except QueueFull as full:
        raise HTTPException(503, headers={"retry-after": f"{full.retry_after_s:.0f}"}) from full
