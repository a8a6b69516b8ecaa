"""What every potential promises, over the registry."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from potentials.liquids import liquid, padded, prepared, structure, table
from scipy.spatial.transform import Rotation

from alj.geometry.environment import environment, environment_rows
from alj.geometry.periodic import volume
from alj.potentials import POTENTIALS, behler_parrinello, ml_bop, pair_repulsion, zbl
from alj.potentials.combine import energy_forces_stress
from alj.potentials.priors import with_prior
from alj.types import Potential

ATOMS, CAPACITY = 12, 24

SETTINGS = {
    "ani": {"cutoff_A": 3.9, "hidden": {8: (16, 12)}},
    "gaussian_moments": {"cutoff_A": 3.9, "hidden": (16, 12)},
    "schnet": {"cutoff_A": 3.9, "features": 8, "gaussians": 6, "interactions": 2},
    "equivariant": {"cutoff_A": 3.9, "features": 6, "radial_functions": 5},
    "gaussian_process": {
        "cutoff_A": 3.9,
        "atom_sigma_A": 0.6,
        "n_max": 3,
        "l_max": 2,
        "inducing_points": 20,
    },
    "lennard_jones": {"epsilon_eV": 0.05, "sigma_A": 2.4, "cutoff_A": 3.9},
    "zbl": {"inner_A": 2.0, "outer_A": 3.9},
    "pair_repulsion": {"strength_eV": 0.3, "reach_A": 3.9},
    "nacl_tosi_fumi": {"cutoff_A": 3.9},
    "partial_charges": {
        "body": {"name": "behler_parrinello", "hidden": [5], "cutoff_A": 3.5},
        "charges": {"name": "behler_parrinello", "hidden": [4], "cutoff_A": 3.9},
    },
    "meta_networks": {
        "classes": 3,
        "nodes": 6,
        "body": {"name": "behler_parrinello", "hidden": [5], "cutoff_A": 3.5},
    },
}
KINDS = {"nacl_tosi_fumi": (11, 17)}
"""Species where the potential knows no oxygen."""
TRUNCATED = {"lennard_jones", "nacl_tosi_fumi"}
"""Potentials whose forces are declared to jump at the cutoff."""
MOLECULAR = {"partial_charges"}
"""Potentials declared to have no energy in a cell."""
BLIND = {"constant"}
"""Potentials declared to see no neighbors: no forces, and any cell is wide."""


def network_with_priors(species):
    """Three parts, three cutoffs, of which the network's is not the largest."""
    priors = zbl(species, inner_A=1.5, outer_A=3.0), pair_repulsion(species, reach_A=3.7)
    return with_prior(behler_parrinello(species), *priors)


def baseline_with_prior(species):
    """Nothing to train at all."""
    return with_prior(ml_bop(species), zbl(species, outer_A=2.6))


def drop(name, seed):
    """A liquid of what a potential knows, in a cell where it knows cells."""
    found = liquid(seed, species=KINDS.get(name, (8,)))
    return found._replace(cell=jnp.zeros((3, 3))) if name in MOLECULAR else found


class Case(NamedTuple):
    name: str
    potential: Potential
    params: Any
    program: Any

    def __call__(self, s, *, further: float = 0.0, params=None):
        """Energy, forces, stress, atomic energies, in one program per shape."""
        neighbors = table(s, self.potential.cutoff + further, CAPACITY)
        return self.program(params or self.params, s, neighbors)

    def liquid(self, seed):
        return drop(self.name, seed)


BUILDERS = (*POTENTIALS, network_with_priors, baseline_with_prior)


@pytest.fixture(scope="module", params=BUILDERS, ids=lambda builder: builder.__name__)
def case(request):
    name = request.param.__name__
    kinds = KINDS.get(name, (8,))
    potential = request.param(kinds, **SETTINGS.get(name, {}))
    params = prepared(potential, [drop(name, 1), drop(name, 2)], CAPACITY)

    @jax.jit
    def program(params, s, neighbors):
        total = energy_forces_stress(potential, params, s, neighbors)
        return *total, potential.atomic_energies(params, s, neighbors)

    return Case(name, potential, params, program)


def test_invariance(case):
    s = case.liquid(3)
    energy, forces, stress, atomic = case(s)
    size = float(jnp.max(jnp.abs(forces)))
    assert size > 1e-3 or case.name in BLIND
    np.testing.assert_allclose(jnp.sum(atomic), energy, rtol=1e-12)

    shifted = case(s._replace(positions=s.positions + jnp.array([[31.0, -7.0, 2.5]])))
    np.testing.assert_allclose(shifted[0], energy, rtol=1e-10)
    np.testing.assert_allclose(shifted[1], forces, atol=1e-9 * size)

    turn = jnp.asarray(Rotation.random(rng=4).as_matrix())
    turned = case(s._replace(positions=s.positions @ turn, cell=s.cell @ turn))
    np.testing.assert_allclose(turned[0], energy, rtol=1e-10)
    np.testing.assert_allclose(turned[1], forces @ turn, atol=1e-9 * size)
    np.testing.assert_allclose(turned[2], turn.T @ stress @ turn, atol=1e-9 * size)

    order = np.random.default_rng(5).permutation(ATOMS)
    mixed = case(s._replace(positions=s.positions[order], species=s.species[order]))
    np.testing.assert_allclose(mixed[3], atomic[order], rtol=1e-9, atol=1e-12)


def test_derivatives(case):
    s, step = case.liquid(6), 1e-5
    # Tables that reach further hold the neighbors that enter on the way.
    _, forces, stress, _ = case(s, further=0.2)
    direction = np.random.default_rng(7).normal(size=(ATOMS, 3))

    def moved(sign):
        return case(s._replace(positions=s.positions + sign * step * direction), further=0.2)[0]

    def strained(i, j, sign):
        strain = np.zeros((3, 3))
        strain[i, j] += 0.5 * sign * step
        strain[j, i] += 0.5 * sign * step
        deform = jnp.eye(3) + strain
        return case(s._replace(positions=s.positions @ deform, cell=s.cell @ deform), further=0.2)[
            0
        ]

    slope = (moved(1) - moved(-1)) / (2 * step)
    np.testing.assert_allclose(-jnp.sum(forces * direction), slope, rtol=1e-5, atol=1e-7)
    cell_volume = float(volume(s.cell))
    for i, j in ((0, 0), (1, 2)):
        slope = (strained(i, j, 1) - strained(i, j, -1)) / (2 * step) / cell_volume
        np.testing.assert_allclose(stress[i, j], slope, rtol=1e-5, atol=1e-8)


def test_tables_and_padding(case):
    s = case.liquid(8)
    energy, forces, stress, atomic = case(s)
    further = case(s, further=0.3)
    np.testing.assert_allclose(further[0], energy, rtol=1e-12)
    np.testing.assert_allclose(further[1], forces, atol=1e-11)

    wide = case(padded(s, 2 * ATOMS))
    np.testing.assert_allclose(wide[0], energy, rtol=1e-12)
    np.testing.assert_allclose(wide[1][:ATOMS], forces, atol=1e-11)
    np.testing.assert_array_equal(wide[1][ATOMS:], 0.0)
    np.testing.assert_array_equal(wide[3][ATOMS:], 0.0)
    np.testing.assert_allclose(wide[2], stress, atol=1e-12)

    if case.name in MOLECULAR:
        in_a_cell = case(s._replace(cell=20.0 * jnp.eye(3)))
        assert np.isnan(in_a_cell[0])
        return
    # The cell is less than twice the cutoff wide; doubled, it costs twice.
    wide_cell = np.linalg.norm(s.cell[0]) >= 2.2 * case.potential.cutoff
    assert not wide_cell or case.name in BLIND
    double = structure(
        np.concatenate([s.positions, s.positions + s.cell[:1]]),
        np.tile(s.species, 2),
        s.cell * np.array([[2.0], [1.0], [1.0]]),
    )
    np.testing.assert_allclose(case(double)[0], 2 * energy, rtol=1e-11)
    np.testing.assert_allclose(case(double)[3][ATOMS:], atomic, rtol=1e-9)


def test_far_copies_cost_twice(case):
    s = case.liquid(9)
    alone = case(padded(s._replace(cell=jnp.zeros((3, 3))), 2 * ATOMS))[0]

    def excess(distance):
        points = np.concatenate([s.positions, s.positions + distance])
        return case(structure(points, np.tile(s.species, 2)))[0] - 2 * alone

    if case.potential.hops is None:
        # Of the whole structure: neutral copies interact by their dipoles, or by higher moments.
        assert abs(excess(80.0)) < 1e-3 * abs(alone)
        assert abs(excess(160.0)) < max(abs(excess(80.0)) / 7.5, 2e-11 * abs(alone))
        return
    np.testing.assert_allclose(excess(80.0), 0.0, atol=2e-11 * abs(alone))


def test_smooth_at_the_cutoff(case):
    cutoff = case.potential.cutoff

    def trimer(gap):
        points = np.array([[0.0, 0, 0], [0, 2.6, 0], [cutoff + gap, 0, 0]])
        kinds = np.resize(KINDS.get(case.name, (8,)), 3)
        return case(padded(structure(points, kinds), ATOMS), further=0.5)

    inside, outside = trimer(-1e-9), trimer(1e-9)
    if case.potential.hops is not None:
        np.testing.assert_array_equal(outside[1][2], 0.0)
    if case.name not in TRUNCATED:
        np.testing.assert_allclose(inside[0], outside[0], atol=1e-8)
        np.testing.assert_allclose(inside[1], outside[1], atol=1e-5)


def test_batches_dtypes_and_readout(case):
    structures = [case.liquid(10), case.liquid(11)]
    tables = [table(s, case.potential.cutoff, CAPACITY) for s in structures]
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), *zip(structures, tables, strict=True))
    batched = jax.jit(jax.vmap(case.potential.atomic_energies, (None, 0, 0)))(case.params, *both)
    for i, s in enumerate(structures):
        np.testing.assert_allclose(batched[i], case(s)[3], rtol=1e-10, atol=1e-13)

    def single(tree):
        return jax.tree.map(
            lambda x: x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
        )

    for params in (case.params, single(case.params)):
        shape = jax.eval_shape(case.program, params, single(structures[0]), tables[0])
        assert shape[3].dtype == jnp.float32
        assert shape[1].dtype == jnp.float32
        assert shape[0].dtype == jnp.float64

    def at(position):
        readout = jax.tree.map(lambda x: x + position * jnp.cos(x), case.params["readout"])
        return case(structures[0], params={**case.params, "readout": readout})[3]

    np.testing.assert_allclose(at(0.5), 0.5 * (at(0.0) + at(1.0)), rtol=1e-11, atol=1e-13)


def test_parts(case):
    potential, s = case.potential, case.liquid(12)
    neighbors = table(s, potential.cutoff + 0.2, CAPACITY)
    if potential.hops != 1:
        # A row alone says nothing where atoms exchange messages.
        assert potential.environment_energies is potential.describe_environment is None
        program = jax.jit(
            lambda *given: potential.evaluate(given[0], potential.describe(*given[1:]))
        )
        np.testing.assert_allclose(program(case.params, s, neighbors), case(s)[3], rtol=1e-11)
        return

    @jax.jit
    def parts(params, s, neighbors):
        rows = jnp.array([7, 2, ATOMS])
        some = environment_rows(s, neighbors, potential.cutoff, rows)
        whole = environment(s, neighbors, potential.cutoff)
        return (
            potential.evaluate(params, potential.describe(s, neighbors)),
            potential.evaluate(params, potential.describe_environment(some)),
            potential.environment_energies(params, whole),
            whole,
        )

    evaluated, some, by_environment, env = parts(case.params, s, neighbors)
    atomic = case(s)[3]
    np.testing.assert_allclose(evaluated, atomic, rtol=1e-11)
    np.testing.assert_allclose(by_environment, atomic, rtol=1e-11)
    np.testing.assert_allclose(some[:2], atomic[jnp.array([7, 2])], rtol=1e-11)
    assert float(some[2]) == 0.0

    if potential.kernel is None:
        return
    kernel = potential.kernel()
    arrays, scratch = kernel.arrays(case.params), np.full(kernel.scratch(CAPACITY), np.nan)
    vectors, of = np.asarray(env.vectors), np.asarray(env.neighbor_species)
    host = [
        kernel.energy(vectors[i], of[i], CAPACITY, int(s.species[i]), arrays, scratch)
        for i in range(ATOMS)
    ]
    np.testing.assert_allclose(host, atomic, rtol=1e-12, atol=1e-12)
    assert kernel.energy(vectors[0], of[0], CAPACITY, 0, arrays, scratch) == 0.0


def test_lowers_for_every_device(case):
    s = case.liquid(3)
    given = (case.params, s, table(s, case.potential.cutoff, CAPACITY))
    program = jax.jit(partial(energy_forces_stress, case.potential))
    exported = jax.export.export(program, platforms=["cpu", "cuda", "tpu"])(*given)
    assert set(exported.platforms) == {"cpu", "cuda", "tpu"}
