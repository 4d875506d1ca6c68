"""Fingerprints: a schedule carries the identity of its policy, so a mismatch is never silent.

Class names and block names say which network it is; noise levels, kind of prediction and clipping say what its numbers
mean; the hash of the weights says which training made them. Weights are compared apart from the rest, because it is
legitimate to train on and keep a schedule.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import isclose, isfinite
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bac.errors import ScheduleError

# Kept for the reader, never compared; and the weights, which `other_weights` compares.
_INFORMATIVE = ("calibration", "version")
_WEIGHTS = "weights"
_LISTS = ("block_names", "timesteps", "noise_levels")
_NUM_LEVELS = 9  # noise levels kept of 100 or 1,000: two beta schedules that agree at nine are the same
_NUM_VALUES = 256  # values kept of each parameter
_DENSE = (Tensor, nn.Parameter)


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
        noise_levels: Share of clean actions (``alphas_cumprod``) at nine training timesteps, first to last, in [0, 1].
            Numbers rather than a hash: float32 and float64 differ in the last digits, and are the same noise levels.
        prediction_type: What the denoiser predicts: ``epsilon``, ``sample`` or ``v_prediction``.
        clip: Range to which clean actions are clipped: ``none`` or ``[-1, 1]``.
        num_train_timesteps: Noise levels of the training.
        convention: For flows, direction of time and sign of the velocity; None where unknown.
        weights: Hash of the denoiser's weights; see `weights_hash`. `differences` leaves it out.

    Raises:
        ScheduleError: A value has another type.
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
    noise_levels: tuple[float, ...] = ()
    prediction_type: str | None = None
    clip: str | None = None
    num_train_timesteps: int | None = None
    convention: str | None = None
    weights: str | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            what = _wrong(field.name, value)
            if what:
                raise ScheduleError(f"fingerprint: {field.name} must be {what}, got {value!r:.80}")

    def differences(self, other: Fingerprint) -> tuple[str, ...]:
        """List, one line each, where `other` is known to differ from this fingerprint, other than in its weights."""
        lines = []
        for field in fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            known = mine not in (None, ()) and theirs not in (None, ())
            if field.name not in (*_INFORMATIVE, _WEIGHTS) and known and not _same(field.name, mine, theirs):
                lines.append(f"{field.name}: the schedule has {_short(mine)}, the policy has {_short(theirs)}")
        return tuple(lines)

    def other_weights(self, other: Fingerprint) -> bool:
        """Whether `other` is known to have other weights: of another training, merged with an adapter, cast."""
        return None not in (self.weights, other.weights) and self.weights != other.weights

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Fingerprint:
        """Inverse of `to_dict`.

        Raises:
            ScheduleError: There are unknown keys, or a value has another type.
        """
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ScheduleError(f"fingerprint: holds {', '.join(unknown)[:80]}, which this bac does not know")
        return cls(**{**values, **{key: _tuple(values[key]) for key in _LISTS if key in values}})


def trained_noise(noise_scheduler: Any) -> dict[str, Any]:
    """The fields of a `Fingerprint` that a noise scheduler of diffusers decides; of a flow's, those that it knows."""
    config, levels = noise_scheduler.config, getattr(noise_scheduler, "alphas_cumprod", None)
    return {
        "noise_levels": () if levels is None else noise_levels(levels),
        "prediction_type": config.get("prediction_type"),
        "clip": None if levels is None else _clip(config),
        "num_train_timesteps": config.get("num_train_timesteps"),
    }


def _clip(config: Mapping[str, Any]) -> str:
    if config.get("thresholding", False) and (largest := float(config.get("sample_max_value", 1.0))) != 1.0:
        return f"by a quantile, up to {largest:g}"
    if not (config.get("clip_sample", False) or config.get("thresholding", False)):
        return "none"
    limit = 1.0 if config.get("thresholding", False) else float(config.get("clip_sample_range", 1.0))
    return f"[{-limit:g}, {limit:g}]"


def noise_levels(alphas_cumprod: Tensor) -> tuple[float, ...]:
    """Nine of a noise scheduler's shares of clean actions, evenly spaced from the first to the last, six digits."""
    values = alphas_cumprod.detach().double().cpu()
    places = torch.linspace(0, len(values) - 1, _NUM_LEVELS).round().long()
    return tuple(float(f"{value:.6g}") for value in values[places].tolist())


def weights_hash(module: nn.Module) -> str | None:
    """Hash of a module's parameters: SHA-256 of shapes and of 256 values of each, first 16 hex digits.

    The values of one parameter are evenly spaced over it, and taken as float32. So a training step changes the hash,
    and a move to another device does not; a cast to another dtype rounds the values, so it changes the hash. Names do
    not enter, because compiling and PEFT rename; buffers do not, because some are caches. An adapter's own parameters
    enter; whether it is switched on does not. A write to a few single values may be missed.

    Returns:
        None if there are no parameters, or none that can be read (on the meta device, say).
    """
    parameters = [p for p in module.parameters() if p.device.type != "meta"]
    digest = hashlib.sha256(repr([tuple(p.shape) for p in parameters]).encode())
    for sample in _on_the_cpu([_sampled(p) for p in parameters if type(p) in _DENSE and not p.is_complex()]):
        digest.update(sample.numpy().astype("<f4").tobytes())
    return digest.hexdigest()[:16] if parameters else None


def _sampled(parameter: Tensor) -> Tensor:
    values = parameter.detach().flatten()  # a view, if the parameter is contiguous
    stride = len(values) // _NUM_VALUES | 1  # odd, or all values could lie in one column
    return values[::stride][:_NUM_VALUES].float()


def _on_the_cpu(samples: list[Tensor]) -> list[Tensor]:
    """One transfer for each device rather than for each parameter: a GPU is waited for once."""
    if len({sample.device for sample in samples}) == 1:
        return [torch.cat(samples).cpu()]
    return [sample.cpu() for sample in samples]


def _same(name: str, mine: Any, theirs: Any) -> bool:
    if name != "noise_levels" or len(mine) != len(theirs):
        return bool(mine == theirs)
    return all(isclose(a, b, rel_tol=1e-3, abs_tol=1e-6) for a, b in zip(mine, theirs, strict=True))


def _wrong(name: str, value: Any) -> str | None:
    """What a field must be, if it is not; None if it is."""
    if name in ("timesteps", "noise_levels"):
        return None if isinstance(value, tuple) and all(map(_is_number, value)) else "finite numbers"
    if name == "block_names":
        return None if isinstance(value, tuple) and all(isinstance(item, str) for item in value) else "names"
    if name in ("num_steps", "num_train_timesteps"):
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        return None if value is None or whole else "a whole number of at least 1"
    known = isinstance(value, str) or (value is None and name not in _INFORMATIVE)
    return None if known else "a text"


def _is_number(value: Any) -> bool:
    known = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    return known and abs(value) < 2**63 and isfinite(value)


def _tuple(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ScheduleError(f"fingerprint: must hold lists of {', '.join(_LISTS)}, got {value!r:.80}")
    return tuple(value)


def _short(value: object) -> str:
    if isinstance(value, tuple) and len(value) > 4:
        return f"{len(value)} values ({value[0]}, {value[1]}, ... {value[-1]})"
    return str(value)
