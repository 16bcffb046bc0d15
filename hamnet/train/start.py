"""Where a training starts: baseline, scales, overlap and weights; fitted to the data, or taken from a trained model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any

import torch

from hamnet.config import Config
from hamnet.core.basis import OrbitalBasis
from hamnet.core.calculation import Calculation
from hamnet.core.spin import Spin
from hamnet.data.splits import Split
from hamnet.errors import PhysicsError
from hamnet.nn.checkpoint import Checkpoint
from hamnet.nn.dataset import StoreCollection, to_basis
from hamnet.nn.model import HamiltonianModel
from hamnet.nn.moments import is_magnetic
from hamnet.nn.prior import Baseline
from hamnet.nn.spin_space import head_layout, spin_coupling
from hamnet.nn.statistics import Statistics, fit_statistics
from hamnet.predict.overlap import fit_overlap
from hamnet.predict.seen import SeenLengths
from hamnet.train.finetune import covers, take_over
from hamnet.train.spin_start import can_widen, widen_heads, widened_statistics

OVERLAP_SAMPLES = 200
"""The overlap is fitted to at most this many calculations: it depends on pairs alone."""
KIND_SAMPLES = 200
"""So many calculations, spread over the training part, are asked for functional, grid and charge."""
Line = Callable[[str], None]


@dataclass(frozen=True)
class Starter:
    """Makes the starting point of a training.

    Args:
        config: everything, the network settled.
        stores: data.
        split: parts.
        on_line: called with lines for a person.
        source: trained model to start from; None: anew.
    """

    config: Config
    stores: StoreCollection
    split: Split
    on_line: Line
    source: Checkpoint | None = None

    def run(self) -> Checkpoint:
        """Untrained model, or one with weights taken over, and what is saved beside it."""
        kept, widened = self._kept(), self._widened()
        if widened is not None:
            basis, baseline, statistics = widened
        elif kept is None:
            basis = self.stores.basis
            baseline, statistics = self._fitted(basis)
        else:
            basis, baseline, statistics = kept.basis, kept.baseline, kept.statistics
            # spinors without spin-orbit coupling have the weights of collinear blocks
            baseline = None if baseline is None else replace(baseline, spin=self.stores.spin)
        statistics = replace(statistics, spin_orbit=self.spin_orbit)
        model = HamiltonianModel(self.config.network, basis, self.stores.spin, statistics, network_dtype(self.config))
        metadata = self._metadata()
        if self.source is not None:
            result = take_over(model, self.source.model)
            for line in result.lines():
                self.on_line(line)
            if widened is not None:
                count = widen_heads(model, self.source.model)
                self.on_line(f"starts as the {self.source.spin.value} model; {count} weights of heads are its A_0")
            metadata |= {"from": self.source.sha256, "taken_over": result.numbers}
        arrays, figures = self._overlap()
        if kept is not None and kept.basis.hash != self.stores.basis.hash:
            arrays = kept.overlap_arrays  # knows the species that are not in the new data, too
        metadata |= figures | self._seen(kept).to_metadata()
        return Checkpoint(model, self.config, basis, self.stores.spin, statistics, arrays, metadata, baseline=baseline)

    def _kept(self) -> Checkpoint | None:
        """The trained model, when it knows all that occurs in the new data."""
        source = self.source
        if source is None or not covers(source.basis, self.stores.basis):
            return None
        if source.model.head_spin is not self._heads:
            return None
        if not self._same_baseline(source):
            return None
        if not source.statistics.magnetic and self._magnetic(source.basis):
            return None
        couples = {
            (group.species_i, group.species_j)
            for calculation in self._read(self.split.train, source.basis)
            for group in calculation.overlap.groups()
        }
        known = {(a, b) for a, b, _ in source.statistics.groups}
        return source if couples <= known else None

    def _widened(self) -> tuple[OrbitalBasis, Baseline | None, Statistics] | None:
        """Starting point of a model that has all that the trained one has, and spin beside it; None: another case."""
        source, stores = self.source, self.stores
        if source is None or source.basis.hash != stores.basis.hash:
            return None
        magnetic = self._magnetic(source.basis)
        if not can_widen(source.model, self._heads, magnetic) or not self._same_baseline(source):
            return None
        old = source.baseline
        baseline = None if old is None else replace(old, spin=stores.spin)
        whole = Baseline("none", stores.spin) if baseline is None else baseline
        remainders = (whole.remainder(c) for c in self._read(self.split.train, source.basis))
        network = self.config.network
        fitted = fit_statistics(remainders, source.basis, stores.spin, network, magnetic, self.spin_orbit)
        if not set(fitted.groups) <= set(source.statistics.groups):
            return None
        spins = (self._heads, source.model.head_spin)
        return source.basis, baseline, widened_statistics(fitted, source.statistics, source.basis, spins)

    def _same_baseline(self, source: Checkpoint) -> bool:
        return self.config.network.baseline == ("none" if source.baseline is None else source.baseline.kind)

    def _fitted(self, basis: OrbitalBasis) -> tuple[Baseline | None, Statistics]:
        baseline = Baseline.fit(self.config.network.baseline, self._read(self.split.train, basis), self.stores.spin)
        remainders = (baseline.remainder(calculation) for calculation in self._read(self.split.train, basis))
        magnetic = self._magnetic(basis)
        if magnetic:
            self.on_line("moments: the model takes them, and gives what is odd under time reversal")
        network = self.config.network
        return baseline, fit_statistics(remainders, basis, self.stores.spin, network, magnetic, self.spin_orbit)

    @cached_property
    def spin_orbit(self) -> bool:
        """Whether spinors couple spin to space, by `data.spin_orbit` and by what the calculations show.

        Raises:
            PhysicsError: data.spin_orbit is false, and a calculation shows coupling.
        """
        wanted = self.config.data.spin_orbit
        if self.stores.spin is not Spin.SPINOR or wanted:
            return True
        source = self.source
        if wanted is None and source is not None and source.model.head_spin is Spin.SPINOR:
            return True  # a model with coupling goes on as one
        names = (*self.split.train, *self.split.validation, *self.split.test)
        found = ((name, spin_coupling(self.stores.read(name))) for name in names)
        coupled = next(((name, shown) for name, shown in found if shown.there), None)
        if coupled is None:
            self.on_line("spin-orbit coupling: none in H, so that moments turn apart from the lattice")
        elif wanted is False:
            raise PhysicsError(
                f"data.spin_orbit is false, but H of {coupled[0]} is not that of a calculation without spin-orbit "
                f"coupling: {coupled[1]}; leave data.spin_orbit out"
            )
        return coupled is not None

    @property
    def _heads(self) -> Spin:
        return head_layout(self.stores.spin, self.spin_orbit)

    def _magnetic(self, basis: OrbitalBasis) -> bool:
        """Whether an atom of the training part has a moment."""
        if self.stores.spin is Spin.NONE:
            return False
        return any(is_magnetic(calculation) for calculation in self._read(self.split.train, basis))

    def _metadata(self) -> dict[str, Any]:
        """What a prediction has to know of the labels: the most frequent kind, where there are several."""
        names = self.split.train[:: max(1, len(self.split.train) // KIND_SAMPLES)]
        read = [self.stores.read(name) for name in names[:KIND_SAMPLES]]
        kinds = Counter(_kind(calculation) for calculation in read)
        common = kinds.most_common(1)[0][0]
        if len(kinds) > 1:
            told = "; ".join(f"{n} x {', '.join(text for text in kind if text)}" for kind, n in kinds.most_common(4))
            self.on_line(
                f"note: the labels are of {len(kinds)} kinds, which the network cannot tell apart ({told}): train on "
                "one kind, or expect errors of the size of their differences"
            )
        first = next(calculation for calculation in read if _kind(calculation) == common)
        return {
            "train": len(self.split.train),
            "code": first.provenance.code,
            "functional": first.provenance.functional,
            "grid": first.provenance.grid,
            "charge": charge_of(first),
        }

    def _seen(self, kept: Checkpoint | None) -> SeenLengths:
        """Lengths of pairs in the training part, and those that a trained model had seen before."""
        seen = SeenLengths.of(islice(self._read(self.split.train, self.stores.basis), OVERLAP_SAMPLES))
        before = None if kept is None else SeenLengths.of_checkpoint(kept)
        return seen if before is None else seen.joined(before)

    def _overlap(self) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        basis = self.stores.basis
        if all(shell.exponents for species in basis.species for shell in species.shells):
            self.on_line("overlap: analytic integrals of the Gaussians, no fit")
            return None, {}
        fit = fit_overlap(islice(self._read(self.split.train, basis), OVERLAP_SAMPLES))
        held_out = self.split.validation or self.split.train
        root, largest = fit.error(islice(self._read(held_out, basis), OVERLAP_SAMPLES))
        part = "validation" if self.split.validation else "training"
        self.on_line(f"overlap fitted: error on the {part} part {root:.2g} (rms), {largest:.2g} (largest), no unit")
        return fit.to_arrays(), {"overlap_rms": float(root), "overlap_max": float(largest)}

    def _read(self, names: Sequence[str], basis: OrbitalBasis) -> Iterator[Calculation]:
        return (to_basis(self.stores.read(name), basis) for name in names)


def _kind(calculation: Calculation) -> tuple[str, str, str]:
    """What labels must have in common: functional (whatever libxc's version), grid, charge."""
    functional = calculation.provenance.functional.partition(" (")[0]
    return functional, calculation.provenance.grid, f"charge {round(charge_of(calculation), 3):g}"


def charge_of(calculation: Calculation) -> float:
    """Charge of a calculation in units of e; 0 where the number of electrons is not known."""
    if calculation.n_electrons is None:
        return 0.0
    return float(calculation.basis.n_electrons(calculation.structure.species) - calculation.n_electrons)


def network_dtype(config: Config) -> torch.dtype:
    """Type of the weights; bf16 is a matter of the products alone."""
    return torch.float64 if config.training.precision == "float64" else torch.float32
