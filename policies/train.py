"""Train a policy on demonstrations in memory: ``python -m policies.train task=assembly-v3``.

LeRobot's trainer reads frames one by one from a dataset on disk. On a CPU that takes longer than a small network. Here
the whole dataset is a few tensors, normalised once, and a batch is an index into them. ``recipe=`` names the policy.
The checkpoint has LeRobot's format, so all programs that load checkpoints of LeRobot's trainer load it too.
"""

import sys
import traceback
from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import DictConfig
from tqdm import tqdm

from policies.demonstrations import Demonstrations, find_demonstrations
from policies.model_card import draw_training_curve, write_model_card
from policies.trainer import Trainer


def train(cfg: DictConfig, command: str = "python -m policies.train") -> Trainer:
    """Train to `cfg.steps`, writing the checkpoint every `cfg.save_every` steps and at the end.

    Args:
        cfg: `configs/train.yaml`.
        command: The command that was typed, for the model card.

    Raises:
        FileNotFoundError: There are no demonstrations, or nothing to resume.
    """
    torch.set_num_threads(cfg.num_threads)
    state = _state(cfg) if cfg.resume else {}
    recordings = [Demonstrations.load(path, pictures=cfg.pictures) for path in find_demonstrations(cfg.data)]
    trainer = Trainer(cfg, Demonstrations.join(recordings), state.get("stats"))
    if state:
        trainer.load_state_dict(state)
    losses: list[float] = []
    progress = tqdm(total=cfg.steps, initial=trainer.step, desc=cfg.task, unit="step", mininterval=2)
    with progress:
        while trainer.step < cfg.steps:
            losses.append(trainer.update())
            progress.update()
            save = trainer.step % cfg.save_every == 0 or trainer.step == cfg.steps
            if save or trainer.step % cfg.log_every == 0:
                trainer.log(losses, trainer.measure() if save else None)
                progress.set_postfix({name: trainer.rows[-1][name] for name in ("loss", "held_out_error")})
                losses.clear()
            if save:
                _save(trainer, command)
    return trainer


def _state(cfg: DictConfig) -> dict[str, Any]:
    if not Path(cfg.state).is_file():
        raise FileNotFoundError(f"{cfg.state}: nothing to resume. Begin anew with resume=false")
    state: dict[str, Any] = torch.load(cfg.state, weights_only=True)
    return state


def _save(trainer: Trainer, command: str) -> None:
    trainer.save(trainer.cfg.state, trainer.cfg.output)
    output, facts = Path(trainer.cfg.output), trainer.facts()
    draw_training_curve(output / "training_curve.png", trainer.rows, f"{facts['title']} on {trainer.cfg.task}")
    write_model_card(output, {**facts, "command": command})


@hydra.main(version_base=None, config_path="../configs", config_name="train")
def main(cfg: DictConfig) -> None:
    """Train as the configuration says."""
    try:
        train(cfg, " ".join(["python -m policies.train", *sys.argv[1:]]))
    except KeyboardInterrupt:
        kept = f"resume=true goes on from {cfg.state}" if Path(cfg.state).is_file() else "Nothing was saved yet"
        tqdm.write(f"\nstopped. {kept}; the state is written every {cfg.save_every} steps.")
        raise SystemExit(130) from None
    except (FileNotFoundError, ValueError) as error:
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        if Path(frame.f_code.co_filename).is_relative_to(Path(__file__).parent):  # what was asked for cannot be done
            raise SystemExit(str(error)) from None
        raise
    tqdm.write(f"Saved in {cfg.output}. Next: bac doctor --policy-path {cfg.output}")


if __name__ == "__main__":
    main()
