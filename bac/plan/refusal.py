"""Why a run cannot be replayed. Raised while it is recorded, and never let out of `bac.plan`."""

from __future__ import annotations

GRADIENTS = "gradients are enabled; predict under torch.no_grad() or torch.inference_mode()"
HOOKS = "a forward hook watches it; remove the hook to replay"


class Refusal(Exception):  # noqa: N818
    """A run cannot be replayed. The message is the reason, as a clause of a sentence. Never leaves `bac.plan`."""


class Postponed(Refusal):
    """This run cannot be recorded, but another with arguments of the same shapes may be.

    Args:
        reason: Why not, as a clause of a sentence.
        was_tried: A recording was made, which takes time.
    """

    def __init__(self, reason: str, *, was_tried: bool = False) -> None:
        super().__init__(reason)
        self.was_tried = was_tried
