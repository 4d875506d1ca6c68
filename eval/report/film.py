"""Film one real-time episode of several methods, on the same seed."""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import gymnasium as gym
import torch

from eval.compared.comparison import Comparison
from eval.play.pictures import predictor
from eval.play.realtime import LiveSeat, Pace, hold_of, whole_chunks
from eval.report.camera import Camera
from eval.report.video import Clip, write_video
from eval.setup.cells import Cell, running

MOST_FRAMES_HZ = 20  # of world time


def film_cells(
    comparison: Comparison,
    latencies_s: Mapping[Cell, float],
    folder: Path,
    *,
    mode: str = "stand_still",
    control_hz: float | None = None,
    animate: bool = True,
) -> list[Path]:
    """Film methods on the comparison's first seed, and write the films side by side.

    Args:
        comparison: Policy, world and Denoisings.
        latencies_s: Latency of a chunk of each method [s], in the order of the films.
        folder: Folder of the files; see `eval.report.video.write_video`.
        mode: Behaviour of the robot while it waits, one of `eval.play.realtime.MODES`.
        control_hz: Control steps per second [Hz]; the world's own by default.
        animate: Whether to write the GIF too.

    Returns:
        Paths of the files.
    """
    with closing(comparison.settings.realtime.make_env()) as env:
        hz = control_hz or float(env.unwrapped.control_hz)
        clips = [_clip(comparison, env, cell, latency_s, mode, hz) for cell, latency_s in latencies_s.items()]
    return write_video(clips, folder, animate=animate)


def _clip(comparison: Comparison, env: gym.Env, cell: Cell, latency_s: float, mode: str, control_hz: float) -> Clip:
    """Play the episode with one method and film it."""
    loaded, settings = comparison.loaded, comparison.settings.realtime
    stride = max(1, round(control_hz / MOST_FRAMES_HZ))
    clip = Clip(cell.name, latency_s, control_hz / stride)
    camera = Camera(env, settings.env)
    pace = Pace.of([1e3 * latency_s], control_hz, mode)
    predict = predictor(loaded, whole=mode == "act")

    def shoot(thinking: bool) -> None:
        clip.frames.append(camera.picture(seat.newest))
        clip.thinking.append(thinking)

    def on_step(thinking: bool) -> None:
        if seat.num_control_steps % stride == 0:
            shoot(thinking)

    with running(loaded.policy, cell, comparison.denoising(cell)), whole_chunks(loaded.policy, mode) as execute_steps:
        seat = LiveSeat(env, loaded.policy.config.n_obs_steps, pace, hold_of(settings.env), execute_steps, on_step)
        seat.start(settings.first_seed)
        loaded.policy.reset()
        shoot(True)
        with torch.inference_mode():
            while not seat.done:
                seat.live(predict(loaded, [seat])[0])
    result = seat.result()
    shoot(False)
    clip.success, clip.duration_s = result.success, result.num_control_steps / control_hz
    return clip
