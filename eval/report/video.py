"""Filmed episodes side by side in world time: an H.264 video, a GIF for a README, a strip of stills for a paper."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

from eval.report.camera import SIZE

HEADER, FOOTER, GAP = 46, 34, 8
INK, PALE = (30, 30, 30), (110, 110, 110)
THINKING, ACTING, SOLVED, FAILED = (204, 121, 167), (0, 114, 178), (0, 158, 115), (213, 94, 0)
PANEL = (SIZE, SIZE + HEADER + FOOTER)
LINGER_S = 1.5


@dataclass
class Clip:
    """One filmed episode.

    Attributes:
        title: Name of the method.
        latency_s: Latency of a chunk [s].
        frame_hz: Frames per second of world time [Hz].
        frames: Pictures, `[H, W, 3]` uint8 each, evenly spaced in time.
        thinking: For each frame, whether the policy was thinking.
        success: Whether the task was solved.
        duration_s: World time until success or the time limit [s].
    """

    title: str
    latency_s: float
    frame_hz: float
    frames: list[np.ndarray] = field(default_factory=list)
    thinking: list[bool] = field(default_factory=list)
    success: bool = False
    duration_s: float = 0.0


def side_by_side(clips: Sequence[Clip]) -> list[np.ndarray]:
    """Frames of all clips side by side at equal world time, `[H, W, 3]` uint8. A finished clip shows its last frame."""
    length = max(len(clip.frames) for clip in clips) + round(LINGER_S * clips[0].frame_hz)
    return [_compose([_panel(clip, index) for clip in clips]) for index in range(length)]


def write_video(clips: Sequence[Clip], folder: Path, *, animate: bool = True, name: str = "realtime") -> list[Path]:
    """Write ``realtime.mp4``, ``realtime.gif`` and ``realtime.png``; all play at the speed of the world.

    Args:
        clips: Clips, one for each method.
        folder: Folder of the files.
        animate: Whether to write the GIF too, which is several times the video's size.
        name: Name of the files.

    Returns:
        Paths of the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    frames, frame_hz = side_by_side(clips), clips[0].frame_hz
    video, gif, still = (folder / f"{name}.{suffix}" for suffix in ("mp4", "gif", "png"))
    imageio.mimwrite(video, frames, fps=frame_hz, codec="libx264", pixelformat="yuv420p", macro_block_size=2, quality=8)
    strip(clips).save(still)
    if not animate:
        return [video, still]
    pictures = [Image.fromarray(frame).quantize(96) for frame in frames[::2]]
    pictures[0].save(
        gif, save_all=True, append_images=pictures[1:], duration=round(2000 / frame_hz), loop=0, optimize=True
    )
    return [video, gif, still]


def strip(clips: Sequence[Clip], num_stills: int = 6) -> Image.Image:
    """Make one row of stills per clip, evenly spaced from the start to the end of the longest clip."""
    last = max(len(clip.frames) for clip in clips) - 1
    indices = np.linspace(0, last, num_stills).round().astype(int)
    rows = [_compose([_panel(clip, int(index)) for index in indices]) for clip in clips]
    return Image.fromarray(np.concatenate(rows, axis=0))


def _panel(clip: Clip, index: int) -> Image.Image:
    last = len(clip.frames) - 1
    panel = Image.new("RGB", PANEL, "white")
    panel.paste(Image.fromarray(clip.frames[min(index, last)]), (0, HEADER))
    draw = ImageDraw.Draw(panel)
    fonts = (_font(size, bold=True) for size in (15, 13, 12, 11, 10))
    font = next((font for font in fonts if draw.textlength(clip.title, font) <= SIZE - 4), _font(9, bold=True))
    draw.text((2, 2), clip.title, fill=INK, font=font)
    draw.text((2, 24), f"a chunk takes {1e3 * clip.latency_s:.0f} ms", fill=PALE, font=_font(13))
    text, colour = _status(clip, index)
    draw.rectangle((0, SIZE + HEADER, SIZE, SIZE + HEADER + 5), fill=colour)
    draw.text((2, SIZE + HEADER + 10), text, fill=colour, font=_font(14, bold=True))
    return panel


def _status(clip: Clip, index: int) -> tuple[str, tuple[int, int, int]]:
    """The robot's status at a frame, and its colour."""
    if index >= len(clip.frames) - 1:
        if clip.success:
            return f"solved after {clip.duration_s:.2f} s", SOLVED
        return f"not solved in {clip.duration_s:.2f} s", FAILED
    now = f"{index / clip.frame_hz:.2f} s"
    return (f"{now}  thinking", THINKING) if clip.thinking[index] else (f"{now}  acting", ACTING)


def _compose(panels: Sequence[Image.Image]) -> np.ndarray:
    width = len(panels) * PANEL[0] + (len(panels) - 1) * GAP
    canvas = Image.new("RGB", (width, PANEL[1]), "white")
    for column, panel in enumerate(panels):
        canvas.paste(panel, (column * (PANEL[0] + GAP), 0))
    return np.asarray(canvas)


def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(findfont("DejaVu Sans:bold" if bold else "DejaVu Sans"), size)
