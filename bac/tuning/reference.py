"""What the action errors of a flow-matching policy are measured from: its own steps, or a fine run of its flow.

Its own steps, ten of Euler's mostly, are what its success was measured with, errors and all. Nearer to the flow was not
safer in closed loop (results/flow).
"""

from __future__ import annotations

from typing import Literal

from bac.adapters.host import Host
from bac.denoising import Denoising
from bac.errors import ScheduleError
from bac.solvers import AdamsBashforth
from bac.solvers.flow_fitting import NUM_FINE

ReferenceName = Literal["own", "flow"]


def check_reference(host: Host, name: ReferenceName) -> None:
    """Check that a policy has the reference.

    Raises:
        ScheduleError: There is no such reference, or the policy has no flow that can be run finely.
    """
    if name not in ("own", "flow"):
        raise ScheduleError(f"reference: must be 'own' or 'flow', got {name!r}")
    if name == "flow" and fine_run(host) is None:
        raise ScheduleError(
            f"reference: 'flow' needs a flow-matching policy whose loop takes solvers; {type(host.policy).__name__} is "
            "none; leave it out, and the reference is the policy as it is configured"
        )


def fine_run(host: Host) -> Denoising | None:
    """A hundred steps of the second order; None if the policy follows no flow."""
    if host.flow is None or host.flow.clean:
        return None
    return Denoising(AdamsBashforth(2), tuple((NUM_FINE - step) / NUM_FINE for step in range(NUM_FINE)))
