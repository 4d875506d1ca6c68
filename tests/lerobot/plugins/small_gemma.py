"""A plug-in of LeRobot that lets its commands load a `pi0` of `checkpoints.pi0`, whose Gemma is small."""

from __future__ import annotations

from tests.lerobot import models

_small = models.small_gemma("pi0")  # kept, or what it changed would be put back
_small.__enter__()
