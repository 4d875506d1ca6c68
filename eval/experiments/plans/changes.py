"""Changes of a policy that a plan must notice, each made from a number, so that it differs from time to time."""

from contextlib import suppress
from functools import partial

import torch
from torch import Tensor, nn

from eval.experiments.plans.policy import SmallPolicy


def load(policy: SmallPolicy, number: int) -> None:
    """Load other weights."""
    source = torch.Generator().manual_seed(number)
    state = policy.state_dict()
    noise = {name: torch.randn(value.shape, generator=source).to(value) for name, value in state.items()}
    policy.load_state_dict({name: value + 0.05 * noise[name] for name, value in state.items()})


def write(policy: SmallPolicy, number: int) -> None:
    """Write into a weight, as an optimizer does."""
    with torch.no_grad():
        policy.head.weight.mul_(1 + 0.01 * number)


def write_through_data(policy: SmallPolicy, number: int) -> None:
    """Write into half of a weight, past PyTorch's count of writes."""
    policy.condition.weight.data[:6] *= 1 - 0.01 * number


def replace_parameter(policy: SmallPolicy, number: int) -> None:
    """Put another parameter in its place."""
    policy.embed.bias = nn.Parameter(policy.embed.bias.detach() + 0.01 * number, requires_grad=False)


def swap_layers(policy: SmallPolicy, number: int) -> None:
    """Give the first layer the second one's norm."""
    policy.layers[0].norm1 = policy.layers[1].norm1


def set_forward(policy: SmallPolicy, number: int) -> None:
    """Set a module's `forward` on the instance."""
    policy.head.forward = partial(_scaled, policy.head, 1 + 0.1 * number)


def unset_forward(policy: SmallPolicy, number: int) -> None:
    """Take it off again."""
    with suppress(AttributeError):
        del policy.head.forward


def disable_adapters(policy: SmallPolicy, number: int) -> None:
    """Switch all adapters off or on."""
    policy.adapted._disable_adapters = number % 2 == 0


def switch_adapter(policy: SmallPolicy, number: int) -> None:
    """Activate one adapter, the other, or both."""
    policy.adapted._active_adapter = [["one"], ["two"], ["one", "two"]][number % 3]


def scale_adapter(policy: SmallPolicy, number: int) -> None:
    """Scale an adapter."""
    policy.adapted.scaling["two" if number % 2 else "one"] = 0.2 * number


def set_private(policy: SmallPolicy, number: int) -> None:
    """Set a private attribute that the sampler reads."""
    policy._gain = 1 + 0.1 * number


def set_item(policy: SmallPolicy, number: int) -> None:
    """Set an item of a dictionary, and one of a list within it."""
    policy.config["step"] = 0.05 * (1 + number)
    policy.config["noise"][0] = 0.001 * number


def set_class_attribute(policy: SmallPolicy, number: int) -> None:
    """Give a class, which both policies share, another `forward`."""
    nn.LayerNorm.forward = _shrunk if number % 2 else _NORM  # type: ignore[method-assign]


def double(policy: SmallPolicy, number: int) -> None:
    """Go to float64 or back."""
    policy.to(torch.float64 if policy.head.weight.dtype == torch.float32 else torch.float32)


def hook(policy: SmallPolicy, number: int) -> None:
    """Add a hook that changes an output, or remove all."""
    if policy.embed._forward_hooks:
        policy.embed._forward_hooks.clear()
    else:
        policy.embed.register_forward_hook(_halve)


CHANGES = {
    change.__name__.replace("_", " "): change
    for change in (
        load, write, write_through_data, replace_parameter, swap_layers, set_forward, unset_forward, disable_adapters,
        switch_adapter, scale_adapter, set_private, set_item, set_class_attribute, double, hook,
    )
}  # fmt: skip

_NORM = nn.LayerNorm.forward


def _scaled(layer: nn.Linear, factor: float, x: Tensor) -> Tensor:
    return factor * nn.functional.linear(x, layer.weight, layer.bias)


def _shrunk(self: nn.LayerNorm, x: Tensor) -> Tensor:
    return 0.9 * _NORM(self, x)


def _halve(_: nn.Module, __: object, output: Tensor) -> Tensor:
    return 0.5 * output
