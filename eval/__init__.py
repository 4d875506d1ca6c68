"""Closed-loop evaluation: the only package that knows `bac`, `policies` and `envs` together.

A **cell** (`eval.setup.cells.Cell`) is one way to run a policy: how it is configured, and what `bac` puts on it. `play`
plays paired episodes of cells, `measure` times them and compares their actions, `compared` puts both together, and
`report` writes tables, pictures and films. Five commands:

    python -m eval.demo       the whole story on one task, minutes
    python -m eval.run        one cell
    python -m eval.compare    the whole table of a task, resumable
    python -m eval.certify    paired episodes until it is known whether less is lost than a margin
    python -m eval.tune       bac.tune on a shipped policy, timed a second time

What makes each page of ``results/`` is listed in `eval.experiments`.
"""
