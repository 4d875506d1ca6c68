"""What a compiled package tells a C++ program of itself: names, shapes and scales, as texts.

Every normalisation of LeRobot's is a multiplication and an addition, so that is all that such a program has to know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bac.exported.ports import Noise, Port, Scaling
from bac.exported.scaling import normalised, restored


def metadata(inputs: Sequence[Port], noise: Sequence[Noise], scaling: Mapping[str, Scaling]) -> dict[str, str]:
    """The card's part that a program needs to run the file.

    Returns:
        ``bac.inputs`` and ``bac.noise``: names in order. ``bac.shape.NAME``, ``bac.dtype.NAME``. ``bac.scale.NAME``,
        ``bac.shift.NAME`` and ``bac.scale_shape.NAME``: multiply and add to normalise an input, or to restore the
        output, ``action``.
    """
    found = {
        "bac.inputs": " ".join(port.name for port in inputs),
        "bac.noise": " ".join(one.name for one in noise),
    }
    takes: list[Port | Noise] = [*inputs, *noise]
    for taken in takes:
        found |= {f"bac.shape.{taken.name}": _text(taken.shape), f"bac.dtype.{taken.name}": taken.dtype}
    for name, its in scaling.items():
        zero = np.zeros(np.shape(its.low))  # float64, as scale and shift are differences
        apply = restored if name == "action" else normalised
        shift = apply(zero, its)
        found[f"bac.shift.{name}"] = _text(shift.ravel())
        found[f"bac.scale.{name}"] = _text((apply(zero + 1, its) - shift).ravel())
        found[f"bac.scale_shape.{name}"] = _text(np.shape(its.low))
    return found


def _text(numbers: Sequence[float] | np.ndarray) -> str:  # type: ignore[type-arg]
    return " ".join(f"{number:.9g}" for number in numbers)
