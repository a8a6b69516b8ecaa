"""The Behler-Parrinello network of one species for one atom, as compiled host code for Monte Carlo.

What makes it fast is that every loop runs over functions in contiguous lanes: exp(-η r²) is the row
of a table at the node next to r², times a short Taylor polynomial; (1 + λ cosθ)^ζ is a polynomial
in cosθ with a row of coefficients. The normalization is folded into the first layer, and tanh
follows from a table by its addition theorem. Importing this module imports numba, so it is imported
only where a kernel is built.
"""

import math
from functools import partial

import numpy as np

from alj.potentials.host_code import compiled
from alj.potentials.symmetry_functions import FADE_COEFFICIENTS, Angular
from alj.types import HostKernel

HIGHEST_ZETA = 6

_LANES = 16
"""Loops of a multiple of this many lanes need no remainder after vectorization and unrolling."""

_RADIAL_REACH, _ANGULAR_REACH = 0.05, 0.003
"""Largest η |r² - node|: Taylor polynomials of degree 7 and 4 are then exact to 2e-15."""

_TANH_END, _TANH_NODES = 20.0, 32.0

_MASK = 0xFFFFFFF
"""Cuts offsets to 28 bits, so that LLVM knows them to be positive: no wrap-around, vector loads."""

_ACTIVATIONS = {"tanh": 0, "silu": 1, "sigmoid": 2}


def behler_kernel(
    bead: int,
    cutoff: float,
    radial: tuple[float, ...],
    angular: tuple[Angular, ...],
    hidden: tuple[int, ...],
    activation: str,
) -> HostKernel:
    """The kernel of G2 and G5 functions (ζ ≤ 6) and a network per atom of species `bead`.

    With a committee's params (a leading member axis) it returns the mean over the members: one
    descriptor serves them all.
    """
    radial_lanes, angular_lanes = _padded(len(radial)), _padded(len(angular))
    etas = np.zeros(radial_lanes + angular_lanes)
    etas[: len(radial)] = radial
    etas[radial_lanes : radial_lanes + len(angular)] = [f.eta for f in angular]
    steepest = max(1e-3, max(radial) / _RADIAL_REACH, max(f.eta for f in angular) / _ANGULAR_REACH)
    rows = math.ceil(cutoff**2 * steepest / 2)
    step = cutoff**2 / rows
    nodes = (np.arange(rows) + 0.5) * step
    powers = np.zeros((HIGHEST_ZETA + 1, angular_lanes))
    for lane, f in enumerate(angular):
        scale = 2.0 ** (1 - f.zeta)
        powers[: f.zeta + 1, lane] = [
            scale * math.comb(f.zeta, n) * f.sign**n for n in range(f.zeta + 1)
        ]
    first = len(etas) + sum(_padded(width) for width in hidden)
    header = [bead, cutoff**2, step, radial_lanes, first, _ACTIVATIONS[activation]]
    header += [(math.pi / (2 * cutoff)) ** 2, len(hidden), *hidden]
    fixed = (
        np.asarray(header, float),
        np.exp(-nodes[:, None] * etas[None]),
        etas,
        powers,
        np.tanh(np.arange(_TANH_END * _TANH_NODES + 2) / _TANH_NODES),
    )
    features = [*range(len(radial)), *[-1] * (radial_lanes - len(radial))]
    features += [*range(len(radial), len(radial) + len(angular))]
    features += [-1] * (len(etas) - len(features))

    def scratch(capacity):
        return first + capacity * (angular_lanes + 3)

    return HostKernel(_energy, partial(_arrays, fixed, np.asarray(features)), scratch)


def _padded(width):
    return _LANES * math.ceil(width / _LANES)


def _arrays(fixed, features, params):
    """The fixed arrays, and (member, unit, input) weights with scale and normalization folded in.

    A unit's bias stands behind its weights; the last row is the output.
    """
    lift = slice(None) if np.ndim(params["constants"]["scale"]) == 2 else None

    def host(leaf):
        return np.asarray(leaf, np.float64)[lift]

    body, constants = params["body"], {k: host(v)[:, 0] for k, v in params["constants"].items()}
    layers = [(host(x["weights"])[:, 0], host(x["biases"])[:, 0]) for x in body["layers"]]
    scale = constants["scale"][:, None]
    readout = host(params["readout"]["weights"])[:, 0] * scale
    layers += [(readout[..., None], host(body["bias"]) * scale + constants["shift"][:, None])]
    first = layers[0][0] / constants["std"][..., None]
    biases = layers[0][1] - np.einsum("mi,mio->mo", constants["mean"], first)
    first = np.where((features >= 0)[:, None], first[:, features], 0.0)
    layers[0] = first, biases
    width = max(_padded(weights.shape[1]) for weights, _ in layers)
    rows = []
    for weights, biases in layers:
        fill = width - weights.shape[1]
        padded = np.pad(weights, ((0, 0), (0, fill), (0, 0))).transpose(0, 2, 1)
        rows.append(np.concatenate([padded, biases[..., None]], axis=2))
    return (*fixed, np.ascontiguousarray(np.concatenate(rows, axis=1)))


@compiled
def _fade(argument):
    """cos²√y by halves of the series (even and odd powers), for the latency."""
    square = argument * argument
    even = FADE_COEFFICIENTS[10]
    odd = FADE_COEFFICIENTS[11]
    even = even * square + FADE_COEFFICIENTS[8]
    odd = odd * square + FADE_COEFFICIENTS[9]
    even = even * square + FADE_COEFFICIENTS[6]
    odd = odd * square + FADE_COEFFICIENTS[7]
    even = even * square + FADE_COEFFICIENTS[4]
    odd = odd * square + FADE_COEFFICIENTS[5]
    even = even * square + FADE_COEFFICIENTS[2]
    odd = odd * square + FADE_COEFFICIENTS[3]
    even = even * square + FADE_COEFFICIENTS[0]
    odd = odd * square + FADE_COEFFICIENTS[1]
    cosine = even + argument * odd
    return cosine * cosine


@compiled
def _tanh(x, table):
    """tanh(a + δ) = (tanh a + tanh δ)/(1 + tanh a tanh δ) with the node a next to x."""
    size = min(abs(x), _TANH_END)
    node = np.int32(size * _TANH_NODES + 0.5)
    rest = size - node * (1.0 / _TANH_NODES)
    square = rest * rest
    small = rest * (1.0 - square * (1.0 / 3.0 - square * (2.0 / 15.0 - square * (17.0 / 315.0))))
    near = table[node & 0xFFFF]
    return math.copysign((near + small) / (1.0 + near * small), x)


@compiled
def _network(member, weights, header, table, work, width):
    """One member's atomic energy from the sums at the head of `work`.

    Units that only fill up lanes have weights 0 in the next layer.
    """
    source, target, row, last = 0, width & _MASK, 0, weights.shape[2] - 1
    for layer in range(int(header[7])):
        units = int(header[8 + layer])
        filled = (_LANES * ((units + _LANES - 1) // _LANES)) & _MASK
        for unit in range(units):
            total = 0.0
            for i in range(width & _MASK):
                total += weights[member, row + unit, i] * work[source + i]
            work[target + unit] = total + weights[member, row + unit, last]
        for unit in range(units, filled):
            work[target + unit] = 0.0
        if header[5] == 0.0:
            for unit in range(filled):
                work[target + unit] = _tanh(work[target + unit], table)
        else:
            linear = header[5] == 1.0
            for unit in range(filled):
                x = work[target + unit]
                sigmoid = 0.5 + 0.5 * _tanh(0.5 * x, table)
                work[target + unit] = x * sigmoid if linear else sigmoid
        row += units
        source, width, target = target, filled, (target + filled) & _MASK
    total = 0.0
    for i in range(width):
        total += weights[member, row, i] * work[source + i]
    return total + weights[member, row, last]


@compiled
def _energy(vectors, neighbor_species, count, species, arrays, scratch):
    header, table, etas, powers, tanh_table, weights = arrays
    if species != int(header[0]):
        return 0.0
    step, first = header[2], int(header[4]) & _MASK
    radial, angular = int(header[3]) & _MASK, powers.shape[1] & _MASK
    lanes = radial + angular
    for lane in range(lanes):
        scratch[lane] = 0.0
    found = 0
    for j in range(count):
        x, y, z = vectors[j, 0], vectors[j, 1], vectors[j, 2]
        square = x * x + y * y + z * z
        if square >= header[1] or neighbor_species[j] != species:
            continue
        node = min(int(square / step), table.shape[0] - 1)
        beyond = (node + 0.5) * step - square
        fade = _fade(square * header[6])
        for lane in range(radial):
            t = etas[lane] * beyond
            e = 1.0 / 120.0 + t * (1.0 / 720.0 + t * (1.0 / 5040.0))
            e = 1.0 + t * (1.0 + t * (0.5 + t * (1.0 / 6.0 + t * (1.0 / 24.0 + t * e))))
            scratch[lane] += fade * table[node, lane] * e
        here = (first + found * (angular + 3)) & _MASK
        for lane in range(angular):
            t = etas[radial + lane] * beyond
            e = 1.0 + t * (1.0 + t * (0.5 + t * (1.0 / 6.0 + t * (1.0 / 24.0))))
            scratch[here + lane] = fade * table[node, radial + lane] * e
        inverse = 1.0 / math.sqrt(square) if square > 0.0 else 0.0
        x, y, z = x * inverse, y * inverse, z * inverse
        unit = here + angular
        scratch[unit], scratch[unit + 1], scratch[unit + 2] = x, y, z
        for k in range(found):
            there = (first + k * (angular + 3)) & _MASK
            unit = there + angular
            c = x * scratch[unit] + y * scratch[unit + 1] + z * scratch[unit + 2]
            for lane in range(angular):
                p = powers[4, lane] + c * (powers[5, lane] + c * powers[6, lane])
                p = powers[1, lane] + c * (powers[2, lane] + c * (powers[3, lane] + c * p))
                p = powers[0, lane] + c * p
                scratch[radial + lane] += p * scratch[here + lane] * scratch[there + lane]
        found += 1
    energy = 0.0
    for member in range(weights.shape[0]):
        energy += _network(member, weights, header, tanh_table, scratch, lanes)
    return energy / weights.shape[0]
