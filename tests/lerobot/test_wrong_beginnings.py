"""Wrong ways to begin: each ends in one sentence that names the thing, the rule, what came, and what to type."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import bac
import lerobot_policy_bac as entry
from bac.caching.calibration import Calibration
from bac.cli import main
from bac.errors import BacError, ScheduleError
from tests.bac.models import TickPolicy, TinyTransformerPolicy, obs, sweep
from tests.bac.test_misuse import Ddim
from tests.lerobot.terminal import run, uniform

pytestmark = pytest.mark.slow
LONGEST = 500  # characters of a sentence, the machine's folders included


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAC", "off")


@dataclass(frozen=True)
class Typed:
    """A command, and what its sentence must hold.

    Attributes:
        words: What is typed after `bac`; CKPT is a checkpoint, HERE an empty folder, and so on (see `places`).
        says: The thing, the rule or what came, and the line to type.
        without: A package that is not installed.
        status: Exit status.
    """

    words: str
    says: Sequence[str]
    without: str | None = None
    status: int = 1
    prepare: Callable[[Path], Any] | None = field(default=None)


def picture(folder: Path) -> None:
    (folder / "curve.png").write_bytes(b"\x89PNG")


def home_made(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "type": "home_made"}))


COMMANDS = {
    "a folder that is not there": Typed(
        "doctor --policy-path HERE/nothing", ["--policy-path", "there is no such folder", "config.json"]
    ),
    "the folder of a training run": Typed(
        "doctor --policy-path HERE", ["no config.json in it", "checkpoints/last/pretrained_model"]
    ),
    "a type that nothing registers": Typed(
        "doctor --policy-path CKPT",
        ["type 'home_made', which nothing registers", "--import policies.diffusion_transformer"],
        prepare=home_made,
    ),
    "an import that is not there": Typed(
        "doctor --policy-path CKPT --import my_polices",
        ["--import my_polices: No module named", "give a module that can be imported from"],
    ),
    "a device that is not there": Typed(
        "doctor --policy-path CKPT --device cuda:9", ["--device cuda:9: cannot be used here", "type --device cpu"]
    ),
    "timing before tuning": Typed(
        "bench --policy-path CKPT --import json",
        ["bac.json: there is no such file", "bac tune, or bac calibrate, --policy-path", "--import json --env ENV"],
    ),
    "a guard before a schedule": Typed(
        "guard --policy-path CKPT --env pusht", ["bac.json: there is no such file", "bac tune, or bac calibrate"]
    ),
    "drawing a file that is not there": Typed(
        "show HERE/bac.json", ["bac.json: there is no such file", "bac tune --policy-path CKPT --env ENV"]
    ),
    "drawing a picture": Typed(
        "show HERE/curve.png", ["curve.png: is a picture", "bac show draws"], prepare=picture
    ),
    "drawing weights": Typed("show CKPT/model.safetensors", ["holds weights", "bac doctor --policy-path"]),
    "drawing a checkpoint": Typed("show CKPT", ["is a policy's folder", "bac doctor --policy-path"]),
    "no observations": Typed(
        "tune --policy-path CKPT --target-hz 25", ["--env or --dataset", "bac calibrate first"], status=2
    ),
    "no budget": Typed("tune --policy-path DIT DATA --runs 4", ["exactly one of", "got none", "target_hz=25"]),
    "a budget that cannot be reached": Typed(
        "tune --policy-path DIT DATA --runs 4 --evaluations 0 --target-hz 1e7",
        ["target_hz=1e+07", "not reachable on this machine", "Ask for at least target_latency_s="],
    ),
    "more updates than steps": Typed(
        "calibrate --policy-path DIT DATA --runs 4", ["the policy makes 7 denoising steps", "got 10", "--num-updates 3"]
    ),
    "more observations than there are": Typed(
        "calibrate --policy-path DIT DATA --runs 9 --num-updates 3", ["holds 6 frames", "--runs 6"]
    ),
    "a data set that is not there": Typed(
        "calibrate --policy-path DIT --dataset here/none --dataset-root HERE/none --num-updates 3",
        ["--dataset here/none", "--dataset-root"],
    ),
    "LeRobot is not installed": Typed(
        "doctor --policy-path CKPT", ["lerobot", "not installed", "pip install '.[lerobot]'"], without="lerobot"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_in_one_sentence_what_is_wrong_and_what_to_type(name, folder, dit, data, tmp_path, monkeypatch):
    row = COMMANDS[name]
    checkpoint, here = tmp_path / "checkpoint", tmp_path / "here"
    shutil.copytree(folder, checkpoint)
    here.mkdir()
    if row.prepare is not None:
        row.prepare(checkpoint if "CKPT" in row.words else here)
    if row.without is not None:
        for module in [name for name in sys.modules if name.partition(".")[0] == row.without]:
            monkeypatch.setitem(sys.modules, module, None)
    places = {"CKPT": checkpoint, "DIT": dit, "HERE": here}
    typed = row.words.replace("DATA", " ".join(data))
    for place, path in places.items():
        typed = typed.replace(place, str(path))
    result = run(*typed.split())
    assert result.exit_code == row.status and isinstance(result.exception, SystemExit), result.output
    assert "Traceback" not in result.output
    if row.status == 1:
        (sentence,) = [line for line in result.output.splitlines() if line.partition(": ")[0].endswith("Error")]
        assert len(sentence) < LONGEST
    else:
        sentence = " ".join(result.output.replace("│", " ").split())  # the frame of a usage error
    assert [words for words in row.says if words not in sentence] == [], sentence


class Fused(nn.Module):
    """PyTorch computes its encoder layer in one fused call."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(12, 2, 20, batch_first=True)
        self.encoder, self.embed = nn.TransformerEncoder(layer, 1), nn.Linear(3, 12)
        self.eval()

    def reset(self) -> None:
        pass

    def predict_action_chunk(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        x = self.embed(batch["obs"])
        for _ in range(4):
            x = self.encoder(x)
        return x

    def blocks(self) -> list[bac.Block]:
        return [bac.Block("layer.attention", "self_attention", 0, self.encoder.layers[0], "_sa_block")]


Tiny = TinyTransformerPolicy


def measure(policy: Any, batches: Any, **options: Any) -> Any:
    return bac.calibrate(policy, batches, progress=False, **options)


SCRIPTS: dict[str, tuple[Callable[[], Any], Sequence[str]]] = {
    "training mode": (lambda: measure(Tiny().train(), [obs(2)]), ["in training mode", "policy.eval()"]),
    "running it in training mode": (
        lambda: bac.wrap(Tiny()).train().predict_action_chunk(obs()), ["in training mode", "policy.eval()"],
    ),
    "a compiled policy": (lambda: bac.wrap(torch.compile(Tiny())), ["torch.compile", "bac.wrap(policy._orig_mod)"]),
    "measuring what is wrapped": (
        lambda: measure(bac.wrap(Tiny()), [obs(2)]), ["must be untouched to be measured", "bac.unwrap(policy)"],
    ),
    "the fused path": (
        lambda: measure(Fused(), [obs(2)], blocks=Fused().blocks()),
        ["layer.attention: none of the 1 blocks was evaluated", "set_fastpath_enabled(False)"],
    ),
    "one observation": (lambda: measure(Tiny(), [obs(1)]), ["batches: held 1 observations", "at least two"]),
    "one observation to tune with": (
        lambda: bac.tune(Ddim(), [obs(1)], target_hz=25), ["batches: must hold at least three", "got 1 and 0"],
    ),
    "a dictionary instead of a list": (lambda: measure(Tiny(), obs(2)), ["got one batch", "pass [batch]"]),
    "a dictionary to tune with": (lambda: bac.tune(Ddim(), obs(4), target_hz=25), ["got one batch", "pass [batch]"]),
    "no budget": (lambda: bac.tune(Ddim(), [obs(4)]), ["exactly one of", "got none", "target_hz=25"]),
    "the name of a file": (lambda: bac.wrap(Tiny(), "bac.json"), ["what: must be a", "got str", "bac.load(path)"]),
    "no policy": (lambda: bac.wrap("policy"), ["policy: must be an nn.Module", "got str"]),
    "a policy without a transformer": (
        lambda: bac.wrap(nn.Linear(2, 3)), ["Linear: found no", "bac.wrap(policy, schedule, blocks=[bac.Block("],
    ),
    "a schedule for other blocks": (
        lambda: bac.wrap(Tiny(num_layers=3), sweep(Tiny(), (0, 2), 7)),
        ["is for other blocks than the policy's 9", "lacks 3", "bac.adaptive_schedule("],
    ),
    "a preset on a policy that diffusion trained": (
        lambda: bac.wrap(Ddim(), bac.Denoising.preset("flow", 3)), ["timesteps: of Ddim", "preset", "bac.tune("],
    ),
    "a preset that there is not": (lambda: bac.Denoising.preset("flow", 9), ["must be one of flow-2", "got 'flow-9'"]),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")  # PyTorch's own, of torch.compile
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_gets_one_sentence_with_what_to_type(name):
    make, says = SCRIPTS[name]
    with torch.no_grad(), pytest.raises(BacError) as caught:
        make()
    sentence = str(caught.value)
    assert "\n" not in sentence and len(sentence) < LONGEST
    assert [words for words in says if words not in sentence] == [], sentence


def test_the_command_without_its_extra_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "typer", None)
    monkeypatch.delitem(sys.modules, "bac.cli.app", raising=False)
    with pytest.raises(SystemExit, match=r"needs the package typer: from the clone, pip install '\.\[cli\]'"):
        main()


def test_a_calibration_without_zarr_says_what_to_install(monkeypatch, tmp_path):
    measured: Calibration = measure(Tiny(), [obs(2)])
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(BacError, match=r"needs the package zarr: from the clone, pip install '\.\[zarr\]'"):
        measured.save(tmp_path / "calibration.zarr")


def test_bubbling_that_can_do_nothing_says_so(caplog):
    policy = TickPolicy()
    measured = measure(policy, [obs(2)], blocks=policy.blocks("self_attention"))
    bac.adaptive_schedule(measured, 2, num_bubbled=1)
    assert "num_bubbled = 1 changes nothing: none of the 1 blocks is a feed-forward one" in caplog.text


# Under LeRobot's commands


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this program were `lerobot-eval`."""
    monkeypatch.setattr(sys, "argv", ["/usr/bin/lerobot-eval"])
    monkeypatch.setattr(sys, "excepthook", lambda *_: sys.stderr.write("Traceback\n"))
    entry._say_errors_in_one_line()


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("BAC", "nonsense", "BAC: must be off, intercept or replay, which it is if unset, got 'nonsense'; type"),
        ("BAC_SCHEDULE", "no.json", "BAC_SCHEDULE: there is no file no.json; correct it, or set BAC=off"),
        ("BAC_PRESET", "flow-9", "preset: must be one of flow-2, flow-3, flow-4, got 'flow-9'"),
    ],
)  # fmt: skip
def test_a_command_of_lerobot_says_only_the_sentence(command, monkeypatch, capsys, variable, value, says):
    monkeypatch.setenv("BAC", "replay")
    monkeypatch.setenv(variable, value)
    with pytest.raises(ScheduleError) as caught:
        entry.find_mode(), entry.find_schedule("nowhere")
    sys.excepthook(caught.type, caught.value, caught.tb)
    assert capsys.readouterr().err.startswith(f"ScheduleError: {says}")


def test_other_errors_and_other_programs_keep_their_traceback(command, capsys, monkeypatch):
    sys.excepthook(ValueError, ValueError("theirs"), None)
    assert capsys.readouterr().err == "Traceback\n"
    monkeypatch.setattr(sys, "argv", ["my_script.py"])
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    entry._say_errors_in_one_line()
    assert sys.excepthook is sys.__excepthook__


# What the next line to type is


def test_doctor_names_the_import_again(folder):
    (folder / "bac.json").unlink(missing_ok=True)
    result = run("doctor", "--policy-path", folder, "--import", "policies.diffusion_transformer")
    wanted = f"bac tune --policy-path {folder} --import policies.diffusion_transformer --env ENV --target-hz 25"
    assert result.output.splitlines()[-1].endswith(wanted)


def test_a_plug_in_that_is_installed_registers_its_policies(folder, tmp_path, monkeypatch):
    from lerobot.configs import PreTrainedConfig

    from tests.lerobot import commands

    monkeypatch.setattr(PreTrainedConfig, "_choice_registry", dict(PreTrainedConfig._choice_registry))
    source = tmp_path / "source.py"
    source.write_text(
        "from lerobot.configs import PreTrainedConfig\n"
        "from policies.diffusion_transformer import DiffusionTransformerConfig\n"
        "PreTrainedConfig.register_subclass('home_made')(type('Mine', (DiffusionTransformerConfig,), {}))\n"
    )
    monkeypatch.syspath_prepend(str(commands.install(tmp_path / "site", "lerobot_policy_mine", source)))
    shutil.copytree(folder, tmp_path / "checkpoint")
    home_made(tmp_path / "checkpoint")
    assert "which nothing registers" not in run("doctor", "--policy-path", tmp_path / "checkpoint").output


@pytest.mark.parametrize("name", ["doctor", "calibrate", "tune", "bench", "show", "guard", "serve"])
def test_the_help_of_a_command_has_an_example_for_the_shipped_checkpoint(name):
    help_ = " ".join(run(name, "--help").output.split())
    assert f"Example: bac {name} " in help_
    assert "policies/checkpoints/pusht" in help_ or name == "serve"


def test_the_version_is_one_line():
    result = run("--version")
    assert (result.exit_code, result.output) == (0, f"bac {bac.__version__}\n")


def test_a_schedule_folds_to_the_terminal(monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: SimpleSize(24))
    drawn = str(bac.Schedule(25, {"layer": (0, 11), "b": (0,)})).splitlines()
    assert drawn[1:] == [
        "         from step 0", "  layer  #..........#...", "  b      #..............",
        "         from step 15", "  layer  ..........", "  b      ..........",
    ]  # fmt: skip
    assert len(uniform((0, 3)).schedule.__str__().splitlines()) == 4


@dataclass(frozen=True)
class SimpleSize:
    """As `os.terminal_size`."""

    columns: int
