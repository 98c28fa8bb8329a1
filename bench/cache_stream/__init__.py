"""The semantic cache on a stream of real questions: how often it serves, and how often wrongly."""
