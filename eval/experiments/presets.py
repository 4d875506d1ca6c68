"""Few-step solvers fitted on one flow-matching policy, and judged on others: the presets of `bac.presets`.

``python -m eval.experiments.presets --fit CHECKPOINT DATA --judge CHECKPOINT DATA --output bac/presets`` fits times and
coefficients for every number of steps, prints a table, and writes each as an ordinary ``bac.json``. The table has the
error of actions from a fine run of the flow: with the policy's own even steps, with the preset, and with what was
fitted to that policy itself. Observations are those of demonstrations, spread over all episodes.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

import bac
import policies
from bac.adapters import find_host
from bac.fingerprint import Fingerprint
from bac.solvers import AdamsBashforth, FlowFit, FlowFitter, Multistep
from bac.version import __version__
from eval.setup.batches import Batch
from policies.demonstrations import Demonstrations

NUM_FITTED, NUM_JUDGED = 64, 128  # observations, one draw of noise each
STEPS = (2, 3, 4)
COLUMNS = ("own even steps", "own, tuned times", "preset", "fitted to it")


def observations(preprocessor: Callable[[Batch], Batch], data: Path, count: int, num_steps: int = 2) -> Batch:
    """Normalised observations of `count` control steps, evenly spread over the demonstrations, `[B, To, D]` each."""
    found = Demonstrations.load(data)
    arrays = {key: torch.from_numpy(values) for key, values in found.arrays.items()}
    last = torch.linspace(num_steps - 1, len(found.arrays["action"]) - 1, count).round().long()
    rows = last[:, None] + torch.arange(1 - num_steps, 1)
    return {key: values[rows] for key, values in preprocessor(arrays).items() if key in arrays and key != "action"}


def fitter_of(checkpoint: Path, data: Path, count: int) -> FlowFitter:
    """The fitter of a trained policy, whose reference is the fine run of its flow."""
    policy, preprocessor, _ = policies.load(checkpoint)
    batch = observations(preprocessor, data, count, policy.config.n_obs_steps)

    def run() -> None:
        policy.predict_action_chunk(batch, generator=torch.Generator().manual_seed(0))

    return FlowFitter(find_host(policy), run)


def judged(fitter: FlowFitter, preset: FlowFit) -> list[FlowFit]:
    """The ways of `COLUMNS` on a policy, at the preset's number of steps."""
    euler, num_steps = AdamsBashforth(1), len(preset.times)
    even = tuple(1 - step / num_steps for step in range(num_steps))
    assert isinstance(preset.solver, Multistep)
    return [
        fitter.at(euler, even),
        fitter.search(lambda times: fitter.at(euler, times), num_steps),
        fitter.at(preset.solver, preset.times),
        fitter.search(fitter.fit, num_steps),
    ]


def judge_on(checkpoint: Path, data: Path, presets: Sequence[tuple[FlowFit, list[str]]]) -> None:
    """Judge presets on a policy: print a row for each, and add a line to what is known of it."""
    judge = fitter_of(checkpoint, data, NUM_JUDGED)
    for preset, known in presets:
        found = judged(judge, preset)
        print(f"| {checkpoint.name} | {len(preset.times)} | {_cells(found)} |")
        known.append(f"action error on {checkpoint.name} {found[2].error:.4f}, its own even steps {found[0].error:.4f}")
    own = judge.at(AdamsBashforth(1), [1 - step / 10 for step in range(10)])
    print(f"| {checkpoint.name} | 10 | {_cells([own])} | | | |")


def _cells(fits: list[FlowFit]) -> str:
    return " | ".join(f"{fit.error:.4f} / {fit.typical_error:.4f}" for fit in fits)


def main() -> None:
    """Fit, judge and write the presets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fit", type=Path, nargs=2, required=True, metavar=("CHECKPOINT", "DATA"))
    parser.add_argument("--judge", type=Path, nargs=2, action="append", default=[], metavar=("CHECKPOINT", "DATA"))
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    fitter = fitter_of(*options.fit, NUM_FITTED)
    origin = f"fitted on {options.fit[0].name}, {NUM_FITTED} observations, to a fine run of its flow"
    presets = [(fitter.search(fitter.fit, num_steps), [origin]) for num_steps in STEPS]
    print(f"| action error, rms / typical | K | {' | '.join(COLUMNS)} |\n|---|---:|{'---|' * len(COLUMNS)}")
    for checkpoint, data in options.judge:
        judge_on(checkpoint, data, presets)
    for preset, known in presets:
        fingerprint = Fingerprint(calibration="; ".join(known), version=__version__)
        way = bac.Denoising(preset.solver, preset.times, fingerprint=fingerprint)
        way.save(options.output / f"flow-{len(preset.times)}.json")


if __name__ == "__main__":
    main()
