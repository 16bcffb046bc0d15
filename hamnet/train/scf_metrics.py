"""What a predicted H is worth in a calculation: energy and forces from one Fock build, SCF cycles saved.

The truth is the stored H: its density gives the energy to second order in what its SCF left, its orbitals the forces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hamnet.core.calculation import Calculation
from hamnet.errors import ConfigError, HamnetError, PhysicsError
from hamnet.nn.dataset import to_basis
from hamnet.predict.energy import predicted_hamiltonian
from hamnet.predict.predictor import Predictor
from hamnet.predict.scf_run import ScfRun, ScfSettings, run_scf
from hamnet_preprocess.pyscf_energy import OneBuild, one_build
from hamnet_preprocess.pyscf_fock import FloatArray, FockBuilder, Method, dense_of, density_of

MILLI = 1e3


@dataclass(frozen=True, eq=False)
class ScfErrors:
    """One molecule.

    Args:
        found: from the prediction.
        energy: eV, of the stored H.
        forces: (n_atoms, 3) eV / A, of the stored H.
        run: SCF from the prediction, with plain PySCF's beside it.
    """

    found: OneBuild
    energy: float
    forces: FloatArray
    run: ScfRun

    @property
    def force_errors(self) -> FloatArray:
        """(n_atoms, 3) eV / A, absolute."""
        if self.found.forces is None:
            raise PhysicsError("the forces of the prediction were not computed")
        return np.abs(self.found.forces - self.forces)

    def row(self) -> dict[str, Any]:
        """JSON-ready figures of this molecule."""
        plain = self.run.plain
        return {
            "energy_error_meV": MILLI * abs(self.found.energy - self.energy),
            "forces_mae_meV_A": MILLI * float(self.force_errors.mean()),
            "commutator_eV": self.found.commutator,
            "scf_start": self.run.origin,
            "scf_cycles": self.run.cycles,
            "scf_cycles_minao": None if plain is None else plain.cycles,
        }


def scf_errors(model: Predictor, name: str, calculation: Calculation) -> ScfErrors:
    """Energy, forces and SCF cycles of one closed-shell molecule.

    Args:
        model: trained on molecules.
        name: of the calculation.
        calculation: with H, in the model's basis.

    Raises:
        PhysicsError: a periodic or spin-polarised calculation, or one without H.
        ConfigError: its provenance names no functional.
    """
    if calculation.hamiltonian is None or calculation.structure.is_periodic:
        raise PhysicsError(f"{name}: SCF figures are for molecules with a Hamiltonian")
    method = Method.of(calculation)
    builder = FockBuilder(calculation.structure, calculation.basis, method)
    truth = dense_of(calculation.hamiltonian)
    energy = builder.build(density_of(truth, builder.overlap, builder.n_electrons)).energy
    forces = builder.forces(truth)
    found = one_build(builder, predicted_hamiltonian(model, builder))
    run = run_scf(model, name, calculation.structure, ScfSettings(method, compare=True))
    return ScfErrors(found, energy, forces, run)


def scf_figures(errors: Sequence[ScfErrors]) -> dict[str, Any]:
    """Means over a sample; keys say their unit."""
    energies = np.array([error.found.energy - error.energy for error in errors])
    bounds = np.array([error.found.upper_bound - error.energy for error in errors])
    forces = np.concatenate([error.force_errors.reshape(-1) for error in errors])
    runs = [error.run for error in errors]
    plain = [run.plain for run in runs if run.plain is not None]
    cycles, cycles_minao = np.mean([run.cycles for run in runs]), np.mean([run.cycles for run in plain])
    return {
        "scf_sample": len(errors),
        "energy_mae_meV": MILLI * float(np.abs(energies).mean()),
        "energy_max_meV": MILLI * float(np.abs(energies).max()),
        "energy_upper_bound_mae_meV": MILLI * float(np.abs(bounds).mean()),
        "energy_error_estimate_meV": MILLI * float(np.mean([error.found.energy_error for error in errors])),
        "forces_mae_meV_A": MILLI * float(forces.mean()),
        "forces_max_meV_A": MILLI * float(forces.max()),
        "commutator_eV": float(np.mean([error.found.commutator for error in errors])),
        "scf_cycles": float(cycles),
        "scf_cycles_minao": float(cycles_minao),
        "scf_cycles_share": float(cycles / cycles_minao),
        "scf_builds": float(np.mean([run.builds for run in runs])),
        "scf_builds_minao": float(np.mean([run.builds for run in plain])),
        "scf_from_minao": sum(run.origin == "minao" for run in runs),
        "scf_not_converged": [run.name for run in runs if not run.converged],
    }


def scf_summary(figures: dict[str, Any]) -> str:
    """One line for a person."""
    return (
        f"{figures['scf_sample']} molecules: energy {figures['energy_mae_meV']:.4f} meV, "
        f"forces {figures['forces_mae_meV_A']:.2f} meV/A from one Fock build; "
        f"SCF cycles {figures['scf_cycles']:.1f} ({figures['scf_cycles_minao']:.1f} from minao, "
        f"{100 * figures['scf_cycles_share']:.0f} %)"
    )


def sample(names: Sequence[str], n: int) -> list[str]:
    """n names, evenly spaced through the list; all where it has fewer.

    Raises:
        ConfigError: n is not positive, or there are no names.
    """
    if n < 1 or not names:
        raise ConfigError(f"a sample of {n} from {len(names)} calculations: expected at least one of each")
    places = np.linspace(0, len(names) - 1, min(n, len(names))).round().astype(int)
    return [names[k] for k in places]


def add_scf_figures(
    figures: dict[str, Any],
    rows: Sequence[dict[str, Any]],
    model: Predictor,
    calculations: Mapping[str, Callable[[], Calculation]],
    n: int,
) -> None:
    """Put the figures of a sample beside those of an evaluation.

    Args:
        figures: of the whole evaluation; gets `scf_figures`, and notes of molecules that were left out.
        rows: one for each calculation with its "name"; those of the sample get their own figures.
        model: trained on molecules.
        calculations: name -> function that reads it, with H.
        n: size of the sample.

    Raises:
        PhysicsError: no molecule of the sample could be treated.
    """
    errors: dict[str, ScfErrors] = {}
    left_out: list[str] = []
    for name in sample(list(calculations), n):
        try:
            errors[name] = scf_errors(model, name, to_basis(calculations[name](), model.basis))
        except HamnetError as error:
            left_out.append(f"no SCF figures: {name}: {str(error).removeprefix(f'{name}: ')}")
    if not errors:
        raise PhysicsError(f"none of {len(left_out)} molecules could be treated; {left_out[0]}")
    figures["notes"] = sorted({*figures.get("notes", ()), *left_out})
    figures |= scf_figures(list(errors.values()))
    for row in rows:
        if row["name"] in errors:
            row |= errors[row["name"]].row()
