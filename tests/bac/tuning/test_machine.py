import pytest
from hypothesis import given
from hypothesis import strategies as st

from bac.caching.schedule import Schedule
from bac.tuning import Candidate
from bac.tuning.machine import Machine


def candidate(num_steps, updates):
    return Candidate("together", num_steps, schedule=Schedule(num_steps, {"ffn": tuple(range(updates))}))


@given(st.floats(0.001, 0.1), st.floats(0.0001, 0.01), st.floats(0.001, 0.1))
def test_what_costs_a_fixed_part_and_a_part_per_step_and_sweep_is_recovered(fixed, per_step, per_sweep):
    probes = [candidate(5, 5), candidate(20, 20), candidate(100, 5)]
    seconds = [fixed + per_step * probe.num_steps + per_sweep * probe.sweeps for probe in probes]
    machine = Machine.fit(probes, seconds)
    assert machine.seconds(candidate(50, 10)) == pytest.approx(fixed + per_step * 50 + per_sweep * 10, rel=1e-6)


def test_no_part_is_negative_whatever_the_noise():
    machine = Machine.fit([candidate(5, 5), candidate(20, 20), candidate(100, 5)], [0.1, 0.2, 0.05])
    assert min(machine.fixed_s, machine.per_step_s, machine.per_sweep_s) >= 0


def test_a_machine_twice_as_slow_takes_twice_as_long():
    assert Machine(1.0, 2.0, 3.0).times(2).seconds(candidate(10, 4)) == 2 * (1 + 20 + 12)
