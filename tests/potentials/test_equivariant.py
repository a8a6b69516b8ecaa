"""The equivariant network: symmetries, a slow loop over e3x's numbers, reach, smoothness, scale."""

import e3x
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from potentials.liquids import labeled, liquid, padded, structure, table
from scipy.spatial.transform import Rotation

from alj.geometry.environment import environment
from alj.potentials import combine, equivariant
from alj.potentials.equivariant import _hidden, _Shape
from alj.potentials.tensor_products import couple, harmonics, paths
from alj.types import BadInput

CAPACITY = 64
SMALL = {"cutoff_A": 3.9, "features": 5, "radial_functions": 4}
SHAPE = _Shape((1, 8), 3.9, 5, 2, 2, 4, 2)


def noisy(params, seed=3):
    """Params whose biases, units and zeros are not those they begin with."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape), params)


@pytest.mark.parametrize("degree", [1, 2, 4])
def test_harmonics_are_those_of_e3x(degree):
    points = np.random.default_rng(0).normal(size=(7, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    found = jnp.concatenate(harmonics(jnp.asarray(points), degree), axis=1)
    with jax.numpy_rank_promotion("allow"):
        settings = {"cartesian_order": True, "normalization": "4pi"}
        expected = e3x.so3.spherical_harmonics(jnp.asarray(points), degree, **settings)
    np.testing.assert_allclose(found, expected, atol=1e-13)


@pytest.mark.parametrize("path", paths(2, 2, 3))
def test_products_are_those_of_e3x(path):
    one, other, degree = path
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(4, 2 * one + 1, 3)), rng.normal(size=(4, 2 * other + 1, 3))
    table = e3x.so3.clebsch_gordan_for_degrees(one, other, degree, cartesian_order=True)
    expected = np.einsum("aif,ajf,ijk->akf", x, y, np.asarray(table))
    np.testing.assert_allclose(couple(jnp.asarray(x), jnp.asarray(y), degree), expected, atol=1e-14)


@pytest.mark.parametrize("settings", [{}, {"max_degree": 3, "correlation": 3}, {"max_degree": 0}])
@pytest.mark.slow
def test_rotations_and_reflections(settings):
    potential = equivariant((1, 8), **SMALL, **settings)
    params = noisy(potential.init(jax.random.key(1)))
    s = liquid(5, 14, species=(1, 8, 8), nearest=1.7)
    program = jax.jit(lambda s, n: combine.energy_and_forces(potential, params, s, n))

    def result(turn):
        turned = s._replace(positions=s.positions @ turn, cell=s.cell @ turn)
        return program(turned, table(turned, potential.cutoff, CAPACITY))

    energy, forces = result(np.eye(3))
    assert np.std(forces) > 1e-3
    rotation = Rotation.random(rng=2).as_matrix()
    for turn in (rotation, -rotation, np.diag([1.0, -1.0, 1.0])):
        other, turned = result(turn)
        np.testing.assert_allclose(other, energy, rtol=1e-10)
        np.testing.assert_allclose(turned, forces @ turn, atol=1e-10 * np.max(np.abs(forces)))


@pytest.mark.slow
def test_hidden_features_turn_by_wigner_matrices():
    potential = equivariant((1, 8), **SMALL, interactions=2)
    params = noisy(potential.init(jax.random.key(1)))
    s = liquid(5, 14, species=(1, 8, 8), nearest=1.7)
    neighbors = table(s, potential.cutoff, CAPACITY)
    program = jax.jit(lambda env: _hidden(SHAPE, params, env)[0])
    env = environment(s, neighbors, potential.cutoff)
    turn = Rotation.random(rng=3).as_matrix()
    with jax.numpy_rank_promotion("allow"):
        wigner = np.asarray(e3x.so3.wigner_d(jnp.asarray(turn), 2, cartesian_order=True))
    first = program(env)
    for sign in (1, -1):
        vectors = sign * jnp.einsum("ajx,xy->ajy", env.vectors, turn)
        turned = program(env._replace(vectors=vectors))
        for degree, (before, after) in enumerate(zip(first, turned, strict=True)):
            block = slice(degree**2, (degree + 1) ** 2)
            # e3x's matrices multiply rows, as `turn` does here: r' = r turn, x' = x D.
            expected = np.einsum("amf,mn->anf", before, wigner[block, block]) * sign**degree
            np.testing.assert_allclose(after, expected, atol=1e-10)
            assert np.std(before) > 1e-2


def slow(params, env, species, *, cutoff_A, features, radial_functions):
    """Atomic energies of one interaction with e3x's harmonics and coefficients, by loops."""
    body, constants = params["body"], params["constants"]
    (block,) = body["interactions"]
    of, vectors = np.asarray(env.species), np.asarray(env.vectors)
    with jax.numpy_rank_promotion("allow"):
        settings = {"cartesian_order": True, "normalization": "4pi"}
        every = np.asarray(e3x.so3.spherical_harmonics(env.vectors, 2, **settings))
        table = np.asarray(e3x.so3.clebsch_gordan(2, 2, 0, cartesian_order=True))
    degrees = np.array([0, 1, 1, 1, 2, 2, 2, 2, 2])
    found = np.zeros(len(of))
    for i, z in enumerate(of):
        if z not in species:
            continue
        kind, heard = species.index(z), np.zeros((9, features))
        for j in range(vectors.shape[1]):
            r, other = np.linalg.norm(vectors[i, j]), int(env.neighbor_species[i, j])
            if other not in species or r >= cutoff_A:
                continue
            for k in range(radial_functions):
                x = np.pi * r / cutoff_A
                g = 0.5 * (np.cos(x) + 1.0) * np.sin((k + 1) * x) / x
                row = species.index(other) * radial_functions + k
                weights = np.asarray(block["radial"])[degrees, row]
                weights = weights / np.asarray(constants["density"])[degrees, None]
                heard += weights * g * every[i, j][:, None]
        p = np.stack([heard[m] @ np.asarray(block["mix"])[degrees[m]] for m in range(9)])
        q = np.zeros(features)
        for number, degree in enumerate((0, 1, 2)):
            m = np.flatnonzero(degrees == degree)
            square = np.einsum("mf,nf,mn->f", p[m], p[m], table[np.ix_(m, m, [0])][..., 0])
            q += square * np.asarray(block["products"][0])[kind, number]
        h = np.asarray(body["embedding"])[kind]
        y = h @ block["kept"][0] + p[0] @ block["message"][0] + q @ block["product"][0][0]
        y = np.asarray(y + block["bias"])
        # 1.6765: 1 over the root mean square of silu of a unit normal.
        h = (h + 1.6765 * y / (1.0 + np.exp(-y)) @ np.asarray(block["out"])[0]) / np.sqrt(2.0)
        last = h @ np.asarray(body["output"]["weights"]) + np.asarray(body["output"]["biases"])
        output = last / (1.0 + np.exp(-last)) @ np.asarray(params["readout"]["weights"])
        output = constants["scale"][kind] * (output + body["bias"][kind])
        found[i] = output + constants["shift"][kind]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("atoms", [14, 70])
def test_equals_slow_loop(atoms):
    """Periodic, padded, one species unknown to it; 70 atoms are computed in blocks."""
    cell = np.diag([7.3, 7.6, 7.1]) * (atoms / 14) ** (1 / 3)
    s = padded(liquid(5, atoms, species=(1, 8, 8, 3), cell=cell, nearest=1.6), atoms + 3)
    potential = equivariant((1, 8), **SMALL, interactions=1)
    params = noisy(potential.init(jax.random.key(1)))
    neighbors = table(s, potential.cutoff + 0.3, CAPACITY)
    expected = slow(params, environment(s, neighbors, potential.cutoff), (1, 8), **SMALL)
    found = jax.jit(potential.atomic_energies)(params, s, neighbors)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)
    assert np.std(expected[:atoms]) > 1e-3


def test_small_cell_is_a_supercell():
    """A cell of less than the cutoff, and four times three times two of it."""
    cell = np.array([[2.9, 0, 0], [0.4, 3.1, 0], [-0.3, 0.2, 3.4]])
    points = np.array([[0.1, 0.1, 0.2], [1.5, 1.6, 1.9]])
    s = structure(points, np.array([1, 8]), cell)
    times = np.stack(np.meshgrid(range(4), range(3), range(2), indexing="ij"), -1).reshape(-1, 3)
    many = (points[None] + (times @ cell)[:, None]).reshape(-1, 3)
    large = structure(many, np.tile([1, 8], 24), cell * np.array([[4.0], [3.0], [2.0]]))
    potential = equivariant((1, 8), **SMALL)
    params = noisy(potential.init(jax.random.key(4)))
    program = jax.jit(potential.atomic_energies)
    one = program(params, s, table(s, potential.cutoff, 2 * CAPACITY))
    all_ = program(params, large, table(large, potential.cutoff, 2 * CAPACITY))
    np.testing.assert_allclose(all_.reshape(24, 2), np.tile(one, (24, 1)), rtol=1e-11)


@pytest.mark.slow
def test_two_derivatives_vanish_at_the_cutoff():
    potential = equivariant((8,), **SMALL)
    params = noisy(potential.init(jax.random.key(4)))
    s = structure(np.array([[0.0, 0, 0], [0, 2.6, 0], [3.9, 0, 0]]), np.full(3, 8))
    neighbors = table(s, 4.3, 4)

    def energy(gap):
        moved = s.positions.at[2, 0].add(gap)
        return combine.energy(potential, params, s._replace(positions=moved), neighbors)

    curvature = jax.jit(jax.vmap(jax.grad(jax.grad(energy))))
    inside = curvature(-np.array([1e-3, 1e-4, 1e-5]))
    assert abs(float(inside[0])) > 1e-8
    np.testing.assert_allclose(inside[1:], inside[0] * np.array([0.1, 0.01]), rtol=0.05)
    np.testing.assert_array_equal(curvature(np.array([1e-9, 0.1])), 0.0)


@pytest.mark.slow
def test_dangerous_places():
    """Two atoms in one place, and atoms alone: finite energies, forces and training gradients."""
    potential = equivariant((8,), **SMALL)
    params = potential.init(jax.random.key(5))
    points = np.array([[0.0, 0, 0], [0, 0, 0], [1.4, 0, 0], [40.0, 0, 0]])
    s = padded(structure(points, np.full(4, 8)), 5)
    neighbors = table(s, 3.9, 4)

    @jax.jit
    def force_loss(params):
        return jnp.sum(combine.forces(potential, params, s, neighbors) ** 2)

    program = jax.jit(lambda params: combine.energy_and_forces(potential, params, s, neighbors))
    energy, forces = program(params)
    assert np.isfinite(energy)
    assert np.all(np.isfinite(forces))
    np.testing.assert_array_equal(forces[3:], 0.0)
    value, slopes = jax.jit(jax.value_and_grad(force_loss))(params)
    assert value > 0
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slopes))


@pytest.mark.slow
def test_signals_begin_with_unit_variance():
    settings = {"cutoff_A": 4.5, "features": 64}
    potential = equivariant((1, 8), **settings)
    cell = np.diag([8.3, 8.6, 8.1])
    liquids = [liquid(i, 20, species=(1, 8), cell=cell, nearest=1.8) for i in (1, 2)]
    batch = labeled(liquids, [-3.0, -4.5], potential.cutoff, CAPACITY)
    params = potential.prepare(potential.init(jax.random.key(6)), (batch,))
    shape = _Shape((1, 8), 4.5, 64, 2, 2, 8, 2)
    env = environment(liquids[0], table(liquids[0], 4.5, CAPACITY), 4.5)
    for layer in jax.jit(lambda env: _hidden(shape, params, env))(env):
        for features in layer:
            assert 0.3 < float(jnp.mean(features**2)) < 3.0


def test_rebase_keeps_the_function():
    potential = equivariant((1, 8), **SMALL)
    first = [liquid(1, species=(1, 8)), liquid(2, species=(1, 8))]
    params = noisy(potential.init(jax.random.key(4)))
    params = potential.prepare(params, (labeled(first, [-3.0, -4.5], 3.9, CAPACITY),))
    assert potential.rebase is not None
    moved = potential.rebase(params, (labeled(first[1:], [9.5], 3.9, CAPACITY),))
    assert np.max(np.abs(moved["constants"]["shift"] - params["constants"]["shift"])) > 0.1
    s = first[1]
    program = jax.jit(potential.atomic_energies)
    before, after = (program(each, s, table(s, 3.9, CAPACITY)) for each in (params, moved))
    np.testing.assert_allclose(after, before, rtol=1e-10)


@pytest.mark.parametrize(
    "settings",
    [
        {"cutoff_A": 0.0},
        {"features": 0},
        {"max_degree": 5},
        {"correlation": 4},
        {"interactions": 0},
        {"energy_unit_min_eV": 0.3},
    ],
)
def test_settings_out_of_range(settings):
    with pytest.raises(BadInput, match=r"expected|must"):
        equivariant((8,), **settings)
    with pytest.raises(BadInput, match="distinct"):
        equivariant((8, 8))
