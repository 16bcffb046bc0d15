"""Solvers of H(k) c = E S(k) c for cells of any size behind one protocol."""

from __future__ import annotations

from hamnet.bands.solvers.dense import DenseEigensolver
from hamnet.bands.solvers.protocol import ChannelStates, Eigensolver, Need
from hamnet.bands.solvers.slepc import SlepcEigensolver
from hamnet.bands.solvers.sparse import SparseEigensolver
from hamnet.core.calculation import Calculation
from hamnet.errors import ConfigError

__all__ = [
    "ChannelStates",
    "DenseEigensolver",
    "Eigensolver",
    "Need",
    "SlepcEigensolver",
    "SparseEigensolver",
    "make_eigensolver",
]

DENSE_ROWS = 500
"""Up to this many rows LAPACK is as quick as anything."""
ENGINES = ("auto", "dense", "pardiso", "superlu", "slepc")


def make_eigensolver(
    calculation: Calculation, engine: str = "auto", threads: int = 1, project_overlap: float | None = None
) -> Eigensolver:
    """The solver for a cell: LAPACK up to 500 rows or when S has to be projected, else a sparse factorisation.

    Args:
        calculation: with a Hamiltonian.
        engine: "auto", "dense", "pardiso", "superlu" or "slepc".
        threads: of BLAS and the factorisation; MPI processes for "slepc".
        project_overlap: modes of S(k) below this are projected out (dense only); None refuses a bad S(k).

    Raises:
        ConfigError: an engine that does not exist or is not installed, or projection with a sparse one.
    """
    if engine not in ENGINES:
        raise ConfigError(f"engine {engine!r}: expected one of {', '.join(ENGINES)}")
    matrix = calculation.hamiltonian or calculation.overlap
    rows = matrix.n_orbitals * (2 if matrix.spin.value == "spinor" else 1)
    if engine == "dense" or project_overlap is not None or (engine == "auto" and rows <= DENSE_ROWS):
        if engine in ("pardiso", "superlu", "slepc"):
            raise ConfigError(f"--project-overlap needs all modes of S: use --engine dense, not {engine}")
        return DenseEigensolver(calculation, project_overlap, threads)
    if engine == "slepc":
        return SlepcEigensolver(calculation, threads)
    return SparseEigensolver(calculation, engine, threads)
