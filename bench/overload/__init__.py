"""Ten times more chat requests than the machine can answer: what becomes of those that are accepted."""
