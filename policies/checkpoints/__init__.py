"""The trained policies of this repository. The README of each folder has its data and its numbers."""

from pathlib import Path

CHECKPOINTS = {
    name: Path(__file__).parent / name for name in ("assembly-v3", "hammer-v3", "pick-out-of-hole-v3", "pusht")
}
