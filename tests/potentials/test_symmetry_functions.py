"""Symmetry functions against the formulas, written out as slow loops over triples."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from potentials.liquids import liquid, structure, table

from alj.geometry.environment import environment
from alj.potentials.symmetry_functions import RADIAL_ETAS, angular_table, fade, symmetry_functions
from alj.types import BadInput

CAPACITY = 24


def slow(env, atom, species, cutoff, form):
    """G2, then the angular functions, of one atom, by the formulas."""

    def fc(r):
        return 0.5 * (math.cos(math.pi * r / cutoff) + 1) if r < cutoff else 0.0

    neighbors = [
        (int(z), np.asarray(v))
        for z, v in zip(env.neighbor_species[atom], env.vectors[atom], strict=True)
        if z > 0
    ]
    values = []
    for z in species:
        of = [np.linalg.norm(v) for kind, v in neighbors if kind == z]
        values += [sum(math.exp(-eta * r * r) * fc(r) for r in of) for eta in RADIAL_ETAS]
    for place, a in enumerate(species):
        for b in species[place:]:
            for f in angular_table():
                total = 0.0
                for j, (kind_j, vj) in enumerate(neighbors):
                    for kind_k, vk in neighbors[j + 1 :]:
                        if sorted((kind_j, kind_k)) != sorted((a, b)):
                            continue
                        rj, rk, rjk = map(np.linalg.norm, (vj, vk, vj - vk))
                        cosine = vj @ vk / (rj * rk)
                        square, weight = rj * rj + rk * rk, fc(rj) * fc(rk)
                        if form == "G4":
                            square, weight = square + rjk * rjk, weight * fc(rjk)
                        power = (1 + f.sign * cosine) ** f.zeta
                        total += 2 ** (1 - f.zeta) * power * math.exp(-f.eta * square) * weight
                values.append(total)
    return np.array(values)


@pytest.mark.parametrize(("form", "species"), [("G5", (8,)), ("G4", (8,)), ("G5", (1, 8))])
def test_formulas(form, species):
    s = liquid(21, species=species)
    cutoff = 3.7
    descriptor = symmetry_functions(species, cutoff_A=cutoff, form=form)

    @jax.jit
    def described(s, neighbors):
        env = environment(s, neighbors, cutoff)
        return env, descriptor.function(env)

    # The table reaches further than the cutoff: what lies beyond contributes nothing.
    env, found = described(s, table(s, 4.2, CAPACITY))
    assert found.shape == (12, descriptor.width)
    for atom in (0, 5):
        expected = slow(env, atom, species, cutoff, form)
        np.testing.assert_allclose(found[atom], expected, rtol=1e-12, atol=1e-14)


def test_gradients_are_finite_for_coinciding_and_padded_neighbors():
    descriptor = symmetry_functions((8,), cutoff_A=3.5)
    points = np.array([[0.0, 0, 0], [0, 0, 0], [2.5, 0, 0], [0, 2.5, 0], [9, 9, 9]])
    s = structure(points, np.full(5, 8))
    neighbors = table(s, 3.5, 8)

    @jax.jit
    def gradient(positions):
        moved = s._replace(positions=positions)
        return jax.grad(lambda x: jnp.sum(descriptor.function(x)), allow_int=True)(
            environment(moved, neighbors, 3.5)
        ).vectors

    found = gradient(s.positions)
    assert jnp.all(jnp.isfinite(found))
    assert not jnp.any(found[4])


def test_table_and_cutoff_function():
    table_ = angular_table()
    assert len(table_) == len(RADIAL_ETAS) == 25
    assert [f.zeta for f in table_] == [2] * 6 + [3] * 6 + [4] * 6 + [5] * 6 + [6]
    printed = "+++---" + "+++--+" + "+++---" * 2 + "+"
    assert "".join("+" if f.sign > 0 else "-" for f in table_) == printed
    assert angular_table(regular=True)[11].sign == -1
    assert table_[24].eta == pytest.approx(0.1204)
    r = np.linspace(0, 3.5, 50)
    np.testing.assert_allclose(
        fade(jnp.asarray(r**2), 3.5), 0.5 * (np.cos(np.pi * r / 3.5) + 1), atol=2e-16
    )


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"cutoff_A": 0.0}, "cutoff_A"),
        ({"cutoff_A": math.nan}, "cutoff_A"),
        ({"form": "G3"}, "G5"),
        ({"radial": (-1.0,)}, "eta"),
        ({"radial": (), "angular": ()}, "at least one"),
    ],
)
def test_bad_settings(settings, hint):
    with pytest.raises(BadInput, match=hint):
        symmetry_functions((8,), **settings)
