"""Short-range repulsion against LAMMPS, the formula in 40 digits, and its own promises."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from potentials.liquids import structure, table

from alj.potentials import pair_repulsion, zbl
from alj.potentials.combine import energy_forces_stress
from alj.potentials.short_range import COULOMB
from alj.types import BadInput

LAMMPS = {
    (14, 14, 1.0, 2.0): [
        (0.3, 1705.7757445880368, 13088.0649589558),
        (1.1, 28.525792598527094, 125.36188584378996),
        (1.55, 2.6528972795485286, 18.598538033009138),
        (1.99, 2.708371138915311e-05, 0.00812586057899267),
    ],
    (8, 1, 0.8, 1.6): [
        (0.7, 11.672201640834569, 54.702430824100865),
        (1.1, 1.505065509776118, 9.432970954794914),
        (1.55, 0.0014823390102356448, 0.08876035850912345),
    ],
    (92, 6, 1.5, 3.0): [
        (0.3, 3834.7546511977343, 31244.494167613426),
        (1.45, 16.110848445641544, 56.759122259258675),
        (2.5, 0.22322149374069744, 1.4124676634192244),
    ],
}
"""Energy (eV) and force (eV/Å) of pairs at a distance (Å): `pair_style zbl`, metal units, of the
version of 22 July 2025; keys are both nuclei, inner and outer radius (Å)."""

LAMMPS_COULOMB = 14.399645
"""e²/4πε0 in eV Å there, which has fewer digits than here."""


def pair(potential, kinds):
    """Energy and force along the axis of two atoms, as a function of their distance."""

    @jax.jit
    def program(positions, neighbors):
        s = structure(positions, np.array(kinds))
        return energy_forces_stress(potential, {}, s, neighbors)[:2]

    far = table(structure(np.array([[0.0, 0, 0], [0.1, 0, 0]]), np.array(kinds)), 1.0, 2)

    def at(r):
        energy, forces = program(jnp.array([[0.0, 0, 0], [r, 0, 0]]), far)
        return float(energy), float(forces[1, 0])

    return at


@pytest.mark.parametrize("case", LAMMPS)
def test_zbl_equals_lammps(case):
    first, second, inner, outer = case
    at = pair(zbl((), inner_A=inner, outer_A=outer), (first, second))
    for r, energy, force in LAMMPS[case]:
        expected = np.array([energy, force]) * COULOMB / LAMMPS_COULOMB
        # Near the outer radius terms of some ten eV cancel, in either code.
        np.testing.assert_allclose(at(r), expected, rtol=1e-10, atol=1e-13)


def published(r, first, second):
    """Ziegler, Biersack and Littmark's universal potential in eV, in many digits."""
    x = r * (mpmath.mpf(first) ** 0.23 + mpmath.mpf(second) ** 0.23) / mpmath.mpf("0.46850")
    terms = ((0.18175, 3.19980), (0.50986, 0.94229), (0.28022, 0.40290), (0.02817, 0.20162))
    return COULOMB * first * second / r * sum(c * mpmath.exp(-d * x) for c, d in terms)


def test_zbl_is_the_published_formula_up_to_its_switching():
    with mpmath.workdps(40):
        shift = None
        at = pair(zbl((), inner_A=2.0, outer_A=2.5), (26, 8))
        for r in (0.05, 0.4, 1.0, 1.9):
            energy, force = at(r)
            slope = mpmath.diff(lambda x: published(x, 26, 8), r)
            np.testing.assert_allclose(force, float(-slope), rtol=1e-11)
            # Inside, the switching only adds a constant.
            here = energy - float(published(mpmath.mpf(r), 26, 8))
            shift = here if shift is None else shift
            np.testing.assert_allclose(here, shift, rtol=1e-8)
        assert abs(shift) < float(published(mpmath.mpf(2.0), 26, 8))


@pytest.mark.parametrize(
    ("potential", "edges"),
    [
        (zbl((), inner_A=1.2, outer_A=2.1), (1.2, 2.1)),
        (pair_repulsion((), strength_eV=7.0, reach_A=2.3), (2.3,)),
        (pair_repulsion((), strength_eV=7.0, reach_A=2.3, exponent=6), (2.3,)),
    ],
)
def test_value_slope_and_curvature_are_continuous(potential, edges):
    at = pair(potential, (8, 8))
    for edge in edges:
        (e1, f1), (e2, f2) = at(edge - 1e-7), at(edge + 1e-7)
        assert abs(e1 - e2) < 1e-4
        assert abs(f1 - f2) < 1e-4
        step = 1e-5
        bends = [
            (at(edge + s * step)[1] - at(edge + s * step / 2)[1]) / (s * step) for s in (1, -1)
        ]
        assert abs(bends[0] - bends[1]) < 0.02 * abs(at(1.0)[1])
    assert at(edges[-1]) == (0.0, 0.0)
    assert at(edges[-1] - 1e-3)[1] > 0


def test_repulsion_is_its_strength_at_half_of_its_reach():
    for exponent in (3, 5):
        at = pair(pair_repulsion((), strength_eV=4.0, reach_A=2.4, exponent=exponent), (8, 1))
        np.testing.assert_allclose(at(1.2), (4.0, 4.0 * exponent * 2 / 1.2), rtol=1e-12)
        np.testing.assert_allclose(at(0.8)[0], 4.0 * 2.0**exponent, rtol=1e-12)


@pytest.mark.parametrize("potential", [zbl((8,)), pair_repulsion((8,))])
def test_an_overlap_costs_without_end_and_has_no_direction(potential):
    at = pair(potential, (8, 8))
    assert at(0.0) == (np.inf, 0.0)
    assert at(1e-3)[0] > 1e3
    kernel = potential.kernel()
    vectors, kinds = np.zeros((1, 3)), np.array([8])
    found = kernel.energy(vectors, kinds, 1, 8, kernel.arrays({}), np.zeros(1))
    assert found == np.inf


@pytest.mark.parametrize(
    ("builder", "settings", "hint"),
    [
        (zbl, {"inner_A": 2.0}, "inner_A < outer_A"),
        (zbl, {"inner_A": -0.1}, "inner_A < outer_A"),
        (zbl, {"outer_A": float("inf")}, "finite"),
        (pair_repulsion, {"reach_A": 0.0}, "reach_A"),
        (pair_repulsion, {"strength_eV": -1.0}, "strength_eV"),
        (pair_repulsion, {"exponent": 2}, "exponent"),
    ],
)
def test_bad_settings(builder, settings, hint):
    with pytest.raises(BadInput, match=hint):
        builder((8,), **settings)
