import pytest
from hypothesis import given
from hypothesis import strategies as st

import bac
from bac.tuning.machine import Machine


def way(num_steps, updates):
    return bac.Denoising(schedule=bac.Schedule(num_steps, {"ffn": tuple(range(updates))}))


@given(st.floats(0.001, 0.1), st.floats(0.0001, 0.01), st.floats(0.001, 0.1))
def test_what_costs_a_fixed_part_and_a_part_per_step_and_sweep_is_recovered(fixed, per_step, per_sweep):
    probes = [way(5, 5), way(20, 20), way(100, 5)]
    seconds = [fixed + per_step * probe.num_evaluations + per_sweep * probe.sweeps for probe in probes]
    machine = Machine.fit(probes, seconds)
    assert machine.seconds(way(50, 10)) == pytest.approx(fixed + per_step * 50 + per_sweep * 10, rel=1e-6)


def test_no_part_is_negative_whatever_the_noise():
    machine = Machine.fit([way(5, 5), way(20, 20), way(100, 5)], [0.1, 0.2, 0.05])
    assert min(machine.fixed_s, machine.per_step_s, machine.per_sweep_s) >= 0


def test_a_machine_twice_as_slow_takes_twice_as_long():
    assert Machine(1.0, 2.0, 3.0).times(2).seconds(way(10, 4)) == 2 * (1 + 20 + 12)
