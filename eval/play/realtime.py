"""Real time: the world does not wait for the policy. The robot has two modes while a chunk is computed.

::

    control steps  0 1 2 3 4 5 6 7 8 9 ...
    act            h h a a a a b b b b c c ...      while b is computed the robot acts on a; b's first rows are late
      policy       |a-|   |b-|    |c-|
    stand_still    h h a a a a a a a a h h b b ...  while b is computed the robot holds, then does all of b
      policy       |a-|               |b-|

``act`` is the mode of `bac.ControlLoop` on a robot, and uses its `Timeline` to match actions with control steps. There,
latency makes the policy act on older observations. In ``stand_still``, latency makes the robot stop between chunks.
These policies never saw such stops in training, so even a fast policy loses success there.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import Any

import gymnasium as gym
import numpy as np

from bac.control import JerkMeter, Timeline
from eval.play.pictures import predictor
from eval.play.rollout import EnvPool, EpisodeResult, HoldAction, Seat, take_turns

MODES = ("act", "stand_still")


def think_steps(latency_s: float, control_hz: float) -> int:
    """Control steps that pass while a chunk is computed, rounded up, because a control step cannot be cut short.

    Args:
        latency_s: Time from observation to chunk [s].
        control_hz: Control steps per second the world demands [Hz].
    """
    return ceil(round(latency_s * control_hz, 9))


def hold_of(env: str) -> HoldAction:
    """The hold action of an environment: what the robot does while it waits.

    Raises:
        ValueError: The environment has no hold action.
    """
    if env not in _HOLDS:
        raise ValueError(
            f"env {env!r}: no hold action is known; add one to eval.play.realtime._HOLDS ({', '.join(_HOLDS)})"
        )
    return _HOLDS[env]


def _stay_in_place(last_action: np.ndarray | None, observation: dict[str, np.ndarray]) -> np.ndarray:
    """MetaWorld's and SO-101's actions are displacements: no displacement, with the last gripper command."""
    hold = np.zeros(4, np.float32)
    if last_action is not None:
        hold[3] = last_action[3]
    return hold


def _keep_target(last_action: np.ndarray | None, observation: dict[str, np.ndarray]) -> np.ndarray:
    """Push-T's actions are target positions, so holding repeats the last target; before it, the effector's position."""
    return observation["agent_pos"] if last_action is None else last_action


def _keep_pose(last_action: np.ndarray | None, observation: dict[str, np.ndarray]) -> np.ndarray:
    """Adroit's actions are target positions of joints; before the first, the pose in which its episodes start."""
    from envs.adroit import starting_action  # which imports the simulator

    return starting_action(observation["agent_pos"].size) if last_action is None else last_action


_HOLDS: dict[str, HoldAction] = {
    "adroit": _keep_pose,
    "metaworld": _stay_in_place,
    "pusht": _keep_target,
    "so101": _stay_in_place,
}


@dataclass(frozen=True)
class Pace:
    """Number of control steps that pass while a chunk is computed. A pace is frozen, and checks itself when made.

    Attributes:
        delays: Control steps that a chunk may take, equally likely, in increasing order. A single value is a constant
            delay.
        mode: One of `MODES`.

    Raises:
        ValueError: No delay, a negative one, or an unknown mode.
    """

    delays: tuple[int, ...]
    mode: str = "act"

    def __post_init__(self) -> None:
        if not self.delays or min(self.delays) < 0 or list(self.delays) != sorted(self.delays):
            raise ValueError(f"delays: must be control steps >= 0 in increasing order, got {self.delays}")
        if self.mode not in MODES:
            raise ValueError(f"mode: must be one of {', '.join(MODES)}, got {self.mode!r}")

    @classmethod
    def of(cls, latencies_ms: Sequence[float], control_hz: float, mode: str = "act") -> "Pace":
        """The pace that measured latencies give.

        Args:
            latencies_ms: Times from observation to chunk [ms]: one, or all that were recorded on any machine.
            control_hz: Control steps per second the world demands [Hz].
            mode: One of `MODES`.
        """
        delays = sorted(think_steps(latency_ms / 1e3, control_hz) for latency_ms in latencies_ms)
        return cls(tuple(delays[:1] if delays[0] == delays[-1] else delays), mode)

    @property
    def lead(self) -> int:
        """Control steps between starting a chunk and needing it: the 95th percentile of the delays."""
        return self.delays[ceil(0.95 * len(self.delays)) - 1]

    def delay(self, seed: int, chunk_index: int) -> int:
        """Control steps that one chunk of one episode takes. A fixed hash gives every method the same quantile."""
        digest = hashlib.sha256(f"bac-delay:{seed}:{chunk_index}".encode()).digest()
        return self.delays[int.from_bytes(digest[:8], "big") * len(self.delays) >> 64]


class LiveSeat(Seat):
    """One running episode in a world that does not wait.

    Args:
        env: The world.
        num_obs_steps: Observations To the policy sees.
        pace: Control steps that pass while the policy thinks.
        hold: Hold action of the environment; the robot takes it when it has no action from the policy.
        execute_steps: Control steps Ta after its observation that a chunk is meant for.
        on_step: Called after every control step with whether the policy was still thinking.
        blend_steps: See `bac.ControlLoop`.
    """

    def __init__(
        self,
        env: gym.Env,
        num_obs_steps: int,
        pace: Pace,
        hold: HoldAction,
        execute_steps: int,
        on_step: Callable[[bool], None] | None = None,
        *,
        blend_steps: int = 0,
    ) -> None:
        super().__init__(env, num_obs_steps, on_step)
        self._pace, self._hold, self._execute_steps = pace, hold, execute_steps
        self._blend_steps = blend_steps

    def start(self, seed: int) -> None:
        """Reset the world to the episode of `seed`."""
        super().start(seed)
        self._timeline, self.meter = Timeline(self._blend_steps), JerkMeter()
        self.held_steps = 0

    def live(self, chunk: np.ndarray) -> None:
        """Let the world go on while `chunk` is computed from the newest observation, and until the next one begins.

        Args:
            chunk: Actions from the newest observation on, `[T, Da]` in the environment's units.
        """
        observed, delay = self.num_control_steps, self._pace.delay(self.seed, self.chunk_index)
        if self._pace.mode == "stand_still":
            self.wait(delay, self._hold)
            self.execute(chunk[: self._execute_steps])
            return
        self._act_until(observed + delay, thinking=True)
        self._timeline.add(chunk, observed, self.num_control_steps)
        self.chunk_index += 1
        self._act_until(observed + max(1, self._execute_steps - self._pace.lead), thinking=False)

    def _act_until(self, step: int, *, thinking: bool) -> None:
        while self.num_control_steps < step and not self.done:
            action, chunk = self._timeline.action(self.num_control_steps), self.chunk_index
            if action is None:
                self.held_steps += 1
                action, chunk = self._hold(self.last_action, self.newest), None
            if self.chunk_index:  # before its first chunk the robot stands still
                self.meter.add(action, chunk)
            self._step(action, thinking=thinking)


@contextmanager
def whole_chunks(policy: Any, mode: str) -> Iterator[int]:
    """In mode ``act``, let the policy return all predicted actions: late chunks need the rows beyond Ta.

    Yields:
        Ta, the control steps that a chunk is meant for.
    """
    config = policy.config
    execute_steps = config.n_action_steps
    if mode == "act" and hasattr(config, "horizon"):  # other policies return every row they predict
        config.n_action_steps = config.horizon - config.n_obs_steps + 1
    try:
        yield execute_steps
    finally:
        config.n_action_steps = execute_steps


def play_realtime(
    loaded: Any, pool: EnvPool, seeds: Sequence[int], pace: Pace, hold: HoldAction, *, pool_size: int = 50
) -> Iterator[EpisodeResult]:
    """Play one episode per seed in a world that does not wait, and yield each as it ends.

    Without delay this is lock-step. `pace` says how long thinking takes; nothing is timed here, so results depend on
    the seed alone.

    Args:
        loaded: Policy with its processors, as `policies.load` returns it; already set to a cell.
        pool: Environments to play in.
        seeds: Seeds, one per episode.
        pace: Control steps that a chunk takes, and the mode.
        hold: Hold action of the environment; the robot takes it when it has no action from the policy.
        pool_size: Episodes that run side by side, which is also the largest policy batch.
    """
    loaded.policy.eval()
    with whole_chunks(loaded.policy, pace.mode) as execute_steps:
        loaded.policy.reset()
        num_obs_steps = loaded.policy.config.n_obs_steps
        seats = [LiveSeat(pool[i], num_obs_steps, pace, hold, execute_steps) for i in range(min(pool_size, len(seeds)))]
        predict = predictor(loaded, whole=pace.mode == "act")
        yield from take_turns(loaded, seats, seeds, LiveSeat.live, predict=predict)
