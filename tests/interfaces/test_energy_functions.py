"""Models inside jax-md: energies, forces, pressures, and what its simulations conserve."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.md.verlet import VelocityVerlet
from campaign.tiny import CONFIG, argon, trained
from jax_md import quantity, simulate, space

from alj.campaign import models
from alj.campaign.answering import Answering
from alj.campaign.reading import structure_of
from alj.interfaces.energy_functions import energy_neighbor_list
from alj.types import BadInput

CUTOFF = 5.0
MASS = 39.95
FEMTOSECOND = units.fs
"""In units of Å (amu/eV)^½, which are also ASE's."""


def crystal(seed: int = 1) -> Atoms:
    atoms = bulk("Ar", a=5.4, cubic=True) * (3, 3, 3)
    atoms.rattle(0.08, seed=seed)
    atoms.positions %= atoms.cell.lengths()
    return atoms


def skewed() -> Atoms:
    atoms = crystal()
    atoms.set_cell(atoms.cell.array @ [[1, 0, 0], [0.1, 1.02, 0], [0.05, -0.1, 0.97]], True)
    atoms.wrap()
    return atoms


@pytest.mark.slow
@pytest.mark.parametrize(("fractional", "committee"), [(False, True), (True, False)])
def test_energy_forces_and_pressure_are_the_model_s(fractional, committee):
    with jax.numpy_rank_promotion("allow"):
        atoms = skewed()
        model = argon(cutoff_A=CUTOFF)
        if committee:
            potential, params = trained()
            atoms.numbers[:] = 8
            atoms.set_cell(0.8 * atoms.cell.array, True)
            model = models.model_of(potential, params, {"potential": CONFIG})
        expected = Answering(model)(structure_of(atoms))
        box = jnp.asarray(atoms.cell.array.T)
        displacement, _ = space.periodic_general(box, fractional_coordinates=fractional)
        neighbor_fn, energy_fn = energy_neighbor_list(
            model, displacement, box, atoms.numbers, fractional_coordinates=fractional,
            disable_cell_list=True,
        )  # fmt: skip
        given = atoms.get_scaled_positions() if fractional else atoms.positions
        positions = jnp.asarray(given)
        neighbor = neighbor_fn.allocate(positions)
        energy = jax.jit(energy_fn)(positions, neighbor)
        forces = jax.jit(quantity.force(energy_fn))(positions, neighbor=neighbor)
        stress = jax.jit(quantity.stress, static_argnums=0)(
            energy_fn, positions, box, neighbor=neighbor
        )
    assert energy == pytest.approx(expected.energy, rel=1e-10)
    assert np.asarray(forces) == pytest.approx(expected.forces, abs=1e-9)
    assert np.abs(expected.stress).max() > 1e-4
    # jax-md counts compression as positive
    assert -np.asarray(stress) == pytest.approx(expected.stress, abs=1e-9)


def test_the_same_path_as_ase_s():
    atoms, step, steps = crystal(), 4 * FEMTOSECOND, 50
    velocities = np.random.default_rng(2).normal(0, 0.01, (len(atoms), 3))
    side = float(atoms.cell[0, 0])
    with jax.numpy_rank_promotion("allow"), jax.debug_key_reuse(False):
        displacement, shift = space.periodic(side)
        neighbor_fn, energy_fn = energy_neighbor_list(
            argon(cutoff_A=CUTOFF), displacement, side, atoms.numbers
        )
        positions = jnp.asarray(atoms.positions)
        neighbor = neighbor_fn.allocate(positions)
        init, apply = simulate.nve(energy_fn, shift, step)
        state = init(jax.random.key(0), positions, mass=MASS, kT=0.0, neighbor=neighbor)
        state = state.set(momentum=MASS * jnp.asarray(velocities))

        @jax.jit
        def advance(state, neighbor):
            def once(_, both):
                state, neighbor = both
                state = apply(state, neighbor=neighbor)
                return state, neighbor.update(state.position)

            return jax.lax.fori_loop(0, steps, once, (state, neighbor))

        state, neighbor = advance(state, neighbor)
    assert not neighbor.did_buffer_overflow
    atoms.set_masses(np.full(len(atoms), MASS))
    atoms.set_velocities(velocities)
    atoms.calc = LennardJones(epsilon=0.0104, sigma=3.4, rc=CUTOFF)
    VelocityVerlet(atoms, step).run(steps)
    apart = np.asarray(state.position) - atoms.positions
    apart -= side * np.round(apart / side)
    assert apart == pytest.approx(np.zeros_like(apart), abs=1e-7)


@pytest.mark.slow
def test_constant_pressure_conserves_what_it_should():
    atoms = crystal()
    model = argon(cutoff_A=CUTOFF)
    box = jnp.asarray(atoms.cell.array.T)
    kT, pressure, step = 40 * units.kB, 100 * units.bar, 4 * FEMTOSECOND
    with jax.numpy_rank_promotion("allow"), jax.debug_key_reuse(False):
        displacement, shift = space.periodic_general(box)
        neighbor_fn, energy_fn = energy_neighbor_list(
            model, displacement, box, atoms.numbers, fractional_coordinates=True
        )
        positions = jnp.asarray(atoms.get_scaled_positions())
        neighbor = neighbor_fn.allocate(positions)
        init, apply = simulate.npt_nose_hoover(energy_fn, shift, step, pressure, kT)
        state = init(jax.random.key(0), positions, box, mass=MASS, neighbor=neighbor)

        def conserved(state, neighbor):
            return simulate.npt_nose_hoover_invariant(
                energy_fn, state, pressure, kT, neighbor=neighbor
            )

        @jax.jit
        def walk(state, neighbor):
            def once(both, _):
                state, neighbor = both
                state = apply(state, neighbor=neighbor)
                neighbor = neighbor.update(state.position, box=state.box)
                volume = jnp.linalg.det(state.box)
                return (state, neighbor), (conserved(state, neighbor), volume)

            return jax.lax.scan(once, (state, neighbor), None, length=150)[1]

        kept, volume = walk(state, neighbor)
    assert np.ptp(np.asarray(volume)) > 10.0
    # the truncated force jumps at the cutoff, so this is no machine precision
    assert np.ptp(np.asarray(kept)) / len(atoms) < 1e-4


def test_bad_input_is_one_line():
    displacement, _ = space.periodic(9.0)
    with pytest.raises(BadInput, match=r"the box is 9.00 Å high; .* repeat the box"):
        energy_neighbor_list(argon(cutoff_A=CUTOFF), displacement, 9.0, np.full(4, 18))
    with pytest.raises(BadInput, match=r"knows the atomic numbers \[18\], found \[8\]"):
        energy_neighbor_list(argon(cutoff_A=CUTOFF), displacement, 30.0, np.full(4, 8))
