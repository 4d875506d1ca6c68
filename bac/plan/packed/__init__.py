"""Products and sublayers of few rows with packed weights."""

from bac.plan.packed.library import MOST_ROWS, Kernels, kernels, missing, pack

__all__ = ["MOST_ROWS", "Kernels", "kernels", "missing", "pack"]
