"""SchNet against SchNetPack's numbers and a slow loop, how far it reaches, where it could break."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from potentials.liquids import labeled, liquid, padded, structure, table

from alj.geometry.environment import environment
from alj.potentials import combine
from alj.potentials.schnet import schnet, shifted_softplus
from alj.types import BadInput

CAPACITY = 48
SMALL = {"cutoff_A": 3.9, "features": 6, "gaussians": 5, "interactions": 2}


@pytest.fixture(scope="module")
def reference(request):
    return json.loads((request.path.parent.parent / "data" / "schnetpack.json").read_text())


def noisy(params, seed=3):
    """Params whose biases, units and zeros are not those they begin with."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape), params)


def copied(weights):
    """Params with SchNetPack's weights, which stand transposed, in the unit of 1."""

    def of(name):
        return jnp.asarray(np.array(weights[name]).T)

    def layer(name):
        return {"weights": of(f"{name}.weight"), "biases": of(f"{name}.bias")}

    def block(name):
        return {
            "inward": of(f"{name}.in2f.weight"),
            "filter": [layer(f"{name}.filter_network.{i}") for i in (0, 1)],
            "outward": [layer(f"{name}.f2out.{i}") for i in (0, 1)],
        }

    embedding = np.array([weights["embedding.weight"][z] for z in ("1", "6", "8")])
    body = {
        "embedding": jnp.asarray(embedding),
        "interactions": [block(f"interactions.{i}") for i in range(3)],
        "output": [layer("outnet.0")],
        "bias": jnp.full(3, of("outnet.1.bias")[0]),
    }
    constants = {"scale": jnp.ones(3), "shift": jnp.zeros(3)}
    return {
        "body": body,
        "readout": {"weights": of("outnet.1.weight")[:, 0]},
        "constants": constants,
    }


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-10), (np.float32, 2e-5)])
def test_equals_schnetpack(reference, dtype, tolerance):
    potential, params = schnet((1, 6, 8), **reference["settings"]), copied(reference["weights"])
    assert len(reference["structures"]) == 3

    @jax.jit
    def program(s, neighbors):
        atomic = potential.atomic_energies(params, s, neighbors)
        return atomic, combine.energy_and_forces(potential, params, s, neighbors)[1]

    for name, entry in reference["structures"].items():
        s = structure(*(np.array(entry[part]) for part in ("positions", "species", "cell")))
        s = s._replace(positions=s.positions.astype(dtype), cell=s.cell.astype(dtype))
        atomic, forces = program(s, table(s, potential.cutoff, CAPACITY))
        assert atomic.dtype == forces.dtype == dtype
        size = np.max(np.abs(entry["forces"]))
        assert size > 1e-2
        near = {"rtol": 0, "atol": tolerance * max(1.0, size), "err_msg": name}
        np.testing.assert_allclose(atomic, entry["atomic"], **near)
        np.testing.assert_allclose(forces, entry["forces"], **near)


def slow(params, env, species, *, cutoff_A, gaussians, **_):
    """Atomic energies by loops over atoms and neighbors."""
    body, constants = params["body"], params["constants"]
    of, vectors = np.asarray(env.species), np.asarray(env.vectors)
    kinds = [species.index(z) if z in species else None for z in of.tolist()]
    centers = np.linspace(0.0, cutoff_A, gaussians)

    def softplus(x):
        return np.log(0.5 * np.exp(x) + 0.5)

    def dense(layer, x):
        return x @ np.asarray(layer["weights"]) + np.asarray(layer["biases"])

    width = np.shape(body["embedding"])[1]
    x = [np.zeros(width) if k is None else np.array(body["embedding"][k]) for k in kinds]
    for block in body["interactions"]:
        heard = [np.zeros(np.shape(block["inward"])[1]) for _ in x]
        for i, j in zip(*np.nonzero(np.asarray(env.neighbor_species) > 0), strict=True):
            other, r = int(env.neighbors[i, j]), np.linalg.norm(vectors[i, j])
            if r >= cutoff_A or kinds[other] is None:
                continue
            gauss = np.exp(-0.5 * ((r - centers) / (centers[1] - centers[0])) ** 2)
            filters = dense(block["filter"][1], softplus(dense(block["filter"][0], gauss)))
            fade = 0.5 * (np.cos(np.pi * r / cutoff_A) + 1.0)
            heard[i] += fade * filters * (x[other] @ np.asarray(block["inward"]))
        first, second = block["outward"]
        x = [
            now + dense(second, softplus(dense(first, m))) for now, m in zip(x, heard, strict=True)
        ]
    found = np.zeros(len(of))
    for i, kind in enumerate(kinds):
        if kind is not None:
            last = x[i]
            for layer in body["output"]:
                last = softplus(dense(layer, last))
            last = last @ np.asarray(params["readout"]["weights"])
            output = constants["scale"][kind] * (last + body["bias"][kind])
            found[i] = output + constants["shift"][kind]
    return found


@pytest.mark.parametrize(("atoms", "sizes"), [(14, {"filters": 5, "hidden": (6, 3)}), (70, {})])
def test_equals_slow_loop(atoms, sizes):
    """Periodic, padded, one species unknown to it; 70 atoms are computed in blocks."""
    species = (1, 8)
    cell = np.diag([7.3, 7.6, 7.1]) * (atoms / 14) ** (1 / 3)
    s = padded(liquid(5, atoms, species=(1, 8, 8, 3), cell=cell, nearest=1.6), atoms + 3)
    potential = schnet(species, **SMALL, **sizes)
    params = noisy(potential.init(jax.random.key(1)))
    neighbors = table(s, potential.cutoff + 0.3, CAPACITY)
    env = environment(s, neighbors, potential.cutoff)
    expected = slow(params, env, species, **SMALL)
    found = jax.jit(potential.atomic_energies)(params, s, neighbors)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)
    assert np.std(expected[:atoms]) > 1e-3


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-15)])
def test_shifted_softplus_and_its_slopes(dtype, tolerance):
    x = np.linspace(-30.0, 30.0, 4001)
    given = jnp.asarray(x, dtype)
    sigmoid = 1.0 / (1.0 + np.exp(-x))
    first = jax.grad(shifted_softplus)
    found = [jax.vmap(f)(given) for f in (shifted_softplus, first, jax.grad(first))]
    wanted = [np.logaddexp(x, 0.0) - np.log(2.0), sigmoid, sigmoid * (1.0 - sigmoid)]
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dtype == dtype
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * np.abs(theirs).max())


def test_reach():
    """Atoms feel others through as many messages as there are interactions, and no further."""
    potential = schnet((8,), **SMALL)
    params = noisy(potential.init(jax.random.key(2)))

    points = np.array([[0.0, 0, 0], [2.5, 0.4, 0], [5.0, 0, 0.3], [7.5, 0.2, 0]])
    s = structure(points, np.full(4, 8))
    neighbors = table(s, potential.cutoff, 4)

    def atomic(positions):
        return potential.atomic_energies(params, s._replace(positions=positions), neighbors)

    slopes = np.max(np.abs(jax.jit(jax.jacobian(atomic))(s.positions)), axis=2)
    gap = np.abs(np.arange(4)[:, None] - np.arange(4))
    assert np.all(slopes[gap <= 2] > 1e-6)
    np.testing.assert_array_equal(slopes[gap > 2], 0.0)


def test_closed_rows():
    """Rows that hold all their neighbors, renumbered, are an environment of their own."""
    one, other = liquid(1, 6, cell=np.eye(3) * 6.0), liquid(2, 6, cell=np.eye(3) * 6.0)
    points = np.concatenate([one.positions, other.positions + 50.0])
    s = structure(points, np.full(12, 8))
    potential = schnet((8,), **SMALL)
    params = noisy(potential.init(jax.random.key(2)))
    neighbors = table(s, potential.cutoff, 12)
    env = environment(s, neighbors, potential.cutoff)
    some = jax.tree.map(lambda leaf: leaf[6:], env)
    some = some._replace(neighbors=jnp.where(some.neighbors < 12, some.neighbors - 6, 6))
    part = jax.jit(potential.evaluate)(params, (some.species, some))
    whole = jax.jit(potential.atomic_energies)(params, s, neighbors)
    np.testing.assert_allclose(part, whole[6:], rtol=1e-11)


def test_rebase_keeps_the_function():
    potential = schnet((1, 8), **SMALL)
    first = [liquid(1, species=(1, 8)), liquid(2, species=(1, 8))]
    params = noisy(potential.init(jax.random.key(4)))
    params = potential.prepare(params, (labeled(first, [-3.0, -4.5], 3.9, CAPACITY),))
    assert potential.rebase is not None
    moved = potential.rebase(params, (labeled(first, [2.0, 9.5], 3.9, CAPACITY),))
    assert np.max(np.abs(moved["constants"]["shift"] - params["constants"]["shift"])) > 0.1
    assert float(moved["constants"]["scale"][0]) != float(params["constants"]["scale"][0])
    s = first[1]
    neighbors = table(s, 3.9, CAPACITY)
    program = jax.jit(potential.atomic_energies)
    before, after = (program(each, s, neighbors) for each in (params, moved))
    np.testing.assert_allclose(after, before, rtol=1e-10)


def test_dangerous_places():
    """Two atoms in one place, and atoms alone: finite energies, forces and training gradients."""
    potential = schnet((8,), **SMALL)
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
    np.testing.assert_allclose(np.sum(forces, axis=0), 0.0, atol=1e-12)
    np.testing.assert_array_equal(forces[3:], 0.0)
    value, slopes = jax.jit(jax.value_and_grad(force_loss))(params)
    assert value > 0
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slopes))
    slope = jax.tree.leaves(slopes["readout"])[0]
    step = 1e-5 * jnp.sign(slope)
    moved = [
        {**params, "readout": {"weights": params["readout"]["weights"] + sign * step}}
        for sign in (1, -1)
    ]
    change = force_loss(moved[0]) - force_loss(moved[1])
    np.testing.assert_allclose(change, 2e-5 * jnp.sum(jnp.abs(slope)), rtol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"cutoff_A": 0.0},
        {"features": 1},
        {"gaussians": 1},
        {"interactions": 0},
        {"energy_unit_min_eV": 0.3},
    ],
)
def test_settings_out_of_range(settings):
    with pytest.raises(BadInput, match=r"expected|must"):
        schnet((8,), **settings)
    with pytest.raises(BadInput, match="distinct"):
        schnet((8, 8))
