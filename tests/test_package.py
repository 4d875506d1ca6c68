"""What is shipped, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import bac
from bac import presets
from bac.plan.packed import library

ROOT = Path(__file__).parents[1]


def test_at_most_fifteen_public_names():
    assert len(bac.__all__) <= 15
    assert bac.__all__ == sorted(set(bac.__all__))


@pytest.mark.parametrize("name", bac.__all__)
def test_every_public_name_is_documented_in_its_own_words(name):
    assert len(getattr(bac, name).__doc__.strip()) > 30


def test_a_module_comes_when_it_is_asked_for_and_a_wrong_name_is_no_module():
    code = "import bac; bac.plan.record; bac.solvers; print(hasattr(bac, 'wrapp'), 'wrap' in dir(bac))"
    assert _printed(code) == "False True"


def test_the_version_is_said_without_pytorch():
    code = "import sys; from bac.cli import main; sys.argv[1:] = ['--version']; main(); print('torch' in sys.modules)"
    assert _printed(code) == f"bac {bac.__version__}\nFalse"


def test_every_error_a_user_can_meet_is_a_bac_error():
    found = {
        value for value in vars(bac.errors).values() if isinstance(value, type) and value.__module__ == "bac.errors"
    }
    assert len(found) == 9 and all(issubclass(value, bac.BacError) for value in found)


@pytest.mark.slow
def test_importing_bac_loads_torch_and_numpy_only():
    heavy = {"lerobot", "diffusers", "gymnasium", "hydra", "zarr", "scipy", "matplotlib", "transformers", "typer"}
    assert _printed(f"import sys; from bac import *; print(sorted({heavy} & set(sys.modules)))") == "[]"


@pytest.mark.slow
def test_the_wheel_ships_bac_and_the_lerobot_entry_only(tmp_path):
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, capture_output=True, text=True, check=True)
    (wheel,) = tmp_path.glob("lerobot_policy_bac-*.whl")
    shipped = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in shipped}
    assert tops == {"bac", "lerobot_policy_bac.py", f"lerobot_policy_bac-{bac.__version__}.dist-info"}
    assert {f"bac/presets/{name}.json" for name in presets.names()} <= set(shipped)
    assert {f"bac/plan/packed/{name}" for name in library.SOURCES} <= set(shipped)


def _printed(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return run.stdout.strip()
