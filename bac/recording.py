"""Records the outputs of a policy's blocks over whole denoising runs, for calibration and for error analysis."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from bac.adapters import find_host
from bac.adapters.host import Host
from bac.caching.block import Block
from bac.caching.calibration import Accumulator, Calibration
from bac.caching.interceptors.patch import Interceptor, put_on, require_untouched, take_off
from bac.caching.interceptors.run import DenoisingRun
from bac.caching.interceptors.scope import Gate, NamedContexts
from bac.errors import CalibrationError
from bac.version import __version__


class Recorder(Interceptor):
    """Keeps a copy of everything a block returns while the gate is open.

    Attributes:
        outputs: The block's outputs, in order of evaluation.
        contexts: The context of each output; None where the policy names none.
    """

    def __init__(self, gate: Gate | None = None, run: DenoisingRun | None = None) -> None:
        self.gate = gate
        self.run = run
        self.outputs: list[Tensor] = []
        self.contexts: list[int | None] = []

    def clear(self) -> None:
        """Forget the run."""
        self.outputs.clear()
        self.contexts.clear()

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        output = self.original(*inputs, **options)
        if self.gate is not None and not self.gate.is_open:
            return output
        feature = output[0] if isinstance(output, tuple) and output else output
        if not isinstance(feature, Tensor):
            raise CalibrationError(
                f"a block returns {type(output).__name__}, whose change cannot be measured; name blocks that return a "
                "tensor, or a tuple that begins with one"
            )
        self.outputs.append(feature.detach().clone())  # the policy may write into its output later
        self.contexts.append(None if self.run is None else self.run.context)
        return output


def calibrate(
    policy: object,
    batches: Iterable[Any],
    *,
    num_draws: int = 1,
    seed: int = 0,
    blocks: Sequence[Block] | None = None,
    progress: bool = True,
) -> Calibration:
    """Run an untouched policy on observations and measure how its blocks change over denoising steps.

    Memory holds the features of one batch at a time. The same seed, batches and machine give the same result, bit for
    bit.

    Args:
        policy: An untouched policy, as for `bac.wrap`, with the weights and the solver that will be run.
        batches: Observation batches, as `policy.predict_action_chunk` takes them (preprocessed, every tensor
            `[B, ...]`). Each of the B observations counts as a denoising run of its own; 16 to 64 in all are enough.
            For a pipeline, dictionaries of the arguments of its call.
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

    require_untouched(policy)
    if isinstance(batches, Mapping):  # one batch is iterable too, over its names
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
    return _summarised(accumulator, host, f"{num_draws} draws each")


class Watch:
    """Statistics of the denoising runs seen so far.

    Attributes:
        num_chunks: Calls of the sampler.
        num_runs: Denoising runs: one for each observation of a call.
    """

    def __init__(self, host: Host) -> None:
        self.num_chunks = self.num_runs = 0
        self._host = host
        self._accumulator = Accumulator(host.blocks)

    def add(self, features: Mapping[str, Tensor]) -> None:
        """Take in the features of one call of the sampler, by block `[K, B, ...]`."""
        self._accumulator.add(features)
        self.num_chunks += 1
        self.num_runs += next(iter(features.values())).shape[1]

    def calibration(self) -> Calibration:
        """Statistics of the runs seen.

        Raises:
            CalibrationError: Fewer than two runs were seen.
        """
        return _summarised(self._accumulator, self._host, "as they came")


class Watcher(Interceptor):
    """Intercepts a sampler and hands over the blocks' outputs of each run."""

    def __init__(self, watch: Watch, host: Host, recorders: Mapping[str, Recorder]) -> None:
        self.watch = watch
        self.host = host
        self.recorders = recorders

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        for recorder in self.recorders.values():
            recorder.clear()
        output = self.original(*inputs, **options)
        self.watch.add(_features(self.recorders, self.host))
        return output


@contextmanager
def watching(policy: object, *, blocks: Sequence[Block] | None = None) -> Iterator[Watch]:
    """Measure an untouched policy while something else runs it: an environment, a benchmark, a recorded episode.

    Every run takes more memory and time, so no robot should move meanwhile.

    Args:
        policy: As for `calibrate`.
        blocks: The blocks to measure, where `bac` does not find them itself.

    Raises:
        UnsupportedPolicyError: The policy's blocks or sampler were not found.
        CalibrationError: The policy is wrapped.
    """
    require_untouched(policy)
    host = find_host(policy, blocks)
    watch = Watch(host)
    with _recorded(host) as recorders:
        put_on(host.sampler_owner, host.sampler_attribute, Watcher(watch, host, recorders))
        try:
            yield watch
        finally:
            take_off(host.sampler_owner, host.sampler_attribute)


def record_features(
    policy: object, batch: Any, *, seed: int = 0, blocks: Sequence[Block] | None = None
) -> dict[str, Tensor]:
    """Record the outputs of every block over one denoising run of a wrapped or an untouched policy.

    Args:
        batch: One observation batch, as `policy.predict_action_chunk` takes it, every tensor `[B, ...]`.
        seed: Seeds the noise; the same seed gives a wrapped and an untouched policy the same draws.
        blocks: The blocks to record, where `bac` does not find them itself.

    Returns:
        Block name to the outputs that the layer received, computed or reused, `[K, B, ...]`.

    Raises:
        CalibrationError: The policy is training, or blocks were evaluated different numbers of times.
    """
    return _record(find_host(policy, blocks), batch, seed)


def _record(host: Host, batch: Any, seed: int) -> dict[str, Tensor]:
    if host.denoiser.training:
        raise CalibrationError(
            "the policy is in training mode, where dropout blurs the measurement; call policy.eval()"
        )
    with _recorded(host) as recorders:
        host.predict_seeded(batch, seed)
        return _features(recorders, host)


def _features(recorders: Mapping[str, Recorder], host: Host) -> dict[str, Tensor]:
    counts = {name: len(recorder.outputs) for name, recorder in recorders.items()}
    if not any(counts.values()):
        raise CalibrationError(
            f"{next(iter(counts))}: none of the {len(counts)} blocks was evaluated in a denoising run: another path "
            "computes them. If it is PyTorch's fused one: torch.backends.mha.set_fastpath_enabled(False). "
            "Otherwise name the modules that are called: blocks=[bac.Block(...), ...]"
        )
    if len(set(counts.values())) > 1:
        few, many = min(counts, key=lambda n: counts[n]), max(counts, key=lambda n: counts[n])
        raise CalibrationError(
            f"{few}: evaluated {counts[few]} times in a denoising run, but {many} {counts[many]} times; only blocks "
            "evaluated at every denoising step can be cached. Name those: blocks=[bac.Block(...), ...]"
        )
    return {name: _contexts_side_by_side(recorder, host) for name, recorder in recorders.items()}


def _contexts_side_by_side(recorder: Recorder, host: Host) -> Tensor:
    """Features `[K, B, ...]`; each context of guidance counts as samples of its own."""
    kept = list(zip(recorder.contexts, recorder.outputs, strict=True))
    contexts = [[output for its, output in kept if its == context] for context in dict.fromkeys(recorder.contexts)]
    if len(set(map(len, contexts))) > 1:
        raise CalibrationError(
            f"the contexts of a run were evaluated {' and '.join(str(len(outputs)) for outputs in contexts)} times; "
            "calibrate with guidance at all steps or at none"
        )
    return torch.cat([_side_by_side(outputs, host) for outputs in contexts], dim=1)


def _side_by_side(outputs: Sequence[Tensor], host: Host) -> Tensor:
    """Features `[K, B, ...]`. If a policy makes one run for each sample of a batch, the runs become samples."""
    steps = host.num_steps or len(outputs)
    num_steps = steps if len(outputs) % steps == 0 else len(outputs)
    features = torch.stack(list(outputs)).movedim(host.batch_dim + 1, 1)
    return features.reshape(-1, num_steps, *features.shape[1:]).transpose(0, 1).flatten(1, 2)


@contextmanager
def _recorded(host: Host) -> Iterator[dict[str, Recorder]]:
    gate = None if host.evaluation is None else Gate(host.evaluation.applies)
    run = DenoisingRun((), 1)  # never begun; it only tracks the current context
    recorders = {block.name: Recorder(gate, run) for block in host.blocks}
    places: list[tuple[nn.Module, str]] = []
    try:
        if host.contexts is not None:
            put_on(host.contexts.owner, host.contexts.attribute, NamedContexts(run))
            places.append((host.contexts.owner, host.contexts.attribute))
        for block in host.blocks:
            put_on(block.require_owner(), block.attribute, recorders[block.name])
            places.append((block.require_owner(), block.attribute))
        if host.evaluation is not None and gate is not None:
            put_on(host.evaluation.owner, host.evaluation.attribute, gate)
            places.append((host.evaluation.owner, host.evaluation.attribute))
        yield recorders
    finally:
        for owner, attribute in reversed(places):
            take_off(owner, attribute)


def _summarised(accumulator: Accumulator, host: Host, draws: str) -> Calibration:
    calibration = accumulator.result(host.fingerprint())
    spread = calibration.similarity_std.mean()
    summary = f"{calibration.num_runs} runs, {draws}, similarity spread {spread:.4f}"
    known = replace(calibration.fingerprint, num_steps=calibration.num_steps, calibration=summary, version=__version__)
    return replace(calibration, fingerprint=known)
