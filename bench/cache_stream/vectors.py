"""Vectors of many texts by the served embedding model, kept in a file between runs."""

import asyncio
import contextlib
import hashlib
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from carpool.models.source import DEFAULT_DIRECTORY
from carpool.models.starter import EMBEDDING_MODEL
from carpool.worker.client import WorkerClient
from carpool.worker.config import ModelConfig, WorkerConfig
from carpool.worker.protocol import Embed

Vector = NDArray[np.float32]

DEFAULT_PATH = Path(tempfile.gettempdir()) / "carpool-cache-stream" / f"{EMBEDDING_MODEL.model_id}.npz"

_SLICE = 512


class Vectors:
    """Unit vectors of texts, float32. The file holds digests of the texts, not the texts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: dict[bytes, Vector] = {}
        if path.exists():
            with np.load(path) as held:
                keys, matrix = held["keys"], held["vectors"]
            self._rows = {key.tobytes(): vector for key, vector in zip(keys, matrix, strict=True)}

    def __getitem__(self, text: str) -> Vector:
        return self._rows[_key(text)]

    def matrix(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """The unit vectors of some texts, [texts, dimensions]."""
        return np.stack([self[text] for text in texts])

    def fill(self, texts: Iterable[str]) -> None:
        """Embed what is not there yet, and write the file."""
        missing = list({_key(text): text for text in texts if _key(text) not in self._rows}.values())
        if missing:
            asyncio.run(self._embed(missing))
            self._path.parent.mkdir(parents=True, exist_ok=True)
            keys = np.frombuffer(b"".join(self._rows), dtype=np.uint8).reshape(-1, 16)
            np.savez(self._path, keys=keys, vectors=np.stack(list(self._rows.values())))

    async def embed(self, client: WorkerClient, texts: list[str]) -> NDArray[np.float32]:
        """As a server embeds them, but for those that are held."""
        missing = [text for text in texts if _key(text) not in self._rows]
        if missing:
            request = Embed(id=0, model=EMBEDDING_MODEL.model_id, inputs=missing)
            vectors = (await client.embed(request)).vectors
            vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
            self._rows.update(zip(map(_key, missing), vectors.astype(np.float32), strict=True))
        return self.matrix(texts)

    async def _embed(self, texts: list[str]) -> None:
        async with embedder() as client:
            for start in range(0, len(texts), _SLICE):
                part = texts[start : start + _SLICE]
                await self.embed(client, part)
                if start // _SLICE % 16 == 0:
                    print(f"embedded {start + len(part)} of {len(texts)} texts", file=sys.stderr)


@contextlib.asynccontextmanager
async def embedder() -> AsyncIterator[WorkerClient]:
    """A worker process with the embedding model."""
    config = WorkerConfig(
        models=(ModelConfig(reference=EMBEDDING_MODEL.reference),), model_dir=DEFAULT_DIRECTORY.expanduser()
    )
    async with WorkerClient(config) as client:
        version = -1
        while any(state.phase != "ready" for state in client.models.values()):
            if any(state.phase == "failed" for state in client.models.values()):
                raise SystemExit(f"the embedder does not load: {client.models}")
            version = await client.changed(max(version, client.version))
        yield client


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:16]
