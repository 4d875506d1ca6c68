"""Writes a policy's whole denoising run to one file, for robots without LeRobot, diffusers or Python.

Other exporters write one evaluation of the denoiser and leave the loop, the solver and the cache to the user. Here all
of `predict_action_chunk` is recorded, operator by operator, under whatever `bac.wrap` put on the policy::

    record      the whole call, twice, on different numbers            (recorded)
    divide      the random draws become inputs                         (draws)
    write       torch.export, AOTInductor or ONNX                      (formats)
    check       the written file against the policy, on other numbers  (checking)
"""

from bac.exporting.export import export

__all__ = ["export"]
