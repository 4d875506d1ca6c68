"""The trained policies that come with the repository; each folder has a README with its data and its numbers."""

from pathlib import Path

CHECKPOINTS = {name: Path(__file__).parent / name for name in ("assembly-v3", "pick-out-of-hole-v3", "pusht")}
