"""Makes diffusion policies and VLA action heads fast, without training: fewer steps, reuse, replay.

A diffusion policy calls one network 4 to 100 times for each action chunk::

    import bac

    bac.wrap(policy)                                   # replay alone: the same actions, faster
    print(bac.describe(policy))                        # what stands on it, what replays, what a chunk costs
    bac.unwrap(policy)                                 # no trace left, solver included

Fewer steps, reuse or both, for a budget, verified on this machine::

    tuned = bac.tune(policy, batches, target_hz=25)
    tuned.denoising.save("bac.json")
    bac.wrap(policy, bac.load("bac.json"))             # in place; a bac.Denoising, or a bac.Schedule

Block-wise adaptive caching itself, Ji et al. (arXiv 2506.13456)::

    calibration = bac.calibrate(policy, batches)       # runs the untouched policy on observation batches
    schedule = bac.adaptive_schedule(calibration, num_updates=10, num_bubbled=5)
    print(schedule)                                    # draws which step updates (#) or reuses (.) which block
    bac.wrap(policy, schedule)

The whole denoising run as one file, for a robot without LeRobot or Python::

    bac.export(policy, batch, "FOLDER", format="onnx")  # or pt2
    policy = bac.exported.load("FOLDER")

On a robot, `bac.ControlLoop` acts at a fixed rate while the policy thinks. A `bac.Guard` probes some action chunks to
check that a schedule still holds for the observations.

Words:
    policy: observations in, action chunk out: `reset()`, `predict_action_chunk(batch)`.
    denoiser: the network evaluated once per denoising step.
    denoising step: index 0..K-1 of an evaluation, in order; a *timestep* is a noise level, never an index.
    denoising run: the K evaluations that make one action chunk; caches never outlive it.
    solver: advances the sample from one timestep to the next.
    block: one residual branch of one layer: self-attention, cross-attention or feed-forward.
    update, reuse: compute and store a block's output; return the estimate from stored ones.
    schedule: for every block, its update steps.
    estimator: gives a reused block's value; the default is plain reuse.
    plan: the recorded, specialised program of a whole run.

A name is imported when it is first asked for: ``bac --version``, and `bac.exported` on a robot without PyTorch, do not
wait for what they do not use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bac.version import __version__ as __version__

if TYPE_CHECKING:
    from bac import exported as exported  # bac.exported.load
    from bac.caching.block import Block
    from bac.caching.schedule import Schedule
    from bac.caching.schedulers.adaptive import adaptive_schedule
    from bac.control import ControlLoop
    from bac.denoising import Denoising, load
    from bac.errors import BacError
    from bac.exporting.export import export
    from bac.guarding import Guard
    from bac.plan.replay import Replay
    from bac.plugin import describe, unwrap, wrap
    from bac.recording import calibrate
    from bac.tuning import tune

_MODULES = {
    "BacError": "errors",
    "Block": "caching.block",
    "ControlLoop": "control",
    "Denoising": "denoising",
    "Guard": "guarding",
    "Replay": "plan.replay",
    "Schedule": "caching.schedule",
    "adaptive_schedule": "caching.schedulers.adaptive",
    "calibrate": "recording",
    "describe": "plugin",
    "export": "exporting",
    "load": "denoising",
    "tune": "tuning",
    "unwrap": "plugin",
    "wrap": "plugin",
}  # where each public name lives

__all__ = [
    "BacError",
    "Block",
    "ControlLoop",
    "Denoising",
    "Guard",
    "Replay",
    "Schedule",
    "adaptive_schedule",
    "calibrate",
    "describe",
    "export",
    "load",
    "tune",
    "unwrap",
    "wrap",
]


def __getattr__(name: str) -> Any:
    """A public name, or a module of the package, imported now."""
    if name in _MODULES:
        value = globals()[name] = getattr(import_module(f"bac.{_MODULES[name]}"), name)
        return value
    try:
        return import_module(f"bac.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"bac.{name}":
            raise
        raise AttributeError(f"module 'bac' has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
