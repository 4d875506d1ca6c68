"""Ways to make consecutive chunks agree, in a world that does not wait.

A chunk depends on its observation and on its start noise. Fresh noise may lead each chunk to another way of doing the
task, and the robot shakes where one chunk takes over from the last. The noise of a chunk can be kept from the last
one, moved on with time, or chosen among several; or the actions of two chunks can be blended.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eval.play.metered import MeteredResult
from eval.play.realtime import LiveSeat, Pace, whole_chunks
from eval.play.rollout import LEROBOT_KEY, EnvPool, HoldAction, take_turns
from eval.setup.noise import chunk_generator

NOISES = ("fresh", "same", "shifted", "chosen")
_APART = 1_000_000  # between the chunk indices of candidates, so that no two share a generator


@dataclass(frozen=True)
class Smoothing:
    """One way to make chunks agree. It is frozen, and checks itself when made.

    Attributes:
        name: Title in tables.
        noise: Start noise of a chunk. ``fresh``: its own. ``same``: that of the episode's first chunk. ``shifted``:
            that of the last chunk, moved on by the control steps between the two, with fresh noise at the end.
            ``chosen``: of `candidates` fresh ones, that whose actions are nearest to what is left of the last chunk.
        blend_steps: See `bac.ControlLoop`.
        candidates: Chunks computed in one batch to choose from; 1 unless `noise` is ``chosen``.
        latency_factor: Latency of a chunk relative to that of one candidate.

    Raises:
        ValueError: A value is unknown or does not fit the others.
    """

    name: str
    noise: str = "fresh"
    blend_steps: int = 0
    candidates: int = 1
    latency_factor: float = 1.0

    def __post_init__(self) -> None:
        if self.noise not in NOISES:
            raise ValueError(f"{self.name}: noise: must be one of {', '.join(NOISES)}, got {self.noise!r}")
        if (self.candidates > 1) != (self.noise == "chosen"):
            raise ValueError(f"{self.name}: noise={self.noise}, candidates={self.candidates}; only chosen has several")


class SmoothSeat(LiveSeat):
    """One running episode whose chunks are made to agree.

    Args:
        smoothing: How.
        options: As `LiveSeat` takes them.
    """

    def __init__(self, *args: Any, smoothing: Smoothing, **options: Any) -> None:
        super().__init__(*args, blend_steps=smoothing.blend_steps, **options)
        self._smoothing = smoothing

    def start(self, seed: int) -> None:
        super().start(seed)
        self._noise: Tensor | None = None
        self._noise_step = 0

    def starts(self, shape: tuple[int, int]) -> list[tuple[Tensor, torch.Generator]]:
        """Start noise, `[T, Da]`, and generator of the later draws, of every candidate for the next chunk."""
        kind, index = self._smoothing.noise, self.chunk_index
        if kind == "chosen":
            generators = [chunk_generator(self.seed, index + _APART * i) for i in range(self._smoothing.candidates)]
        else:
            generators = [chunk_generator(self.seed, 0 if kind == "same" else index)]
        noises = [torch.randn(shape, generator=generator) for generator in generators]
        if kind == "shifted":
            noises = [self._moved_on(noises[0])]
        return list(zip(noises, generators, strict=True))

    def chosen(self, chunks: np.ndarray) -> np.ndarray:
        """Of chunks `[M, T, Da]`, the one nearest to what the last chunk has left when the new one takes over."""
        first = self._pace.delay(self.seed, self.chunk_index)
        rows = [(row, self._timeline.action(self.num_control_steps + row)) for row in range(first, chunks.shape[1])]
        left = {row: action for row, action in rows if action is not None}
        if not left:
            return chunks[0]
        distances = ((chunks[:, list(left)] - np.stack(list(left.values()))) ** 2).mean(axis=(1, 2))
        return chunks[int(distances.argmin())]

    def result(self) -> MeteredResult:
        plain = super().result()
        return MeteredResult(**vars(plain), squares=list(self.meter.squares), counts=list(self.meter.counts))

    def _moved_on(self, fresh: Tensor) -> Tensor:
        by = min(self.num_control_steps - self._noise_step, len(fresh))
        noise = fresh if self._noise is None else torch.cat([self._noise[by:], fresh[len(fresh) - by :]])
        self._noise, self._noise_step = noise, self.num_control_steps
        return noise


def predict_smoothly(loaded: Any, seats: Sequence[SmoothSeat], observe: object = None) -> list[np.ndarray]:
    """Predict the next chunk of every seat, `[T, Da]` in the environment's units, all candidates in one batch."""
    starts = [seat.starts(loaded.policy.diffusion.chunk_shape) for seat in seats]
    rows = [seat for seat, some in zip(seats, starts, strict=True) for _ in some]
    raw = {
        key: torch.from_numpy(np.stack([seat.observation(name) for seat in rows])) for name, key in LEROBOT_KEY.items()
    }
    noises, generators = zip(*(start for some in starts for start in some), strict=True)
    with torch.inference_mode():
        batch = loaded.preprocessor(raw)
        chunk = loaded.policy.predict_action_chunk(batch, noise=torch.stack(noises), generator=list(generators))
        chunks = iter(loaded.postprocessor(chunk).float().cpu().numpy())
    return [seat.chosen(np.stack([next(chunks) for _ in some])) for seat, some in zip(seats, starts, strict=True)]


def play_smoothly(
    loaded: Any, pool: EnvPool, seeds: Sequence[int], pace: Pace, hold: HoldAction, smoothing: Smoothing,
    *, pool_size: int = 50,
) -> Iterator[MeteredResult]:  # fmt: skip
    """Play one episode per seed, and yield each as it ends. Fresh noise without blending is `play_realtime`."""
    loaded.policy.eval()
    with whole_chunks(loaded.policy, pace.mode) as execute_steps:
        loaded.policy.reset()
        options = (loaded.policy.config.n_obs_steps, pace, hold, execute_steps)
        seats = [SmoothSeat(pool[i], *options, smoothing=smoothing) for i in range(min(pool_size, len(seeds)))]
        yield from take_turns(loaded, seats, seeds, SmoothSeat.live, predict=predict_smoothly)
