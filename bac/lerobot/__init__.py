"""What LeRobot's commands need besides `bac.wrap`: a policy is prepared for replay in the call for its first chunk."""

from __future__ import annotations

from bac.lerobot.compiled import uncompiled
from bac.lerobot.known import why_not_replayed
from bac.lerobot.preparation import prepare_at_first_chunk

__all__ = ["prepare_at_first_chunk", "uncompiled", "why_not_replayed"]
