"""Load a LeRobot checkpoint folder: the policy, and the processors that it was trained with."""

import importlib
import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from lerobot.policies.pretrained import PreTrainedPolicy
    from lerobot.processor import PolicyProcessorPipeline

CLASSES = {
    "diffusion_transformer": "policies.diffusion_transformer.modeling_diffusion_transformer:DiffusionTransformerPolicy",
    "small_diffusion": "policies.small_diffusion.modeling_small_diffusion:SmallDiffusionPolicy",
    "small_multi_task_dit": "policies.small_multi_task_dit.modeling_small_multi_task_dit:SmallMultiTaskDiTPolicy",
    "small_pi0": "policies.small_pi0.modeling_small_pi0:SmallPI0Policy",
    "smolvla": "lerobot.policies.smolvla.modeling_smolvla:SmolVLAPolicy",
}
EULER = "FlowMatchEuler"
STEPS = {  # flows, which take Euler's method only: how they are called, and the option with their number of steps
    CLASSES["small_multi_task_dit"]: ("a flow of Multi-Task DiT", "num_integration_steps"),
    CLASSES["small_pi0"]: ("pi0", "num_inference_steps"),
    CLASSES["smolvla"]: ("SmolVLA", "num_steps"),
}


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
    """Load a checkpoint: of DP-T, or of another policy that `policies.train` trains.

    Args:
        path: Folder written by LeRobot's trainer, `policies.train` or `policies.convert`.
        solver: "DDPM", "DDIM" or "DPM-Solver++", but not of a flow; `None` keeps the checkpoint's.
        num_inference_steps: Denoising steps per run (K); `None` keeps the checkpoint's.
        device: Device that the policy runs on, such as "cuda".

    Raises:
        FileNotFoundError: `path` holds no checkpoint.
        ValueError: The policy is another one or takes no solver, or the solver cannot make that many steps.
    """
    path = Path(path)
    if not (path / "config.json").is_file():
        raise FileNotFoundError(
            f"{path}: no checkpoint here (config.json is missing). Train one: python -m policies.train "
            f"task={path.name}, with recipe= if it sees; docs/train.md has the lines"
        )
    kind = json.loads((path / "config.json").read_text()).get("type")
    if kind not in CLASSES:
        raise ValueError(f"{path}: this is a {kind!r} checkpoint; policies.load reads {', '.join(CLASSES)}")
    # These imports take seconds, so `import policies` avoids them. The class registers its configuration.
    module, _, name = CLASSES[kind].partition(":")
    policy_class: Any = getattr(importlib.import_module(module), name)
    from lerobot.configs import PreTrainedConfig

    config: Any = PreTrainedConfig.from_pretrained(path, local_files_only=True)
    config.device = device
    overrides = {"device_processor": {"device": device}}
    if kind == "smolvla":  # the sizes and the words of its language model lie in the checkpoint, wherever that lies
        config.vlm_model_name = str(path / "vlm")
        overrides["tokenizer_processor"] = {"tokenizer_name": config.vlm_model_name}
    with redirect_stdout(io.StringIO()):  # LeRobot prints lines that say nothing to a user
        policy = policy_class.from_pretrained(path, config=config, local_files_only=True, strict=True)
    if solver is not None or num_inference_steps is not None:
        set_steps(policy, num_inference_steps, solver)
    return LoadedPolicy(policy.eval(), *_load_processors(path, overrides))


def set_steps(policy: "PreTrainedPolicy", num_steps: int | None, solver: str | None = None, **options: Any) -> None:
    """Set the policy's own number of denoising steps, and its solver if it has several.

    Args:
        policy: A policy that `load` returned.
        num_steps: Denoising steps K; `None` keeps them.
        solver: Name of a solver; `None` keeps the policy's. pi0 and SmolVLA have Euler's method only, like
            any other flow.
        options: ``timestep_spacing``, and further options of DP-T's `use_solver`.

    Raises:
        ValueError: The policy has no such solver.
    """
    any_policy: Any = policy
    config = any_policy.config
    kind = f"{type(policy).__module__}:{type(policy).__name__}"
    if kind in STEPS and getattr(config, "objective", "flow_matching") == "flow_matching":
        name, option = STEPS[kind]
        if solver not in (None, EULER):
            raise ValueError(f"solver={solver}: {name} takes Euler steps of its flow only, {EULER}")
        setattr(config, option, num_steps or getattr(config, option))
        return
    sampler = any_policy.objective if kind == CLASSES["small_multi_task_dit"] else any_policy.diffusion
    if kind in (CLASSES["small_diffusion"], CLASSES["small_multi_task_dit"]):
        _use_solver(sampler, solver or config.noise_scheduler_type, num_steps or sampler.num_inference_steps, **options)
        return
    sampler.use_solver(solver or config.noise_scheduler_type, num_steps or sampler.num_inference_steps, **options)


def _use_solver(sampler: Any, solver: str, num_steps: int, timestep_spacing: str | None = None) -> None:
    """Put a noise scheduler on LeRobot's own sampler, which sets its timesteps anew in every run."""
    from policies.diffusion_transformer.solvers import make_noise_scheduler, set_timesteps

    noise_scheduler = make_noise_scheduler(sampler.config, solver, timestep_spacing)
    set_timesteps(noise_scheduler, num_steps)
    sampler.noise_scheduler, sampler.num_inference_steps = noise_scheduler, num_steps


def _load_processors(
    path: Path, overrides: dict[str, dict[str, Any]]
) -> tuple["PolicyProcessorPipeline", "PolicyProcessorPipeline"]:
    from lerobot.processor import PolicyProcessorPipeline
    from lerobot.processor.converters import policy_action_to_transition, transition_to_policy_action

    preprocessor = PolicyProcessorPipeline.from_pretrained(
        path,
        config_filename="policy_preprocessor.json",
        overrides=overrides,
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
