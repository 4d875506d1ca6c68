"""``python -m eval.experiments.plans.guard_cost before=REVISION output=FILE.json``: what it costs to notice changes.

Before every replay a plan asks whether the policy is still the recorded one. The question is timed right after a chunk,
when the caches are as cold as in use, and divided by the time of that chunk. With `before`, the check of another
revision of this repository is timed in the same rounds, after a chunk of its own.
"""

import inspect
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

import bac
import bac.plan
import policies
from bac.caching.interceptors.patch import stacked
from bac.plan.executor import Replayer
from bac.plan.plan import Plan
from eval.experiments.lerobot import real_sizes
from eval.setup.files import write_json
from eval.setup.provenance import provenance

# Of the check; each may import those before it.
MODULES = (
    "refusal", "reads", "places", "counters", "walk", "tags", "tensor_words", "visits", "watch", "weights", "staleness",
)  # fmt: skip
CHECKPOINT = Path("policies/checkpoints/pusht")


def diffusion_transformer() -> tuple[nn.Module, dict[str, Tensor]]:
    """DP-T as shipped for Push-T, with its four fitted steps, and a random observation."""
    policy = policies.load(CHECKPOINT).policy
    shapes = {name: feature.shape for name, feature in policy.config.input_features.items()}
    batch = {name: torch.randn(1, policy.config.n_obs_steps, *shape) for name, shape in shapes.items()}
    return bac.wrap(policy, bac.load(CHECKPOINT / "fitted_4.json"), replay=bac.Replay(record="first")), batch


def tiny_pi0() -> tuple[nn.Module, dict[str, Tensor]]:
    """pi0 with two layers, at four steps."""
    policy = real_sizes.pi0(tiny=True).eval()
    real_sizes.set_num_steps(policy, 4)
    return bac.wrap(policy, replay=bac.Replay(record="first")), real_sizes.observation(policy)


POLICIES = {"DP-T, four fitted steps": diffusion_transformer, "tiny pi0, four steps": tiny_pi0}


def measure(policy: nn.Module, batch: dict[str, Tensor], rounds: int, before: str | None) -> dict[str, Any]:
    """Time chunks and checks, interleaved.

    Returns:
        Medians: of a chunk [ms], of each check [us], of each check's share of the chunk before it.
    """

    def chunk() -> None:
        policy.reset()
        with torch.no_grad():
            policy.predict_action_chunk(dict(batch))

    chunk()
    (replayer,) = (interceptor for interceptor in stacked(policy) if isinstance(interceptor, Replayer))
    (plan,) = replayer.plans
    checks: dict[str, Callable[[], object]] = {"now": plan.staleness.difference}
    if before is not None:
        checks["before"] = _check_of(before, replayer, plan)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in checks}
    for _ in range(rounds):
        for name, check in checks.items():
            chunk_s = _seconds(chunk)
            times[name].append((chunk_s, _seconds(check)))
    found: dict[str, Any] = {
        "chunk_ms": 1e3 * statistics.median(chunk_s for pairs in times.values() for chunk_s, _ in pairs)
    }
    for name, pairs in times.items():
        found[f"{name}_us"] = 1e6 * statistics.median(check_s for _, check_s in pairs)
        found[f"{name}_share"] = statistics.median(check_s / chunk_s for chunk_s, check_s in pairs)
    return {**found, "rounds": rounds, "replays": replayer.num_replays}


def _check_of(revision: str, replayer: Replayer, plan: Plan) -> Callable[[], object]:
    """The check as it was in another revision, on the same policy."""
    package = types.ModuleType("plan_before")
    package.__path__ = []
    sys.modules[package.__name__] = package
    for name in MODULES:
        path = f"bac/plan/{name}.py"
        shown = subprocess.run(["git", "show", f"{revision}:{path}"], check=False, capture_output=True, text=True)
        if shown.returncode == 0:  # the revision has it
            module = types.ModuleType(f"plan_before.{name}")
            sys.modules[module.__name__] = module
            text = shown.stdout.replace("bac.plan.", "plan_before.")
            exec(compile(text, f"{revision}:{path}", "exec"), vars(module))  # this repository's own file
    staleness = sys.modules["plan_before.staleness"].Staleness
    has_reads = "reads" in inspect.signature(staleness).parameters
    known = {"reads": plan.staleness.reads} if has_reads else {}
    check = staleness(replayer.owner, replayer.held, replayer.swapped, **known)
    check.settle(plan.staleness.weights if has_reads else replayer.owner.parameters())
    return check.difference


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main() -> None:
    """Measure both policies on one thread."""
    options = OmegaConf.merge({"rounds": 100, "before": None, "output": None}, OmegaConf.from_cli())
    torch.set_num_threads(1)
    results = {name: measure(*make(), options.rounds, options.before) for name, make in POLICIES.items()}
    for name, found in results.items():
        print(name, found)
    if options.output:
        write_json(Path(options.output), {**provenance(), "threads": 1, "batch": 1, "results": results})


if __name__ == "__main__":
    main()
