"""``python -m eval.experiments.lerobot model=smolvla`` writes ``<model>.json`` and ``<model>.md``.

``preset=gpu`` measures full sizes on a GPU instead; see `eval.experiments.lerobot.gpu`.
"""

import logging
from pathlib import Path
from typing import Any

import hydra
import torch

from bac.files import write_text
from eval.experiments.lerobot.experiment import RowMaker, speed_rows, table
from eval.experiments.lerobot.gpu import measure_all
from eval.experiments.lerobot.real_sizes import POLICIES
from eval.measure.latency import measure
from eval.setup.config import CONFIGS, log_to_terminal
from eval.setup.files import write_json
from eval.setup.provenance import provenance

logger = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="lerobot")
def main(config: Any) -> None:
    """Measure one policy and write its table."""
    log_to_terminal()
    torch.set_num_threads(1)
    if config.preset == "gpu":
        device = config.device or ("cpu" if config.sizes == "tiny" else "cuda")
        return measure_all(list(config.models), device, Path(config.output), sizes=config.sizes)
    if config.preset != "cpu":
        raise SystemExit(f"preset: must be cpu or gpu, got {config.preset}")
    if config.model not in POLICIES:
        raise SystemExit(f"model: must be one of {', '.join(POLICIES)}, got {config.model}")
    device = config.device or "cpu"
    maker = RowMaker(config.model, device, config.num_steps)
    rows = speed_rows(maker)
    latencies = measure({name: row.call for name, row in rows.items()}, rounds=config.rounds)
    lines, made = list(table(rows, latencies)), provenance()
    for line in lines:
        logger.info(line)
    about = (
        f"`{made['command']}`: {config.model}, {maker.num_parameters / 1e6:.0f} M parameters, K = {maker.num_steps}, "
        f"{len(maker.calibration.blocks)} blocks, {device}, float32, batch 1, one thread of {made['device']}; "
        f"medians of {config.rounds} interleaved rounds, {latencies['dense'].clock} clock."
    )
    folder = Path(config.output)
    record = {name: {**latency.to_dict(), "share": rows[name].share} for name, latency in latencies.items()}
    write_json(folder / f"{config.model}.json", {"rows": record, "made": made})
    write_text(folder / f"{config.model}.md", "\n".join([about, "", *lines, ""]))


if __name__ == "__main__":
    main()
