"""Examines a policy: the blocks that can be cached, or the reason why none can."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import nn

import bac
from bac.adapters import find_host
from bac.adapters.host import Host
from bac.cli import hints, observations
from bac.guarding.duty import watched_schedule
from bac.guarding.files import GUARD_NAME, beside
from bac.lerobot import why_not_replayed

_PACKAGES = ("lerobot_policy_bac", "torch", "lerobot", "diffusers", "transformers", "zarr")


def versions() -> Iterator[str]:
    """Versions of Python and the relevant packages, one a line."""
    yield f"python {platform.python_version()}"
    for package in _PACKAGES:
        try:
            yield f"{package} {importlib.metadata.version(package)}"
        except importlib.metadata.PackageNotFoundError:
            yield f"{package} not installed"


def examine(policy: nn.Module, folder: Path, imports: Sequence[str] = ()) -> Iterator[str]:
    """List blocks, steps and solver, and check whether the schedule and the guard in `folder` fit.

    Args:
        policy: The untouched policy.
        folder: Its checkpoint's.
        imports: Modules that had to be named so that it loads; the next line to type names them too.

    Raises:
        UnsupportedPolicyError: Nothing can be cached; the message gives the reason.
    """
    host = find_host(policy)
    yield f"policy {type(policy).__name__}, denoiser {type(host.denoiser).__name__}"
    yield f"{host.num_steps or 'unknown number of'} evaluations per action chunk, solver {host.solver or 'unknown'}"
    yield from _blocks(host)
    if host.uncovered:
        yield f"computed at every step: {host.uncovered}"
    yield from _verdict(policy, folder / "bac.json", imports)
    yield from _observations(folder / observations.NAME)


def _blocks(host: Host) -> Iterator[str]:
    width = max(len(block.name) for block in host.blocks)
    for block in host.blocks:
        size = sum(parameter.numel() for parameter in block.require_owner().parameters())
        yield f"  {block.name:{width}}  {block.kind.value:15}  {size:11,} parameters  {block.attribute}"


def _verdict(policy: nn.Module, path: Path, imports: Sequence[str]) -> Iterator[str]:
    if not os.path.lexists(path):
        reason = why_not_replayed(policy)
        dense = "replays it as it is" if reason is None else f"runs it as it is ({reason.rstrip('.')})"
        tune = f"bac tune {hints.same_policy(path.parent, imports)} --env ENV --target-hz 25"
        yield f"no {path.name} beside it: LeRobot {dense}. Make one: {tune}"
        return
    try:
        denoising = bac.load(path)
        bac.wrap(policy, denoising)  # for its checks alone
        yield f"{path.name} fits: LeRobot runs {denoising.name} wherever lerobot_policy_bac is installed"
        yield from _guard_verdict(policy, denoising, path)
    except bac.BacError as error:
        yield f"{path.name} does not fit: {error}"
    finally:
        bac.unwrap(policy)


def _observations(path: Path) -> Iterator[str]:
    if not os.path.lexists(path):
        return
    try:
        yield f"{path.name}: {observations.describe(path).splitlines()[0]}"
    except bac.BacError as error:
        yield f"{path.name} cannot be used: {error}"


def _guard_verdict(policy: nn.Module, denoising: bac.Denoising, path: Path) -> Iterator[str]:
    if not os.path.lexists(path.with_name(GUARD_NAME)):
        return
    try:
        schedule = watched_schedule(denoising, find_host(policy))
        bac.wrap(policy, denoising, guard=beside(path, schedule))
        yield f"{GUARD_NAME} fits: BAC_GUARD=log, denser, dense or on puts it on duty"
    except bac.BacError as error:
        yield f"{GUARD_NAME} does not fit: {error}"
