"""The doors to the environments."""

import subprocess
import sys

import pytest

import envs


@pytest.mark.slow
def test_importing_envs_imports_no_simulator():
    simulators = "'mujoco', 'metaworld', 'gymnasium_robotics', 'lerobot_env_so101', 'gym_pusht', 'pygame'"
    heavy = f"{{{simulators}, 'zarr', 'hydra', 'torch'}}"
    code = f"import sys, envs; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"env 'metawold': no such environment. Did you mean metaworld\?"):
        envs.make("metawold")


def test_a_name_near_to_nothing_is_answered_with_all():
    with pytest.raises(ValueError, match=r"env 'x': no such environment. Known: adroit, metaworld, pusht, so101\."):
        envs.make("x")


def test_a_vector_needs_an_environment():
    with pytest.raises(ValueError, match="at least one environment is needed, got 0"):
        envs.make_vec("pusht", 0)
