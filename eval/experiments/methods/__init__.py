"""Schedulers, estimators and solvers compared by their cost and their action error."""
