"""The README and the training curve beside trained weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

CARD = """---
library_name: lerobot
pipeline_tag: robotics
license: apache-2.0
tags: [robotics, lerobot, {tags}]
---
# {title} on {name}

{sizes}

| | |
|---|---|
| Data | `{data}`: {num_episodes} demonstrations, {num_rows} control steps at {control_hz:g} Hz ({env}, {task}) |
| Held out | the last episodes of every recording, {num_held_out} in all, for the action error only |
| Command | `{command}` |
| Steps | {step} of {steps} updates, batch {batch_size}, AdamW + one-cycle, peak learning rate {learning_rate:g} |
| Precision | {dtype} working weights, float32 masters; these are their moving average in {saved_dtype} |
| Device | {device}, {num_threads} thread(s), {minutes:.0f} minutes |
| Held-out action error | {held_out_error:.4f} (mean absolute, in normalised units, {measured_with}) |
| Dense result | see `results/` |

```python
import policies

policy, preprocessor, postprocessor = policies.load("{output}")
```

With LeRobot's own command, from the folder of this repository{which}:

```bash
{evaluating}
```

![training curve](training_curve.png)
"""


def write_model_card(path: str | Path, facts: Mapping[str, object]) -> None:
    """Write the README of a checkpoint folder.

    Args:
        path: The checkpoint folder.
        facts: A value for every name in `CARD` and in its ``sizes``, but for ``which`` and ``evaluating``, which are
            made here of ``pixels``, the size of the pictures that the policy sees or None, and ``wrist``, whether it
            sees those of the wrist.
    """
    several = "," in str(facts["task"])
    filled = {
        "sizes": str(facts["sizes"]).format_map(facts),
        "which": "; TASK is one of the tasks above" if several else "",
        "evaluating": evaluating(facts, "TASK" if several else str(facts["task"])),
    }
    (Path(path) / "README.md").write_text(CARD.format_map({**facts, **filled}))


def evaluating(facts: Mapping[str, object], task: str) -> str:
    """The line that plays a policy under LeRobot's ``lerobot-eval``, in a world of `envs.for_lerobot`."""
    seen = "" if facts["pixels"] is None else f" --env.pixels={facts['pixels']}"
    seen += " --env.wrist=true" if facts["wrist"] else ""
    return (
        f"lerobot-eval --policy.path={facts['output']} --env.type=bac_{facts['env']} --env.task={task}{seen} \\\n"
        "    --eval.n_episodes=10 --eval.batch_size=1"
    )


def draw_training_curve(path: str | Path, rows: Sequence[Mapping[str, float | None]], title: str) -> None:
    """Draw loss and held-out action error over the updates.

    Args:
        path: PNG to write.
        rows: Each has "step", "loss" and "held_out_error", which may be `None`.
        title: Title of the picture.
    """
    figure = Figure(figsize=(6, 3.5), dpi=110, layout="tight")
    axis = figure.subplots()
    axis.plot([row["step"] for row in rows], [row["loss"] for row in rows], label="training loss (MSE)")
    measured = [row for row in rows if row["held_out_error"] is not None]
    errors = [row["held_out_error"] for row in measured]
    axis.plot([row["step"] for row in measured], errors, "o-", label="held-out action error (L1)")
    axis.set(yscale="log", xlabel="updates", title=title)
    axis.legend()
    axis.grid(alpha=0.3, which="both")
    figure.savefig(path)
