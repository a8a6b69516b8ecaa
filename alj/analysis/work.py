"""Work of steered pulls: its curve, the first bond that breaks, the activation energy.

A spring of stiffness k ties a variable ξ (a distance) to an anchor λ that is moved by hand. What
the hand pays is the work

    W(t) = ∫ k (λ - ξ) dλ,

of which ½ k (λ - ξ)² is stored in the spring and the rest has gone into the molecule and its bath.
The activation energy of a bond that is torn is the largest W up to the break: it contains the
spring's elastic energy, so both are reported. H. Grubmüller, B. Heymann, P. Tavan, Science 271, 997
(1996), doi:10.1126/science.271.5251.997; C. Jarzynski, Phys. Rev. Lett. 78, 2690 (1997),
doi:10.1103/PhysRevLett.78.2690.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from alj.types import BadInput


class WorkCurve(NamedTuple):
    """A pull, frame by frame: the variable and its anchor in Å, the work and its elastic part, eV.

    A sampler that sums the work step by step knows it better than any trapezoid over frames: put
    its numbers in.
    """

    variable: Float[np.ndarray, " frames"]
    anchor: Float[np.ndarray, " frames"]
    work: Float[np.ndarray, " frames"]
    elastic: Float[np.ndarray, " frames"]

    @property
    def molecular(self) -> Float[np.ndarray, " frames"]:
        """The work without what the spring has stored since the first frame, eV."""
        return self.work - (self.elastic - self.elastic[0])


class Break(NamedTuple):
    """The first frame in which a bond is longer than the limit, which one, and how long, Å."""

    frame: int
    pair: tuple[int, int]
    length_A: float


class Activation(NamedTuple):
    """The largest work up to the break, eV, and where.

    `energy` is that of the spring's work, at `frame`, where the variable is `variable` Å;
    `molecular` the largest without the spring's elastic energy. Where nothing broke, `broken` is
    False and both are lower bounds.
    """

    energy: float
    molecular: float
    frame: int
    variable: float
    broken: bool


class Difference(NamedTuple):
    """A mean difference of paired values, its standard error, and the number of pairs."""

    mean: float
    error: float
    count: int


def work_curve(
    variable: Float[np.ndarray, " frames"],
    anchor: Float[np.ndarray, " frames"],
    *,
    spring_eV_per_A2: float,
) -> WorkCurve:
    """The work of a pull from its frames, W_n = Σ ½ k [(λ-ξ)_n + (λ-ξ)_(n-1)] (λ_n - λ_(n-1)).

    `variable` ξ and `anchor` λ in Å. The trapezoid is exact for a variable that moves linearly
    between frames: take every time step where vibrations are of interest.

    >>> curve = work_curve(np.zeros(3), np.array([0.0, 1.0, 2.0]), spring_eV_per_A2=2.0)
    >>> curve.work, curve.molecular  # a variable held fast: all is in the spring
    (array([0., 1., 4.]), array([0., 0., 0.]))

    Raises:
        BadInput: no frames, or a spring constant that is not positive.
    """
    if not len(variable):
        raise BadInput("work_curve: expected the frames of a pull, found none")
    if not (np.isfinite(spring_eV_per_A2) and spring_eV_per_A2 > 0):
        raise BadInput(
            f"work_curve: expected a positive spring_eV_per_A2, found {spring_eV_per_A2}"
        )
    variable, anchor = np.asarray(variable, float), np.asarray(anchor, float)
    force = spring_eV_per_A2 * (anchor - variable)
    steps = 0.5 * (force[1:] + force[:-1]) * np.diff(anchor)
    work = np.concatenate([[0.0], np.cumsum(steps)])
    return WorkCurve(variable, anchor, work, 0.5 * force * (anchor - variable))


def bonds(
    positions: Float[np.ndarray, "atoms 3"],
    species: Int[np.ndarray, " atoms"],
    *,
    elements: Sequence[int] = (),
    longest_A: float = 2.0,
) -> Int[np.ndarray, "pairs 2"]:
    """Pairs i < j nearer than `longest_A` Å, both of `elements` (none: all but hydrogen).

    >>> chain = np.array([[0.0, 0.0, 0.0], [1.5, 0.0, 0.0], [3.0, 0.0, 0.0], [0.0, 1.1, 0.0]])
    >>> bonds(chain, np.array([6, 6, 6, 1])).tolist()
    [[0, 1], [1, 2]]
    """
    species = np.asarray(species)
    counted = np.isin(species, elements) if len(elements) else species > 1
    first, second = np.triu_indices(len(species), 1)
    lengths = np.linalg.norm(positions[first] - positions[second], axis=-1)
    bonded = counted[first] & counted[second] & (lengths < longest_A)
    return np.stack([first[bonded], second[bonded]], axis=1)


def first_break(
    positions: Float[np.ndarray, "frames atoms 3"],
    pairs: Int[np.ndarray, "pairs 2"] | Sequence[Sequence[int]] | None = None,
    *,
    species: Int[np.ndarray, " atoms"] | None = None,
    limit_A: float = 2.5,
) -> Break | None:
    """The first frame in which a bond is longer than `limit_A`; None where all hold.

    `positions` are those of one walk, Å, not wrapped. Bonds are the `pairs` of atoms, or `bonds` of
    the first frame by `species`: atoms other than hydrogen within 80 % of the limit. A frame that
    is not finite ends the search, as no bond behind it can be judged.

    >>> pull = np.zeros((4, 2, 3))
    >>> pull[:, 1, 0] = [1.5, 2.0, 2.6, 3.0]
    >>> first_break(pull, [(0, 1)])
    Break(frame=2, pair=(0, 1), length_A=2.6)

    Raises:
        BadInput: neither pairs nor species, or a molecule without bonds.
    """
    if pairs is None:
        if species is None or not len(positions):
            raise BadInput("first_break: expected frames, and pairs of atoms or their species")
        pairs = bonds(positions[0], species, longest_A=0.8 * limit_A)
    chosen = np.asarray(pairs, int).reshape(-1, 2)
    if not len(chosen):
        raise BadInput(f"first_break: expected bonds, found no pair of atoms (limit {limit_A} Å)")
    lengths = np.linalg.norm(positions[:, chosen[:, 0]] - positions[:, chosen[:, 1]], axis=-1)
    unknown = np.flatnonzero(~np.isfinite(lengths).all(axis=1))
    lengths = lengths[: unknown[0]] if len(unknown) else lengths
    broken = np.flatnonzero((lengths > limit_A).any(axis=1))
    if not len(broken):
        return None
    frame = int(broken[0])
    which = int(np.argmax(lengths[frame]))
    first, second = (int(atom) for atom in chosen[which])
    return Break(frame, (first, second), float(lengths[frame, which]))


def activation_energy(curve: WorkCurve, broken: Break | None = None) -> Activation:
    """The largest work of a pull up to its break, the frame of the break included.

    >>> work = np.array([0.0, 3.0, 5.0, 4.0, 9.0])
    >>> curve = WorkCurve(np.arange(5.0), np.arange(5.0), work, np.zeros(5))
    >>> activation_energy(curve, Break(3, (0, 1), 2.6)).energy
    5.0
    >>> activation_energy(curve).broken
    False

    Raises:
        BadInput: the break lies behind the last frame, or the work is not finite before it.
    """
    last = len(curve.work) - 1 if broken is None else broken.frame
    if not 0 <= last < len(curve.work):
        raise BadInput(
            f"activation_energy: expected a break among {len(curve.work)} frames, found one in "
            f"frame {last}"
        )
    work, molecular = curve.work[: last + 1], curve.molecular[: last + 1]
    if not np.isfinite(work).all():
        raise BadInput("activation_energy: the work is not finite before the break")
    at = int(np.argmax(work))
    return Activation(
        float(work[at]),
        float(np.max(molecular)),
        at,
        float(curve.variable[at]),
        broken is not None,
    )


def paired_difference(
    values: Float[np.ndarray, " pulls"], reference: Float[np.ndarray, " pulls"]
) -> Difference:
    """The mean of `values - reference` over pulls that began alike, and its standard error.

    What the pulls share (their velocities at the start) cancels. The error of one pair is NaN.

    >>> paired_difference(np.array([1.0, 3.0]), np.array([0.5, 1.5]))
    Difference(mean=1.0, error=0.5, count=2)

    Raises:
        BadInput: there are no pairs.
    """
    if not len(values):
        raise BadInput("paired_difference: expected at least one pair, found none")
    gaps = np.asarray(values, float) - np.asarray(reference, float)
    error = gaps.std(ddof=1) / np.sqrt(len(gaps)) if len(gaps) > 1 else np.nan
    return Difference(float(gaps.mean()), float(error), len(gaps))
