"""What tests tell beyond pass and fail."""

from collections.abc import Callable

RecordProperty = Callable[[str, object], None]
"""pytest's `record_property`. The summary prints what is recorded as `measured`."""
