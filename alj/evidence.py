"""What selectors look at: one row a candidate, computed only where it is asked for."""

from typing import Any, NamedTuple


class Evidence(NamedTuple):
    """Everything a selector may look at; what was not asked for is None.

    n candidates stand beside m structures of the training set, whose fields begin with `known_`.
    Arrays of atoms are padded to the largest structure.

    Where a candidate comes from:
        samplers, walks: (n,) which sampler and walk.
        spacing: (n,) the coordinate along which its walk is read evenly.
        variable: (n,) the collective variable that a bias pulls, NaN where there is none.
        positions, cells, species: (n, atoms, 3) and (n, 3, 3) Å, (n, atoms).
        closest_radii: (n,) the shortest distance of two atoms over the sum of their covalent radii.

    What the model predicts:
        energies, energies_per_atom: (n,) eV. atomic_energies: (n, atoms) eV.
        force_magnitudes: (n, atoms) eV/Å, NaN where there is no such atom.

    What the pool says itself, NaN where it does not:
        label_energies: (n,) eV per atom. label_atomic_energies, label_force_magnitudes: (n, atoms).
        columns: by name whatever else it says in numbers, (n,) or (n, atoms).

    What the model does not know:
        energy_spread: (n,) eV/atom, standard deviation over members.
        force_spread: (n, atoms) eV/Å, standard deviation over members; 0 for atoms that pad.
        force_deviation: (n,) eV/Å, the largest deviation of a member's force from the mean.
        qs1: (n,) eV², the variance of the energy that a label would take away: the numerator of
            eq. 14 (`uncertainty.fisher`), which ranks alike and does not saturate.
        qs1_saturated: (n,) eV², all of eq. 14. atomic_qs1: (n, atoms) eV² of atomic energies.
        qs2: (n,) (eV/Å)², the same of force components, their mean (eq. 21). qs2_largest: the
            largest of them. qs2_sketched: an estimate of the numerator of eq. 21.

    What labels that nothing was trained on say of the model, in no relation to the candidates:
        held_out_deviation: (k,) eV/Å, force_deviation of k such structures. held_out_error: (k,)
            eV/Å, the largest error of the mean force on an atom there.

    Where it lies among the others:
        features: (n, d) last-layer features of the energy per atom. gradient_features: gradients
            with respect to all weights, projected at random. descriptors: means over the atoms.
        spectra: (n, d) of Coulomb matrices in units of a network of classes; regions: (n,) where
            they lie relative to it (`selection.esoinn_queries`); nodes: (n,) its nearest node.
    """

    energies: Any = None
    samplers: Any = None
    walks: Any = None
    spacing: Any = None
    variable: Any = None
    features: Any = None
    known_features: Any = None
    gradient_features: Any = None
    known_gradient_features: Any = None
    qs1: Any = None
    qs2: Any = None
    qs2_largest: Any = None
    qs2_sketched: Any = None
    qs1_saturated: Any = None
    atomic_qs1: Any = None
    known_qs1: Any = None
    known_qs1_saturated: Any = None
    known_qs2: Any = None
    known_qs2_largest: Any = None
    known_qs2_sketched: Any = None
    energy_spread: Any = None
    force_spread: Any = None
    known_force_spread: Any = None
    positions: Any = None
    cells: Any = None
    species: Any = None
    descriptors: Any = None
    known_descriptors: Any = None
    energies_per_atom: Any = None
    atomic_energies: Any = None
    force_deviation: Any = None
    held_out_deviation: Any = None
    held_out_error: Any = None
    spectra: Any = None
    regions: Any = None
    nodes: Any = None
    closest_radii: Any = None
    force_magnitudes: Any = None
    label_energies: Any = None
    label_atomic_energies: Any = None
    label_force_magnitudes: Any = None
    columns: Any = None
