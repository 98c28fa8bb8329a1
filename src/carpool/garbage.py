"""When a process of a server looks for garbage that counting references does not find."""

import gc

_COLLECT_AFTER = 10_000
"""Objects that may be made, and not freed, until those are searched for cycles: some 3 ms."""


def collect_seldom() -> None:
    """Look for cycles seldom, and not among what is there for good: call it when that has been loaded.

    By default a busy server looks every few requests, now and then through all modules and cached answers:
    a tenth of its time, and pauses that make the slowest twentieth of the replies twice as slow. A worker
    would stand still between two steps, for as long as a step of a few sequences takes. This call itself
    takes some 20 ms.
    """
    gc.unfreeze()  # what was there for good may have been unloaded
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 20, 20)
