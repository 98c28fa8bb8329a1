"""A served model as the embedder of the cache. It is asked before everybody else: requests wait for it."""

import secrets

import numpy as np
from numpy.typing import NDArray

from carpool.errors import ModelFailed, ModelNotFound
from carpool.inference_engine import Priority
from carpool.worker.client import WorkerClient
from carpool.worker.protocol import Embed


class ServedEmbedder:
    """Makes vectors of one revision of a model: those of another one cannot be compared with them."""

    def __init__(self, name: str, client: WorkerClient) -> None:
        """`name` or alias of the model. Is `served` if it is configured."""
        self._name = name
        self._client = client
        self._revision: str | None = None
        try:
            self._revision = client.resolve(name).revision
        except ModelNotFound:
            self.served = False
        else:
            self.served = True
        # Which model will be fetched is not known beforehand; later starts do without this one's vectors.
        self.id = self._revision or f"unknown:{secrets.token_hex(8)}"
        """Names the revision, for vectors that outlive the process."""

    async def embed(self, texts: list[str]) -> NDArray[np.float32]:
        """See `cache.semantic.Embed`. Raises `ModelFailed` once the model was loaded from other files."""
        request = Embed(id=0, model=self._name, inputs=texts, priority=Priority.REALTIME)
        vectors = (await self._client.embed(request)).vectors
        revision = self._client.resolve(self._name).revision
        self._revision = self._revision or revision
        if revision != self._revision:
            raise ModelFailed(
                f"The files of `{self._name}` have changed since the start; restart the server to match by "
                "meaning with the new ones."
            )
        return vectors
