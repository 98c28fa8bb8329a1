"""PyTorch fp32 by sentence-transformers, in LitServe's environment: JSON texts on stdin, vectors on stdout.

argv: the model's directory.
"""

import json
import sys

from sentence_transformers import SentenceTransformer


def main() -> None:
    """Embed."""
    model = SentenceTransformer(sys.argv[1], device="cpu")
    print(json.dumps(model.encode(json.load(sys.stdin), show_progress_bar=False).tolist()))


if __name__ == "__main__":
    main()
