"""ANI against TorchANI's numbers, and where its functions could break."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from potentials.liquids import labeled, liquid, padded, prepared, structure, table

from alj.arrays import stack_trees
from alj.geometry.environment import environment
from alj.potentials import combine
from alj.potentials.ani import ani, gelu
from alj.potentials.ani_functions import ani_functions
from alj.potentials.elements import joined, largest, listed, unlisted
from alj.types import BadInput

CAPACITY, LARGEST = 24, 20
HIDDEN = {1: (8, 6, 5), 6: (10, 6, 4)}


@pytest.fixture(scope="module")
def reference(data_folder_of_module):
    return json.loads((data_folder_of_module / "torchani.json").read_text())


@pytest.fixture(scope="module")
def data_folder_of_module(request):
    return request.path.parent.parent / "data"


def of(entry, dtype=np.float64):
    s = structure(np.array(entry["positions"]), np.array(entry["species"]))
    return s._replace(positions=s.positions.astype(dtype), cell=s.cell.astype(dtype))


DESCRIPTOR = ani_functions((1, 6))


@jax.jit
def described(s, neighbors):
    return DESCRIPTOR.function(environment(s, neighbors, 5.1))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_functions_equal_torchani(reference, dtype):
    assert len(reference["structures"]) == 5
    for name, entry in reference["structures"].items():
        s = of(entry, dtype)
        found = described(s, table(s, 5.1, CAPACITY))
        assert found.dtype == dtype
        np.testing.assert_allclose(found, entry["functions"], rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("activation", ["gelu", "celu"])
def test_network_equals_torchani(reference, activation):
    potential = ani((1, 6), hidden=HIDDEN, activation=activation)
    params = copied(potential.init(jax.random.key(0)), reference["networks"])
    program = jax.jit(lambda s, n: combine.energy_and_forces(potential, params, s, n))
    for name, entry in reference["structures"].items():
        expected = entry[activation]
        atoms = len(entry["species"])
        # One size for all: one program.
        s = padded(of(entry), LARGEST)
        energy, forces = program(s, table(s, 5.1, CAPACITY))
        forces = forces[:atoms]
        np.testing.assert_allclose(energy, expected["energy"], atol=1e-5, err_msg=name)
        np.testing.assert_allclose(forces, expected["forces"], rtol=0, atol=1e-5, err_msg=name)
        assert np.max(np.abs(expected["forces"])) > 1e-2


def copied(params, networks):
    """Params with TorchANI's weights, which stand transposed, in the unit of 1."""
    layers, last, bias = [], [], []
    for symbol in ("H", "C"):
        given = {name: np.array(value) for name, value in networks[symbol].items()}
        layers.append(
            [
                {"weights": given[f"layers.{i}.weight"].T, "biases": given[f"layers.{i}.bias"]}
                for i in range(3)
            ]
        )
        last.append(given["final_layer.weight"][0])
        bias.append(given["final_layer.bias"][0])
    body = {"layers": layers, "bias": np.array(bias)}
    made = {**params, "body": body, "readout": {"weights": last}}
    assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, params)
    return made


TURN = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
DANGEROUS = {
    "collinear": np.array([[0.0, 0, 0], [1.2, 0, 0], [-1.1, 0, 0], [2.3, 0, 0]]) @ TURN,
    "same direction": np.array([[0.0, 0, 0], [0.9, 0, 0], [1.8, 0, 0], [2.7, 0, 0]]) @ TURN,
    "equal angles": np.array([[0.0, 0, 0], [1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]]),
    "at the cutoffs": np.array([[0.0, 0, 0], [3.5, 0, 0], [0, 5.1, 0], [0, 0, 1.0]]),
    "far": np.array([[0.0, 0, 0], [60.0, 0, 0], [0, 60.0, 0], [0, 0, 600.0]]),
    "on top": np.array([[0.0, 0, 0], [0.0, 0, 0], [1.5, 0, 0], [0, 1.2, 0]]),
}
KINDS = np.array([6, 1, 6, 1])
WEIGHTS = np.random.default_rng(1).normal(size=DESCRIPTOR.width)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", DANGEROUS)
@pytest.mark.slow
def test_dangerous_structures(name, dtype):
    """Value, gradient and Hessian are finite; but on top of each other, they match differences."""
    s = of({"positions": DANGEROUS[name], "species": KINDS}, dtype)
    neighbors = table(s._replace(positions=s.positions * 0.99), 5.1, 6)
    found = curvature(s.positions, s, neighbors)
    assert all(leaf.dtype == dtype and jnp.all(jnp.isfinite(leaf)) for leaf in found)
    if name == "on top" or dtype == np.float32:
        return
    way, step = np.random.default_rng(2).normal(size=(4, 3)), 1e-6
    ahead, behind = (curvature(s.positions + sign * step * way, s, neighbors) for sign in (1, -1))
    slope, bend = ((a - b) / (2 * step) for a, b in zip(ahead[:2], behind[:2], strict=True))
    np.testing.assert_allclose(jnp.sum(found[1] * way), slope, rtol=1e-6, atol=1e-7)
    if name != "at the cutoffs":
        np.testing.assert_allclose(
            jnp.einsum("iajb,jb->ia", found[2], way), bend, rtol=1e-5, atol=1e-6
        )


@jax.jit
def curvature(positions, s, neighbors):
    def total(positions):
        env = environment(s._replace(positions=positions), neighbors, 5.1)
        return jnp.sum(DESCRIPTOR.function(env) @ WEIGHTS.astype(positions.dtype))

    return total(positions), jax.grad(total)(positions), jax.hessian(total)(positions)


@pytest.mark.slow
def test_crowded_atoms_lose_no_neighbor():
    """Whichever length the list of near neighbors is given, alone and in a batch: the same."""
    loose, tight = liquid(1, atoms=12, species=(1, 6)), liquid(2, 12, (1, 6), nearest=2.1)
    tight = tight._replace(positions=0.55 * tight.positions, cell=0.0 * tight.cell)
    loose = loose._replace(cell=0.0 * loose.cell)
    for s in (loose, tight):
        few, many = table(s, 5.1, 12), table(s, 5.1, 60)
        np.testing.assert_allclose(described(s, few), described(s, many), rtol=1e-12, atol=1e-14)
    counts = [
        int(
            jnp.max(
                jnp.sum(jnp.linalg.norm(s.positions[None] - s.positions[:, None], axis=2) < 3.5, 1)
            )
        )
        for s in (loose, tight)
    ]
    assert counts[0] < 8 < counts[1]
    pair = stack_trees([loose, tight])
    tables = stack_trees([table(s, 5.1, 24) for s in (loose, tight)])
    both = jax.jit(jax.vmap(described))(pair, tables)
    for one, s in zip(both, (loose, tight), strict=True):
        np.testing.assert_allclose(one, described(s, table(s, 5.1, 24)), rtol=1e-12, atol=1e-14)
    text = jax.jit(jax.vmap(described)).lower(pair, tables).as_text()
    assert "stablehlo.case" in text, "a batch must choose its branch, not compute all of them"


def test_largest():
    counts = jnp.array([[1, 5], [3, 2]])
    np.testing.assert_array_equal(jax.vmap(largest)(counts), [5, 5])
    assert int(largest(counts)) == 5


@pytest.mark.slow
def test_prepare_and_rebase():
    species = (1, 6)
    structures = [liquid(seed, 12, species) for seed in (3, 4, 5)]
    energies = [-30.0, -29.0, -31.5]
    batch = labeled(structures, energies, 5.1, 60)
    hidden = {1: (6, 5), 6: (7, 4)}
    for normalize in (False, True):
        potential = ani(species, hidden=hidden, normalize=normalize)
        start = potential.init(jax.random.key(3))
        params = potential.prepare(start, (batch,))
        assert bool(jnp.any(params["constants"]["std"] != 1.0)) is normalize
        s, neighbors = structures[0], table(structures[0], 5.1, 60)
        mean = float(jnp.mean(potential.atomic_energies(params, s, neighbors)))
        assert mean == pytest.approx(np.mean(energies) / 12, abs=0.5)
        moved = potential.rebase(params, (batch._replace(labels=batch.labels._replace(
            energy=3.0 * batch.labels.energy
        )),))  # fmt: skip
        assert not np.allclose(moved["constants"]["shift"], params["constants"]["shift"])
        np.testing.assert_allclose(
            potential.atomic_energies(moved, s, neighbors),
            potential.atomic_energies(params, s, neighbors),
            rtol=1e-10,
        )


@pytest.mark.slow
def test_committee_and_parameter_gradients():
    """The rows that a network is given are chosen at run time: values and slopes stay the same."""
    potential = ani((1, 6), hidden={1: (6, 5), 6: (7, 4)})
    params = stack_trees([potential.init(jax.random.key(k)) for k in range(3)])
    s = liquid(6, 12, (1, 6, 6))
    neighbors = table(s, 5.1, 60)

    def energies(params, s):
        return jax.vmap(lambda p: combine.energy(potential, p, s, neighbors))(params)

    found = jax.jit(energies)(params, s)
    alone = [
        combine.energy(potential, jax.tree.map(lambda x: x[k], params), s, neighbors)
        for k in range(3)
    ]
    np.testing.assert_allclose(found, alone, rtol=1e-12)
    slopes = jax.jit(jax.grad(lambda p: jnp.sum(energies(p, s))))(params)
    way = jax.tree.map(jnp.cos, params)
    change = [jax.tree.map(lambda x, w: x + t * w, params, way) for t in (1e-5, -1e-5)]
    expected = sum(energies(change[0], s) - energies(change[1], s)) / 2e-5
    total = sum(jax.tree.leaves(jax.tree.map(lambda a, b: jnp.sum(a * b), slopes, way)))
    np.testing.assert_allclose(total, expected, rtol=1e-6)


@pytest.mark.slow
def test_listed_rows_change_nothing():
    """Rows listed beforehand, one structure at a time or all as one: as found out while running."""
    potential = ani((1, 6), hidden={1: (6, 5), 6: (7, 4)})
    params = potential.init(jax.random.key(0))
    params["constants"]["shift"] = jnp.asarray([0.3, -0.7])
    pair = [liquid(6, 12, (1, 6, 6)), liquid(7, 12, (1, 1, 6))]
    pair[1] = pair[1]._replace(species=pair[1].species.at[-2:].set(0))
    tables = stack_trees([table(s, 5.1, 60) for s in pair])
    description = jax.vmap(potential.describe)(stack_trees(pair), tables)
    known = listed(description)
    evaluate = jax.vmap(potential.evaluate, (None, 0))
    expected = evaluate(params, description)
    assert np.all(expected[1, -2:] == 0)
    np.testing.assert_allclose(evaluate(params, known), expected, rtol=1e-12, atol=1e-14)
    one = potential.evaluate(params, joined(known)).reshape(expected.shape)
    np.testing.assert_allclose(one, expected, rtol=1e-12, atol=1e-14)
    assert [rows.shape[1] for rows in known[1].rows] == [max_of(pair, 1), max_of(pair, 6)]
    assert unlisted(known)[1].rows == ()


def max_of(structures, z):
    return max(int(jnp.sum(s.species == z)) for s in structures)


def test_gelu():
    x = jnp.linspace(-6, 6, 101)
    np.testing.assert_allclose(gelu(x), jax.nn.gelu(x, approximate=False), atol=1e-15)


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"cutoff_A": 3.0}, "angular_cutoff_A"),
        ({"angular_cutoff_A": 0.5}, "angular_cutoff_A"),
        ({"cutoff_A": math.inf}, "cutoff_A"),
        ({"hidden": {8: (4,)}}, "atomic numbers"),
        ({"hidden": {6: ()}}, "at least one layer"),
        ({"energy_unit_min_eV": 0.0}, "energy units"),
    ],
)
def test_bad_settings(settings, hint):
    with pytest.raises(BadInput, match=hint):
        ani((1, 6), **settings)


def test_inputs_that_hardly_vary_are_not_blown_up():
    """Of two structures of one shape the spread is rounding; another shape must stay finite."""
    least = 0.01
    potential = ani((8,), cutoff_A=3.9, hidden={8: (8,)}, normalize=True, least_spread=least)
    params = prepared(potential, [liquid(1), liquid(1)], 24)
    assert float(jnp.min(params["constants"]["std"])) >= least
    with pytest.raises(BadInput, match="least_spread"):
        ani((8,), least_spread=0.0)
