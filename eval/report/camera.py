"""Pictures of a world: the simulator's own or, without OpenGL, a schematic drawn from the observation."""

import logging

import gymnasium as gym
import numpy as np
from PIL import Image, ImageDraw

logger = logging.getLogger(__name__)
SIZE = 240
HAND, OBJECT, GOAL, TABLE = (0, 114, 178), (213, 94, 0), (0, 158, 115), (245, 245, 245)


class Camera:
    """Takes pictures of one world. If it has to draw a schematic, it logs that once.

    Args:
        env: The world.
        name: Name of the environment, which selects the schematic.

    Raises:
        RuntimeError: The world cannot be rendered, and has no schematic.
    """

    def __init__(self, env: gym.Env, name: str) -> None:
        self._env = env
        self.schematic = False
        try:
            env.reset(seed=0)
            env.render()
        except RuntimeError as error:
            if name not in _DRAWINGS:
                raise
            logger.warning("no rendering here, drawing a schematic from the observation instead (%s)", error)
            self.schematic = True
            self._draw = _DRAWINGS[name]

    def picture(self, observation: dict[str, np.ndarray]) -> np.ndarray:
        """The world now, `[SIZE, SIZE, 3]` uint8."""
        if self.schematic:
            return np.asarray(self._draw(observation))
        frame = self._env.render()
        return frame if frame.shape[:2] == (SIZE, SIZE) else np.asarray(Image.fromarray(frame).resize((SIZE, SIZE)))


def draw_metaworld(observation: dict[str, np.ndarray]) -> Image.Image:
    """Draw MetaWorld from above (x right, y up) and, below a line, from the front (x right, z up)."""
    hand, gripper = observation["agent_pos"][:3], float(observation["agent_pos"][3])
    scene = observation["environment_state"]
    picture = Image.new("RGB", (SIZE, SIZE), TABLE)
    draw = ImageDraw.Draw(picture)
    draw.line([(0, 144), (SIZE, 144)], fill=(120, 120, 120))
    draw.text((6, 4), "from above", fill=(90, 90, 90))
    draw.text((6, 148), "from the front", fill=(90, 90, 90))
    for point, colour, radius in (
        (scene[32:35], GOAL, 7),
        (scene[7:10], (150, 150, 150), 5),
        (scene[0:3], OBJECT, 5),
        (hand, HAND, 3 + 5 * gripper),
    ):
        x = SIZE / 2 + 220 * float(point[0])
        for y in (140 - 220 * (float(point[1]) - 0.4), 232 - 180 * float(point[2])):
            outline_only = colour == GOAL
            box = (x - radius, y - radius, x + radius, y + radius)
            draw.ellipse(box, outline=colour, fill=None if outline_only else colour, width=2)
    return picture


def draw_pusht(observation: dict[str, np.ndarray]) -> Image.Image:
    """Draw Push-T: the effector and the block, on a table of 512 x 512 pixels."""
    picture = Image.new("RGB", (SIZE, SIZE), TABLE)
    draw = ImageDraw.Draw(picture)
    corners = (observation["environment_state"].reshape(-1, 2) * SIZE / 512).tolist()
    for bar in (corners[:4], corners[4:]):
        draw.polygon([tuple(corner) for corner in bar], fill=OBJECT)
    x, y = (observation["agent_pos"] * SIZE / 512).tolist()
    draw.ellipse((x - 7, y - 7, x + 7, y + 7), fill=HAND)
    return picture


_DRAWINGS = {"metaworld": draw_metaworld, "pusht": draw_pusht}
