"""sentence-transformers behind LitServe, in its own environment. argv: the model's directory, a port."""

import base64
import sys
from typing import Any

import litserve as ls
import numpy as np
import torch
from sentence_transformers import SentenceTransformer

THREADS = 2
BATCH = 32


class Embedding(ls.LitAPI):
    """Requests that wait ride together; each may hold one text or many."""

    def setup(self, device: str) -> None:
        """Load the model in the worker."""
        torch.set_num_threads(THREADS)
        self.model = SentenceTransformer(sys.argv[1], device=device)

    def decode_request(self, request: dict[str, Any]) -> dict[str, Any]:
        """The request with a list of texts."""
        texts = request["input"]
        return request | {"input": [texts] if isinstance(texts, str) else texts}

    def predict(self, requests: list[dict[str, Any]]) -> list[Any]:
        """The vectors of each request, from one call of the model."""
        texts = [text for request in requests for text in request["input"]]
        vectors = self.model.encode(texts, batch_size=BATCH, show_progress_bar=False)
        ends = np.cumsum([len(request["input"]) for request in requests])[:-1]
        coded = [request.get("encoding_format") == "base64" for request in requests]
        return list(zip(np.split(vectors, ends), coded, strict=True))

    def encode_response(self, output: tuple[Any, bool]) -> dict[str, Any]:
        """The reply in OpenAI's shape."""
        vectors, coded = output
        rows = [base64.b64encode(row).decode() for row in vectors] if coded else vectors.tolist()
        data = [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)]
        return {"object": "list", "data": data, "model": "all-minilm-l6-v2"}


if __name__ == "__main__":
    api = Embedding(max_batch_size=BATCH, batch_timeout=0.0, api_path="/v1/embeddings")
    server = ls.LitServer(api, accelerator="cpu", timeout=600)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[2]),
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
    )
