"""LeRobot's own policies as files, beside their replay: ``python -m tests.lerobot.export_rows``.

Prints the rows of results/export. The policies are those of the tests: small, with random weights, vision and language
inside. Errors come from a process that can import neither LeRobot nor diffusers; latencies are taken in turns.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import bac
from bac.adapters import find_host
from eval.measure.latency import measure
from eval.play.exported import REPLAY, open_files
from tests.apart import Asked, chunks_apart
from tests.lerobot.test_export import POLICIES

ROUNDS, SEEDS = 100, range(3)


def rows(name: str, folder: Path) -> list[str]:
    """Export a policy to ``program.pt2`` and ``policy.onnx``, and compare both with its replay."""
    policy, batch = (make() for make in POLICIES[name])
    folders = {format: folder / f"{name}-{format}" for format in ("pt2", "onnx")}
    cards = {format: bac.export(policy, batch, path, format=format, compile=False) for format, path in folders.items()}
    wanted = torch.stack([find_host(policy).predict_seeded(batch, seed) for seed in SEEDS])
    files = {file: one for path in folders.values() for file, one in open_files(path, is_normalised=True).items()}
    replayed = bac.wrap(POLICIES[name][0](), None, replay=REPLAY)
    cells = {made: call_of(one, batch) for made, one in {"replay": replayed, **files}.items()}
    times = measure(cells, rounds=ROUNDS, warmup=3, progress=False)
    lines = [f"| {name} | replay | | | | {times['replay'].p50_ms:.2f} | 1.00 |"]
    for format, path in folders.items():
        for file, built_s in cards[format].build_s.items():
            found = torch.stack(chunks_apart(*(Asked(path, file, batch, seed) for seed in SEEDS)))
            error = float((found - wanted).abs().max() / wanted.abs().max())
            size = f"{(path / file).stat().st_size / 1e6:.1f} | {built_s:.0f} | {error:.1e}"
            lines.append(f"| {name} | {file} | {size} | {times[file].p50_ms:.2f} | {times[file].speedup:.2f} |")
    return [*lines, f"  ({times['replay'].clock} times)"]


def call_of(policy: Any, batch: Any) -> Callable[[], Any]:
    """A call that makes one chunk, as `measure` takes it."""

    def call() -> Any:
        with torch.inference_mode():
            return policy.predict_action_chunk(dict(batch))

    return call


def main() -> None:
    """Print the rows of every policy."""
    torch.set_num_threads(1)
    sys.stdout.write(
        "| policy | file | MB | built in s | error | p50 ms | x of replay |\n|---|---|---|---|---|---|---|\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        for name in POLICIES:
            sys.stdout.write("\n".join(rows(name, Path(folder))) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
