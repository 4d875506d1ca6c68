"""What the action error of a flow-matching policy is measured from: a fine run of the flow, not its own few steps."""

from __future__ import annotations

from bac.adapters.host import Host
from bac.denoising import Denoising
from bac.solvers import AdamsBashforth
from bac.solvers.flow_fitting import NUM_FINE


def fine_run(host: Host) -> Denoising | None:
    """A hundred steps of the second order; None if the policy's own steps are the reference."""
    if host.flow is None or host.flow.clean:
        return None
    return Denoising(AdamsBashforth(2), tuple((NUM_FINE - step) / NUM_FINE for step in range(NUM_FINE)))
