"""The vocabulary of `alj`: every type that crosses the border of a module.

What evolves is an `(init, step)` pair. What judges is a plain function. What touches the world is
a Protocol. Units inside the package: eV, Å, amu, elementary charges, kelvin at the door.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from alj.evidence import Evidence

Key = PRNGKeyArray
Params = Any
State = Any
Description = Any
T = TypeVar("T")


class BadInput(ValueError):
    """The user's input cannot be used: one line saying what was expected, found, and what to do."""


class Structure(NamedTuple):
    """One configuration; a leading axis makes a batch.

    `positions` in Å; `species` are atomic numbers, 0 pads and is the mask; the rows of `cell` are
    lattice vectors in Å, a zero row is not periodic; `charge` in e; `multiplicity` is 2S+1, 0
    leaves it to the engine.
    """

    positions: Float[Array, "*batch atoms 3"]
    species: Int[Array, "*batch atoms"]
    cell: Float[Array, "*batch 3 3"]
    charge: Int[Array, "*batch"]
    multiplicity: Int[Array, "*batch"]


class Labels(NamedTuple):
    """What a reference says of one structure. NaN means *not given*; training ignores it.

    `energy` eV; `forces` eV/Å; `stress` eV/Å^3, tension positive; `dipole` e Å; `charges` e;
    `atomic_energies` eV, where the engine defines them.
    """

    energy: Float[Array, "*batch"]
    forces: Float[Array, "*batch atoms 3"]
    stress: Float[Array, "*batch 3 3"]
    dipole: Float[Array, "*batch 3"]
    charges: Float[Array, "*batch atoms"]
    atomic_energies: Float[Array, "*batch atoms"]


class Neighbors(NamedTuple):
    """Dense padded neighbor table, carried in sampler state.

    `indices` holds each atom's neighbors, padded with the number of atoms; `shifts` counts the
    lattice vectors added to the neighbor's position; `overflow` says that the capacity, or the
    number of images searched, was too small: the host re-allocates and replays.
    """

    indices: Int[Array, "*batch atoms neighbors"]
    shifts: Int[Array, "*batch atoms neighbors 3"]
    overflow: Bool[Array, "*batch"]


class Environment(NamedTuple):
    """All that a local potential may see: rows are atoms, columns their neighbors.

    `vectors` in Å, from atom to neighbor, image shifts applied; padded ones have species 0 and a
    length of twice the cutoff. Any subset of rows is valid for `hops = 1`, any subset closed
    under n-1 hops for `hops = n`; `neighbors` indexes these rows (the row count pads).
    """

    vectors: Float[Array, "*batch atoms neighbors 3"]
    species: Int[Array, "*batch atoms"]
    neighbor_species: Int[Array, "*batch atoms neighbors"]
    neighbors: Int[Array, "*batch atoms neighbors"]


class Batch(NamedTuple):
    """Labeled structures of one padded size.

    `weights` scale each structure's loss, 0 pads; `index` is the structure's place in the data
    set, -1 pads, so that splits are masks over the data set.
    """

    structures: Structure
    neighbors: Neighbors
    labels: Labels
    weights: Float[Array, " batch"]
    index: Int[Array, " batch"]


class HostKernel(NamedTuple):
    """A local potential for one atom as compiled host code: the Monte Carlo kernel's way in.

    `energy(vectors, neighbor_species, count, species, arrays, scratch)` is a numba function of the
    first `count` neighbors; `arrays(params)` turns parameters into the tuple of float64 arrays
    that it reads; `scratch(capacity)` is the size of its float64 workspace.
    """

    energy: Any
    arrays: Callable[[Params], tuple]
    scratch: Callable[[int], int]


class ReadoutRows(NamedTuple):
    """Derivatives with respect to the weights of the readout, flattened.

    Of the energy (weights,), of atomic energies, of forces and of stress, in eV, eV, eV/Å and
    eV/Å^3 per unit of the weights.
    """

    energy: Float[Array, " weights"]
    atomic: Float[Array, "atoms weights"]
    forces: Float[Array, "atoms 3 weights"]
    stress: Float[Array, "3 3 weights"]


class Variances(NamedTuple):
    """What a potential itself says of its doubt: of the energy and of atomic energies, eV², and of
    force components, (eV/Å)²."""

    energy: Float[Array, ""]
    atomic: Float[Array, " atoms"]
    forces: Float[Array, "atoms 3"]


class Potential(NamedTuple):
    """Atomic energies of a structure, and how to make and prepare their parameters.

    Parameters are `{"body": ..., "readout": ..., "constants": ...}`. Atomic energies are affine in
    `readout`, the last weights only (`{}` for classical potentials); `constants` come from
    `prepare` and are never trained. Energies, forces, stresses, last-layer features are derived
    once for all potentials in `potentials.combine`. A neighbor table may reach further than
    `cutoff`: what lies beyond is ignored.

    init: `key -> params`.
    prepare: `(params, batches) -> params`: what comes from data (normalization, scale, shift).
    atomic_energies: `(params, structure, neighbors) -> (atoms,)` in eV; 0 for padded atoms.
    describe: `(structure, neighbors) -> description`, the part that no parameter touches.
    evaluate: `(params, description) -> (atoms,)`; `evaluate ∘ describe = atomic_energies`.
    cutoff: in Å.
    hops: 1 for descriptors, n for message passing, None for the whole structure.
    species: the atomic numbers it knows; empty where it takes any.
    environment_energies: `(params, environment) -> (atoms,)`, None unless local.
    kernel: builds the same for one atom as host code, where there is one; a call, so that numba is
        imported by those who use it only.
    describe_environment: `environment -> description` of its rows, None unless local.
    rebase: `(params, batches) -> params`: the same function, its constants taken from other data;
        None where a warm start keeps the constants.
    member: the potential of one member, where this is the mean of a committee (else None).
    networks: what it is made of, where it is one network for each class of structures
        (`potentials.meta_networks`), which are trained class by class (else None).
    readout_rows: `(params, structure, neighbors) -> ReadoutRows`, where there is a shorter way to
        them than differentiating twice (`potentials.combine.readout_rows`), else None.
    variances: `(params, structure, neighbors) -> Variances`, where it knows its own doubt.
    charges: `(params, description) -> (atoms,)`, the partial charges in e, where it has some; 0 for
        padded atoms.
    """

    init: Callable[[Key], Params]
    prepare: Callable[[Params, tuple[Batch, ...]], Params]
    atomic_energies: Callable[[Params, Structure, Neighbors], Float[Array, " atoms"]]
    describe: Callable[[Structure, Neighbors], Description]
    evaluate: Callable[[Params, Description], Float[Array, " atoms"]]
    cutoff: float
    hops: int | None
    species: tuple[int, ...] = ()
    environment_energies: Callable[[Params, Environment], Float[Array, " atoms"]] | None = None
    kernel: Callable[[], HostKernel] | None = None
    describe_environment: Callable[[Environment], Description] | None = None
    rebase: Callable[[Params, tuple[Batch, ...]], Params] | None = None
    member: Any = None
    networks: Any = None
    readout_rows: Callable[[Params, Structure, Neighbors], ReadoutRows] | None = None
    variances: Callable[[Params, Structure, Neighbors], Variances] | None = None
    charges: Callable[[Params, Description], Float[Array, " atoms"]] | None = None


class Context(NamedTuple):
    """Whatever may change between rounds: an argument, so compiled steps survive retraining."""

    params: Params = None
    data: Any = None
    targets: Any = None


class Stepper(NamedTuple):
    """What evolves. `stepping.run` drives it; State is carried, Info is stacked.

    init: `(key, start, context) -> state`.
    step: `(key, state, context) -> (state, info)`.
    overflowed: `state -> bool`: a fixed-size table was too small since the state was made.
    grow: `state -> state` with larger tables (host); the driver replays the block from there.
    host: `step` is ordinary host code on NumPy arrays: it is looped over, not compiled.
    """

    init: Callable[[Key, Any, Context], State]
    step: Callable[[Key, State, Context], tuple[State, Any]]
    overflowed: Callable[[State], Bool[Array, ""]] | None = None
    grow: Callable[[State], State] | None = None
    host: bool = False


class Frame(NamedTuple):
    """The Info of a sampler's step: where the walk is and how it fares.

    `energy` in eV as the walking potential sees it; `ceiling` in eV (NaN where there is none);
    `stopped` says that a guard has frozen the walk.
    """

    structure: Structure
    energy: Float[Array, "*batch"]
    acceptance: Float[Array, "*batch"]
    ceiling: Float[Array, "*batch"]
    stopped: Bool[Array, "*batch"]


class Sampler(NamedTuple):
    """A Stepper that explores, with the number of steps that it wants and how frames are thinned.

    `place` (host) turns a batch of structures into starts for `stepper.init`, sizing tables;
    `spacing` says along what a trajectory is to be read evenly: "time" or "energy"; `ensemble`
    names the distribution it samples (None: none declared, none tested); `targets` names what it
    needs in `Context.targets` beside what every walk gets. Info is a `Frame`.
    """

    stepper: Stepper
    place: Callable[[Structure], Any]
    steps: int
    spacing: str = "time"
    ensemble: str | None = None
    targets: tuple[str, ...] = ()


class Trainer(NamedTuple):
    """A Stepper that fits one member, and how a committee of them is to be run by `training.fit`.

    stepper: `init(key, params, context)` and `step`; `context.data` is a `training.Fold`:
        the batches with this member's training and validation masks over the data set. Info is a
        `training.Progress`.
    params_of: `state -> params`, the best so far.
    steps: steps at most. members: size of the committee.
    split: `(key, count, members, before) -> (members, count)` bool, True trains and False
        validates; `before` is the row of the best member so far for the first structures, or None.
    start: "fresh" initializes anew at every fit, "warm" goes on from the last params.
    patience: steps without a better validation loss after which a member stops; None never.
    quantities: which of "energy", "forces", "stress" it fits, so that `fit` prepares no more.
    precision: dtype of params and structures while it trains.
    descriptions: "once" computes what has no parameters before the training, "anew" at every
        step (less memory), "automatic" decides by size.
    """

    stepper: Stepper
    params_of: Callable[[State], Params]
    steps: int
    members: int
    split: Callable[..., Bool[np.ndarray, "members count"]]
    start: str = "fresh"
    patience: int | None = None
    quantities: tuple[str, ...] = ("energy",)
    precision: str = "float64"
    descriptions: str = "automatic"


class Selector(NamedTuple):
    """`choose(key, evidence, count) -> (count,)` indices, -1 pads when fewer qualify.

    `needs` names the fields of `Evidence` that it looks at, so that nothing else is computed;
    `count` is how many it is configured to choose in a round. `report(evidence)`, where there is
    one, says in named numbers how it judges the pool; it needs no other field than `choose`.
    `judges_stopped`: frames at which walks were stopped are candidates like all others, instead of
    being labeled whatever else is.
    """

    choose: Callable[[Key, Evidence, int], Int[np.ndarray, " count"]]
    needs: tuple[str, ...] = ()
    count: int = 10
    report: Callable[[Evidence], dict] | None = None
    judges_stopped: bool = False


class Bias(NamedTuple):
    """Steering, hills, uncertainty: built by the campaign, its state carried by the sampler."""

    init: Callable[[Context, Structure], State]
    energy: Callable[[Context, State, Structure, Neighbors], Float[Array, ""]]
    update: Callable[[Context, State, Structure, Neighbors], State]


Uncertainty = Callable[[Context, Structure, Neighbors], Float[Array, " atoms"]]

FAILURE_KINDS = (
    "bad_input",
    "not_converged",
    "unphysical",
    "timeout",
    "out_of_memory",
    "crash",
    "parse",
    "infrastructure",
)


class LabelingFailed(Exception):
    """A structure could not be labeled. `kind` is one of `FAILURE_KINDS`."""

    def __init__(self, kind: str, message: str, log_tail: str = ""):
        if kind not in FAILURE_KINDS:
            raise ValueError(f"failure kind must be one of {FAILURE_KINDS}, found {kind!r}")
        super().__init__(f"{kind}: {message}")
        self.kind, self.message, self.log_tail = kind, message, log_tail

    def __reduce__(self):
        return type(self), (self.kind, self.message, self.log_tail)


@runtime_checkable
class Labeler(Protocol):
    """A reference engine. `settings` is hashed into every label's identity."""

    name: str
    settings: dict

    def label(self, structure: Structure) -> Labels:
        """Labels of one unpadded structure. Raises LabelingFailed."""
        ...


@runtime_checkable
class Store(Protocol):
    """Write-once memory: resuming is running again."""

    def remember(self, name: str, compute: Callable[[], T]) -> T: ...
