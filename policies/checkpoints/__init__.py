"""The trained policies of this repository. The README of each folder has its data and its numbers."""

from pathlib import Path

_NAMES = (
    "adroit-door",
    "adroit-hammer",
    "adroit-relocate",
    "assembly-v3",
    "hammer-v3",
    "hammer-v3-flow",
    "metaworld-ten",
    "assembly-v3-flow",
    "peg-insert-side-v3-flow",
    "pick-out-of-hole-v3",
    "pusht",
    "pusht-flow",
    "so101-dit",
    "so101-dit-ddpm",
    "so101-pixels",
    "so101-unet",
)
CHECKPOINTS = {name: Path(__file__).parent / name for name in _NAMES}
