"""Carpool: embedding models, rerankers and LLMs from your own hardware behind one OpenAI-compatible port."""

__version__ = "0.1.0"
