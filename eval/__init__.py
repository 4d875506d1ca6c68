"""Closed-loop evaluation: the only package that knows `bac`, `policies` and `envs` together.

One **cell** (`eval.setup.cells.Cell`) is one way to run a policy: a solver, a number of denoising steps, a cache. Everything
here takes cells: `rollout` plays paired episodes, `latency` times them interleaved, `fidelity` compares their actions,
`flops` counts them, `report` puts them into one table. Commands:

    python -m eval.demo       the whole story on one task, minutes
    python -m eval.run        one cell
    python -m eval.compare    the whole table of a task, resumable
"""
