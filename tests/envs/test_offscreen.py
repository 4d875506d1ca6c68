"""Pictures without a display."""

import sys

import mujoco
import numpy as np
import pytest

import envs
from envs.offscreen import Mount, SceneCamera, coarse, gl_context_class
from tests.contracts_env import assert_equal, play


@pytest.fixture
def env():
    env = envs.make("metaworld", task="assembly-v3", width=64, height=48)
    env.reset(seed=0)
    yield env
    env.close()


@pytest.fixture
def drawing_env(env):
    try:
        env.render()
    except RuntimeError as error:
        pytest.skip(str(error))
    return env


@pytest.mark.sim
def test_frames_have_the_size_asked_for(drawing_env):
    frame = drawing_env.render()
    assert (frame.shape, frame.dtype) == ((48, 64, 3), np.uint8)
    assert frame.std() > 10  # a scene, not one colour


@pytest.mark.sim
def test_rendering_leaves_the_episode_as_it_is(drawing_env):
    actions = [np.full(4, 0.5)] * 3
    silent = play(drawing_env, 0, actions)
    drawing_env.reset(seed=0)
    for step, action in enumerate(actions, start=1):
        drawing_env.render()
        seen = drawing_env.step(action)
        assert_equal([(*seen[:4], seen[4]["is_success"])], [silent[step]])


@pytest.mark.sim
def test_without_opengl_the_error_says_what_to_set(env, monkeypatch):
    def fail(width, height):
        raise mujoco.FatalError("no context")

    monkeypatch.setattr(mujoco.gl_context, "GLContext", fail)
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    with pytest.raises(RuntimeError, match=r"MUJOCO_GL='glfw': no context.*MUJOCO_GL=egl before Python starts"):
        env.render()


@pytest.mark.parametrize(
    "platform, display, chosen",
    [("linux", ":0", ""), ("linux", "", "osmesa"), ("darwin", "", "")],
)
def test_mujoco_chooses_the_opengl_unless_that_needs_a_display(monkeypatch, platform, display, chosen):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.setenv("MUJOCO_GL", chosen)
    assert gl_context_class() is mujoco.gl_context.GLContext


HAND = """
<mujoco>
  <worldbody>
    <camera name="front" pos="0 0 5"/>
    <body name="hand" pos="0 0 1">
      <joint type="hinge" axis="1 0 0"/>
      <geom size="0.01" mass="1" pos="0 0 3"/>
    </body>
    <geom size="0.1" pos="0 0.2 0" rgba="1 0 0 1"/>
  </worldbody>
</mujoco>
"""


def red_half(up: tuple[float, float, float], angle: float = 0.0) -> str:
    """Where a camera on the hand sees the red ball, whose y is above the hand's."""
    model = mujoco.MjModel.from_xml_string(HAND)
    data = mujoco.MjData(model)
    data.qpos[0] = angle
    mujoco.mj_forward(model, data)
    camera = SceneCamera(model, "front", 20, 20, env="hand")
    try:
        picture = camera.picture(data, mount=Mount("hand", (0.0, 0.0, 0.0), (0.0, 0.0, -2.0), up, 0.4)).astype(int)
    except RuntimeError as error:
        pytest.skip(str(error))
    camera.close()
    red = picture[..., 0] > picture[..., 1] + 40
    halves = {"top": red[:10], "bottom": red[10:], "left": red[:, :10], "right": red[:, 10:]}
    return " ".join(name for name, half in halves.items() if half.sum() > 0.7 * red.sum() > 0)


@pytest.mark.sim
def test_a_mounted_camera_looks_forward_with_up_at_the_top_and_turns_with_its_body():
    assert red_half(up=(0.0, 1.0, 0.0)) == "top"
    assert red_half(up=(0.0, -1.0, -0.5)) == "bottom"  # what lies along forward does not count
    assert red_half(up=(1.0, 0.0, 0.0)) == "left"
    assert red_half(up=(0.0, 1.0, 0.0), angle=np.pi / 2) == ""


@pytest.mark.sim
def test_a_coarse_copy_has_fewer_triangles_and_the_same_picture():
    env = envs.make("so101").unwrapped
    env.reset(seed=0)
    model = env._simulator.model
    triangles = model.mesh_facenum.sum()
    assert coarse(model, 0.002).mesh_facenum.sum() < 0.1 * triangles
    assert model.mesh_facenum.sum() == triangles
    pictures = []
    for cell in (None, 0.002):
        camera = SceneCamera(model, "front", 96, 96, env="so101", cell=cell)
        try:
            pictures.append(camera.picture(env._simulator.data).astype(int))
        except RuntimeError as error:
            pytest.skip(str(error))
        camera.close()
    differs = np.abs(pictures[0] - pictures[1]).max(-1) > 30
    assert 0 < differs.mean() < 0.02
