"""Collective variables: geometry against ASE, derivatives against differences, what is refused."""

import ase
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import minimize_rotation_and_translation

from alj import registry
from alj.potentials.coulomb_spectra import coulomb_spectra
from alj.sampling.shapes import best_rotation
from alj.sampling.variables import (
    SECTIONS,
    VARIABLES,
    check_atoms,
    differences,
    values_of,
    variable_of,
)
from alj.types import BadInput, Structure

ATOMS = 6
GENERATOR = np.random.default_rng(4)
CELL = np.array([[7.0, 0.0, 0.0], [1.5, 6.5, 0.0], [-1.0, 2.0, 7.5]])


def structure(positions, cell=None, species=None) -> Structure:
    positions = jnp.asarray(positions, float)
    return Structure(
        positions,
        jnp.full(len(positions), 6) if species is None else jnp.asarray(species),
        jnp.zeros((3, 3)) if cell is None else jnp.asarray(cell),
        jnp.zeros((), int),
        jnp.zeros((), int),
    )


def turned(points, seed: int = 0):
    """The same shape elsewhere."""
    q = np.random.default_rng(seed).normal(size=4)
    w, v = q[0] / np.linalg.norm(q), q[1:] / np.linalg.norm(q)
    cross = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    rotation = np.eye(3) + 2 * w * cross + 2 * cross @ cross
    return np.asarray(points) @ rotation.T + np.array([3.0, -2.0, 1.0])


def chirality(structure: Structure, scale: float = 1.0):
    """A user's own variable."""
    a, b, c, d = structure.positions[:4]
    return scale * jnp.dot(jnp.cross(b - a, c - a), d - a)


BENT = 1.2 * np.cumsum(GENERATOR.normal(size=(ATOMS, 3)), axis=0)
OTHER = BENT + 0.4 * GENERATOR.normal(size=(ATOMS, 3))
SPECTRA = coulomb_spectra(np.stack([BENT, OTHER]), np.full((2, ATOMS), 6), length=ATOMS)
SETTINGS = {
    "distance": {"atoms": [0, 5]},
    "angle": {"atoms": [0, 2, 4]},
    "torsion": {"atoms": [3, 0, 1, 4]},
    "coordination": {"first": [0, 1], "second": [1, 2, 3, 4], "radius_A": 2.0},
    "rmsd": {"reference": OTHER.tolist()},
    "path_progress": {"nodes": [BENT.tolist(), OTHER.tolist()], "between": 2},
    "path_distance": {"nodes": [BENT.tolist(), OTHER.tolist()]},
    "class_difference": {"first": SPECTRA[0].tolist(), "second": SPECTRA[1].tolist()},
    "function": {"function": f"{__name__}:chirality", "settings": {"scale": 0.5}},
}
MOLECULES_ONLY = ("chirality", "class difference")
"""Variables that do not look at cells."""


@pytest.fixture(params=VARIABLES, ids=lambda builder: builder.__name__)
def variable(request):
    name = request.param.__name__
    return variable_of({"name": name, **SETTINGS[name]})


@pytest.mark.parametrize("cell", [None, CELL], ids=["free", "periodic"])
def test_derivatives_are_differences_and_variables_see_no_position(variable, cell):
    here = structure(0.5 * (BENT + OTHER) + 0.1 * GENERATOR.normal(size=(ATOMS, 3)), cell)
    value = jax.jit(variable.function)
    slope = jax.jit(jax.grad(lambda x: variable.function(here._replace(positions=x))))

    def at(positions):
        return float(value(here._replace(positions=positions)))

    gradient = slope(here.positions)
    expected = np.zeros((ATOMS, 3))
    for index in np.ndindex(ATOMS, 3):
        step = jnp.zeros((ATOMS, 3)).at[index].set(1e-4)
        expected[index] = (at(here.positions + step) - at(here.positions - step)) / 2e-4
    np.testing.assert_allclose(gradient, expected, atol=2e-7 * max(1, np.abs(expected).max()))
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(at(here.positions + 1.7), at(here.positions), atol=1e-10)
    if cell is None:
        np.testing.assert_allclose(at(turned(here.positions)), at(here.positions), atol=1e-10)
    elif variable.name not in MOLECULES_ONLY:
        moved = np.asarray(here.positions) + GENERATOR.integers(-2, 3, (ATOMS, 3)) @ cell
        np.testing.assert_allclose(at(jnp.asarray(moved)), at(here.positions), atol=1e-10)


def test_variables_keep_the_dtype_and_take_a_batch(variable):
    many = [structure(BENT + 0.1 * GENERATOR.normal(size=(ATOMS, 3))) for _ in range(3)]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *many)
    value = jax.jit(variable.function)
    together = jax.jit(jax.vmap(variable.function))(batch)
    one_by_one = [value(each) for each in many]
    np.testing.assert_allclose(together, one_by_one, rtol=1e-12)
    single = many[0]._replace(
        positions=many[0].positions.astype(jnp.float32), cell=many[0].cell.astype(jnp.float32)
    )
    assert value(single).dtype == jnp.float32
    np.testing.assert_allclose(value(single), one_by_one[0], rtol=1e-4)


@pytest.mark.parametrize("cell", [None, CELL], ids=["free", "periodic"])
def test_distances_angles_and_torsions_are_those_of_ase(cell):
    three = [variable_of({"name": n, **SETTINGS[n]}) for n in ("distance", "angle", "torsion")]
    values = jax.jit(lambda here: values_of(three, here))
    for seed in range(5):
        generator = np.random.default_rng(seed)
        places = 1.7 * generator.uniform(size=(ATOMS, 3))
        if cell is not None:  # a molecule that the cell has torn apart
            places = places + generator.integers(-2, 3, (ATOMS, 3)) @ cell
        atoms = ase.Atoms("C6", places, cell=cell, pbc=cell is not None)
        here, near = structure(places, cell), {"mic": cell is not None}
        found = values(here)
        expected = [
            atoms.get_distance(0, 5, **near),
            np.radians(atoms.get_angle(0, 2, 4, **near)),
            np.radians(atoms.get_dihedral(3, 0, 1, 4, **near)),
        ]
        expected[2] -= 2 * np.pi * (expected[2] > np.pi)
        np.testing.assert_allclose(found, expected, atol=1e-10)


def test_angles_and_torsions_of_straight_lines_have_finite_derivatives():
    line = structure(np.outer(np.arange(6.0), [1.0, 1.0, 0.0]))
    for name, value in (("angle", np.pi), ("torsion", 0.0)):
        variable = variable_of({"name": name, "atoms": list(range(4 if name == "torsion" else 3))})
        found, slope = jax.value_and_grad(
            lambda x, variable=variable: variable.function(line._replace(positions=x))
        )(line.positions)
        assert abs(abs(found) - value) < 1e-7
        assert np.isfinite(slope).all()


def test_coordination_counts_pairs():
    here = structure([[0, 0, 0], [2.0, 0, 0], [0, 0.2, 0], [0, 0, 30.0]])
    made = {"name": "coordination", "radius_A": 2.0, "first": [0], "second": [0, 1, 2, 3]}
    plain = jax.jit(variable_of(made).function)(here)
    np.testing.assert_allclose(plain, 0.5 + 1.0 + 0.0, atol=2e-6)
    other = variable_of({**made, "exponents": [8, 14]}).function(here)
    np.testing.assert_allclose(other, 8 / 14 + 1.0 + 0.0, atol=2e-6)
    x = np.linalg.norm(here.positions[3] - here.positions[1]) / 2.0
    far = variable_of({**made, "first": [1], "second": [3], "exponents": [8, 14]})
    np.testing.assert_allclose(far.function(here), (1 - x**8) / (1 - x**14), rtol=1e-12)


def test_rmsd_is_that_of_ase_and_flat_at_its_reference():
    value = jax.jit(variable_of({"name": "rmsd", **SETTINGS["rmsd"]}).function)
    for seed in range(4):
        places = turned(OTHER, seed) + np.random.default_rng(seed).normal(size=(ATOMS, 3))
        first, second = ase.Atoms("C6", OTHER), ase.Atoms("C6", places)
        minimize_rotation_and_translation(first, second)
        expected = np.sqrt(np.mean(np.sum((first.positions - second.positions) ** 2, axis=1)))
        np.testing.assert_allclose(value(structure(places)), expected, rtol=1e-9)
    mirrored = value(structure(OTHER * np.array([1.0, 1.0, -1.0])))
    assert mirrored > 0.1
    slope = jax.jit(jax.grad(lambda x: value(structure(x))))
    assert value(structure(turned(OTHER))) < 1e-7
    assert np.isfinite(slope(jnp.asarray(OTHER))).all()
    assert np.isfinite(slope(jnp.asarray(turned(OTHER)))).all()


@pytest.mark.parametrize("shape", ["line", "pair", "plane"])
def test_rmsd_of_degenerate_shapes(shape):
    """Points on a line leave the rotation about it open: the distance is known all the same."""
    line = {"line": [-1.0, 0.2, 0.8], "pair": [-0.5, 0.5], "plane": [0.3, -0.7, 0.4]}[shape]
    points = np.outer(line, [0.0, 0.0, 1.0])
    if shape == "plane":
        points[:, 0] = [0.1, 0.5, -0.6]
    variable = variable_of({"name": "rmsd", "reference": points.tolist()})
    longer = turned(1.5 * points)
    expected = 0.5 * np.sqrt(np.mean(np.sum((points - points.mean(axis=0)) ** 2, axis=1)))
    value = jax.jit(jax.value_and_grad(lambda x: variable.function(structure(x))))
    found, slope = value(jnp.asarray(longer))
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    # along the shape itself the distance grows as the scale
    along = (longer - longer.mean(axis=0)) / 1.5
    np.testing.assert_allclose(np.sum(slope * along), found / 0.5, rtol=1e-6)


def test_rmsd_from_the_start_of_a_walk_ignores_padding():
    variable = variable_of("rmsd")
    assert variable.from_start
    padded = np.concatenate([BENT, np.zeros((2, 3))])
    species = [6] * ATOMS + [0] * 2
    start = structure(padded, species=species)
    moved = np.concatenate([turned(OTHER), np.full((2, 3), 9.0)])
    found = variable.function(structure(moved, species=species), start)
    against = variable_of({"name": "rmsd", "reference": BENT.tolist()})
    np.testing.assert_allclose(found, against.function(structure(OTHER)), rtol=1e-10)
    with pytest.raises(ValueError, match="start of the walk"):
        variable.function(start)


def test_the_best_rotation_is_one():
    rotate = jax.jit(best_rotation)
    for seed in range(5):
        matrix = jnp.asarray(np.random.default_rng(seed).normal(size=(3, 3)))
        rotation = np.asarray(rotate(matrix))
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(rotation) > 0
        u, s, v = np.linalg.svd(matrix)
        best = s[0] + s[1] + s[2] * np.sign(np.linalg.det(u @ v))
        np.testing.assert_allclose(np.trace(rotation @ matrix), best, rtol=1e-9)


def test_a_path_leads_from_its_first_shape_to_its_last():
    nodes = {"nodes": [BENT.tolist(), turned(OTHER).tolist()], "between": 8}
    along = jax.jit(variable_of({"name": "path_progress", **nodes}).function)
    beside = jax.jit(variable_of({"name": "path_distance", **nodes}).function)
    shares = np.linspace(0, 1, 5)
    # by hand: the same line, between superposed shapes
    first, second = ase.Atoms("C6", BENT), ase.Atoms("C6", OTHER)
    minimize_rotation_and_translation(first, second)
    places = [(1 - t) * first.positions + t * second.positions for t in shares]
    found = np.array([along(structure(turned(p, 3))) for p in places])
    np.testing.assert_allclose(found[1:-1], shares[1:-1], atol=0.01)
    assert 0 <= found[0] < 0.1
    assert 0.9 < found[-1] <= 1
    away = places[2] + 0.3 * np.random.default_rng(0).normal(size=(ATOMS, 3))
    assert beside(structure(away)) > beside(structure(places[2])) + 0.05


def test_differences_go_the_shorter_way_round():
    variables = [variable_of({"name": n, **SETTINGS[n]}) for n in ("distance", "torsion")]
    found = differences(variables, jnp.asarray([9.0, 3.0]), jnp.asarray([1.0, -3.0]))
    np.testing.assert_allclose(found, [8.0, 6.0 - 2 * np.pi])


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"name": "distance", "atoms": [0, 0]}, r"variable: atoms: expected different indices"),
        ({"name": "distance", "atoms": [0]}, r"variable.atoms: expected list of 2"),
        ({"name": "distanse", "atoms": [0, 1]}, "did you mean 'distance'"),
        ({"name": "torsion", "atoms": [0, 1, 2, -3]}, "counted from 0"),
        ({"name": "coordination", "first": [0], "second": [0], "radius_A": 2.0}, "second"),
        (
            {"name": "coordination", "first": [0], "second": [1], "radius_A": 2.0}
            | {"exponents": [12, 6]},
            "0 < n < m",
        ),
        ({"name": "rmsd", "reference": [[0, 0, 0]]}, "reference: expected 2 positions"),
        ({"name": "rmsd", "reference": [[0, 0, 0], [1, 0, 0]], "atoms": [0, 1, 2]}, "3 positions"),
        ({"name": "path_progress", "nodes": [[[0, 0, 0], [1, 0, 0]]]}, "at least 2 shapes"),
        ({"name": "path_progress", "nodes": [[[0, 0, 0], [1, 0, 0]]] * 2}, "shapes that differ"),
        ({"name": "function", "function": "nothing"}, "expected module:name"),
        ({"name": "function", "function": "no_such_module:x"}, "cannot be imported"),
        ({"name": "function", "function": "math:no_such"}, "has no no_such"),
    ],
)
def test_what_cannot_be_is_refused(spec, said):
    with pytest.raises(BadInput, match=said):
        variable_of(spec)


def test_absent_atoms_are_named():
    batch = jax.tree.map(lambda x: x[None], structure(BENT, species=[6, 6, 6, 6, 6, 0]))
    check_atoms(variable_of({"name": "distance", "atoms": [0, 4]}), batch)
    with pytest.raises(BadInput, match=r"distance names atom 5: .* 0 to 4, as a start has 5"):
        check_atoms(variable_of({"name": "distance", "atoms": [0, 5]}), batch)
    with pytest.raises(BadInput, match="atom 9"):
        check_atoms(variable_of({"name": "distance", "atoms": [9, 1]}), batch)


def test_sections_are_built_inside_other_sections():
    built = registry.build(SECTIONS, {"name": "distance", "atoms": [0, 1]}, "a potential")
    assert built.name == "distance"
    filled = registry.resolve(SECTIONS, {"name": "rmsd"})
    assert filled == {"name": "rmsd", "reference": None, "atoms": None}


def test_a_class_difference_is_0_at_one_prototype_and_1_at_the_other():
    variable = variable_of({"name": "class_difference", **SETTINGS["class_difference"]})
    value = jax.jit(variable.function)
    np.testing.assert_allclose(value(structure(turned(BENT))), 0.0, atol=1e-10)
    np.testing.assert_allclose(value(structure(turned(OTHER))), 1.0, rtol=1e-10)
    with pytest.raises(BadInput, match="two different spectra"):
        variable_of({"name": "class_difference", "first": [1.0, 2.0], "second": [1.0, 2.0]})
