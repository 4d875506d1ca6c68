"""The noise that all methods share: every chunk of every episode has a generator seeded by a fixed hash."""

import hashlib

import torch


def chunk_generator(seed: int, chunk_index: int) -> torch.Generator:
    """The generator of one chunk's noise, seeded by a fixed hash of (seed, chunk_index)."""
    digest = hashlib.sha256(f"bac-eval:{seed}:{chunk_index}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
