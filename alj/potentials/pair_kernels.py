"""ML-BOP, pair potentials and sums for one atom, as compiled host code for Monte Carlo.

Importing this module imports numba, so it is imported only where a kernel is built.
"""

import math
from collections.abc import Sequence
from functools import cache, reduce

import numpy as np

from alj.potentials.host_code import compiled
from alj.potentials.short_range import (
    COULOMB,
    SCREENING,
    SCREENING_LENGTH,
    SCREENING_POWER,
)
from alj.types import HostKernel


def tersoff_kernel(parameters, bead: int) -> HostKernel:
    """The kernel of `ml_bop.tersoff`."""
    values = np.asarray([bead, *parameters], float)

    def arrays(params):
        return (values,)

    return HostKernel(_tersoff, arrays, lambda capacity: 6 * capacity)


def lennard_jones_kernel(strength: float, sigma: float, cutoff: float, offset: float) -> HostKernel:
    """The kernel of `lennard_jones`; strength is 4ε."""
    values = np.asarray([strength, sigma**2, cutoff**2, offset])

    def arrays(params):
        return (values,)

    return HostKernel(_lennard_jones, arrays, lambda capacity: 1)


def zbl_kernel(inner: float, outer: float) -> HostKernel:
    """The kernel of `short_range.zbl`."""
    values = np.asarray([inner, outer, COULOMB])
    roots = np.arange(_ELEMENTS, dtype=float) ** SCREENING_POWER / SCREENING_LENGTH
    terms = np.asarray(SCREENING)

    def arrays(params):
        return values, roots, terms

    return HostKernel(_zbl, arrays, lambda capacity: 1)


def repulsion_kernel(strength: float, reach: float, exponent: int) -> HostKernel:
    """The kernel of `short_range.pair_repulsion`."""
    values = np.asarray([strength, reach, exponent], float)

    def arrays(params):
        return (values,)

    return HostKernel(_repulsion, arrays, lambda capacity: 1)


def constant_kernel(energy: float) -> HostKernel:
    """The kernel of `constant.constant`."""
    values = np.asarray([energy])

    def arrays(params):
        return (values,)

    return HostKernel(_constant, arrays, lambda capacity: 1)


def summed_kernel(kernels: Sequence[HostKernel]) -> HostKernel:
    """The sum of kernels; all see the same neighbors, and each ignores those beyond its cutoff.

    `arrays` takes a sequence with the params of each. They run one after the other in one scratch
    space, of which none expects anything.
    """
    kernels = tuple(kernels)

    def arrays(params):
        parts = [kernel.arrays(part) for kernel, part in zip(kernels, params, strict=True)]
        return reduce(lambda first, second: (first, second), parts)

    def scratch(capacity):
        return max(kernel.scratch(capacity) for kernel in kernels)

    return HostKernel(reduce(_summed, [kernel.energy for kernel in kernels]), arrays, scratch)


_ELEMENTS = 256
"""Atomic numbers that have a row in tables."""


@cache
def _summed(first, second):
    """One function for each pair of functions: whatever calls it is compiled once."""

    def total(vectors, neighbor_species, count, species, arrays, scratch):
        energy = first(vectors, neighbor_species, count, species, arrays[0], scratch)
        return energy + second(vectors, neighbor_species, count, species, arrays[1], scratch)

    return compiled(total, keep=False)


@compiled
def _tersoff(vectors, neighbor_species, count, species, arrays, scratch):
    values = arrays[0]
    if species != int(values[0]):
        return 0.0
    c, d, cos0, n, beta = values[1], values[2], values[3], values[4], values[5]
    lambda1, lambda2, a, b = values[6], values[7], values[8], values[9]
    center, half = values[10], values[11]
    strength = c * c / (d * d)
    found = 0
    for j in range(count):
        x, y, z = vectors[j, 0], vectors[j, 1], vectors[j, 2]
        square = x * x + y * y + z * z
        if square >= (center + half) ** 2 or neighbor_species[j] != species:
            continue
        r = math.sqrt(square)
        inverse = 1.0 / r if r > 0.0 else 0.0
        fade = 1.0
        if r > center - half:
            fade = 0.5 - 0.5 * math.sin(0.5 * math.pi * (r - center) / half)
        here = 6 * found
        scratch[here], scratch[here + 1], scratch[here + 2] = x * inverse, y * inverse, z * inverse
        scratch[here + 3], scratch[here + 4], scratch[here + 5] = r, fade, 0.0
        for k in range(found):
            there = 6 * k
            cosine = scratch[here] * scratch[there]
            cosine += scratch[here + 1] * scratch[there + 1]
            cosine += scratch[here + 2] * scratch[there + 2]
            bend = (cosine - cos0) ** 2
            angle = 1.0 + strength * bend / (d * d + bend)
            scratch[here + 5] += scratch[there + 4] * angle
            scratch[there + 5] += fade * angle
        found += 1
    energy = 0.0
    for j in range(found):
        r, fade, zeta = scratch[6 * j + 3], scratch[6 * j + 4], scratch[6 * j + 5]
        order = (1.0 + (beta * zeta) ** n) ** (-0.5 / n)
        energy += fade * (a * math.exp(-lambda1 * r) - order * b * math.exp(-lambda2 * r))
    return 0.5 * energy


@compiled
def _lennard_jones(vectors, neighbor_species, count, species, arrays, scratch):
    values = arrays[0]
    strength, sigma2, cutoff2, offset = values[0], values[1], values[2], values[3]
    energy = 0.0
    if species < 1:
        return energy
    for j in range(count):
        x, y, z = vectors[j, 0], vectors[j, 1], vectors[j, 2]
        square = x * x + y * y + z * z
        if square < cutoff2 and neighbor_species[j] > 0:
            sixth = (sigma2 / square) ** 3
            energy += strength * (sixth * sixth - sixth) - offset
    return 0.5 * energy


@compiled
def _constant(vectors, neighbor_species, count, species, arrays, scratch):
    return arrays[0][0] if species > 0 else 0.0


@compiled
def _zbl(vectors, neighbor_species, count, species, arrays, scratch):
    values, roots, terms = arrays
    inner, outer, coulomb = values[0], values[1], values[2]
    width = outer - inner
    energy = 0.0
    if species < 1:
        return energy
    for j in range(count):
        x, y, z = vectors[j, 0], vectors[j, 1], vectors[j, 2]
        square = x * x + y * y + z * z
        if square >= outer * outer or neighbor_species[j] < 1:
            continue
        r = math.sqrt(square)
        decay = roots[species] + roots[neighbor_species[j]]
        near, value, slope, curvature = 0.0, 0.0, 0.0, 0.0
        for k in range(terms.shape[0]):
            rate = terms[k, 1] * decay
            near += terms[k, 0] * math.exp(-rate * r)
            end = terms[k, 0] * math.exp(-rate * outer)
            value += end
            slope -= rate * end
            curvature += rate * rate * end
        second = curvature / outer - 2.0 * slope / outer**2 + 2.0 * value / outer**3
        first = slope / outer - value / outer**2
        cubic = (-3.0 * first + width * second) / width**2
        quartic = (2.0 * first - width * second) / width**3
        bond = near / r - value / outer + 0.5 * width * first - width**2 * second / 12.0
        if r > inner:
            t = r - inner
            bond += t * t * t * (cubic / 3.0 + 0.25 * quartic * t)
        energy += coulomb * species * neighbor_species[j] * bond
    return 0.5 * energy


@compiled
def _repulsion(vectors, neighbor_species, count, species, arrays, scratch):
    values = arrays[0]
    strength, reach, exponent = values[0], values[1], int(values[2])
    energy = 0.0
    if species < 1:
        return energy
    for j in range(count):
        x, y, z = vectors[j, 0], vectors[j, 1], vectors[j, 2]
        square = x * x + y * y + z * z
        if square < reach * reach and neighbor_species[j] > 0:
            base = reach / math.sqrt(square) - 1.0
            power = 1.0
            for _ in range(exponent):
                power *= base
            energy += strength * power
    return 0.5 * energy
