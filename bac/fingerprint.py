"""Fingerprints: a schedule carries the identity of its policy, so a mismatch is never silent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

# Kept for the reader, never compared.
_INFORMATIVE = ("calibration", "version")


@dataclass(frozen=True)
class Fingerprint:
    """Identity of a policy, as a schedule carries it. `None` and empty mean unknown, and unknown matches anything.

    Attributes:
        policy: Dotted class name of the policy.
        denoiser: Dotted class name of the network that is called once per denoising step.
        block_names: Blocks in order of evaluation.
        num_steps: Denoising steps K.
        solver: Class name of the noise scheduler or solver.
        timesteps: Noise levels in order of evaluation, `[K]`.
        dtype: Parameter dtype of the denoiser.
        calibration: One line on how the schedule's statistics were measured. Not compared.
        version: `bac` version that made it. Not compared.
    """

    policy: str | None = None
    denoiser: str | None = None
    block_names: tuple[str, ...] = ()
    num_steps: int | None = None
    solver: str | None = None
    timesteps: tuple[float, ...] = ()
    dtype: str | None = None
    calibration: str = ""
    version: str = ""

    def differences(self, other: Fingerprint) -> tuple[str, ...]:
        """List, one line each, where `other` is known to differ from this fingerprint."""
        lines = []
        for field in fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            known = mine not in (None, ()) and theirs not in (None, ())
            if field.name not in _INFORMATIVE and known and mine != theirs:
                lines.append(f"{field.name}: the schedule has {_short(mine)}, the policy has {_short(theirs)}")
        return tuple(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Fingerprint:
        """Inverse of `to_dict`. Raises `TypeError` on unknown keys."""
        listed = {key: tuple(values[key]) for key in ("block_names", "timesteps") if key in values}
        return cls(**{**values, **listed})


def _short(value: object) -> str:
    if isinstance(value, tuple) and len(value) > 4:
        return f"{len(value)} values ({value[0]}, {value[1]}, ... {value[-1]})"
    return str(value)
