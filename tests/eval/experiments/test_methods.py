"""Every scheduler and estimator of the table of methods, on a tiny policy in a world of random numbers."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import asdict
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch

from eval.experiments.methods.catalogue import Catalogue
from eval.experiments.methods.methods import MethodRow, rows_of
from tests.bac.models import TinyTransformerPolicy

pytestmark = pytest.mark.slow

KEYS = {"scheduler", "estimator", "solver", "num_steps", "sweeps", "latency_p50_ms", "action_error"}
PAIRS = [
    ("uniform", "hold"),
    ("unified", "taylor-1"),
    ("unified", "fitted_forecast"),
    ("unified", "scale_shift"),
    ("unified", "affine_residual"),
    ("matched", "taylor-1"),
    ("outcome", "hold"),
    ("outcome_worst", "taylor-1"),
    ("global_budget", "hold"),
    ("acs", "hold"),
    ("bac", "hold"),
    ("bac_all", "newton-2"),
]


class Policy(TinyTransformerPolicy):
    """Goes from noise to actions in `num_steps` equal steps, whatever the solver."""

    config = SimpleNamespace(n_obs_steps=2, image_features={})

    @property
    def diffusion(self):
        return SimpleNamespace(use_solver=self.use_solver)

    def use_solver(self, name, num_steps, timestep_spacing=None):
        self.num_steps = num_steps

    def predict_action_chunk(self, batch, generator=None):
        memory = self.condition(batch["observation.state"])
        if isinstance(generator, list):
            x = torch.stack([torch.randn(5, 2, generator=row) for row in generator])
        else:
            x = torch.randn(len(memory), 5, 2, generator=generator)
        for _ in range(self.num_steps):
            x = x - self.head(self.decoder(self.embed(x), memory)) / self.num_steps
        return x


class Table(gym.Env):
    """Random observations; an episode is two chunks long."""

    def reset(self, *, seed=None, options=None):
        self.rng, self.num_steps = np.random.default_rng(seed), 0
        return self._observation(), {"is_success": False}

    def step(self, action):
        self.num_steps += 1
        return self._observation(), 0.0, False, self.num_steps >= 10, {"is_success": False}

    def score(self):
        return 0.0

    def _observation(self):
        state, block = self.rng.normal(size=3), self.rng.normal(size=1)
        return {"agent_pos": state.astype(np.float32), "environment_state": block.astype(np.float32)}


@pytest.fixture(scope="module")
def rows():
    product = SimpleNamespace(solver="DDIM", num_steps=10, budgets=[3, 10], pairs=PAIRS)
    preset = SimpleNamespace(
        num_calibration=3, num_observations=2, num_draws=1, rounds=1, edge_starts=3, search=5, products=[product]
    )
    preset.rivals = ["DDIM"]
    torch.manual_seed(0)
    loaded = SimpleNamespace(policy=Policy(), preprocessor=dict, postprocessor=lambda chunk: chunk)
    return rows_of(loaded, preset, Table)


def test_every_pair_makes_a_row_of_plain_values(rows):
    assert {(row.scheduler, row.estimator) for row in rows} >= set(PAIRS)
    assert all(set(asdict(row)) == KEYS for row in rows)
    assert [MethodRow(**row) for row in json.loads(json.dumps([asdict(row) for row in rows]))] == rows


def test_what_updates_everywhere_is_the_dense_policy_of_its_solver(rows):
    full = [row for row in rows if row.solver == "DDIM" and row.sweeps == 10.0 and row.scheduler != "fewer steps"]
    assert len(full) >= len(PAIRS)
    # The reference takes 100 steps; all of them differ from it by what 10 steps do.
    assert len({round(row.action_error, 6) for row in full}) == 1


def test_a_scheduler_that_is_not_there_is_refused():
    catalogue = Catalogue(lambda: nullcontext(Policy()), [{"observation.state": torch.randn(2, 2, 3)}])
    with pytest.raises(ValueError, match="scheduler: must be one of uniform, .*, got 'magic'"):
        catalogue.schedule("magic", "hold", 3)


def test_sweeps_are_what_is_really_updated(rows):
    by_name = {row.scheduler: row for row in rows if row.sweeps != 10.0}
    assert by_name["uniform"].sweeps == by_name["outcome"].sweeps == 3.0
    assert by_name["global_budget"].sweeps <= 3.0
    assert by_name["bac"].sweeps >= by_name["acs"].sweeps == 3.0
    assert all(row.latency_p50_ms > 0 for row in rows)
