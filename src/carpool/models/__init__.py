"""Model references, where their files come from, what is in the files, and how text becomes token ids."""
