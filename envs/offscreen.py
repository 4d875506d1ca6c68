"""MuJoCo pictures without a display.

`mujoco.Renderer` uses the OpenGL that MuJoCo chose when it was imported, and the default choice needs a display. This
renderer chooses OpenGL when it is made, so nobody has to set MUJOCO_GL before Python starts.
"""

import atexit
import copy
import os
import sys
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from envs.registry import suggest

NEAREST = 0.01  # what is nearer to a mounted camera is not drawn [m]


@dataclass(frozen=True)
class Disc:
    """A green disc that lies in the picture and not in the world, such as a goal that the model does not draw.

    Attributes:
        centre: x, y, z [m].
        radius: [m].
    """

    centre: tuple[float, float, float]
    radius: float

    def add_to(self, scene: mujoco.MjvScene) -> None:
        """Add the disc to the things that `scene` shows; it stays until the scene is updated."""
        geom = scene.geoms[scene.ngeom]
        size, colour = np.array([self.radius, 0.001, 0.0]), np.array([0.0, 0.45, 0.1, 1.0], np.float32)
        cylinder = mujoco.mjtGeom.mjGEOM_CYLINDER
        mujoco.mjv_initGeom(geom, cylinder, size, np.array(self.centre), np.eye(3).ravel(), colour)
        scene.ngeom += 1


@dataclass(frozen=True)
class Mount:
    """A camera on a body of the model, which the model itself does not have.

    Attributes:
        body: The body that carries it.
        position: Where it is, in the body's frame [m].
        forward: Where it looks, in the body's frame; any length.
        up: What is up in its pictures, in the body's frame; any length, not along `forward`.
        half_angle: Half of what it sees of the width, and of the height [rad].
    """

    body: str
    position: tuple[float, float, float]
    forward: tuple[float, float, float]
    up: tuple[float, float, float]
    half_angle: float

    def aim(self, scene: mujoco.MjvScene, data: mujoco.MjData) -> None:
        """Look from here at what `scene` shows, until the scene is updated."""
        body = data.body(self.body)
        turn = body.xmat.reshape(3, 3)
        forward = np.array(self.forward) / np.linalg.norm(self.forward)
        up = np.array(self.up) - forward * (forward @ self.up)
        for eye in scene.camera:
            eye.pos = body.xpos + turn @ self.position
            eye.forward = turn @ forward
            eye.up = turn @ (up / np.linalg.norm(up))
            eye.frustum_near = NEAREST
            eye.frustum_top = eye.frustum_near * np.tan(self.half_angle)
            eye.frustum_bottom, eye.frustum_center, eye.frustum_width = -eye.frustum_top, 0.0, eye.frustum_top


def coarse(model: mujoco.MjModel, cell: float) -> mujoco.MjModel:
    """A copy of a model, to be drawn, whose meshes have one vertex for each cube of space that has some.

    Software draws a mesh in the time of its triangles, and an arm from a drawing program has far more than pixels.

    Args:
        model: The model; it stays as it is, and its data fit the copy.
        cell: Side of the cubes [m].
    """
    drawn = copy.deepcopy(model)
    for mesh in range(drawn.nmesh):
        start, count = drawn.mesh_vertadr[mesh], drawn.mesh_vertnum[mesh]
        cubes = np.round(drawn.mesh_vert[start : start + count] / cell).astype(int)
        _, first, cube = np.unique(cubes, axis=0, return_index=True, return_inverse=True)
        start, count = drawn.mesh_faceadr[mesh], drawn.mesh_facenum[mesh]
        faces = first[cube.ravel()][drawn.mesh_face[start : start + count]]
        corners, kept = np.unique(np.sort(faces, axis=1), axis=0, return_index=True)
        kept = kept[(np.diff(corners, axis=1) > 0).all(axis=1)]  # three corners in three cubes
        end = start + len(kept)
        drawn.mesh_face[start:end] = faces[kept]
        for others in (drawn.mesh_facenormal, drawn.mesh_facetexcoord):
            others[start:end] = others[start + kept]
        drawn.mesh_facenum[mesh] = len(kept)
    return drawn


class OffscreenRenderer:
    """Draws one model without a window. Without shadows and reflections it takes a quarter of the time in software.

    Args:
        model: The model to draw.
        height: Height of the pictures [pixels].
        width: Width of the pictures [pixels].

    Raises:
        RuntimeError: There is no OpenGL here.
    """

    def __init__(self, model: mujoco.MjModel, height: int, width: int) -> None:
        frame = model.vis.global_
        frame.offheight, frame.offwidth = max(frame.offheight, height), max(frame.offwidth, width)
        try:
            self._gl = gl_context_class()(width, height)
            self._gl.make_current()
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        except Exception as error:  # EGL, OSMesa and GLFW each fail with kinds of their own
            raise RuntimeError(
                f"render: MuJoCo found no OpenGL (MUJOCO_GL={os.environ.get('MUJOCO_GL', '')!r}: {error}). Without "
                "a display, install a software driver (Debian: apt-get install libegl1 libgl1-mesa-dri) and set "
                "MUJOCO_GL=egl before Python starts. Everything but render() works without."
            ) from error
        atexit.register(self.close)  # before EGL closes its display, which would make freeing fail
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._model = model
        self._viewport = mujoco.MjrRect(0, 0, width, height)
        self._scene = mujoco.MjvScene(model, maxgeom=10_000)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED

    def draw(self, data: mujoco.MjData, camera: str | Mount, disc: Disc | None = None) -> np.ndarray:
        """Draw the state `data` and perhaps a disc, seen from one of the cameras, `[height, width, 3]` uint8."""
        # A mounted camera is none of the model's; any of those sets the scene up before it is aimed.
        self._camera.fixedcamid = 0 if isinstance(camera, Mount) else self._model.camera(camera).id
        self._gl.make_current()
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(self._model, data, mujoco.MjvOption(), None, self._camera, everything, self._scene)
        if isinstance(camera, Mount):
            camera.aim(self._scene, data)
        if disc is not None:
            disc.add_to(self._scene)
        mujoco.mjr_render(self._viewport, self._scene, self._context)
        picture = np.empty((self._viewport.height, self._viewport.width, 3), np.uint8)
        mujoco.mjr_readPixels(picture, None, self._viewport, self._context)
        return picture[::-1]  # OpenGL's rows go up

    def close(self) -> None:
        """Free the OpenGL context. If nobody calls it, it runs at exit."""
        atexit.unregister(self.close)
        self._gl.make_current()
        self._context.free()
        self._gl.free()


class SceneCamera:
    """One camera of a model. It opens OpenGL at the first picture, so worlds that are never drawn need none.

    Args:
        model: The model.
        name: A camera of the model.
        height: Height of the pictures [pixels].
        width: Width of the pictures [pixels].
        env: Name of the environment, for the error.
        cell: Draw the meshes `coarse`, with cubes of this side [m]; None draws them as they are.

    Raises:
        ValueError: The model has no such camera.
    """

    def __init__(
        self, model: mujoco.MjModel, name: str, height: int, width: int, *, env: str, cell: float | None = None
    ) -> None:
        names = [model.camera(index).name for index in range(model.ncam)]
        if name not in names:
            raise ValueError(f"{env} camera {name!r}: no such camera. {suggest(name, names)}")
        self.name = name
        self._model, self._size, self._cell = model, (height, width), cell
        self._renderer: OffscreenRenderer | None = None

    def picture(self, data: mujoco.MjData, disc: Disc | None = None, mount: Mount | None = None) -> np.ndarray:
        """Draw the state `data` and perhaps a disc, `[height, width, 3]` uint8; as a mounted camera sees it, if given.

        Raises:
            RuntimeError: There is no OpenGL here.
        """
        if self._renderer is None:
            drawn = self._model if self._cell is None else coarse(self._model, self._cell)
            self._renderer = OffscreenRenderer(drawn, *self._size)
        return np.ascontiguousarray(self._renderer.draw(data, mount or self.name, disc))

    def close(self) -> None:
        """Free the renderer. The next picture makes a new one."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def gl_context_class() -> Any:
    """EGL on Linux if MUJOCO_GL is not set and there is no display; else MuJoCo's choice, which follows MUJOCO_GL."""
    left_open = not os.environ.get("MUJOCO_GL") and not os.environ.get("DISPLAY")
    if sys.platform == "linux" and left_open:
        from mujoco.egl import GLContext

        return GLContext
    return mujoco.gl_context.GLContext
