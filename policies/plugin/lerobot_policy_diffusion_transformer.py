"""LeRobot imports this module at the start of its commands; the import below registers the policy's type."""

import policies.diffusion_transformer.configuration_diffusion_transformer  # noqa: F401
