"""LeRobot imports this module at the start of its commands.

The imports below register the types of the policies and of the worlds of this repository.
"""

# isort: off
import policies.diffusion_transformer.configuration_diffusion_transformer
import policies.small_diffusion.configuration_small_diffusion
import policies.small_multi_task_dit.configuration_small_multi_task_dit
import policies.small_pi0.configuration_small_pi0  # noqa: F401
import envs.for_lerobot  # noqa: F401  last: where it cannot be imported, the policies are registered already
