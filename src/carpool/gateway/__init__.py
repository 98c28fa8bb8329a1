"""The HTTP side: the OpenAI surface, authentication, admission, streaming and the dashboard."""
