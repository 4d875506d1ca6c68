"""Pictures without a display."""

import sys

import mujoco
import numpy as np
import pytest

import envs
from envs.offscreen import gl_context_class
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
