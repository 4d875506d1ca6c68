"""The card of an export, as far as it is known before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from torch import Tensor

from bac.adapters.host import Host, dotted_name
from bac.denoising import Denoising
from bac.exported import Card, Noise, Port, Scaling
from bac.exporting.statistics import scalings
from bac.fingerprint import weights_hash
from bac.version import __version__

_PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime")


def first_card(
    host: Host,
    denoising: Denoising,
    tensors: Mapping[str, Tensor],
    noise: tuple[Noise, ...],
    chunk: Tensor,
    checkpoint: Path | None,
    format: str,
) -> Card:
    """The card without files, hashes of them, and errors.

    Args:
        host: The policy.
        denoising: What stands on it.
        tensors: The observations that the program takes, by name.
        noise: The draws that it takes.
        chunk: A chunk of the policy.
        checkpoint: Folder with its processors, if there is one.
        format: Name of the format.
    """
    config = getattr(host.policy, "config", None)
    scaling = {} if checkpoint is None else scalings(checkpoint)
    n_obs_steps = int(getattr(config, "n_obs_steps", 1))
    has_windows = getattr(config, "observation_delta_indices", None) is not None

    def port(name: str, tensor: Tensor) -> Port:
        window = has_windows and tensor.ndim > 2 and tensor.shape[1] == n_obs_steps
        return Port(name, tuple(tensor.shape), _dtype(tensor), _unit(scaling.get(name)), window)

    return Card(
        format=format,
        policy=dotted_name(type(host.policy)),
        denoising=denoising.name,
        device=chunk.device.type,
        inputs=tuple(port(name, tensor) for name, tensor in tensors.items()),
        noise=noise,
        output=Port("action", tuple(chunk.shape), _dtype(chunk), _unit(scaling.get("action"))),
        scaling={name: scaling[name] for name in (*tensors, "action") if name in scaling},
        n_obs_steps=n_obs_steps,
        n_action_steps=int(getattr(config, "n_action_steps", chunk.shape[1])),
        errors={},
        num_checked=0,
        hashes={"weights": weights_hash(host.policy) or ""},
        build_s={},
        versions={"bac": __version__, **_versions()},
    )


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _unit(scaling: Scaling | None) -> str:
    return "as the policy takes it" if scaling is None else f"the data set's, normalised by {scaling.mode}"


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
