"""Who owns which block of KV memory, and which blocks hold the beginning of a new prompt already."""

from array import array
from collections import Counter, OrderedDict
from collections.abc import Iterable

from .sequence import Sequence

SHARED_ROOT, REPRODUCIBLE_ROOT = 0, 1
"""Where prefixes begin. Reproducible sequences have a root of their own: below it all was computed from
prompts, while others may continue what was computed as somebody's output."""

_Key = tuple[int, bytes]
"""A prefix id (or root) and the token ids of the block that follows it."""


class _Block:
    """One block: how many tables hold it, and its place in the prefix cache."""

    __slots__ = ("key", "prefix_id", "ref_count")

    def __init__(self) -> None:
        self.ref_count = 0
        self.key: _Key | None = None
        self.prefix_id = 0


class BlockManager:
    """Paged KV memory: sequences own fixed-size blocks through a table, so memory never fragments.

    After Kwon et al., "Efficient Memory Management for Large Language Model Serving with PagedAttention",
    SOSP 2023, and the automatic prefix caching of vLLM.

    **Ownership.** A block is in the tables of `ref_count` sequences; with none it is in the free list. A
    shared block is full and computed, hence only read. Nothing is ever copied.

    **Promises.** `admit` promises a sequence blocks that it takes later; until then they stay in the free
    list, and in the prefix cache. There are always at least as many free blocks as promised ones.

    **Prefix cache.** A computed full block is named by a prefix id, unique for ever. Its key is the id of
    the block before it with its own token ids, so looking up a chain of keys compares every token of the
    prefix, and equal hashes of unequal tokens do no harm. Blocks without an owner keep their content until
    they are needed, least recently used first, and of one sequence the last block first, so that no block
    outlives what it continues.
    """

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._blocks = [_Block() for _ in range(num_blocks)]
        self._free = OrderedDict.fromkeys(range(num_blocks))  # the next one to use first
        self._num_reserved = 0
        self._cached: dict[_Key, int] = {}
        self._last_prefix_id = REPRODUCIBLE_ROOT

    @property
    def num_used(self) -> int:
        """Blocks owned by sequences."""
        return self.num_blocks - len(self._free)

    def blocks_for(self, num_tokens: int) -> int:
        """Blocks that hold this many tokens."""
        return -(-num_tokens // self.block_size)

    # Taking and giving back ----------------------------------------------------------------------------

    def admit(self, seq: Sequence, num_tokens: int) -> bool:
        """Give a sequence its cached prefix and promise the rest of `num_tokens`; or change nothing."""
        self.match(seq)
        missing = self.blocks_for(num_tokens) - len(seq.block_table)
        if missing > len(self._free) - self._num_reserved:
            self.free(seq)
            return False
        seq.num_reserved_blocks = missing
        self._num_reserved += missing
        return True

    def grow(self, seq: Sequence, num_tokens: int) -> bool:
        """Extend the table to hold `num_tokens`, promised blocks first; or change nothing."""
        missing = self.blocks_for(num_tokens) - len(seq.block_table)
        if missing - seq.num_reserved_blocks > len(self._free) - self._num_reserved:
            return False
        for _ in range(missing):
            block_id, _none = self._free.popitem(last=False)
            block = self._blocks[block_id]
            if block.key is not None:
                del self._cached[block.key]
                block.key = None
            self._own(seq, block_id)
        return True

    def free(self, seq: Sequence) -> None:
        """Take back all blocks and promises of a sequence, and with them its computed tokens."""
        for block_id in reversed(seq.block_table):
            block = self._blocks[block_id]
            block.ref_count -= 1
            if not block.ref_count:
                self._free[block_id] = None
                if block.key is None:
                    self._free.move_to_end(block_id, last=False)
        self._num_reserved -= seq.num_reserved_blocks
        seq.num_reserved_blocks = 0
        seq.num_computed_tokens = 0
        del seq.block_table[:]
        seq.prefix_ids.clear()

    # Prefix cache --------------------------------------------------------------------------------------

    def match(self, seq: Sequence) -> int:
        """Take over cached blocks that continue the computed tokens; returns how many tokens that gave.

        The table must end where the computed tokens end, on a block boundary. The last two tokens are always
        left to compute: the last one's logits are needed, and one alone is computed as decode steps are, with
        other last digits than prompts. A sequence that is admitted already can be matched again
        before each chunk: another one may have computed its next blocks meanwhile.
        """
        before = seq.num_computed_tokens
        while (key := self.next_key(seq)) is not None and (block_id := self._cached.get(key)) is not None:
            self._free.pop(block_id, None)
            self._own(seq, block_id)
            seq.prefix_ids.append(self._blocks[block_id].prefix_id)
            seq.num_computed_tokens += self.block_size
        return seq.num_computed_tokens - before

    def next_key(self, seq: Sequence) -> _Key | None:
        """The key of the first uncomputed block, if it is one that another sequence may provide."""
        end = (len(seq.prefix_ids) + 1) * self.block_size
        return self._key(seq) if end < seq.num_shared_tokens - 1 else None

    def register(self, seq: Sequence) -> None:
        """Put the sequence's newly computed full blocks into the prefix cache."""
        end = min(seq.num_computed_tokens, seq.num_shared_tokens)
        while (len(seq.prefix_ids) + 1) * self.block_size <= end:
            block_id = seq.block_table[len(seq.prefix_ids)]
            key = self._key(seq)
            # Where an equal block is cached already, that one stays and names the prefix.
            cached = self._blocks[self._cached.setdefault(key, block_id)]
            if cached.key is None:
                self._last_prefix_id += 1
                cached.key, cached.prefix_id = key, self._last_prefix_id
            seq.prefix_ids.append(cached.prefix_id)

    def _key(self, seq: Sequence) -> _Key:
        parent = seq.prefix_ids[-1] if seq.prefix_ids else seq.prefix_root
        start = len(seq.prefix_ids) * self.block_size
        return parent, array("i", seq.token_ids[start : start + self.block_size]).tobytes()

    def _own(self, seq: Sequence, block_id: int) -> None:
        self._blocks[block_id].ref_count += 1
        seq.block_table.append(block_id)
        if seq.num_reserved_blocks:
            seq.num_reserved_blocks -= 1
            self._num_reserved -= 1

    # Integrity -----------------------------------------------------------------------------------------

    def check_idle(self) -> None:
        """Raise `RuntimeError` unless all memory is free and none is promised."""
        if len(self._free) != self.num_blocks or self._num_reserved:
            raise RuntimeError(f"idle with {self.num_used} KV blocks owned and {self._num_reserved} promised")

    def check_integrity(self, sequences: Iterable[Sequence]) -> None:
        """Raise `RuntimeError` unless these sequences, all that own memory, account for every block."""
        sequences = list(sequences)
        owners = Counter(block_id for seq in sequences for block_id in seq.block_table)
        faults = []
        if len(self._free) + len(owners) != self.num_blocks:
            faults.append(f"{len(self._free)} free and {len(owners)} owned of {self.num_blocks}")
        for block_id, block in enumerate(self._blocks):
            if block.ref_count != owners[block_id]:
                faults.append(f"block {block_id} counts {block.ref_count} owners, has {owners[block_id]}")
            if (block.ref_count == 0) != (block_id in self._free):
                faults.append(f"block {block_id} is free and owned, or neither")
            if block.key is not None and self._cached.get(block.key) != block_id:
                faults.append(f"block {block_id} is not where the prefix cache looks for it")
        for seq in sequences:
            full = seq.num_computed_tokens // self.block_size
            if any(owners[block_id] > 1 for block_id in seq.block_table[full:]):
                faults.append(f"request {seq.request.request_id} writes to a shared block")
        promised = sum(seq.num_reserved_blocks for seq in sequences)
        if promised != self._num_reserved or promised > len(self._free):
            faults.append(f"{promised} blocks promised, {self._num_reserved} counted, {len(self._free)} free")
        if len(self._cached) != sum(block.key is not None for block in self._blocks):
            faults.append("the prefix cache names blocks that do not know of it")
        if faults:
            raise RuntimeError("KV blocks are not in order: " + "; ".join(faults[:5]))
