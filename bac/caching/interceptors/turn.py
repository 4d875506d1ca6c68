"""Whose turn it is: at most one call at a time, for as long as that call is on its thread's stack.

A lock must be released by whoever took it. An interrupt (Ctrl-C) between two instructions, or a fork while another
thread holds it, leaves it locked for ever. A turn needs no release: once the call that took it has left the stack, by
whatever way, the next call finds that out and takes over. Releasing it only makes that quick.
"""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from types import FrameType


class Claim:
    """A call that wants the turn.

    Attributes:
        thread: Identifier of its thread.
    """

    def __init__(self, frame: FrameType) -> None:
        self.frame = frame
        self.thread = threading.get_ident()

    def is_running(self) -> bool:
        """Whether the call is on its thread's stack. After a fork, only the thread that forked has one."""
        frame = sys._current_frames().get(self.thread)
        while frame is not None and frame is not self.frame:
            frame = frame.f_back
        return frame is not None


class Turn:
    """Taken by at most one call at a time. No method waits.

    Claims are appended to a list and removed from it, which is atomic; the first that is running has the turn.
    """

    def __init__(self) -> None:
        self._claims: list[Claim] = []

    def take(self, frame: FrameType) -> Claim | None:
        """Take the turn for the call with this frame.

        Returns:
            None if it was free; else the claim of the call that has it.
        """
        mine = Claim(frame)
        self._claims.append(mine)
        for claim in tuple(self._claims):
            if claim is mine:
                break
            if claim.is_running():
                self._drop(mine)
                return claim
            self._drop(claim)
        return None

    def is_held_by(self, frame: FrameType) -> bool:
        """Whether the call with this frame has the turn."""
        return bool(self._claims) and self._claims[0].frame is frame

    def leave(self, frame: FrameType) -> None:
        """Give the turn back; without effect for a call that never took it."""
        for claim in tuple(self._claims):
            if claim.frame is frame:
                self._drop(claim)

    def _drop(self, claim: Claim) -> None:
        with suppress(ValueError):  # another thread was faster
            self._claims.remove(claim)
