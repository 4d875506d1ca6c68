"""The demo's second policy: a SmolVLA that sees a picture, reads a sentence, and does what it is told.

It is run in four ways: as LeRobot runs it, replayed, with the few steps that are fitted to it, and with as many of its
own, which are the rival.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf

import bac
from bac.tuning.timing import WARM_UP
from eval.compared.many_tasks import ManyTasks, predict
from eval.measure.intervals import paired_success_difference, success_rate
from eval.measure.latency import Latency, measure
from eval.play.metered import MeteredSeat
from eval.play.pictures import predict_from_pictures
from eval.report.camera import SIZE, Camera
from eval.report.video import Clip, write_video
from eval.setup.batches import Batch
from eval.setup.cells import FLOW, Cell, configure, dense, running, stored
from eval.setup.config import CONFIGS
from eval.setup.settings import CALIBRATION_SEED, Settings

POLICY = "metaworld-ten"
FITTED = "tuned_100hz.json"  # what bac.tune chose, certified; beside the shipped weights
EAGER, REPLAYED = "its own ten steps, as LeRobot runs it", "its own ten steps, replayed"
FILMED = ("drawer-open-v3", "button-press-topdown-v3", "faucet-open-v3", "faucet-close-v3")
FRAMES_HZ = 20


def tasks_and_pixels() -> tuple[list[str], int]:
    """The policy's tasks and the size of its pictures, as ``policy=metaworld_ten`` has them."""
    policy = OmegaConf.load(Path(CONFIGS) / "policy" / "metaworld_ten.yaml")
    return list(policy.tasks), int(OmegaConf.load(Path(CONFIGS) / "eval.yaml").vla.pixels)


class Told:
    """The policy, its ways and their episodes.

    Args:
        many: Policy and tasks.
    """

    def __init__(self, many: ManyTasks) -> None:
        self.many, self.own = many, dense(10, FLOW)
        self.tuned: Cell = stored(many.settings.checkpoint / FITTED, on=self.own)
        self.rival = dense(self.tuned.steps, FLOW)

    @classmethod
    def of(cls, num_episodes: int, outputs: Path, *, progress: bool = True) -> "Told":
        """The shipped policy, with `num_episodes` episodes of every task."""
        options = {"max_episode_steps": 300}
        settings = Settings(
            POLICY, "metaworld", "none", options, n=num_episodes, pool_size=5, outputs=outputs, progress=progress
        )
        return cls(ManyTasks(settings, *tasks_and_pixels()))

    @property
    def title(self) -> str:
        """The recommended way in words."""
        return f"{self.tuned.steps} fitted steps, replayed"

    @property
    def ways(self) -> dict[str, Cell]:
        """What is played and timed, by title. Replayed actions are the same bits, so the first two are played once."""
        own = f"rival: {self.rival.steps} of its own steps, replayed"
        return {EAGER: self.own, REPLAYED: self.own, self.title: self.tuned, own: self.rival}

    @cached_property
    def latencies(self) -> dict[str, Latency]:
        """Latency of a whole chunk of every way, in turns, vision and language included.

        Raises:
            RuntimeError: A replayed action differs from the untouched policy's by a bit.
        """
        batch = self._one()
        made = {name: self._copy(cell, wrapped=name != EAGER) for name, cell in self.ways.items()}
        calls = {name: (lambda wrapped=wrapped: predict(wrapped, batch)) for name, wrapped in made.items()}
        found = measure(calls, rounds=10, warmup=WARM_UP, progress=False)
        if not torch.equal(predict(made[EAGER], batch), predict(made[REPLAYED], batch)):
            raise RuntimeError("replay: an action differs from the untouched policy's; please report this")
        return found

    def play(self) -> None:
        """Play the missing episodes of every way, in the same worlds from the same noise."""
        self.many.play([self.own, self.tuned, self.rival])

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Cells of the table, the header first."""
        yield "policy of ten tasks, told in words", "success", "a chunk", "chunks/s", "faster"
        for name, latency in self.latencies.items():
            results = self.many.all_results(self.ways[name])
            found = success_rate(sum(result.success for result in results), len(results))
            success = f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"
            yield name, success, f"{latency.p50_ms:.1f} ms", f"{1e3 / latency.p50_ms:.1f}", f"{latency.speedup:.1f}x"

    def recommendation(self) -> str:
        """What to use, and what it loses."""
        before, after = ([r.success for r in self.many.all_results(cell)] for cell in (self.own, self.tuned))
        lost, times = paired_success_difference(before, after), self.latencies[self.title].speedup
        return (
            f"Told in words, from pictures: {self.tuned.steps} fitted steps replayed make a chunk {times:.1f} times "
            f"faster; success {lost.value:+.2f} [{lost.low:+.2f}, {lost.high:+.2f}] to its own ten steps on "
            f"{len(before)} paired episodes of {len(self.many.worlds)} tasks."
        )

    def film(self, folder: Path, tasks: Sequence[str] = FILMED) -> list[Path]:
        """Film the first seed of some tasks with the fitted steps: ``words.mp4``, ``words.gif`` and ``words.png``."""
        return write_video([self._clip(task) for task in tasks], folder, name="words")

    def _copy(self, cell: Cell, *, wrapped: bool) -> torch.nn.Module:
        """A copy of the policy that takes a way's steps, and is replayed if `wrapped`."""
        policy: torch.nn.Module = copy.deepcopy(self.many.loaded.policy)
        configure(policy, cell)
        return bac.wrap(policy, cell.denoising or bac.Denoising()) if wrapped else policy

    def _one(self) -> Batch:
        """The first observation of the first task, preprocessed."""
        seen: list[Batch] = []
        settings = next(iter(self.many.worlds.values()))
        with closing(settings.make_env()) as env:
            seat = MeteredSeat(env, 1)
            seat.start(CALIBRATION_SEED)
            predict_from_pictures(self.many.loaded, [seat], seen.append)
        return seen[0]

    def _clip(self, task: str) -> Clip:
        """Play the episode from the policy's own pictures, then do its actions again before a larger camera."""
        settings = self.many.worlds[task]
        with closing(settings.make_env()) as env:
            actions: list[np.ndarray] = []
            seat = MeteredSeat(env, 1, lambda _: actions.append(seat.last_action))
            seat.start(settings.first_seed)
            with running(self.many.loaded.policy, self.tuned):
                self.many.loaded.policy.reset()
                while not seat.done:
                    seat.execute(predict_from_pictures(self.many.loaded, [seat])[0])
            hz, sentence = float(env.unwrapped.control_hz), env.unwrapped.instruction
        larger = replace(settings, env_options={**settings.env_options, "width": SIZE, "height": SIZE})
        stride = max(1, round(hz / FRAMES_HZ))
        clip = Clip(sentence, self.latencies[self.title].p50_ms / 1e3, hz / stride)
        with closing(larger.make_env()) as env:
            camera = Camera(env, larger.env)
            seen, _ = env.reset(seed=larger.first_seed)
            for number, action in enumerate(actions):
                if number % stride == 0:
                    clip.frames.append(camera.picture(seen))
                seen, *_ = env.step(action)
            clip.frames.append(camera.picture(seen))
        clip.thinking = [False] * len(clip.frames)
        clip.success, clip.duration_s = seat.result().success, len(actions) / hz
        return clip
