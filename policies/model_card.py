"""The picture and the README that lie beside trained weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

CARD = """---
library_name: lerobot
pipeline_tag: robotics
license: apache-2.0
tags: [robotics, lerobot, diffusion_transformer]
---
# DP-T on {task}

A transformer Diffusion Policy (Chi et al., RSS 2023): {n_layer} layers x {n_emb}, {n_head} heads, {parameters:,}
parameters, horizon {horizon}, {n_obs_steps} observation steps, {n_action_steps} actions executed per chunk.

| | |
|---|---|
| Data | `{data}`: {num_episodes} demonstrations, {num_steps} control steps at {control_hz:g} Hz ({env}, {task}) |
| Held out | the last {num_held_out} episodes, for the action error only |
| Command | `{command}` |
| Steps | {step} of {steps} updates, batch {batch_size}, AdamW + one-cycle, peak learning rate {learning_rate:g} |
| Precision | {dtype} working weights, float32 master weights; these are the float32 exponential moving average |
| Device | {device}, {num_threads} thread(s), {minutes:.0f} minutes |
| Held-out action error | {held_out_error:.4f} (mean absolute, normalised to [-1, 1], DDIM-10) |
| Dense result | see `results/` |

```python
import policies

policy, preprocessor, postprocessor = policies.load("policies/checkpoints/{task}")
```

![training curve](training_curve.png)
"""


def write_model_card(path: str | Path, facts: Mapping[str, object]) -> None:
    """Write the README of a checkpoint folder.

    Args:
        path: The checkpoint folder.
        facts: A value for every name in `CARD`.
    """
    (Path(path) / "README.md").write_text(CARD.format_map(facts))


def draw_training_curve(path: str | Path, rows: Sequence[Mapping[str, float]], title: str) -> None:
    """Draw loss and held-out action error over the updates.

    Args:
        path: PNG to write.
        rows: Have "step" and "loss", some also "held_out_error".
        title: Above the picture.
    """
    figure, axis = plt.subplots(figsize=(6, 3.5), dpi=110)
    axis.plot([r["step"] for r in rows], [r["loss"] for r in rows], label="training loss (noise, MSE)")
    measured = [r for r in rows if r.get("held_out_error") is not None]
    axis.plot(
        [r["step"] for r in measured],
        [r["held_out_error"] for r in measured],
        "o-",
        label="held-out action error (L1)",
    )
    axis.set(yscale="log", xlabel="updates", title=title)
    axis.legend()
    axis.grid(alpha=0.3, which="both")
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
