"""Ways to denoise that need no observations: an ordinary ``bac.json`` in this folder for each.

Their coefficients were fitted on other policies than the one that will follow them. What is known of that is in each
file's fingerprint, as ``calibration``. `bac.tune` fits to the policy itself, which is better where there are
observations.
"""

from __future__ import annotations

from pathlib import Path

from bac.errors import ScheduleError

_HERE = Path(__file__).parent


def names() -> tuple[str, ...]:
    """All presets, each by its kind and its number of steps: ``flow-3``."""
    return tuple(sorted(path.stem for path in _HERE.glob("*.json")))


def path_of(name: str) -> Path:
    """The file of a preset.

    Raises:
        ScheduleError: There is none of this name.
    """
    if name not in names():
        raise ScheduleError(
            f"preset: must be one of {', '.join(names())}, got {name!r:.40}; in Python, bac.Denoising.preset('flow', 3)"
        )
    return _HERE / f"{name}.json"
