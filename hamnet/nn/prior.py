"""Baseline: what is taken from H before the network learns the rest, and given back after it.

- none: nothing.
- two_centre: the prior, smooth functions of distance fitted in closed form before the training: off-site blocks as
  `hamnet.data.two_centre`, on-site blocks as constants and a sum over neighbours (`hamnet.data.crystal_field`).
  It is that of A_0; what tells spins apart is left to the network.
- reference: H0 from outside (`Calculation.reference_hamiltonian`), as PySCF's guess from superposed atoms.

Each is exactly equivariant, bitwise hermitian, and (the first two) smooth and zero beyond the cutoff.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hamnet.core.basis import OrbitalBasis
from hamnet.core.blocks import BlockMatrix, species_groups
from hamnet.core.calculation import Calculation
from hamnet.core.pairs import PairList
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.data.crystal_field import CrystalField
from hamnet.data.irrep_blocks import channels_to_values, spin_channels, values_to_channels
from hamnet.data.two_centre import TwoCentreFit
from hamnet.errors import BasisError, FormatError, PhysicsError

FloatArray = NDArray[np.float64]
ArrayDict = dict[str, NDArray[Any]]
Kind = Literal["none", "two_centre", "reference"]

Sample = tuple[AtomicStructure, BlockMatrix]

FORMAT = 1
LARGEST_SAMPLE = 200
"""Calculations that enter the fit: some tens of spline coefficients need no more."""
RARE = 20
"""Further calculations enter when they have a couple of species that fewer than this many have had."""
NO_REFERENCE = (
    "the network learns H - H0, and no reference_hamiltonian H0 is there: label with `hamnet label pyscf --reference "
    "minao`, or give a store with --reference at prediction, or train with network.baseline=two_centre"
)


def matrix_channels(matrix: BlockMatrix, magnetic: bool = False) -> FloatArray:
    """(n_spinless_values, n_channels) real channels of a matrix; see `hamnet.data.irrep_blocks.spin_channels`."""
    return values_to_channels(matrix.values, matrix.spin, _shapes(matrix), magnetic)


def matrix_from_channels(channels: FloatArray, like: BlockMatrix) -> BlockMatrix:
    """The inverse of `matrix_channels` on the pairs and layout of another matrix."""
    return like.with_values(channels_to_values(channels, like.spin, _shapes(like)))


def _shapes(matrix: BlockMatrix) -> list[tuple[int, int, int]]:
    n = matrix.basis.n_orbitals.tolist()
    groups = species_groups(matrix.pairs, matrix.species, len(n))
    return [(part.stop - part.start, n[a], n[b]) for a, b, part in groups]


@dataclass(frozen=True, eq=False)
class ChannelPrior:
    """Prior of one real channel: two-centre functions between atoms, constants and crystal field on them.

    Args:
        two_centre: off-site functions; its on-site constants are zero.
        field: on-site blocks.
    """

    two_centre: TwoCentreFit
    field: CrystalField

    @classmethod
    def fit(cls, samples: Sequence[Sample]) -> ChannelPrior:
        """Fit to spinless matrices of structures, all with one basis."""
        fit = TwoCentreFit.fit(samples)
        cutoffs = np.zeros((len(fit.basis.species),) * 2)
        for (a, b), spline in fit.radial.items():
            cutoffs[a, b] = cutoffs[b, a] = spline.cutoff
        bare = replace(fit, on_site={a: np.zeros_like(value) for a, value in fit.on_site.items()})
        return cls(bare, CrystalField.fit(samples, fit.basis, cutoffs))

    def predict(self, structure: AtomicStructure, pairs: PairList) -> BlockMatrix:
        """Spinless matrix on the given pairs, bitwise symmetric; species index the fit's basis.

        Raises:
            BasisError: a species or a couple of species was absent from the fitted data.
        """
        matrix = self.two_centre.predict(structure, self.two_centre.basis, pairs)
        self.field.add_to(matrix, structure)
        return matrix

    def to_arrays(self) -> ArrayDict:
        """Plain arrays for a checkpoint."""
        arrays = {f"two_centre/{key}": value for key, value in self.two_centre.to_arrays().items()}
        return arrays | {f"field/{key}": value for key, value in self.field.to_arrays().items()}

    @classmethod
    def from_arrays(cls, arrays: ArrayDict) -> ChannelPrior:
        """Inverse of `to_arrays`."""
        two_centre = TwoCentreFit.from_arrays(_below("two_centre/", arrays))
        return cls(two_centre, CrystalField.from_arrays(_below("field/", arrays), two_centre.basis))


@dataclass(frozen=True, eq=False)
class Baseline:
    """What is subtracted from H before the network sees it and added to what the network gives.

    Args:
        kind: none, two_centre or reference.
        spin: layout of H.
        priors: of the fitted channels, first ones of `spin_channels`; empty but for two_centre.
    """

    kind: Kind
    spin: Spin
    priors: tuple[ChannelPrior, ...] = ()

    @classmethod
    def fit(cls, kind: Kind, calculations: Iterable[Calculation], spin: Spin) -> Baseline:
        """Baseline of a training set; only two_centre looks at the calculations, which must share one basis.

        Raises:
            PhysicsError: a calculation has no Hamiltonian, or there is none.
        """
        if kind != "two_centre":
            return cls(kind, spin)
        samples = [(calculation.structure, _scalar_matrix(calculation)) for calculation in _chosen(calculations)]
        return cls(kind, spin, (ChannelPrior.fit(samples),))

    def predict(self, structure: AtomicStructure, basis: OrbitalBasis, pairs: PairList) -> BlockMatrix | None:
        """The baseline of a structure in the layout of H, eV, bitwise hermitian; None where there is none.

        Raises:
            PhysicsError: the baseline is a reference from outside, which no structure alone can give.
            BasisError: a species or a couple of species was absent from the fitted data.
        """
        if self.kind == "none":
            return None
        if self.kind == "reference":
            raise PhysicsError(NO_REFERENCE)
        self._check(structure, basis)
        like = BlockMatrix.zeros(pairs, basis, structure.species, self.spin)
        channels = np.zeros((len(like.values) // self.spin.factor, len(spin_channels(self.spin))))
        for c, prior in enumerate(self.priors):
            channels[:, c] = prior.predict(structure, pairs).values
        return matrix_from_channels(channels, like)

    def _check(self, structure: AtomicStructure, basis: OrbitalBasis) -> None:
        known = self.priors[0].two_centre.basis.species
        for k in np.unique(structure.species).tolist():
            if k >= len(known) or known[k] != basis.species[k]:
                raise BasisError(
                    f"species {basis.species[k].label!r} is not number {k} of the fitted baseline, which has "
                    f"{[species.label for species in known]}: count species as the model does"
                )

    def of(self, calculation: Calculation) -> BlockMatrix | None:
        """The baseline of a calculation on the pairs of its H (S where it has none); None where there is none.

        Raises:
            PhysicsError: a reference is needed and the calculation has none, or it reaches further than H.
            BasisError: a species or a couple of species was absent from the fitted data.
        """
        main = calculation.overlap if calculation.hamiltonian is None else calculation.hamiltonian
        if self.kind != "reference":
            return self.predict(calculation.structure, calculation.basis, main.pairs)
        reference = calculation.reference_hamiltonian
        if reference is None:
            raise PhysicsError(f"{calculation.provenance.source or 'a calculation'}: {NO_REFERENCE}")
        if reference.spin is not self.spin:
            raise PhysicsError(f"H0 has spin layout {reference.spin.value}, expected {self.spin.value} as H")
        return reference if reference.pairs is main.pairs else reference.on_pairs(main.pairs)

    def remainder(self, calculation: Calculation) -> Calculation:
        """The calculation with H - baseline in the place of H: what the network is to learn."""
        baseline = self.of(calculation)
        matrix = calculation.hamiltonian
        if baseline is None or matrix is None:
            return calculation
        return replace(calculation, hamiltonian=matrix.with_values(matrix.values - baseline.values))

    def to_arrays(self) -> ArrayDict | None:
        """Plain arrays (and one JSON text as bytes) for a checkpoint; None for none."""
        if self.kind == "none":
            return None
        header = json.dumps({"format": FORMAT, "kind": self.kind, "channels": len(self.priors)})
        arrays: ArrayDict = {"header": np.frombuffer(header.encode(), dtype=np.uint8).copy()}
        for c, prior in enumerate(self.priors):
            arrays |= {f"{c}/{key}": value for key, value in prior.to_arrays().items()}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]] | None, spin: Spin) -> Baseline:
        """Inverse of `to_arrays`.

        Raises:
            FormatError: the arrays are of another format version.
        """
        if arrays is None:
            return cls("none", spin)
        header = json.loads(np.asarray(arrays["header"], dtype=np.uint8).tobytes().decode())
        if header["format"] != FORMAT:
            raise FormatError(f"the stored baseline has format {header['format']}, expected {FORMAT}")
        priors = tuple(ChannelPrior.from_arrays(_below(f"{c}/", arrays)) for c in range(header["channels"]))
        return cls(header["kind"], spin, priors)


def _chosen(calculations: Iterable[Calculation]) -> Iterator[Calculation]:
    """The first calculations, then those with rare couples of species: every couple gets its functions."""
    seen: Counter[int] = Counter()
    for count, calculation in enumerate(calculations):
        if calculation.hamiltonian is None:
            raise PhysicsError(f"{calculation.provenance.source}: no Hamiltonian to learn from, only an overlap")
        pairs, species = calculation.hamiltonian.pairs, calculation.structure.species
        couples = np.unique(species[pairs.i] * len(calculation.basis.species) + species[pairs.j]).tolist()
        if count < LARGEST_SAMPLE or min(seen[couple] for couple in couples) < RARE:
            seen.update(couples)
            yield calculation


def _scalar_matrix(calculation: Calculation) -> BlockMatrix:
    """A_0 of H as a spinless matrix."""
    like: Any = calculation.hamiltonian  # `_chosen` lets no other through
    values = np.ascontiguousarray(matrix_channels(like)[:, 0])
    return BlockMatrix.from_values(like.pairs, like.basis, like.species, Spin.NONE, values)


def _below(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> ArrayDict:
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}
