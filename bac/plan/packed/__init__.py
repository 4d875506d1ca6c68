"""Matrix products of few rows with packed weights."""

from bac.plan.packed.product import MOST_ROWS, Kernel, kernel, missing, pack

__all__ = ["MOST_ROWS", "Kernel", "kernel", "missing", "pack"]
