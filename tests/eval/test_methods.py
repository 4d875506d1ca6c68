"""Every scheduler and estimator of the fidelity table, on a tiny policy in a world without a simulator."""

from __future__ import annotations

import json
from dataclasses import asdict
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest

from eval.methods import Row, rows_of

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

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


class Table(gym.Env):
    """Observations of Push-T's sizes that drift with the seed; an episode is two chunks long."""

    def reset(self, *, seed=None, options=None):
        self.rng, self.num_steps = np.random.default_rng(seed), 0
        return self._observation(), {"is_success": False}

    def step(self, action):
        self.num_steps += 1
        return self._observation(), 0.0, False, self.num_steps >= 16, {"is_success": False}

    def score(self):
        return 0.0

    def _observation(self):
        state, block = self.rng.uniform(0, 512, 2), self.rng.uniform(0, 512, 16)
        return {"agent_pos": state.astype(np.float32), "environment_state": block.astype(np.float32)}


@pytest.fixture(scope="module")
def rows(tiny_checkpoint):
    import policies

    product = SimpleNamespace(solver="DDIM", num_steps=10, budgets=[3, 10], pairs=PAIRS)
    preset = SimpleNamespace(
        num_calibration=3, num_observations=2, num_draws=1, rounds=1, edge_starts=3, search=5, products=[product]
    )
    preset.rivals = ["DDIM"]
    return rows_of(policies.load(tiny_checkpoint), preset, Table)


def test_every_pair_makes_a_row_of_plain_values(rows):
    assert {(row.scheduler, row.estimator) for row in rows} >= set(PAIRS)
    assert all(set(asdict(row)) == KEYS for row in rows)
    assert [Row(**row) for row in json.loads(json.dumps([asdict(row) for row in rows]))] == rows


def test_what_updates_everywhere_is_the_dense_policy_of_its_solver(rows):
    full = [row for row in rows if row.solver == "DDIM" and row.sweeps == 10.0 and row.scheduler != "fewer steps"]
    assert len(full) >= len(PAIRS)
    # The reference is DDIM-100; all of them differ from it by what DDIM-10 does.
    assert len({round(row.action_error, 6) for row in full}) == 1


def test_sweeps_are_what_is_really_updated(rows):
    by_name = {row.scheduler: row for row in rows if row.sweeps != 10.0}
    assert by_name["uniform"].sweeps == by_name["outcome"].sweeps == 3.0
    assert by_name["global_budget"].sweeps <= 3.0
    assert by_name["bac"].sweeps >= by_name["acs"].sweeps == 3.0
    assert all(row.latency_p50_ms > 0 for row in rows)
