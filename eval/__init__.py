"""Closed-loop evaluation: the only package that knows `bac`, `policies` and `envs` together.

A **cell** (`eval.setup.cells.Cell`) is one way to run a policy: the policy's configuration, and the Denoising that
`bac` puts on it. `play` plays paired episodes of cells, `measure` times cells and compares their actions, `compared`
runs the phases of a comparison, and `report` writes tables, pictures and films. Five commands:

    python -m eval.demo       the whole comparison on one task, in minutes
    python -m eval.run        one cell
    python -m eval.compare    the whole table of a task, resumable
    python -m eval.certify    paired episodes until a loss beyond a margin is refuted or shown
    python -m eval.tune       bac.tune on a shipped policy, timed a second time

`eval.experiments` lists the command behind each other page of ``results/``.
"""
