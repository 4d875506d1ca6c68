"""Runs what `bac.export` wrote: a whole denoising run in one file, without LeRobot, diffusers or the policy's class.

An export is a folder::

    card.json        inputs, noise and output; statistics; hashes; the error against the policy
    bac.json         the way to denoise that is in it
    program.pt2      the run as a program of torch.export                        (format pt2)
    compiled.pt2     the same, compiled by AOTInductor for one kind of machine   (format pt2)
    policy.onnx      the run for onnxruntime or TensorRT                         (format onnx)

`load` makes a policy of it: observations as the robot gives them in, actions as the robot takes them out.
"""

from bac.exported.card import CARD_NAME, Card
from bac.exported.policy import ExportedPolicy, load
from bac.exported.ports import Noise, Port, Scaling

__all__ = ["CARD_NAME", "Card", "ExportedPolicy", "Noise", "Port", "Scaling", "load"]
