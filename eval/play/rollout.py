"""Lock-step closed loop: many episodes of one policy, batched over a pool of environments.

All active environments ask for a chunk together, execute its Ta actions, and ask again; a seat whose episode ended
takes the next seed at once, so the batch stays full. Randomness is **paired**: chunk c of episode s draws its noise
from a generator seeded by (s, c) alone. Results therefore depend neither on the pool nor on the order of episodes,
and two methods that play the same seeds meet the same worlds and the same noise.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
import torch
from tqdm import tqdm

from eval.setup.batches import Batch
from eval.setup.noise import chunk_generator

# LeRobot's names of the two observations of our environments.
LEROBOT_KEY = {"agent_pos": "observation.state", "environment_state": "observation.environment_state"}
HoldAction = Callable[[np.ndarray | None, dict[str, np.ndarray]], np.ndarray]


@dataclass(frozen=True)
class EpisodeResult:
    """Outcome of one episode.

    Attributes:
        seed: Seed of the world and of the policy's noise.
        success: Whether the task was solved.
        score: The environment's own score, in [0, 1].
        num_control_steps: Control steps until success or the time limit.
    """

    seed: int
    success: bool
    score: float
    num_control_steps: int


class EnvPool:
    """Environments that outlive one call, since building one costs 0.1 to 0.3 s. `pool[i]` is built on first access."""

    def __init__(self, make_env: Callable[[], gym.Env]) -> None:
        self._make_env = make_env
        self._envs: list[gym.Env] = []

    def __getitem__(self, index: int) -> gym.Env:
        while len(self._envs) <= index:
            self._envs.append(self._make_env())
        return self._envs[index]

    def close(self) -> None:
        """Close every environment built so far."""
        while self._envs:
            self._envs.pop().close()


class Seat:
    """One running episode: its environment, its last To observations, and its progress.

    Args:
        env: The world.
        num_obs_steps: Observations To that the policy sees; at the start the first one is repeated.
        on_step: Called after every control step with whether the policy was still thinking.
    """

    def __init__(self, env: gym.Env, num_obs_steps: int, on_step: Callable[[bool], None] | None = None) -> None:
        self._env = env
        self._history: deque[dict[str, np.ndarray]] = deque(maxlen=num_obs_steps)
        self._on_step = on_step
        self.last_action: np.ndarray | None = None

    def start(self, seed: int) -> None:
        """Reset the world to the episode of `seed`."""
        observation, _ = self._env.reset(seed=seed)
        self._history.extend([observation] * self._history.maxlen)
        self.seed, self.chunk_index, self.num_control_steps = seed, 0, 0
        self.done = self.success = False
        self.last_action = None

    def observation(self, name: str) -> np.ndarray:
        """The last observations under one name, oldest first, `[To, D]`."""
        return np.stack([observation[name] for observation in self._history])

    @property
    def world(self) -> Any:
        """The environment itself, without wrappers."""
        return self._env.unwrapped

    @property
    def newest(self) -> dict[str, np.ndarray]:
        """The last observation."""
        return self._history[-1]

    def generator(self) -> torch.Generator:
        """A fresh generator of the next chunk's noise, the same for every method."""
        return chunk_generator(self.seed, self.chunk_index)

    def wait(self, num_steps: int, hold: HoldAction) -> None:
        """Let the world go on for `num_steps` control steps while the policy thinks."""
        for _ in range(num_steps):
            if not self.done:
                self._step(hold(self.last_action, self.newest), thinking=True)

    def execute(self, chunk: np.ndarray) -> None:
        """Execute an action chunk, `[Ta, Da]` in the environment's units, until its end or the episode's."""
        self.chunk_index += 1
        for action in chunk:
            if not self.done:
                self._step(action, thinking=False)

    def result(self) -> EpisodeResult:
        """The finished episode."""
        return EpisodeResult(self.seed, self.success, float(self._env.unwrapped.score()), self.num_control_steps)

    def _step(self, action: np.ndarray, *, thinking: bool) -> None:
        observation, _, terminated, truncated, info = self._env.step(action)
        self._history.append(observation)
        self.last_action = action
        self.num_control_steps += 1
        self.success |= bool(info["is_success"])
        self.done = terminated or truncated
        if self._on_step is not None:
            self._on_step(thinking)


AnySeat = TypeVar("AnySeat", bound=Seat)


def predict_chunks(loaded: Any, seats: Sequence[Seat], observe: Callable[[Batch], None] | None = None) -> np.ndarray:
    """Predict the next chunk of every seat in one batch, `[B, Ta, Da]` float32 in the environment's units."""
    raw = {
        key: torch.from_numpy(np.stack([seat.observation(name) for seat in seats])) for name, key in LEROBOT_KEY.items()
    }
    with torch.inference_mode():
        batch = loaded.preprocessor(raw)
        if observe is not None:
            observe({key: batch[key] for key in LEROBOT_KEY.values()})
        chunk = loaded.policy.predict_action_chunk(batch, generator=[seat.generator() for seat in seats])
        return loaded.postprocessor(chunk).float().cpu().numpy()


def play(
    loaded: Any,
    pool: EnvPool,
    seeds: Iterable[int],
    *,
    pool_size: int = 50,
    think_steps: int = 0,
    hold: HoldAction | None = None,
    observe: Callable[[Batch], None] | None = None,
    predict: Callable[..., Iterable[np.ndarray]] | None = None,
) -> Iterator[EpisodeResult]:
    """Play one episode per seed and yield each as it ends.

    Args:
        loaded: Policy with its processors, as `policies.load` returns it; already set to a cell.
        pool: Environments to play in.
        seeds: Seeds, one per episode.
        pool_size: Episodes that run side by side, which is also the largest policy batch.
        think_steps: Control steps that pass while the policy computes a chunk; 0 is lock-step.
        hold: Hold action for these control steps; needed if `think_steps` is not 0.
        observe: Called with every preprocessed batch of observations.
        predict: Predicts the chunks of the running seats; `predict_chunks` by default, see `take_turns`.

    Raises:
        ValueError: `think_steps` without `hold`.
    """
    if think_steps and hold is None:
        raise ValueError(f"think_steps={think_steps}: pass hold=, what the robot does while the policy thinks")
    seeds = list(seeds)
    loaded.policy.eval()
    loaded.policy.reset()
    seats = [Seat(pool[i], loaded.policy.config.n_obs_steps) for i in range(min(pool_size, len(seeds)))]

    def advance(seat: Seat, chunk: np.ndarray) -> None:
        if hold is not None:
            seat.wait(think_steps, hold)
        seat.execute(chunk)

    yield from take_turns(loaded, seats, seeds, advance, observe, predict or predict_chunks)


def take_turns(
    loaded: Any,
    seats: Sequence[AnySeat],
    seeds: Sequence[int],
    advance: Callable[[AnySeat, np.ndarray], None],
    observe: Callable[[Batch], None] | None = None,
    predict: Callable[..., Iterable[np.ndarray]] = predict_chunks,
) -> Iterator[Any]:
    """Play one episode per seed, as many side by side as there are seats, and yield each as it ends.

    Args:
        loaded: Policy with its processors, ready to run.
        seats: At most one for each seed.
        seeds: Seeds, one per episode.
        advance: Called with a seat and its new chunk, `[Ta, Da]`; lets the seat's world go on.
        observe: Called with every preprocessed batch of observations.
        predict: Called with `loaded`, the running seats and `observe`; predicts a chunk for each.
    """
    waiting = deque(seeds)
    running = list(seats)
    for seat in running:
        seat.start(waiting.popleft())
    while running:
        for seat, chunk in zip(running, predict(loaded, running, observe), strict=True):
            advance(seat, chunk)
            if seat.done:
                yield seat.result()
                if waiting:
                    seat.start(waiting.popleft())
        running = [seat for seat in running if not seat.done]


def run_episodes(
    loaded: Any,
    make_env: Callable[[], gym.Env],
    seeds: Sequence[int],
    *,
    pool_size: int = 50,
    progress: bool = True,
) -> list[EpisodeResult]:
    """Play one lock-step episode per seed, and return the results in the order of `seeds`. See `play`."""
    pool = EnvPool(make_env)
    try:
        episodes = play(loaded, pool, seeds, pool_size=pool_size)
        bar = tqdm(episodes, total=len(seeds), unit="episode", disable=not progress)
        by_seed = {result.seed: result for result in bar}
    finally:
        pool.close()
    return [by_seed[seed] for seed in seeds]
