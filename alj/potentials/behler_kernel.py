"""The Behler-Parrinello network of one species for one atom, as compiled host code for Monte Carlo.

What makes it fast: exp(-η r²) comes from the row of a table at the node next to r², times a short
Taylor polynomial, for all η in contiguous lanes. Angular functions of equal (ζ, λ) lie in groups
of four lanes, so that a pair of neighbors costs one power and one fused update per group. The
normalization is folded into the first layer, and tanh follows from a table by its addition theorem.
Importing this module imports numba, so it is imported only where a kernel is built.
"""

import math
from functools import partial
from itertools import groupby, pairwise

import numpy as np

from alj.potentials.host_code import compiled
from alj.potentials.symmetry_functions import FADE_COEFFICIENTS, Angular
from alj.types import HostKernel

LANES = 4

_REACH = 0.05
"""Largest η |r² - node|: the Taylor polynomial of degree 7 is then exact to 1e-15."""

_TANH_END, _TANH_NODES = 20.0, 32.0

_ACTIVATIONS = {"tanh": 0, "silu": 1, "sigmoid": 2}


def behler_kernel(
    bead: int,
    cutoff: float,
    radial: tuple[float, ...],
    angular: tuple[Angular, ...],
    hidden: tuple[int, ...],
    activation: str,
) -> HostKernel:
    """The kernel of G2 and G5 functions and a network per atom of species `bead`.

    With a committee's params (a leading member axis) it returns the mean over the members: one
    descriptor serves them all.
    """
    etas, keys, features = _lanes(radial, angular)
    highest = max((zeta for zeta, _ in keys), default=1)
    powers = [zeta if sign > 0 else zeta + highest + 1 for zeta, sign in keys]
    rows = math.ceil(cutoff**2 * max(etas.max(), 1e-3) / (2 * _REACH))
    step = cutoff**2 / rows
    nodes = (np.arange(rows) + 0.5) * step
    radial_lanes = len(etas) - LANES * len(keys)
    header = [bead, cutoff**2, step, radial_lanes, highest, _ACTIVATIONS[activation]]
    header += [(math.pi / (2 * cutoff)) ** 2, len(hidden), *hidden]
    fixed = (
        np.asarray(header, float),
        np.exp(-nodes[:, None] * etas[None]),
        etas,
        np.asarray(powers, float),
        np.tanh(np.arange(_TANH_END * _TANH_NODES + 2) / _TANH_NODES),
    )

    def scratch(capacity):
        buffers = sum(_padded(width) for width in hidden)
        return capacity * (3 + LANES * len(keys)) + len(etas) + 2 * (highest + 1) + buffers

    return HostKernel(_energy, partial(_arrays, fixed, features), scratch)


def _padded(width):
    return LANES * math.ceil(width / LANES)


def _lanes(radial, angular):
    """η of every lane, (ζ, λ) of every angular group, and (feature, prefactor) of every lane.

    Lanes that only fill up a vector have η = 0 and no feature.
    """
    empty = (0.0, -1, 0.0)
    lanes = [(eta, i, 1.0) for i, eta in enumerate(radial)]
    lanes += [empty] * (_padded(len(lanes)) - len(lanes))
    keys = []
    order = sorted(range(len(angular)), key=lambda i: (angular[i].zeta, angular[i].sign))
    for (zeta, sign), run in groupby(order, key=lambda i: (angular[i].zeta, angular[i].sign)):
        group = [(angular[i].eta, len(radial) + i, 2.0 ** (1 - zeta)) for i in run]
        group += [empty] * (_padded(len(group)) - len(group))
        keys += [(int(zeta), int(sign))] * (len(group) // LANES)
        lanes += group
    etas, features, factors = zip(*lanes, strict=True)
    return np.asarray(etas), keys, (np.asarray(features), np.asarray(factors))


def _arrays(fixed, features, params):
    """The fixed arrays and one row of weights per member, scale and normalization folded in."""
    lift = 0 if np.ndim(params["constants"]["scale"]) == 2 else None

    def host(leaf):
        return np.asarray(leaf, np.float64)[lift if lift is None else slice(None)]

    body, constants = params["body"], {k: host(v)[:, 0] for k, v in params["constants"].items()}
    layers = [(host(x["weights"])[:, 0], host(x["biases"])[:, 0]) for x in body["layers"]]
    first, biases = layers[0]
    biases = biases - np.einsum("mi,mio->mo", constants["mean"] / constants["std"], first)
    index, factors = features
    first = np.where(
        (index >= 0)[None, :, None],
        (first / constants["std"][:, :, None])[:, index] * factors[None, :, None],
        0.0,
    )
    parts = []
    for weights, bias in [(first, biases), *layers[1:]]:
        fill = _padded(weights.shape[1]) - weights.shape[1]
        weights = np.pad(weights, ((0, 0), (0, fill), (0, 0)))
        parts += [weights.transpose(0, 2, 1).reshape(len(weights), -1), bias]
    scale = constants["scale"]
    readout = host(params["readout"]["weights"])[:, 0] * scale[:, None]
    offset = host(body["bias"])[:, 0] * scale + constants["shift"]
    parts += [readout, offset[:, None]]
    return (*fixed, np.ascontiguousarray(np.concatenate(parts, axis=1)))


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
def _exp(x):
    """exp for |x| ≤ 0.05."""
    square = x * x
    low = 1.0 + x + square * (0.5 + x * (1.0 / 6.0))
    high = 1.0 / 24.0 + x * (1.0 / 120.0) + square * (1.0 / 720.0 + x * (1.0 / 5040.0))
    return low + square * square * high


@compiled
def _tanh(x, table):
    """tanh(a + δ) = (tanh a + tanh δ)/(1 + tanh a tanh δ) with the node a next to x."""
    size = min(abs(x), _TANH_END)
    node = int(size * _TANH_NODES + 0.5)
    rest = size - node / _TANH_NODES
    square = rest * rest
    small = rest * (1.0 - square * (1.0 / 3.0 - square * (2.0 / 15.0 - square * (17.0 / 315.0))))
    near = table[node]
    return math.copysign((near + small) / (1.0 + near * small), x)


@compiled
def _activate(code, x, table):
    if code == 0:
        return _tanh(x, table)
    sigmoid = 0.5 + 0.5 * _tanh(0.5 * x, table)
    return sigmoid if code == 2 else x * sigmoid


@compiled
def _pairs(cosine, powers, highest, which, ours, theirs, sums):
    """Add one pair of neighbors to the angular sums."""
    plus, minus = 1.0 + cosine, 1.0 - cosine
    high, low = plus, minus
    for zeta in range(1, highest + 1):
        powers[zeta] = high
        powers[zeta + highest + 1] = low
        high *= plus
        low *= minus
    for group in range(which.shape[0]):
        power = powers[int(which[group])]
        lane = LANES * group
        a = sums[lane] + power * ours[lane] * theirs[lane]
        b = sums[lane + 1] + power * ours[lane + 1] * theirs[lane + 1]
        c = sums[lane + 2] + power * ours[lane + 2] * theirs[lane + 2]
        d = sums[lane + 3] + power * ours[lane + 3] * theirs[lane + 3]
        sums[lane] = a
        sums[lane + 1] = b
        sums[lane + 2] = c
        sums[lane + 3] = d


@compiled
def _network(inputs, weights, header, table, buffer):
    """One member's atomic energy; dot products in four lanes."""
    start, fill, width = 0, 0, inputs.shape[0]
    for layer in range(int(header[7])):
        units = int(header[8 + layer])
        outputs = buffer[fill : fill + LANES * ((units + LANES - 1) // LANES)]
        offset = start + units * width
        for unit in range(units):
            row = weights[start + unit * width : start + (unit + 1) * width]
            a, b, c, d = 0.0, 0.0, 0.0, 0.0
            for i in range(0, width, LANES):
                a += row[i] * inputs[i]
                b += row[i + 1] * inputs[i + 1]
                c += row[i + 2] * inputs[i + 2]
                d += row[i + 3] * inputs[i + 3]
            outputs[unit] = ((a + c) + (b + d)) + weights[offset + unit]
        for unit in range(units):
            outputs[unit] = _activate(int(header[5]), outputs[unit], table)
        for unit in range(units, outputs.shape[0]):
            outputs[unit] = 0.0
        start, fill = offset + units, fill + outputs.shape[0]
        inputs, width = outputs, outputs.shape[0]
    energy = weights[weights.shape[0] - 1]
    for unit in range(weights.shape[0] - 1 - start):
        energy += weights[start + unit] * inputs[unit]
    return energy


@compiled
def _energy(vectors, neighbor_species, count, species, arrays, scratch):
    header, table, etas, which, tanh_table, weights = arrays
    if species != int(header[0]):
        return 0.0
    step, highest = header[2], int(header[4])
    lanes, radial = etas.shape[0], int(header[3])
    wide = lanes - radial
    sums = scratch[:lanes]
    powers = scratch[lanes : lanes + 2 * highest + 2]
    first = lanes + 2 * highest + 2
    buffer = scratch[first:]
    for layer in range(int(header[7])):
        first += LANES * ((int(header[8 + layer]) + LANES - 1) // LANES)
    for lane in range(lanes):
        sums[lane] = 0.0
    found = 0
    for j in range(count):
        x, y, z = vectors[j, 0], vectors[j, 1], vectors[j, 2]
        square = x * x + y * y + z * z
        if square >= header[1] or neighbor_species[j] != species:
            continue
        node = int(square / step)
        node = min(node, table.shape[0] - 1)
        beyond = (node + 0.5) * step - square
        fade = _fade(square * header[6])
        row = table[node]
        for lane in range(radial):
            sums[lane] += fade * (row[lane] * _exp(etas[lane] * beyond))
        place = first + found * (wide + 3)
        ours = scratch[place : place + wide + 3]
        for lane in range(wide):
            ours[lane] = fade * (row[radial + lane] * _exp(etas[radial + lane] * beyond))
        inverse = 1.0 / math.sqrt(square) if square > 0.0 else 0.0
        x, y, z = x * inverse, y * inverse, z * inverse
        ours[wide], ours[wide + 1], ours[wide + 2] = x, y, z
        angular = sums[radial:]
        for k in range(found):
            place = first + k * (wide + 3)
            theirs = scratch[place : place + wide + 3]
            cosine = x * theirs[wide] + y * theirs[wide + 1] + z * theirs[wide + 2]
            _pairs(cosine, powers, highest, which, ours, theirs, angular)
        found += 1
    energy = 0.0
    for member in range(weights.shape[0]):
        energy += _network(sums, weights[member], header, tanh_table, buffer)
    return energy / weights.shape[0]
