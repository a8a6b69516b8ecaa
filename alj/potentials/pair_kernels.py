"""ML-BOP and Lennard-Jones for one atom, as compiled host code for Monte Carlo.

Importing this module imports numba, so it is imported only where a kernel is built.
"""

import math

import numpy as np

from alj.potentials.host_code import compiled
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
