"""Behler-Parrinello networks: what `prepare` takes from data, several species, bad settings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from potentials.liquids import labeled, liquid, table

from alj.potentials import behler_parrinello
from alj.types import BadInput

CAPACITY = 24


@pytest.fixture(scope="module")
def mixture():
    """A two-species potential, structures of two compositions, energies affine in composition."""
    potential = behler_parrinello((1, 8), hidden=(4,))
    structures = [liquid(31, species=(1, 8)), liquid(32, species=(1, 8, 8))]
    structures += [liquid(33, species=(8, 8, 1)), liquid(34, species=(8, 1, 1, 1))]
    counts = np.array([[int(jnp.sum(s.species == z)) for z in (1, 8)] for s in structures])
    return potential, structures, counts @ np.array([-3.0, -70.0])


def test_prepare(mixture):
    potential, structures, energies = mixture
    params = potential.init(jax.random.key(1))
    noise = np.array([0.6, -0.6, 0.6, -0.6])
    batch = labeled(
        [*structures, *structures[:2]],
        [*(energies + noise), 0.0, 0.0],
        potential.cutoff,
        CAPACITY,
        weights=[1, 1, 1, 1, 0, 0],
    )
    labels = batch.labels
    constants = potential.prepare(params, (batch,))["constants"]
    np.testing.assert_allclose(constants["shift"], [-3.0, -70.0], atol=0.3)
    assert 0.02 <= float(constants["scale"][0]) <= 0.15

    # Inputs have mean 0 and deviation 1 over the atoms of each species.
    describe = jax.jit(potential.describe)
    tables = [table(s, potential.cutoff, CAPACITY) for s in structures]
    raw = np.concatenate([describe(s, t)[1][0] for s, t in zip(structures, tables, strict=True)])
    of = np.concatenate([s.species for s in structures])
    for z, kind in enumerate((1, 8)):
        np.testing.assert_allclose(constants["mean"][z], raw[of == kind].mean(0), rtol=1e-10)
        np.testing.assert_allclose(constants["std"][z], raw[of == kind].std(0), rtol=1e-8)

    # Padding, and structures without an energy, change nothing.
    spoiled = labels._replace(energy=labels.energy.at[4:].set(jnp.array([1e9, jnp.nan])))
    moved = batch.structures.positions.at[4:].multiply(0.9)
    structures = batch.structures._replace(positions=moved)
    other = batch._replace(labels=spoiled, structures=structures)
    again = potential.prepare(params, (other,))["constants"]
    for name, value in constants.items():
        np.testing.assert_allclose(again[name], value, rtol=1e-9)
    missing = batch._replace(labels=labels._replace(energy=jnp.full(6, jnp.nan)))
    nothing = potential.prepare(params, (missing,))["constants"]
    np.testing.assert_array_equal(nothing["shift"], 0.0)
    np.testing.assert_array_equal(nothing["scale"], 0.02)


def test_one_structure_is_enough(mixture):
    potential, structures, energies = mixture
    batch = labeled(structures[:1], energies[:1], potential.cutoff, CAPACITY)
    params = potential.prepare(potential.init(jax.random.key(2)), (batch,))
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(params))
    fractions = np.array([0.5, 0.5])
    np.testing.assert_allclose(fractions @ params["constants"]["shift"], energies[0] / 12)
    np.testing.assert_array_equal(params["constants"]["scale"], 0.02)


def test_each_species_has_its_own_network(mixture):
    potential, structures, _ = mixture
    params = potential.init(jax.random.key(3))
    atomic_energies = jax.jit(potential.atomic_energies)
    neighbors = table(structures[0], potential.cutoff, CAPACITY)
    energies = atomic_energies(params, structures[0], neighbors)
    changed = jax.tree.map(lambda x: x.at[0].multiply(1.5), params["readout"])
    others = atomic_energies({**params, "readout": changed}, structures[0], neighbors)
    hydrogen = np.asarray(structures[0].species) == 1
    assert np.all(np.abs(others - energies)[hydrogen] > 0)
    np.testing.assert_array_equal(others[~hydrogen], energies[~hydrogen])

    first, second = (potential.init(jax.random.key(i))["readout"]["weights"] for i in (4, 5))
    assert not np.any(first == second)


@pytest.mark.parametrize(
    ("species", "settings", "hint"),
    [
        ((), {}, "species"),
        ((8, 8), {}, "distinct"),
        ((8,), {"hidden": ()}, "hidden"),
        ((8,), {"hidden": (10, 0)}, "hidden"),
        ((8,), {"activation": "relu6"}, "silu"),
        ((8,), {"cutoff_A": -1.0}, "cutoff_A"),
        ((8,), {"energy_unit_min_eV": 0.3}, "energy_unit"),
    ],
)
def test_bad_settings(species, settings, hint):
    with pytest.raises(BadInput, match=hint):
        behler_parrinello(species, **settings)


@pytest.mark.slow
def test_rebasing_on_other_data_keeps_the_function(mixture):
    potential, structures, energies = mixture
    few = labeled(structures[:2], list(energies[:2]), potential.cutoff, CAPACITY)
    all_ = labeled(
        structures, list(energies + np.array([0.5, -0.2, 0.3, 0.9])), potential.cutoff, CAPACITY
    )
    before = potential.prepare(potential.init(jax.random.key(2)), (few,))
    after = potential.rebase(before, (all_,))
    expected = potential.prepare(before, (all_,))["constants"]
    jax.tree.map(np.testing.assert_array_equal, after["constants"], expected)
    assert not np.allclose(after["constants"]["std"], before["constants"]["std"])
    for structure in structures:
        size = table(structure, potential.cutoff, CAPACITY)
        one, other = (potential.atomic_energies(p, structure, size) for p in (before, after))
        np.testing.assert_allclose(one, other, rtol=1e-9)
