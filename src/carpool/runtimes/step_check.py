"""The conditions a `StepBatch` must meet, checked before native code reads it."""

from carpool.runtimes.decoder import DecoderSpec, StepBatch


def check_batch(batch: StepBatch, spec: DecoderSpec) -> None:
    """Raise `ValueError` for a batch that contradicts itself or `spec`.

    A wrong index would make a forward pass read or write memory that is not its own. That a block belongs to
    one row only is not checked.
    """
    num_rows = len(batch.past_lens)
    begins, block_begins = batch.subsequence_begins, batch.block_indices_begins
    if num_rows == 0 or len(begins) != num_rows + 1 or len(block_begins) != num_rows + 1:
        raise ValueError(f"{num_rows} rows with {len(begins)} and {len(block_begins)} begins")
    new_lens, block_counts = begins[1:] - begins[:-1], block_begins[1:] - block_begins[:-1]
    if begins[0] != 0 or begins[-1] != len(batch.token_ids) or new_lens.min() < 1:
        raise ValueError(f"subsequence_begins {begins} do not divide {len(batch.token_ids)} tokens")
    if block_begins[0] != 0 or block_begins[-1] != len(batch.block_indices) or block_counts.min() < 1:
        raise ValueError(
            f"block_indices_begins {block_begins} do not divide {len(batch.block_indices)} blocks"
        )
    lens = batch.past_lens + new_lens
    if batch.past_lens.min() < 0 or lens.max() > spec.context_length:
        raise ValueError(f"rows of {lens.max()} tokens; the context has {spec.context_length}")
    if (block_counts * spec.block_size < lens).any():
        raise ValueError("a row has more tokens than its blocks can hold")
    if batch.block_indices.min() < 0 or batch.block_indices.max() >= spec.num_blocks:
        raise ValueError(f"a block index is not below {spec.num_blocks}")
    if batch.token_ids.max() >= spec.vocab_size:
        raise ValueError(f"a token id is not below {spec.vocab_size}")
    if any(not 0 <= each.row < num_rows for each in batch.samples):
        raise ValueError(f"a sample's row is not below {num_rows}")
