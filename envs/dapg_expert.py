"""The expert policies of AdroitHand: networks of two hidden layers, from an archive of plain arrays.

They were published with *Learning Complex Dexterous Manipulation with Deep Reinforcement Learning and Demonstrations*
(Rajeswaran et al., RSS 2018) in the repository aravindr93/hand_dapg under Apache-2.0, as pickles. Pickles run code when
they are read, so an npz of their arrays is read here instead::

    TASK/in_shift, in_scale, w0, b0, w1, b1, w2, b2, out_shift, out_scale      TASK: door, hammer, relocate or pen
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

ARRAYS = ("in_shift", "in_scale", "w0", "b0", "w1", "b1", "w2", "b2", "out_shift", "out_scale")


@dataclass(frozen=True)
class DapgExpert:
    """One expert: standardise the observation, two tanh layers, one linear layer, scale the result to an action.

    Args:
        arrays: `in_shift`, `in_scale` `[Do]`; `w0` `[H0, Do]`, `b0` `[H0]`, `w1` `[H1, H0]`, `b1` `[H1]`, `w2`
            `[Da, H1]`, `b2` `[Da]`; `out_shift`, `out_scale` `[Da]`.
    """

    arrays: dict[str, np.ndarray]

    @classmethod
    def load(cls, path: str | Path, task: str) -> "DapgExpert":
        """Read the expert of one task.

        Args:
            path: The npz.
            task: Name of the task in the archive: ``"door"``, ``"hammer"``, ``"relocate"`` or ``"pen"``.

        Raises:
            FileNotFoundError: There is no file at `path`.
            ValueError: An array of the task is missing.
        """
        keys = cls.names(task)
        with np.load(path) as archive:
            if missing := [key for key in keys if key not in archive]:
                raise ValueError(f"{path}: the expert of {task} has {', '.join(keys)}; this lacks {missing}")
            return cls({key.removeprefix(f"{task}/"): archive[key] for key in keys})

    @staticmethod
    def names(task: str) -> list[str]:
        """Names in the archive of the arrays of one task's expert."""
        return [f"{task}/{name}" for name in ARRAYS]

    def act(self, observation: np.ndarray) -> np.ndarray:
        """The expert's mean action, `[Da]`, for the simulator's whole observation `[Do]`. It may leave [-1, 1]."""
        a = self.arrays
        hidden = (observation - a["in_shift"]) / (a["in_scale"] + 1e-8)
        hidden = np.tanh(a["w0"] @ hidden + a["b0"])
        hidden = np.tanh(a["w1"] @ hidden + a["b1"])
        return (a["w2"] @ hidden + a["b2"]) * a["out_scale"] + a["out_shift"]
