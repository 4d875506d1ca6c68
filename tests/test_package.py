"""What is shipped, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import bac

ROOT = Path(__file__).parents[1]


def test_at_most_twelve_public_names():
    assert len(bac.__all__) <= 12
    assert all(getattr(bac, name) is not None for name in bac.__all__)


@pytest.mark.slow
def test_importing_bac_loads_torch_and_numpy_only():
    heavy = {"lerobot", "diffusers", "gymnasium", "hydra", "zarr", "scipy", "matplotlib", "transformers"}
    code = f"import sys, bac; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.slow
def test_the_wheel_ships_bac_and_the_lerobot_entry_only(tmp_path):
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, capture_output=True, text=True, check=True)
    (wheel,) = tmp_path.glob("lerobot_policy_bac-*.whl")
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert tops == {"bac", "lerobot_policy_bac.py", f"lerobot_policy_bac-{bac.__version__}.dist-info"}
