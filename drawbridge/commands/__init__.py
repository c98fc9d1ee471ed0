"""One file a noun: what click needs, and nothing else."""
