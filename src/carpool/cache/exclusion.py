"""Why a near stored question is no candidate, whatever its probability: the rules that need no vector."""

from carpool.cache.difference import difference, words
from carpool.cache.soundness import carries_material
from carpool.cache.vetoes import vetoed


def exclusion(turn: str, other: str, min_shared: int) -> str | None:
    """The name of a veto, `material` or `addition`; None for a candidate. `min_shared`: see `difference`.

    `material`: every word of a turn that carries some counts. `addition`: the one is the other and more.
    """
    veto = vetoed(turn, other)
    if veto is not None:
        return veto
    if (carries_material(turn) or carries_material(other)) and words(turn) != words(other):
        return "material"
    parts = difference(turn, other, min_shared)
    return "addition" if parts is not None and parts[0] != parts[1] and not all(parts) else None
