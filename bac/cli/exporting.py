"""`bac export`: a checkpoint and its bac.json become one file that maps observations and noise to actions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import bac
from bac.cli import checkpoint, observations
from bac.cli.arguments import Device, FilePath, Imports, PolicyPath, Seed
from bac.cli.terminal import errors_in_one_line, telling
from bac.exporting.checking import NUM_CHECKS
from bac.exporting.formats import FORMATS, check
from bac.files import probe
from bac.tuning.batches import in_parts, num_rows

EPILOG = (
    "Example: bac export --policy-path policies/checkpoints/pusht --out exported --no-compile\n\n"
    "Then: bac.exported.load('exported').predict_action_chunk(observation); docs/export.md has C++ and TensorRT"
)


def export(
    policy_path: PolicyPath,
    out: Annotated[Path, typer.Option(help="Folder to write; one that is there is replaced.")],
    format: Annotated[str, typer.Option(help=f"{' or '.join(FORMATS)}.")] = "pt2",
    compile: Annotated[bool, typer.Option(help="Also compile a pt2 for this machine; takes minutes.")] = True,
    file: FilePath = None,
    batch_size: Annotated[int, typer.Option(help="Observations per call; shapes are fixed.", min=1)] = 1,
    imports: Imports = [],  # noqa: B006
    device: Device = "cpu",
    seed: Seed = 0,
) -> None:
    """Write a policy's whole denoising run, as its bac.json has it, to one file that needs no LeRobot.

    Without a bac.json, the policy is exported as it is configured. The file is checked against the policy on other
    observations: those that bac calibrate kept, or random ones. Beside it lie card.json (inputs, noise, output,
    statistics, hashes, errors), bac.json and the processors.

    Ctrl-C leaves the folder as it was.
    """
    with errors_in_one_line(), telling("bac.exporting"):
        check(format, compile=compile)
        probe(out, folder=True)
        loaded = checkpoint.load(policy_path, device=device, imports=imports)
        own = policy_path / "bac.json"
        follows = file or (own if own.is_file() else None)
        if follows is not None:
            bac.wrap(loaded.policy, bac.load(follows))
        card = bac.export(
            loaded.policy, loaded.random_observation(batch_size, seed=seed), out, format=format, compile=compile,
            checkpoint=policy_path, file=follows, held_out=_held_out(loaded, policy_path, batch_size, seed), seed=seed,
        )  # fmt: skip
    typer.echo(f"{card}\nwritten to {out}")


def _held_out(loaded: checkpoint.Checkpoint, path: Path, batch_size: int, seed: int) -> list[Any]:
    """Observations to check with: kept ones, in batches of the exported size, or random ones."""
    kept = path / observations.NAME
    batches = observations.load(kept) if kept.is_file() else []
    whole = [part for batch in batches for part in in_parts(batch, batch_size) if num_rows(part) == batch_size]
    more = range(seed + 1, seed + 1 + NUM_CHECKS)
    return whole[:NUM_CHECKS] or [loaded.random_observation(batch_size, seed=other) for other in more]
