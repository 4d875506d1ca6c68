"""Block-wise adaptive caching: a training-free accelerator for diffusion policies and VLA action heads.

A diffusion policy calls one transformer many times for each action chunk, and a block's output hardly changes between
neighbouring calls. `bac` stores each block's output and reuses it, at denoising steps chosen per block::

    import bac

    calibration = bac.calibrate(policy, batches)      # runs the untouched policy on observation batches
    schedule = bac.adaptive_schedule(calibration, num_updates=10, num_bubbled=5)
    print(schedule)                                   # draws which step updates (#) or reuses (.) which block
    bac.wrap(policy, schedule)                        # in place; every action chunk from now on follows the schedule
    bac.unwrap(policy)                                # no trace left

From the rate that a robot needs to solver, steps and schedule: `bac.tune`. On a robot, `bac.ControlLoop` acts at a
fixed rate while the policy thinks, and a `bac.Guard` checks now and then that the schedule still holds for what is
seen.

Words:
    policy: observations in, action chunk out: `reset()`, `predict_action_chunk(batch)`.
    denoiser: the network evaluated once per denoising step.
    denoising step: index 0..K-1 of an evaluation, in order; a *timestep* is a noise level, never an index.
    denoising run: the K evaluations that make one action chunk; caches never outlive it.
    block: one residual branch of one layer: self-attention, cross-attention or feed-forward.
    update, reuse: compute and store a block's output; return the stored one.
    schedule: for every block, its update steps.
    estimator: what gives a reused block's value; plain reuse unless another is named (see `bac.estimators`).

Method: Ji et al., *Block-wise Adaptive Caching for Accelerating Diffusion Policy* (arXiv 2506.13456).
"""

from bac.block import Block, BlockKind
from bac.calibration import Calibration
from bac.control import ControlLoop
from bac.errors import BacError
from bac.guarding import Guard
from bac.plugin import unwrap, wrap
from bac.recording import calibrate
from bac.schedule import Schedule
from bac.schedulers.adaptive import adaptive_schedule
from bac.tuning import tune
from bac.version import __version__ as __version__

__all__ = [
    "BacError",
    "Block",
    "BlockKind",
    "Calibration",
    "ControlLoop",
    "Guard",
    "Schedule",
    "adaptive_schedule",
    "calibrate",
    "tune",
    "unwrap",
    "wrap",
]
