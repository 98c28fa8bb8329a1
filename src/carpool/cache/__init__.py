"""The answer cache: exact, then in flight, then semantic."""
