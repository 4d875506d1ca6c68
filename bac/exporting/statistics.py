"""Finds a checkpoint's processors, and the statistics that they normalise with.

LeRobot keeps both as JSON, with tensors in safetensors files, so that neither LeRobot nor the policy is needed to read
them.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bac.exported import Scaling
from bac.files import as_it_is, one_sentence, part, read_json

PIPELINES = ("policy_preprocessor.json", "policy_postprocessor.json")
_MAKE = "preprocessor.save_pretrained(FOLDER)"
_STEPS = ("normalizer_processor", "unnormalizer_processor")
_ENDS = {"MEAN_STD": ("mean", "std"), "MIN_MAX": ("min", "max"), "QUANTILES": ("q01", "q99"),
         "QUANTILE10": ("q10", "q90")}  # fmt: skip


def scalings(checkpoint: Path) -> dict[str, Scaling]:
    """How a checkpoint's processors normalise, by name of the quantity.

    Raises:
        ScheduleError: A processor cannot be read.
    """
    found: dict[str, Scaling] = {}
    for name in PIPELINES:
        path = checkpoint / name
        if not path.is_file():
            continue
        document = read_json(path, _MAKE)
        with one_sentence(path, _MAKE):
            for step in part(document, "steps", list):
                if step.get("registry_name") in _STEPS and step.get("state_file"):
                    found |= _of_step(checkpoint / step["state_file"], part(step, "config", as_it_is))
    return found


def _of_step(state: Path, config: Mapping[str, Any]) -> dict[str, Scaling]:
    from safetensors.torch import load_file  # comes with LeRobot, as the checkpoint does

    tensors, made = load_file(state), {}
    for name, feature in config["features"].items():
        mode = config["norm_map"].get(feature["type"], "IDENTITY")
        ends = _ENDS.get(mode)
        if ends is None or f"{name}.{ends[0]}" not in tensors:
            continue
        low, high = (tensors[f"{name}.{end}"].float().tolist() for end in ends)
        made[name] = Scaling(mode, low, high, float(config.get("eps", 1e-8)))
    return made


def copy_processors(checkpoint: Path, folder: Path) -> None:
    """Copy the processors, for those who run them instead of the card's statistics."""
    for path in sorted(checkpoint.glob("policy_p*processor*")):
        if path.is_file():
            shutil.copy(path, folder / path.name)
