"""Policies to accelerate. ``policies.load("policies/checkpoints/assembly-v3")`` loads a policy and its processors."""

from policies.checkpoints import CHECKPOINTS
from policies.loading import LoadedPolicy, load, set_steps

__all__ = ["CHECKPOINTS", "LoadedPolicy", "load", "set_steps"]
