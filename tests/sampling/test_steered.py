"""Steered dynamics: the work of a pull, its books, and the free energy that many pulls give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sampling.springs import begin
from sampling.wells import at_rest, centers, stiffnesses, wells

from alj import registry
from alj.sampling import SAMPLERS
from alj.sampling.steered import steered
from alj.stepping import run
from alj.types import BadInput
from alj.units import BOLTZMANN

TEMPERATURE, STIFFNESS = 600.0, 4.0
ALONG_X = {"name": "function", "function": "sampling.test_steered:first_coordinate"}
BATH = {"temperature_K": TEMPERATURE, "timestep_fs": 2.0, "drift": "keep", "skin_A": 5.0}


def first_coordinate(structure):
    return structure.positions[0, 0] - centers(1)[0, 0]


def pulls(count, dynamics, *, variable=ALONG_X, atoms=1, **settings):
    """The frames of pulls from the middle of the wells."""
    potential = wells(atoms)
    spec = {"name": "steered", "variable": variable, "dynamics": {**BATH, **dynamics}}
    spec |= {"stiffness_eV_per_A2": STIFFNESS, **settings}
    sampler = registry.build(SAMPLERS, spec, potential, where="sampler")
    stepper, state, context = begin(sampler, potential, at_rest(count, atoms))
    _, frames = run(stepper, jax.random.key(8), state, context, steps=sampler.steps)
    assert not frames.stopped.any()
    return frames


def test_many_pulls_give_the_free_energy_of_a_dragged_well():
    """F(λ) = ½ λ² k κ/(k + κ): by Jarzynski's equality, while the mean work lies above it."""
    count, steps, speed = 2048, 250, 1.0
    dynamics = {"name": "nvt_langevin", "steps": 1000 + steps, "record_every": 125}
    dynamics |= {"friction_time_fs": 50.0}
    frames = pulls(count, dynamics, speed_A_per_ps=speed, relaxation_steps=1000, anchor_A=0.0)
    assert np.isnan(frames.observed.work[:7]).all()
    assert np.isnan(frames.observed.anchor[:7]).all()
    moved = speed * 1e-3 * 2.0 * steps
    np.testing.assert_allclose(frames.observed.anchor[-1], moved, rtol=1e-9)

    well, kT = stiffnesses(1)[0, 0], BOLTZMANN * TEMPERATURE
    exact = 0.5 * moved**2 * well * STIFFNESS / (well + STIFFNESS) / kT
    work = frames.observed.work[-1] / kT
    assert work.mean() - exact > 10 * work.std() / np.sqrt(count)
    weights = np.exp(exact - work)
    assert abs(weights.mean() - 1.0) < 4 * weights.std() / np.sqrt(count)
    # harmonic: the work is Gaussian, and its dissipated part half its variance
    assert abs(work.mean() - 0.5 * work.var() - exact) < 4 * np.sqrt(
        work.var() / count + 0.5 * work.var() ** 2 / count
    )


@pytest.mark.slow
def test_the_books_of_a_pull_balance_without_a_bath():
    dynamics = {"name": "nve", "steps": 2000, "record_every": 10, "timestep_fs": 1.0}
    dynamics |= {"initial_temperature_K": 300.0}
    frames = pulls(2, dynamics, speed_A_per_ps=1.0, relaxation_steps=100)
    total = frames.conserved[:, 0]
    assert frames.observed.work[-1, 0] > 1.0
    assert np.ptp(total) < 2e-3 * frames.observed.work[-1, 0]
    # What the frames show belongs together.
    seen = frames.observed
    spring = 0.5 * STIFFNESS * (seen.anchor[-1] - seen.value[-1]) ** 2
    np.testing.assert_allclose(frames.external_energy[-1], spring, rtol=1e-6)
    np.testing.assert_allclose(
        seen.force[-1], STIFFNESS * (seen.anchor[-1] - seen.value[-1]), rtol=1e-9
    )


def test_slow_work_is_the_exact_free_energy():
    """Dragged slowly at rest, the work is ½ λ² k κ/(k + κ) and nothing is dissipated."""
    dynamics = {"name": "nvt_berendsen", "steps": 20000, "record_every": 2000}
    dynamics |= {"temperature_K": 1e-3, "initial_temperature_K": 0.0}
    frames = pulls(1, dynamics, speed_A_per_ps=0.02)
    well = stiffnesses(1)[0, 0]
    anchor = frames.observed.anchor[:, 0]
    exact = 0.5 * well * STIFFNESS / (well + STIFFNESS) * anchor**2
    np.testing.assert_allclose(frames.observed.work[:, 0], exact, rtol=0.01)


def test_walks_take_the_speeds_in_turn():
    dynamics = {"name": "nvt_langevin", "steps": 50, "record_every": 50}
    frames = pulls(4, dynamics, speed_A_per_ps=[1.0, 2.0])
    np.testing.assert_allclose(frames.observed.anchor[-1], [0.1, 0.2, 0.1, 0.2], rtol=1e-9)


def turn(structure):
    """An angle in the plane of x and y, cut at ±π."""
    x, y = structure.positions[0, 0], structure.positions[0, 1]
    return jnp.arctan2(y - 1.0, x)


def test_a_periodic_variable_is_pulled_the_short_way_over_its_cut():
    """From 3.0 rad the anchor goes on to 3.4: the angle jumps to -2.9, the spring does not."""
    potential = wells(1)._replace(
        atomic_energies=lambda params, structure, n: 0.0 * jnp.sum(structure.positions, axis=-1)
    )
    angle = {"name": "function", "function": "sampling.test_steered:turn"}
    angle |= {"period": 2 * np.pi, "unit": "rad"}
    dynamics = {"name": "nvt_langevin", "temperature_K": 1.0, "friction_time_fs": 20.0}
    dynamics |= {"steps": 2000, "record_every": 100, "timestep_fs": 1.0, "drift": "keep"}
    sampler = steered(
        potential, variable={**angle}, speed_A_per_ps=0.2, dynamics={**dynamics, "skin_A": 5.0}
    )
    place = jnp.array([[[np.cos(3.0), 1.0 + np.sin(3.0), 0.0]]])
    start = at_rest(1, 1)._replace(positions=place)
    stepper, state, context = begin(sampler, potential, start)
    _, frames = run(stepper, jax.random.key(0), state, context, steps=sampler.steps)
    seen = frames.observed
    np.testing.assert_allclose(seen.anchor[-1], 3.4, atol=1e-3)
    assert seen.value[-1, 0] < -2.7
    assert np.abs(seen.force).max() < 1.0  # the long way round it would be 63 eV/rad
    assert not frames.stopped.any()


def test_bad_input_is_one_line():
    dynamics = {"name": "nvt_langevin", "steps": 10}
    with pytest.raises(BadInput, match="names atom 7: expected indices from 0 to 1"):
        pulls(1, dynamics, variable={"name": "distance", "atoms": [0, 7]}, atoms=2)
    with pytest.raises(BadInput, match="stiffness_eV_per_A2"):
        steered(wells(1), variable=ALONG_X, stiffness_eV_per_A2=-1.0)
    with pytest.raises(BadInput, match=r"sampler.dynamics.temprature_K.*temperature_K"):
        pulls(1, {**dynamics, "temprature_K": 3.0})
