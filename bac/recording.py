"""Watch a policy's blocks during whole denoising runs: features for calibration and for looking at errors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from bac.adapters import find_host
from bac.adapters.host import Host
from bac.block import Block
from bac.calibration import Accumulator, Calibration
from bac.errors import CalibrationError
from bac.patch import Interceptor, interceptors, put_on, take_off
from bac.version import __version__


class Recorder(Interceptor):
    """Keeps a copy of everything a block returns."""

    def __init__(self) -> None:
        self.outputs: list[Tensor] = []

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        output = self.original(*inputs, **options)
        feature = output[0] if isinstance(output, tuple) else output
        self.outputs.append(feature.detach().clone())
        return output


def calibrate(
    policy: nn.Module,
    batches: Iterable[Any],
    *,
    num_draws: int = 1,
    seed: int = 0,
    blocks: Sequence[Block] | None = None,
    progress: bool = True,
) -> Calibration:
    """Run an untouched policy on observations and measure how its blocks change over denoising steps.

    Streams: features of one batch are held at a time. With the same seed, batches and machine the result is the same
    bit for bit.

    Args:
        policy: As for `bac.wrap`, not wrapped, with the weights and the solver that will be run.
        batches: Observation batches, as `policy.predict_action_chunk` takes them (preprocessed, every tensor
            `[B, ...]`). Each of the B observations counts as a denoising run of its own; 16 to 64 in all are enough.
        num_draws: Noise draws per batch.
        seed: Seeds the noise of each run; the global random state is left as it was.
        blocks: The blocks to measure, where `bac` does not find them itself.
        progress: Show a progress bar.

    Raises:
        UnsupportedPolicyError: The policy's blocks or sampler were not found.
        CalibrationError: The policy is wrapped or training, `batches` is one batch, there are fewer than two
            observations, a feature is not finite, or runs differ in their number of steps.
    """
    from tqdm import tqdm

    if any(True for _ in interceptors(policy)):
        raise CalibrationError("policy: must be untouched to be calibrated; call bac.unwrap(policy) first")
    if isinstance(batches, Mapping):
        raise CalibrationError("batches: must be an iterable of observation batches, got one batch; pass [batch]")
    if num_draws < 1:
        raise CalibrationError(f"num_draws: must be at least 1, got {num_draws}")
    host = find_host(policy, blocks)
    accumulator = Accumulator(host.blocks)
    total = len(batches) * num_draws if isinstance(batches, Sized) else None
    with tqdm(total=total, desc="calibrate", unit="run", disable=not progress) as bar:
        for index, batch in enumerate(batches):
            for draw in range(num_draws):
                accumulator.add(_record(host, batch, seed + index * num_draws + draw))
                bar.update()
    calibration = accumulator.result(host.fingerprint())
    spread = calibration.similarity_std.mean()
    summary = f"{calibration.num_runs} runs, {num_draws} draws each, similarity spread {spread:.4f}"
    known = replace(calibration.fingerprint, num_steps=calibration.num_steps, calibration=summary, version=__version__)
    return replace(calibration, fingerprint=known)


def record_features(
    policy: nn.Module, batch: Any, *, seed: int = 0, blocks: Sequence[Block] | None = None
) -> dict[str, Tensor]:
    """The outputs of every block over one denoising run, of a wrapped or an untouched policy.

    Args:
        batch: One observation batch, as `policy.predict_action_chunk` takes it, every tensor `[B, ...]`.
        seed: Seeds the noise; the same seed gives a wrapped and an untouched policy the same draws.
        blocks: The blocks to record, where `bac` does not find them itself.

    Returns:
        By block name, what the layer received from the block (computed or reused), `[K, B, ...]`.

    Raises:
        CalibrationError: The policy is training, or blocks were evaluated different numbers of times.
    """
    return _record(find_host(policy, blocks), batch, seed)


def _record(host: Host, batch: Any, seed: int) -> dict[str, Tensor]:
    if host.denoiser.training:
        raise CalibrationError(
            "the policy is in training mode, where dropout blurs what is measured; call policy.eval()"
        )
    devices = {p.device for p in host.denoiser.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)), torch.no_grad(), _recorded(host.blocks) as recorders:
        torch.manual_seed(seed)
        host.reset()
        host.predict(dict(batch) if isinstance(batch, Mapping) else batch)
        host.reset()
    counts = {name: len(recorder.outputs) for name, recorder in recorders.items()}
    if len(set(counts.values())) > 1 or 0 in counts.values():
        few, many = min(counts, key=lambda n: counts[n]), max(counts, key=lambda n: counts[n])
        raise CalibrationError(
            f"{few}: evaluated {counts[few]} times in a denoising run, but {many} {counts[many]} times; only blocks "
            "evaluated at every denoising step can be cached. Name those: blocks=[bac.Block(...), ...]"
        )
    return {name: torch.stack(r.outputs).movedim(host.batch_dim + 1, 1) for name, r in recorders.items()}


@contextmanager
def _recorded(blocks: Sequence[Block]) -> Iterator[dict[str, Recorder]]:
    owners = [block.require_owner() for block in blocks]
    recorders = {block.name: Recorder() for block in blocks}
    for owner, block in zip(owners, blocks, strict=True):
        put_on(owner, block.attribute, recorders[block.name])
    try:
        yield recorders
    finally:
        for owner, block in zip(owners, blocks, strict=True):
            take_off(owner, block.attribute)
