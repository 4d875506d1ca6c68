"""The one door: `bac.export`."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bac.adapters import find_host
from bac.adapters.host import Host
from bac.caching.interceptors.patch import stack_on
from bac.caching.interceptors.scope import RunScope
from bac.certificate import CERTIFICATE_NAME, Certificate
from bac.checks import why_not_replayed
from bac.denoising import Denoising
from bac.denoising import load as load_denoising
from bac.drafts import draft_beside, sweep
from bac.errors import FileError, MismatchError, RunError, UnsupportedPolicyError
from bac.exported import CARD_NAME, Card, Noise, load
from bac.exported.card import file_hash
from bac.exported.metadata import metadata
from bac.exporting.checking import check_error, chunks_of, error_of, other_observations
from bac.exporting.draws import without_draws
from bac.exporting.first_card import first_card
from bac.exporting.formats import FORMATS, check, expectation
from bac.exporting.recorded import record
from bac.exporting.statistics import copy_processors
from bac.files import probe, put_folder, reporting
from bac.plan.bounds import tolerance_of

logger = logging.getLogger(__name__)


def export(
    policy: nn.Module,
    batch: Mapping[str, Any],
    folder: str | Path,
    *,
    format: str = "pt2",
    compile: bool = True,
    checkpoint: str | Path | None = None,
    file: str | Path | None = None,
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
        folder: The folder to write. An export that is there is replaced.
        format: ``pt2``: a program of torch.export, and if `compile` the same compiled by AOTInductor for this machine.
            ``onnx``: for onnxruntime, or TensorRT.
        compile: Compile a ``pt2``, which takes a C++ compiler and minutes.
        checkpoint: The policy's folder, whose processors are copied and whose statistics the card takes over. By
            default the folder that LeRobot loaded the policy from.
        file: The bac.json that the policy follows. It is copied as it is, and a certificate beside it covers the
            export too.
        held_out: Other preprocessed observations of the same shapes, to check with; by default `batch` with noise.
        seed: Seeds the noise of the check.

    Returns:
        The card, which prints as a report.

    Raises:
        MismatchError: The policy follows something else than `file`, or the certificate is for something else.
        UnsupportedPolicyError: The policy is no module, or its sampler was not found.
        RunError: The run cannot be recorded, or the file makes other actions.
        BacError: The format is unknown, or a package or the compiler is missing.
        FileError: The folder cannot be written, or holds something else than an export.
    """
    target = Path(os.path.realpath(folder))
    check(format, compile=compile)
    _check_target(target)
    host, denoising = _checked(policy)
    certificate = None if file is None else _certificate(Path(file), denoising)
    recorded = record(host, batch)
    exact, noise = without_draws(recorded.exact, recorded.names)
    fast, _ = without_draws(recorded.fast, recorded.names)
    tensors = {name: batch[name] for name in recorded.names.values()}
    arguments = tensors | {one.name: _zeros(one, recorded.chunk) for one in noise}
    batches = list(held_out) or other_observations(batch)
    wanted = chunks_of(host, batches, seed)
    source = _checkpoint_of(policy, checkpoint)
    card = first_card(host, denoising, tensors, noise, recorded.chunk, source, format)
    logger.info(expectation(format, exact, fast, compile=compile))
    with _drafted(target) as draft:
        written = FORMATS[format](
            exact, fast, arguments, draft, compile=compile, metadata=metadata(card.inputs, noise, card.scaling)
        )
        if file is None:
            denoising.save(draft / "bac.json")
        else:
            shutil.copy(file, draft / "bac.json")
        if certificate is not None:
            hashes = {name: file_hash(draft / name) for name in written.files}
            certificate.covering(hashes).save(draft / CERTIFICATE_NAME)
        if source is not None:
            copy_processors(source, draft)
        return _checked_card(card.about(draft, written.files), batches, wanted, seed, draft)


def _check_target(target: Path) -> None:
    """Refuse to replace a folder that holds something else than an export: a policy, or somebody's thesis."""
    probe(target, folder=True)
    if target.is_dir() and any(target.iterdir()) and not (target / CARD_NAME).is_file():
        raise FileError(f"{target}: holds other things than an export, and would be replaced; name a folder of its own")


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


def _certificate(file: Path, denoising: Denoising) -> Certificate | None:
    """The certificate beside the file that the policy follows."""
    if load_denoising(file) != denoising:
        raise MismatchError(f"{file}: the policy follows {denoising.name} instead; bac.wrap(policy, bac.load(file))")
    return Certificate.beside(file)


def _zeros(noise: Noise, chunk: Tensor) -> Tensor:
    return torch.zeros(noise.shape, dtype=getattr(torch, noise.dtype), device=chunk.device)


def _checkpoint_of(policy: Any, given: str | Path | None) -> Path | None:
    """The folder with the policy's processors, if there is one."""
    path = given or getattr(getattr(policy, "config", None), "pretrained_path", None)
    return Path(path) if path is not None and Path(path).is_dir() else None


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
