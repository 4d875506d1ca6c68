"""Pictures of worlds, and films of episodes."""

from types import SimpleNamespace

import numpy as np

from eval.report.camera import GOAL, HAND, OBJECT, Camera, draw_metaworld, draw_pusht
from eval.report.video import Clip, side_by_side, strip


def test_a_finished_clip_stands_still_beside_a_longer_one():
    def clip(count: int) -> Clip:
        frames = [np.full((240, 240, 3), shade, np.uint8) for shade in range(count)]
        return Clip("m", 0.1, 20.0, frames, [False] * count, True, count / 20)

    frames = side_by_side([clip(5), clip(11)])
    assert len(frames) == 11 + 30  # the longer one, and a second and a half to read the result
    assert frames[0].shape == (320, 488, 3)
    middle = [tuple(frame[160, column, 0] for column in (120, 368)) for frame in frames]
    assert middle[3] == (3, 3)
    assert middle[9] == (4, 9)
    assert middle[-1] == (4, 10)
    assert strip([clip(5), clip(11)], num_stills=3).size == (3 * 240 + 16, 640)


def test_a_schematic_shows_hand_object_and_goal():
    scene = np.zeros(35, np.float32)
    scene[0:3], scene[7:10], scene[32:35] = (0.1, 0.6, 0.1), (0.2, 0.7, 0.1), (-0.2, 0.8, 0.3)
    picture = draw_metaworld({"agent_pos": np.array([-0.1, 0.5, 0.2, 1.0]), "environment_state": scene})
    colours = {colour for _, colour in picture.getcolors()}
    assert {HAND, OBJECT, GOAL} <= colours
    corners = np.array([100, 100, 200, 100, 200, 130, 100, 130, 135, 130, 165, 130, 165, 220, 135, 220], np.float32)
    picture = draw_pusht({"agent_pos": np.array([300.0, 300.0]), "environment_state": corners})
    assert picture.getpixel((70, 52)) == OBJECT
    assert picture.getpixel((140, 140)) == HAND


def test_the_camera_draws_where_nothing_renders(caplog):
    def render():
        raise RuntimeError("no OpenGL")

    env = SimpleNamespace(reset=lambda seed: None, render=render)
    camera = Camera(env, "metaworld")
    assert camera.schematic
    assert "schematic" in caplog.text
    scene = {"agent_pos": np.zeros(4, np.float32), "environment_state": np.zeros(35, np.float32)}
    assert camera.picture(scene).shape == (240, 240, 3)
