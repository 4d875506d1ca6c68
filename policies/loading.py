"""Load a LeRobot checkpoint folder: the policy, and the processors that it was trained with."""

import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from lerobot.policies.pretrained import PreTrainedPolicy
    from lerobot.processor import PolicyProcessorPipeline


class LoadedPolicy(NamedTuple):
    """A policy ready to run.

    Args:
        policy: The policy in evaluation mode, on its device.
        preprocessor: Turns observations of the world into normalised batches.
        postprocessor: Turns normalised actions into actions in the world's units, on the CPU.
    """

    policy: "PreTrainedPolicy"
    preprocessor: "PolicyProcessorPipeline"
    postprocessor: "PolicyProcessorPipeline"


def load(
    path: str | Path,
    *,
    solver: str | None = None,
    num_inference_steps: int | None = None,
    device: str = "cpu",
) -> LoadedPolicy:
    """Load a DP-T checkpoint.

    Args:
        path: Folder written by LeRobot's trainer, `policies.train` or `policies.convert`.
        solver: "DDPM", "DDIM" or "DPM-Solver++"; `None` keeps the checkpoint's.
        num_inference_steps: Denoising steps per run (K); `None` keeps the checkpoint's.
        device: Device that the policy runs on, such as "cuda".

    Raises:
        FileNotFoundError: `path` holds no checkpoint.
        ValueError: The policy is not DP-T, or the solver cannot make that many steps.
    """
    path = Path(path)
    if not (path / "config.json").is_file():
        raise FileNotFoundError(
            f"{path}: no checkpoint here (config.json is missing). Train one: python -m policies.train task={path.name}"
        )
    # These imports take seconds, so `import policies` avoids them.
    from lerobot.configs import PreTrainedConfig

    from policies.diffusion_transformer.modeling_diffusion_transformer import DiffusionTransformerPolicy

    config = PreTrainedConfig.from_pretrained(path, local_files_only=True)
    if not isinstance(config, DiffusionTransformerPolicy.config_class):
        raise ValueError(f"{path}: this is a {config.type!r} checkpoint; policies.load reads 'diffusion_transformer'")
    config.device = device
    with redirect_stdout(io.StringIO()):  # LeRobot prints a line that says nothing to a user
        policy = DiffusionTransformerPolicy.from_pretrained(path, config=config, local_files_only=True, strict=True)
    if solver is not None or num_inference_steps is not None:
        steps = num_inference_steps or policy.diffusion.num_inference_steps
        policy.diffusion.use_solver(solver or config.noise_scheduler_type, steps)
    return LoadedPolicy(policy.eval(), *_load_processors(path, device))


def _load_processors(path: Path, device: str) -> tuple["PolicyProcessorPipeline", "PolicyProcessorPipeline"]:
    from lerobot.processor import PolicyProcessorPipeline
    from lerobot.processor.converters import policy_action_to_transition, transition_to_policy_action

    preprocessor = PolicyProcessorPipeline.from_pretrained(
        path,
        config_filename="policy_preprocessor.json",
        overrides={"device_processor": {"device": device}},
        local_files_only=True,
    )
    postprocessor = PolicyProcessorPipeline.from_pretrained(
        path,
        config_filename="policy_postprocessor.json",
        to_transition=policy_action_to_transition,
        to_output=transition_to_policy_action,
        local_files_only=True,
    )
    return preprocessor, postprocessor
