"""Rolls up an unrolled program: what repeats is outlined, so that a compiler sees it once."""

from bac.plan.rolling.outline import Outlined, Piece, outline

__all__ = ["Outlined", "Piece", "outline"]
