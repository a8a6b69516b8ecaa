"""Gaussian moments: against tensors summed one neighbor after the other, and their laws."""

from itertools import combinations_with_replacement, product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk
from potentials.liquids import liquid, prepared, structure, table
from scipy.spatial.transform import Rotation

from alj.geometry.environment import environment
from alj.potentials import gaussian_moments
from alj.potentials.combine import energy
from alj.potentials.gaussian_moments import _inputs, unit_silu
from alj.potentials.moments import gaussian_sums
from alj.types import BadInput

CUTOFF, CAPACITY = 3.9, 40
total = jax.jit(energy, static_argnums=0)
KINDS = (8, 1)


def found(s, radial, symmetry, form="cosine"):
    """The invariants (atoms, invariants) of a structure."""
    env = environment(s, table(s, CUTOFF, CAPACITY), CUTOFF)
    sums = gaussian_sums(
        env, KINDS, cutoff=CUTOFF, gaussians=radial.shape[-1], nearest=0.5, form=form
    )
    inputs = jax.jit(_inputs, static_argnums=(0, 1))
    return np.asarray(inputs(KINDS, symmetry, jnp.asarray(radial), (sums, env.species)))


def slow(s, radial, symmetry, form="cosine"):
    """The same from full Cartesian tensors: loops over atoms, images and channels."""
    positions, cell = np.asarray(s.positions), np.asarray(s.cell)
    of, count = [KINDS.index(z) for z in np.asarray(s.species)], radial.shape[-1]
    width, centers = count**2 / CUTOFF**2, 0.5 + np.arange(count) * (CUTOFF - 0.5) / count
    rows = []
    for i, j_kind in enumerate(of):
        ranks = [np.zeros((radial.shape[2], *(3,) * rank)) for rank in range(4)]
        for j, image in product(range(len(of)), product(range(-2, 3), repeat=3)):
            vector = positions[j] + np.array(image) @ cell - positions[i]
            r = np.linalg.norm(vector)
            if not 0 < r < CUTOFF:
                continue
            x = r / CUTOFF
            fades = {
                "cosine": 0.5 * (1 + np.cos(np.pi * x)),
                "polynomial": 1 - 10 * x**3 + 15 * x**4 - 6 * x**5,
            }
            waves = (2 * width / np.pi) ** 0.25 * np.exp(-width * (r - centers) ** 2)
            amount = fades[form] / np.sqrt(count) * radial[j_kind, of[j]] @ waves
            unit = vector / r
            ranks[0] += amount
            ranks[1] += np.einsum("s,i->si", amount, unit)
            ranks[2] += np.einsum("s,i,j->sij", amount, unit, unit)
            ranks[3] += np.einsum("s,i,j,k->sijk", amount, unit, unit, unit)
        rows.append(contracted(ranks, symmetry))
    return np.array(rows)


def contracted(ranks, symmetry):
    m0, m1, m2, m3 = ranks
    channels = range(len(m0))
    pairs = list(combinations_with_replacement(channels, 2))
    ordered = list(combinations_with_replacement(channels, 3))
    free = [(r, s, t) for r, s in pairs for t in channels]
    legacy = symmetry == "legacy"
    return [
        *m0,
        *(m1[r] @ m1[s] for r, s in pairs),
        *(np.sum(m2[r] * m2[s]) for r, s in pairs),
        *(np.sum(m3[r] * m3[s]) for r, s in pairs),
        *(np.trace(m2[r] @ m2[s] @ m2[t]) for r, s, t in ordered),
        *(m1[r] @ m2[t] @ m1[s] for r, s, t in (ordered if legacy else free)),
        *(
            np.einsum("ijk,ijl,kl", m3[r], m3[s], m2[t])
            for r, s, t in (ordered if legacy else free)
        ),
        *(
            np.einsum("ijk,ij,k", m3[r], m2[s], m1[t])
            for r, s, t in (ordered if legacy else product(channels, repeat=3))
        ),
    ]


def tables(channels, gaussians=7, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (2, 2, channels, gaussians))


@pytest.mark.parametrize(
    ("channels", "symmetry", "count"), [(5, "full", 360), (7, "legacy", 427), (7, "full", 910)]
)
def test_invariants_equal_those_of_full_tensors(channels, symmetry, count):
    s = liquid(1, species=KINDS)
    form = "polynomial" if symmetry == "legacy" else "cosine"
    ours, theirs = (each(s, tables(channels), symmetry, form) for each in (found, slow))
    assert ours.shape == (12, count)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-11)


def test_rotation_reflection_and_permutation():
    s, radial = liquid(2, species=KINDS), tables(5)
    before = found(s, radial, "full")
    for turn in (Rotation.random(rng=3).as_matrix(), -np.eye(3), np.diag([1.0, 1.0, -1.0])):
        after = found(s._replace(positions=s.positions @ turn, cell=s.cell @ turn), radial, "full")
        np.testing.assert_allclose(after, before, rtol=1e-10, atol=1e-10)
    order = np.random.default_rng(4).permutation(12)
    mixed = s._replace(positions=s.positions[order], species=s.species[order])
    np.testing.assert_allclose(found(mixed, radial, "full"), before[order], rtol=1e-10, atol=1e-10)


@pytest.mark.slow
def test_a_small_cell_of_silicon_costs_what_its_supercells_do():
    potential = gaussian_moments((14,), cutoff_A=5.0, hidden=(32, 16))
    params = prepared(potential, [liquid(1, species=(14,)), liquid(2, species=(14,))], 80)
    per_atom = []
    for times in (1, 2, 3):
        atoms = bulk("Si", a=5.43) * (times, times, times)
        s = structure(atoms.positions, atoms.numbers, atoms.cell.array)
        assert len(atoms) == 2 * times**3
        value = total(potential, params, s, table(s, potential.cutoff, 80))
        per_atom.append(float(value) / len(atoms))
    np.testing.assert_allclose(per_atom, per_atom[0], atol=1e-6, rtol=0)
    # The test would not see images that are left out in all three alike.
    stretched = bulk("Si", a=5.5)
    s = structure(stretched.positions, stretched.numbers, stretched.cell.array)
    other = float(total(potential, params, s, table(s, potential.cutoff, 80))) / 2
    assert abs(other - per_atom[0]) > 1e-3


def test_activation_keeps_the_second_moment():
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    values = np.asarray(unit_silu(jnp.asarray(nodes)))
    np.testing.assert_allclose(weights @ values**2 / weights.sum(), 1.0, rtol=1e-10)


@pytest.mark.slow
def test_an_untrained_network_speaks_in_its_unit():
    """Signals neither fade nor grow through the layers, whatever their widths."""
    structures = [liquid(seed, species=KINDS) for seed in range(4)]
    for hidden in ((256, 128), (24,)):
        potential = gaussian_moments(KINDS, cutoff_A=CUTOFF, hidden=hidden)
        params = prepared(potential, structures, CAPACITY)
        unit = float(params["constants"]["scale"][0])
        of_atoms = jax.jit(potential.atomic_energies)
        outputs = []
        for seed in range(6):
            one = {**potential.init(jax.random.key(seed)), "constants": params["constants"]}
            # The constants are those of the same table.
            one["body"]["radial"] = params["body"]["radial"]
            for s in structures:
                atoms = of_atoms(one, s, table(s, CUTOFF, CAPACITY))
                outputs.append(np.asarray(atoms) / unit)
        shift = np.mean(outputs)
        assert 0.4 < np.std(np.asarray(outputs) - shift) < 2.5


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"cutoff_A": 0.4}, "nearest_A"),
        ({"channels": 0}, "channels"),
        ({"hidden": ()}, "hidden"),
        ({"energy_unit_min_eV": 0.0}, "energy_unit_min_eV"),
    ],
)
def test_bad_settings(settings, match):
    with pytest.raises(BadInput, match=match):
        gaussian_moments((1, 8), **settings)
