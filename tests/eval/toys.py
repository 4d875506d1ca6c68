"""A comparison that needs no checkpoint and no simulator, whose process dies once in the midst of an episode."""

import os
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from eval.setup.settings import Settings
from tests.eval.conftest import CountingWorld, NoisyPolicy


class Accident(CountingWorld):
    """Ends its process after 12 steps of the episode of `seed`, unless `note` says that this has happened already."""

    def __init__(self, seed: int, note: Path) -> None:
        super().__init__()
        self._unlucky, self._note = seed, note

    def reset(self, *, seed=None, options=None):
        self._seed = seed
        return super().reset(seed=seed, options=options)

    def step(self, action: np.ndarray):
        if self._seed == self._unlucky and self._steps == 12 and not self._note.exists():
            self._note.touch()
            os._exit(7)
        return super().step(action)


@dataclass(frozen=True)
class Toys(Settings):
    """Attributes:
    unlucky: Seed of the episode in which the process dies; None for no accident.
    note: File made when it does.
    """

    policy: str = "noisy"
    env: str = "counting"
    task: str = "counting"
    pool_size: int = 3
    progress: bool = False
    unlucky: int | None = None
    note: Path = Path()

    def make_env(self):
        return CountingWorld() if self.unlucky is None else Accident(self.unlucky, self.note)

    def load_policy(self):
        policy = NoisyPolicy()
        policy.diffusion = SimpleNamespace(use_solver=_ignore)
        return SimpleNamespace(policy=policy, preprocessor=_same, postprocessor=_same)


def _same(value):
    return value


def _ignore(*args, **options):
    pass
