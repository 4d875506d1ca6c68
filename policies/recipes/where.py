"""A second loss in training: what a policy has seen must tell where things are."""

import numpy as np
import torch
from lerobot.utils.constants import OBS_ENV_STATE
from torch import Tensor

from policies.demonstrations import Demonstrations

ANSWER = "observation.answer"  # key of what is asked for, in a batch
STILL = 1e-3  # a number that varies by less than this over a task's demonstrations tells nothing [its own unit]


class Where:
    """Asks what a policy has encoded for the simulator's state, which the policy is never given.

    A simulator knows where everything is, and demonstrations hold it. A vision tower that starts at random finds the
    things sooner when it is told. The answer is read in fixed random directions, so training adds no weights, and the
    policy that is saved is LeRobot's own. The field calls this an auxiliary loss on privileged information.

    Args:
        demonstrations: Demonstrations with "observation.environment_state" and instructions.
        width: Size of what is asked.

    Attributes:
        answers: What is right in each control step, `[n, numbers]`: the state, less its mean over the demonstrations of
            the same instruction, in their standard deviations. A number that does not vary in them is 0.

    Raises:
        ValueError: There is no state of the environment, or nothing in it moves.
    """

    def __init__(self, demonstrations: Demonstrations, width: int) -> None:
        if OBS_ENV_STATE not in demonstrations.arrays:
            raise ValueError("where: these demonstrations have no environment_state to ask for; train with where=0")
        states, words = demonstrations.arrays[OBS_ENV_STATE], np.array(demonstrations.words())
        answers = np.zeros_like(states)
        for instruction in np.unique(words):
            rows = words == instruction
            deviation = states[rows].std(0)
            moves = deviation > STILL
            answers[np.ix_(rows, moves)] = ((states[rows] - states[rows].mean(0)) / np.maximum(deviation, STILL))[
                :, moves
            ]
        moving = answers.any(0)
        if not moving.any():
            raise ValueError("where: nothing in environment_state moves in these demonstrations; train with where=0")
        self.answers = torch.from_numpy(answers[:, moving])
        directions = torch.randn(width, self.answers.shape[1], generator=torch.Generator().manual_seed(0))
        self._directions = directions / width**0.5

    def loss(self, summary: Tensor, answers: Tensor) -> Tensor:
        """Mean squared error of what is read from `summary` `[B, width]`, against `answers` `[B, numbers]`."""
        return (summary @ self._directions.to(summary.device) - answers).square().mean()


def last_present(outputs: Tensor, present: Tensor) -> Tensor:
    """What the last token that is there has become, `[B, width]`; it has read all others.

    Args:
        outputs: A language model's outputs, `[B, tokens, width]`.
        present: Marks the tokens that are there, `[B, tokens]`.
    """
    places = torch.arange(present.shape[1], device=present.device)
    rows = torch.arange(len(outputs), device=outputs.device)
    return outputs[rows, (present.long() * places).argmax(1)]
