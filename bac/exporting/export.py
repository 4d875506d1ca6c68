"""The one door: `bac.export`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bac.adapters import find_host
from bac.adapters.host import Host, dotted_name
from bac.caching.interceptors.patch import stack_on
from bac.caching.interceptors.scope import RunScope
from bac.checks import why_not_replayed
from bac.denoising import Denoising
from bac.drafts import draft_beside, sweep
from bac.errors import RunError, UnsupportedPolicyError
from bac.exported import Card, Noise, Port, load
from bac.exported.card import file_hash
from bac.exporting.checking import check_error, chunks_of, error_of, other_observations
from bac.exporting.draws import without_draws
from bac.exporting.formats import FORMATS, Written, check
from bac.exporting.recorded import Recorded, record
from bac.exporting.statistics import copy_processors, scalings
from bac.files import probe, put_folder, reporting
from bac.fingerprint import weights_hash
from bac.plan.build import tolerance_of
from bac.version import __version__

_PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime")


def export(
    policy: nn.Module,
    batch: Mapping[str, Any],
    folder: str | Path,
    *,
    format: str = "pt2",
    compile: bool = True,
    checkpoint: str | Path | None = None,
    held_out: Sequence[Mapping[str, Any]] = (),
    seed: int = 0,
) -> Card:
    """Write a policy's whole denoising run, with what `bac.wrap` put on it, to a folder of its own.

    The exported file maps observations and random draws to an action chunk, for fixed shapes; `bac.exported.load` runs
    it without the policy. Nothing is written unless it makes the policy's actions (within 1e-5 of the largest, in
    float32). The folder appears whole, or not at all.

    Args:
        policy: A policy, wrapped or not, in eval mode. An unwrapped one is exported as it is configured.
        batch: Preprocessed observations as `policy.predict_action_chunk` takes them. Their tensors become inputs of
            these shapes; everything else is fixed.
        folder: The folder to write. One that is there is replaced.
        format: ``pt2``: a program of torch.export, and if `compile` the same compiled by AOTInductor for this machine.
            ``onnx``: for onnxruntime, or TensorRT.
        compile: Compile a ``pt2``, which takes a C++ compiler and minutes.
        checkpoint: The policy's folder, whose processors are copied and whose statistics the card takes over. By
            default the folder that LeRobot loaded the policy from.
        held_out: Other preprocessed observations of the same shapes, to check with; by default `batch` with noise.
        seed: Seeds the noise of the check.

    Returns:
        The card, which prints as a report.

    Raises:
        UnsupportedPolicyError: The policy is no module, or its sampler was not found.
        RunError: The run cannot be recorded, or the file makes other actions.
        BacError: The format is unknown, or a package or the compiler is missing.
        FileError: The folder cannot be written.
    """
    target = Path(os.path.realpath(folder))
    check(format, compile=compile)
    probe(target, folder=True)
    host, denoising = _checked(policy)
    recorded = record(host, batch)
    exact, noise = without_draws(recorded.exact, recorded.names)
    fast, _ = without_draws(recorded.fast, recorded.names)
    tensors = {name: batch[name] for name in recorded.names.values()}
    arguments = tensors | {one.name: _zeros(one, recorded.chunk) for one in noise}
    source = _checkpoint_of(policy, checkpoint)
    batches = list(held_out) or other_observations(batch)
    wanted = chunks_of(host, batches, seed)
    with _drafted(target) as draft:
        written = FORMATS[format](exact, fast, arguments, draft, compile=compile)
        denoising.save(draft / "bac.json")
        if source is not None:
            copy_processors(source, draft)
        card = _card(host, denoising, recorded, noise, tensors, source, written, draft, format)
        return _checked_card(card, batches, wanted, seed, draft)


def _checked(policy: Any) -> tuple[Host, Denoising]:
    """The policy taken apart, and the way to denoise that stands on it."""
    host = find_host(policy)
    name = type(policy).__name__
    if not isinstance(policy, nn.Module):
        raise UnsupportedPolicyError(f"policy: must be an nn.Module to be exported, got {name}")
    stack = list(stack_on(host.sampler_owner, host.sampler_attribute))
    if any(found.role == "guard" for found in stack):
        raise RunError(f"{name}: a guard changes the run while it goes on; wrap it without: bac.wrap(policy, what)")
    scopes = [found for found in stack if isinstance(found, RunScope)]
    follows = scopes[0].follows if scopes else Denoising(fingerprint=host.fingerprint())
    denoising = Denoising.of(follows)  # type: ignore[arg-type]
    if (reason := why_not_replayed(host, denoising)) is not None:
        raise RunError(f"{name}: cannot be exported, because {reason}; wrap it with a fixed schedule or a solver")
    return host, denoising


def _zeros(noise: Noise, chunk: Tensor) -> Tensor:
    return torch.zeros(noise.shape, dtype=getattr(torch, noise.dtype), device=chunk.device)


def _checkpoint_of(policy: Any, given: str | Path | None) -> Path | None:
    """The folder with the policy's processors, if there is one."""
    path = given or getattr(getattr(policy, "config", None), "pretrained_path", None)
    return Path(path) if path is not None and Path(path).is_dir() else None


def _card(
    host: Host, denoising: Denoising, recorded: Recorded, noise: tuple[Noise, ...], tensors: Mapping[str, Tensor],
    source: Path | None, written: Written, draft: Path, format: str,
) -> Card:  # fmt: skip
    """The card before the check: without errors."""
    config = getattr(host.policy, "config", None)
    scaling = {} if source is None else scalings(source)
    n_obs_steps = int(getattr(config, "n_obs_steps", 1))
    windows = getattr(config, "observation_delta_indices", None) is not None
    chunk = recorded.chunk
    files = sorted(path.name for path in draft.iterdir())
    return Card(
        format=format,
        policy=dotted_name(type(host.policy)),
        denoising=denoising.name,
        device=chunk.device.type,
        inputs=tuple(
            Port(
                name,
                tuple(tensor.shape),
                _dtype(tensor),
                _unit(name, scaling),
                windows and tensor.ndim > 2 and tensor.shape[1] == n_obs_steps,
            )
            for name, tensor in tensors.items()
        ),
        noise=noise,
        output=Port("action", tuple(chunk.shape), _dtype(chunk), _unit("action", scaling)),
        scaling={name: scaling[name] for name in (*tensors, "action") if name in scaling},
        n_obs_steps=n_obs_steps,
        n_action_steps=int(getattr(config, "n_action_steps", chunk.shape[1])),
        errors={},
        num_checked=0,
        hashes={name: file_hash(draft / name) for name in files} | {"weights": weights_hash(host.policy) or ""},
        build_s=dict(written.files),
        versions={"bac": __version__, **_versions()},
    )


def _checked_card(
    card: Card, batches: Sequence[Mapping[str, Any]], wanted: Sequence[Tensor], seed: int, draft: Path
) -> Card:
    """The card with the errors of every file, written beside them."""
    card.save(draft)
    errors, bound = {}, tolerance_of(wanted[0])
    for name in card.build_s:
        errors[name] = error_of(load(draft, file=name, is_normalised=True), batches, wanted, seed)
        check_error(name, errors[name], bound)
    checked = replace(card, errors=errors, num_checked=len(batches))
    checked.save(draft)
    return checked


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _unit(name: str, scaling: Mapping[str, Any]) -> str:
    found = scaling.get(name)
    return "as the policy takes it" if found is None else f"the data set's, normalised by {found.mode}"


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@contextmanager
def _drafted(target: Path) -> Iterator[Path]:
    """Within the context, a folder beside `target` to write to; at the end it takes its place, whole."""
    draft = draft_beside(target)
    with reporting(target):
        try:
            draft.mkdir()
            yield draft
            put_folder(draft, target)
            sweep(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
