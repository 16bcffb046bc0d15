"""ASE calculator: energy and forces of molecules from a model and one Fock build."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from ase.calculators.calculator import Calculator, all_changes

from hamnet.predict.energy import molecule_energy
from hamnet.predict.fock_check import method_of
from hamnet.predict.predictor import Predictor, load


class HamnetCalculator(Calculator):  # type: ignore[misc]  # ase has no types
    """Energy (eV) and forces (eV / A) of closed-shell molecules; total energies, as PySCF's.

    Beside them `results` has `energy_error` (eV, 0.7 of the width of the bracket that the energy lies in: the distance
    to its farther end) and `commutator` (eV): a jump of either says that the atoms have left what the model knows.

    Args:
        model: checkpoint, or what `hamnet.load` gives.
        xc: functional, where the checkpoint does not know it.
        charge: only that of the training data is accepted.

    Example:
        >>> atoms.calc = HamnetCalculator("run/model.ckpt")  # doctest: +SKIP
        >>> atoms.get_forces()  # doctest: +SKIP
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "forces"]

    def __init__(
        self, model: Predictor | Path | str, xc: str | None = None, charge: int | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self.model = model if isinstance(model, Predictor) else load(model)
        self.method = method_of(self.model.checkpoint, xc, charge)

    def calculate(
        self, atoms: Any = None, properties: Sequence[str] = ("energy",), system_changes: Sequence[str] = all_changes
    ) -> None:
        """Fill `results`; called by ASE.

        Raises:
            BasisError: an element that the model does not know.
            PhysicsError: periodic atoms, unpaired electrons, or two atoms on one place.
        """
        super().calculate(atoms, properties, system_changes)
        found = molecule_energy(self.model, self.atoms, self.method, "forces" in properties)
        self.results: dict[str, Any] = {
            "energy": found.energy,
            "free_energy": found.energy,
            "energy_error": found.energy_error,
            "commutator": found.commutator,
        }
        if found.forces is not None:
            self.results["forces"] = found.forces
