"""``python -m eval.experiments.ancestral policy=hammer`` compares ways to fit an ancestral solver, on one policy."""

from pathlib import Path
from typing import Any

import hydra
import torch
from tqdm import tqdm

import bac
from bac.files import write_text
from bac.tuning.bench import JUDGING_DRAWS, Bench
from bac.tuning.distance import bootstrap, distance, energy_distances
from eval.compared.comparison import Comparison
from eval.experiments.ancestral.variants import dense_runs, variants
from eval.experiments.reference.experiment import Reference
from eval.experiments.reference.rows import late
from eval.setup.config import CONFIGS, log_to_terminal, settings_of

APART = 50_000_017  # between the seeds of the policy's own chunks and of the variants'


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="eval")
def main(config: Any) -> None:
    """Fit, draw, compare, and write one policy's table."""
    log_to_terminal()
    torch.set_num_threads(1)
    reference = Reference(Comparison(settings_of(config)), config.reference)
    lines = [
        "| way | steps | energy distance [95 %] | minus fitted ancestral [95 %] | spread |",
        "|---|---:|---|---|---:|",
        *table(reference.bench, config.reference.steps),
    ]
    folder = Path(config.reference.results)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "variants.md", "\n".join(lines) + "\n")
    print("\n".join(lines))


def table(bench: Bench, steps: list[int]) -> list[str]:
    """Rows of Markdown: every variant at every number of steps, at late timesteps."""
    own = bench.draws(bench.dense, "held out", JUDGING_DRAWS, APART)
    runs, lines = dense_runs(bench), []
    for count in tqdm(steps, desc="steps"):
        timesteps = tuple(bench.grid[place] for place in late(count, bench.num_steps))
        baseline = None
        for name, solver in variants(bench, runs, timesteps):
            chunks = bench.draws(bac.Denoising(solver, timesteps), "held out", JUDGING_DRAWS)
            found, each = distance(chunks, own), energy_distances(chunks, own)
            baseline = each if baseline is None else baseline
            low, high = bootstrap(each - baseline)
            less = "" if each is baseline else f"{float((each - baseline).mean()):+.4f} [{low:+.4f}, {high:+.4f}]"
            lines.append(
                f"| {name} | {count} | {found.value:.4f} [{found.low:.4f}, {found.high:.4f}] | {less} | "
                f"{found.spread:.2f} |"
            )
    return lines


if __name__ == "__main__":
    main()
