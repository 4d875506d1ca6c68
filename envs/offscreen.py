"""MuJoCo pictures without a display: which OpenGL to use, and what to do when there is none."""

import os
import sys
from ctypes.util import find_library
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import mujoco


def choose_headless_gl() -> None:
    """On Linux without a display, make EGL MuJoCo's OpenGL, unless the user has chosen or there is no EGL.

    MuJoCo chooses once, when it is imported, and its own default needs a display. Call this before.
    """
    headless = sys.platform == "linux" and not os.environ.get("DISPLAY")
    if headless and "MUJOCO_GL" not in os.environ and find_library("EGL"):
        os.environ["MUJOCO_GL"] = "egl"


def open_renderer(model: "mujoco.MjModel", height: int, width: int) -> "mujoco.Renderer":
    """Open an off-screen renderer, without shadows and reflections: a quarter of the time in software.

    Raises:
        RuntimeError: There is no OpenGL here.
    """
    import mujoco

    frame = model.vis.global_
    frame.offwidth, frame.offheight = max(frame.offwidth, width), max(frame.offheight, height)
    try:
        renderer = mujoco.Renderer(model, height, width)
    except Exception as error:  # EGL, OSMesa and GLFW each fail with kinds of their own
        raise RuntimeError(
            f"render: MuJoCo found no OpenGL (MUJOCO_GL={os.environ.get('MUJOCO_GL', '')!r}: {error}). Without a "
            "display install a software driver (Debian: apt-get install libegl1 libgl1-mesa-dri) and set "
            "MUJOCO_GL=egl before Python starts. Everything but render() works without."
        ) from error
    renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
    renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
    return renderer
