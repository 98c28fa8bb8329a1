"""The worker's client whose embedding model sees words, so that alike questions have alike vectors."""

import numpy as np

from carpool.worker.answers import Embeddings
from carpool.worker.protocol import Embed
from tests.unit.cache.bag_of_words import embed_text
from tests.unit.gateway.local_client import LocalClient


class WordsClient(LocalClient):
    """`vectors` makes bags of words."""

    async def embed(self, request: Embed) -> Embeddings:
        made = await super().embed(request)
        vectors = [embed_text(item) for item in request.inputs if isinstance(item, str)]
        return Embeddings(np.stack(vectors), made.tokens)
