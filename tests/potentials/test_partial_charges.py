"""Partial charges: their sum, dipoles, the Coulomb law at a distance, and learning them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import molecule
from potentials.liquids import padded, structure, table
from scipy.spatial.transform import Rotation

from alj.geometry.neighbors import TableSize, batch_tables
from alj.potentials import build_potential, partial_charges
from alj.potentials.combine import charges, committee, dipole, energy_and_forces
from alj.potentials.meta_networks import committee_of
from alj.potentials.partial_charges import coulomb_pairs
from alj.potentials.short_range import COULOMB
from alj.training import fit, gradient
from alj.types import BadInput, Batch, Labels, Structure

ELEMENTS = (1, 6, 8)
SMALL = {"name": "behler_parrinello", "hidden": [5], "cutoff_A": 4.0}
CAPACITY = 12


@pytest.fixture(scope="module")
def potential():
    return partial_charges(ELEMENTS, body=SMALL, charges={**SMALL, "hidden": [4]})


@pytest.fixture(scope="module")
def params(potential):
    """Charges of about one e, so that laws are not met by zeros."""
    made = potential.init(jax.random.key(3))
    return {**made, "constants": {**made["constants"], "unit": jnp.asarray(2.0)}}


@pytest.fixture(scope="module")
def program(potential):
    """Charges, dipole, energy, forces, of one structure."""

    @jax.jit
    def found(params, s, neighbors):
        own = charges(potential, params, s, neighbors)
        return own, dipole(own, s), *energy_and_forces(potential, params, s, neighbors)

    return lambda params, s: found(params, s, table(s, potential.cutoff, CAPACITY))


def ethanol(charge=0):
    atoms = molecule("CH3CH2OH")
    return structure(atoms.positions, atoms.numbers)._replace(charge=jnp.array(charge))


@pytest.mark.parametrize("charge", [0, 1, -2])
def test_charges_add_up_to_the_total_charge(program, params, charge):
    s = ethanol(charge)
    own, *_ = program(params, s)
    assert np.sum(own) == pytest.approx(charge, abs=1e-13)
    assert np.std(own) > 0.05
    wide, *_ = program(params, padded(s, 14))
    np.testing.assert_allclose(wide[:9], own, atol=1e-13)
    np.testing.assert_array_equal(wide[9:], 0.0)


def test_dipoles_turn_and_do_not_move_with_the_molecule(program, params):
    s, shift = ethanol(), jnp.array([[5.0, -3.0, 2.0]])
    own, moment, energy, forces = program(params, s)
    assert np.linalg.norm(moment) > 0.05
    moved = program(params, s._replace(positions=s.positions + shift))
    np.testing.assert_allclose(moved[1], moment, atol=1e-12)
    turn = jnp.asarray(Rotation.random(rng=4).as_matrix())
    turned = program(params, s._replace(positions=s.positions @ turn))
    np.testing.assert_allclose(turned[1], moment @ turn, atol=1e-12)
    np.testing.assert_allclose(turned[3], forces @ turn, atol=1e-10)
    order = np.random.default_rng(5).permutation(9)
    mixed = program(params, s._replace(positions=s.positions[order], species=s.species[order]))
    np.testing.assert_allclose(mixed[0], own[order], atol=1e-12)
    np.testing.assert_allclose(mixed[1], moment, atol=1e-12)
    np.testing.assert_allclose(mixed[2], energy, rtol=1e-12)
    # an ion's goes with it, by its charge
    ion = ethanol(1)
    off = (
        program(params, ion._replace(positions=ion.positions + shift))[1] - program(params, ion)[1]
    )
    np.testing.assert_allclose(off, shift[0], atol=1e-12)


def test_distant_ions_attract_as_point_charges(program, params):
    """Two molecules beyond all cutoffs: what they share is k q₁ q₂ / r of all pairs."""
    s, far = ethanol(1), jnp.array([[60.0, 0.0, 0.0]])

    def pair(away):
        both = jnp.concatenate([s.positions, s.positions + away])
        doubled = structure(both, jnp.concatenate([s.species, s.species]))
        return program(params, doubled._replace(charge=jnp.array(2)))

    own, _, near, forces = pair(far)
    q, there = np.asarray(own[:9]), np.asarray(s.positions)
    assert q.sum() == pytest.approx(1.0, abs=1e-12)
    vectors = there[:, None] - there[None] - np.asarray(far)[None]
    r = np.linalg.norm(vectors, axis=-1)
    expected = np.sum(COULOMB * q[:, None] * q[None] / r)
    alone = program(params, s)[2]
    assert near - 2 * alone == pytest.approx(expected, rel=1e-9)
    assert expected == pytest.approx(COULOMB / 60.0, rel=0.02)
    # charges do not depend on what is far away, so neither do internal forces
    pull = -np.sum(COULOMB * (q[:, None] * q[None] / r**3)[..., None] * -vectors, axis=(0, 1))
    np.testing.assert_allclose(np.sum(forces[:9], axis=0), pull, rtol=1e-6, atol=1e-9)


def test_charges_smeared_out_have_a_finite_energy_at_any_distance():
    s = structure(np.array([[0.0, 0, 0], [0.0, 0, 0], [0.0, 0, 1.0], [0, 0, 9.0]]), np.full(4, 8))
    pairs = coulomb_pairs(s, 0.5)
    assert pairs[0, 1] == pytest.approx(COULOMB / (0.5 * np.pi**0.5))
    # erf(1) of the tables
    assert pairs[0, 2] == pytest.approx(COULOMB * 0.842700792949715)
    assert pairs[0, 3] == pytest.approx(COULOMB / 9.0, rel=1e-14)
    np.testing.assert_array_equal(np.diag(pairs), 0.0)
    slope = jax.grad(lambda x: coulomb_pairs(s._replace(positions=x), 0.5)[0, 1])(s.positions)
    assert np.all(np.isfinite(slope))
    assert np.all(np.isnan(coulomb_pairs(s._replace(cell=jnp.eye(3)), 0.5)))


def test_networks_of_classes_answer_with_mean_charges(program, params):
    """As the body of meta-networks, whose members' charges are those of its networks."""
    spec = {
        "name": "meta_networks", "classes": 3, "nodes": 4, "atoms": 14,
        "body": {"name": "partial_charges", "body": SMALL},
    }  # fmt: skip
    potential = build_potential({**spec, "prior": "zbl"}, ELEMENTS)
    both = committee_of(potential.networks, potential.init(jax.random.key(1)))
    s = ethanol(1)
    neighbors = table(s, potential.cutoff, CAPACITY)
    mean, each = jax.jit(lambda params, s: (
        charges(committee(potential), params, s, neighbors),
        jax.vmap(charges, (None, 0, None, None))(potential, params, s, neighbors),
    ))(both, s)  # fmt: skip
    assert np.abs(each[0] - each[1]).max() > 1e-3
    np.testing.assert_allclose(mean, np.mean(each, axis=0), atol=1e-14)
    np.testing.assert_allclose(np.sum(each, axis=1), 1.0, atol=1e-12)


def electronegativity_charges(s):
    """q_i = Σ_j a (χ_j - χ_i) exp(-r_ij/1 Å) with Pauling's χ: charge flows along bonds."""
    pauling = {1: 2.20, 6: 2.55, 8: 3.44}
    chi = np.array([pauling[z] for z in s.get_atomic_numbers()])
    fade = np.exp(-s.get_all_distances()) - np.eye(len(s))
    return 0.6 * np.sum(fade * (chi[None] - chi[:, None]), axis=1)


def labeled_molecules(count=60, most=9) -> Batch:
    """Distorted small molecules with charges and dipoles of the rule, and bonds' energies."""
    generator = np.random.default_rng(8)
    names = ("H2O", "CH4", "CH3OH", "H2CO", "CH3CH2OH")
    positions, species = np.zeros((count, most, 3)), np.zeros((count, most), int)
    own, moment = np.full((count, most), np.nan), np.zeros((count, 3))
    for i in range(count):
        atoms = molecule(names[i % len(names)])
        atoms.positions += generator.normal(0.0, 0.06, atoms.positions.shape)
        atoms.rotate(float(generator.uniform(0.0, 360.0)), "z")
        n = len(atoms)
        positions[i, :n], species[i, :n] = atoms.positions, atoms.numbers
        own[i, :n] = electronegativity_charges(atoms)
        moment[i] = own[i, :n] @ atoms.positions
    none = jnp.full((count, most), jnp.nan)
    structures = Structure(
        jnp.asarray(positions), jnp.asarray(species), jnp.zeros((count, 3, 3)),
        jnp.zeros(count, int), jnp.zeros(count, int),
    )  # fmt: skip
    labels = Labels(
        none[:, 0], jnp.full((count, most, 3), jnp.nan), jnp.full((count, 3, 3), jnp.nan),
        jnp.asarray(moment), jnp.asarray(own), none,
    )  # fmt: skip
    neighbors = batch_tables(structures, 4.0, size=TableSize(CAPACITY, (0, 0, 0)))
    return Batch(structures, neighbors, labels, jnp.ones(count), jnp.arange(count))


@pytest.mark.parametrize("weight", ["charge_weight", "dipole_weight"])
def test_charges_are_learned_from_charges_or_from_dipoles(potential, weight):
    """The spread of the rule's charges of one element is 0.1 e; of dipoles 0.3 e Å."""
    batch = labeled_molecules()
    trainer = gradient(
        potential, members=1, epochs=120, learning_rate=0.01, energy_weight=0.0,
        split="random", validation_fraction=0.2, precision="float64", **{weight: 1.0},
    )  # fmt: skip
    one = fit(jax.random.key(0), trainer, potential, None, (batch,), 60)
    error, first = one.error, jax.tree.map(lambda x: x[0, 0], one.history.validation_error)
    if weight == "charge_weight":
        assert error.charges[0] < min(0.02, first.charges)
        assert np.isnan(error.dipole[0])
    else:
        assert error.dipole[0] < min(0.05, first.dipole)


def test_refusals():
    with pytest.raises(BadInput, match="width_A must be a positive length"):
        partial_charges(ELEMENTS, body=SMALL, width_A=0.0)
    with pytest.raises(BadInput, match="has no charges to fit; use partial_charges"):
        gradient(build_potential(SMALL, ELEMENTS), charge_weight=1.0)
    with pytest.raises(BadInput, match="hiden"):
        build_potential({"name": "partial_charges", "charges": {**SMALL, "hiden": [3]}}, ELEMENTS)
