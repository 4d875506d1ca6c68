"""One thread, one seed, offline, no display, and policies loaded as they are, for every test."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ["BAC"] = "off"  # tests of the plug-in leave it in their process; those that want it say so

import hypothesis
import pytest
import torch

torch.set_num_threads(1)  # two threads on a busy two-core machine spin for milliseconds on a microsecond's work
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True)
hypothesis.settings.load_profile("repeatable")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Seed before any fixture makes random weights: a policy that changes with every run fails once in a while."""
    torch.manual_seed(0)
