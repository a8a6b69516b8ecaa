"""Gates of the committee and of the energy, and walks that begin again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sampling.springs import begin
from sampling.wells import at_rest, stiffnesses, wells

from alj.potentials.combine import committee
from alj.sampling.molecular_dynamics import nve, nvt_langevin
from alj.stepping import run
from alj.types import BadInput, Context, Structure


def members(count: int):
    """A committee of wells whose members differ the more the further out."""
    scales = jnp.linspace(0.9, 1.1, count)
    return committee(wells(2)), {"body": {"scale": scales}, "readout": {}, "constants": {}}


@pytest.mark.slow
def test_a_committee_that_disagrees_freezes_the_frame_before():
    potential, params = members(3)
    common = {"steps": 60, "record_every": 1, "timestep_fs": 2.0, "drift": "keep", "skin_A": 5.0}
    start = at_rest(1, 2)
    runs = {}
    for name, limit in (
        ("free", {}),
        ("forces", {"force_spread_eV_per_A": 0.02}),
        ("energy", {"energy_spread_meV_per_atom": 1.0}),
    ):
        sampler = nve(potential, temperature_K=300.0, **common, **limit)
        stepper = sampler.stepper
        context = Context(params=params)
        one = jax.tree.map(lambda leaf: leaf[0], sampler.place(start))
        state = stepper.init(jax.random.key(2), one, context)
        runs[name] = run(stepper, jax.random.key(3), state, context, steps=60)[1]
    free = runs["free"]
    moved = np.asarray(free.structure.positions - start.positions)
    stiff = stiffnesses(2)
    # the members' forces are (1 ± 0.1) k x, their energies half of that times x
    force = 0.1 * np.linalg.norm(stiff * moved, axis=-1).max(axis=1)
    energy = 0.1 * 0.5 * np.sum(stiff * moved**2, axis=(1, 2)) / 2 * 1000
    for name, spread, limit in (("forces", force, 0.02), ("energy", energy, 1.0)):
        first = int(np.argmax(spread > limit))
        assert 1 < first < 59
        frames = runs[name]
        assert not frames.stopped[:first].any()
        assert frames.stopped[first:].all()
        kept = free.structure.positions[first - 1]
        for frame in (first, 59):
            np.testing.assert_array_equal(frames.structure.positions[frame], kept)
    with pytest.raises(BadInput, match="expected the mean of a committee"):
        nve(wells(2), force_spread_eV_per_A=0.1)


@pytest.mark.slow
def test_a_frozen_walk_begins_again_where_it_began_and_an_energy_jump_freezes():
    potential = wells(2)
    common = {"steps": 200, "record_every": 1, "timestep_fs": 2.0, "drift": "keep", "skin_A": 5.0}
    sampler = nvt_langevin(
        potential, temperature_K=600.0, energy_jump_eV_per_atom=0.006, restarts=2, **common
    )
    stepper, state, context = begin(sampler, potential, at_rest(3, 2))
    _, frames = run(stepper, jax.random.key(3), state, context, steps=200)
    for walk in range(3):
        stopped = np.flatnonzero(frames.stopped[:, walk])
        jumps = np.abs(np.diff(frames.energy[:, walk])) / 2
        going = ~frames.stopped[1:, walk] & ~frames.stopped[:-1, walk]
        assert jumps[going].max() <= 0.006
        again = [frame for frame in stopped if frame < 199 and not frames.stopped[frame + 1, walk]]
        assert len(again) == 2
        for frame in again:
            # one time step from rest in the middle of the wells
            moved = frames.structure.positions[frame + 1, walk] - at_rest(1, 2).positions[0]
            assert np.abs(moved).max() < 0.05
            assert np.abs(moved).max() > 0
        assert frames.stopped[-1, walk]
    stuck = nvt_langevin(potential, temperature_K=600.0, energy_jump_eV_per_atom=0.006, **common)
    stepper, state, context = begin(stuck, potential, at_rest(3, 2))
    _, frames = run(stepper, jax.random.key(3), state, context, steps=200)
    first = np.argmax(frames.stopped, axis=0)
    assert all(frames.stopped[first[walk] :, walk].all() for walk in range(3))


def test_a_bond_that_becomes_too_long_freezes_and_others_may_part():
    """Two atoms 1.5 Å apart fly off each other, a third one further away does as well."""
    potential = wells(1)._replace(
        atomic_energies=lambda params, structure, n: 0.0 * jnp.sum(structure.positions, axis=-1)
    )
    start = Structure(
        positions=jnp.array([[[0.0, 0.0, 0.0], [1.5, 0.0, 0.0], [0.0, 2.4, 0.0], [9.0, 9.0, 9.0]]]),
        species=jnp.array([[6, 6, 6, 0]]),
        cell=jnp.zeros((1, 3, 3)),
        charge=jnp.zeros(1, int),
        multiplicity=jnp.zeros(1, int),
    )
    common = {"steps": 100, "record_every": 1, "drift": "keep", "longest_bonds_A": {"6-6": 2.5}}
    sampler = nve(potential, timestep_fs=1.0, **common)
    speed = 0.03
    velocities = jnp.array([[[0.0, 0, 0], [speed, 0, 0], [0, speed, 0], [0, 0, 0]]])
    placed = sampler.place(start)._replace(velocities=velocities)
    one = jax.tree.map(lambda leaf: leaf[0], placed)
    params = {"body": {"scale": jnp.ones(())}, "readout": {}, "constants": {}}
    context = Context(params=params)
    state = sampler.stepper.init(jax.random.key(0), one, context)
    _, frames = run(sampler.stepper, jax.random.key(1), state, context, steps=100)
    lengths = np.linalg.norm(
        frames.structure.positions[:, 1] - frames.structure.positions[:, 0], axis=-1
    )
    np.testing.assert_allclose(lengths.max(), 2.49, atol=1e-9)
    first = int(np.argmax(frames.stopped))
    assert first == 33
    assert np.ptp(lengths[first:]) == 0.0
    # the third atom, 2.4 Å away at the start, was no bond, and went on to 3.4 Å
    assert frames.structure.positions[-1, 2, 1] > 3.3
    with pytest.raises(BadInput, match="expected pairs of atomic numbers such as 6-6, found 'CC'"):
        nve(potential, longest_bonds_A={"CC": 2.0}).place(start)
