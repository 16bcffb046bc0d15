"""The side of `--engine slepc` that runs under MPI: SLEPc's eigensolver and MUMPS, in any Python with slepc4py.

A file of its own that needs NumPy, mpi4py, petsc4py and slepc4py (real numbers) but nothing of hamnet, since these are
often built for another Python or another NumPy than hamnet's. The first process reads one JSON command a line from
its standard input and sends it to the others; it answers with one line that begins with `MARK`. Arrays go through files
in the folder that a command names, which only the first process opens: rows travel to the others by MPI.

Matrices are real symmetric, upper triangles. Inertia: the numbers of negative, zero and positive pivots of LDL^T.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

MARK = "HAMNET "
INVERSE_STEPS = 12
"""Steps of inverse iteration for the least eigenvalue of S: within a few per cent."""


class Worker:
    """H and S spread over the processes, and what is asked of them.

    Args:
        mpi, petsc, slepc: the modules MPI, PETSc and SLEPc.
    """

    def __init__(self, mpi: Any, petsc: Any, slepc: Any) -> None:
        self._mpi, self._petsc, self._slepc = mpi, petsc, slepc
        self._comm = mpi.COMM_WORLD
        self._first = self._comm.Get_rank() == 0
        self._rows: tuple[np.ndarray, np.ndarray] | None = None
        self._bounds = np.zeros(0, dtype=np.int64)
        self._nnz = np.zeros(0, dtype=np.int64)
        self._h: Any = None
        self._s: Any = None

    def serve(self) -> None:
        """Answer commands until the input ends."""
        while True:
            line = sys.stdin.readline() if self._first else None
            self._wait()
            line = self._comm.bcast(line)
            if not line:
                return
            command = json.loads(line)
            try:
                answer = getattr(self, command.pop("do"))(**command)
            except Exception as error:  # told to hamnet, which decides
                answer = {"error": f"{type(error).__name__}: {error}"}
            if self._first:
                sys.stdout.write(MARK + json.dumps(answer) + "\n")
                sys.stdout.flush()

    def _wait(self) -> None:
        """Meet the first process without spinning, which would keep a processor busy while hamnet computes."""
        meeting = self._comm.Ibarrier()
        while not meeting.Test():
            time.sleep(0.002)

    def about(self) -> dict[str, Any]:
        """Versions and the number of processes."""
        petsc = ".".join(map(str, self._petsc.Sys.getVersion()))
        real = self._petsc.ScalarType is np.float64
        return {"petsc": petsc, "processes": self._comm.Get_size(), "real": real}

    def pattern(self, folder: str) -> dict[str, Any]:
        """Rows of indptr.npy and indices.npy to the processes."""
        self._h = self._s = None
        indptr = np.load(Path(folder) / "indptr.npy") if self._first else None
        n = self._comm.bcast(len(indptr) - 1 if indptr is not None else None)
        size = self._comm.Get_size()
        if indptr is not None:  # equal numbers of entries
            places = np.searchsorted(indptr, np.linspace(0, indptr[-1], size + 1)[1:-1])
            self._bounds = np.concatenate(([0], places, [n])).astype(np.int64)
            self._nnz = np.diff(indptr[self._bounds])
        self._bounds, self._nnz = self._comm.bcast((self._bounds, self._nnz))
        indices = self._spread(Path(folder) / "indices.npy", np.int32)
        start, stop = self._bounds[self._comm.Get_rank()], self._bounds[self._comm.Get_rank() + 1]
        own = self._comm.bcast(indptr)[start : stop + 1]
        self._rows = (own - own[0]).astype(np.int32), indices
        return {}

    def values(self, folder: str, name: str) -> dict[str, Any]:
        """Numbers of `name` ("h" or "s") from name.npy."""
        if self._rows is None:
            raise RuntimeError("values before pattern")
        data = self._spread(Path(folder) / f"{name}.npy", np.float64)
        rank, n = self._comm.Get_rank(), int(self._bounds[-1])
        own = int(self._bounds[rank + 1] - self._bounds[rank])
        matrix = self._petsc.Mat().createSBAIJ(
            size=((own, n), (own, n)), bsize=1, csr=(*self._rows, data), comm=self._comm
        )
        matrix.assemble()
        for flag in (self._petsc.Mat.Option.SYMMETRIC, self._petsc.Mat.Option.SPD)[: 2 if name == "s" else 1]:
            matrix.setOption(flag, True)
        setattr(self, f"_{name}", matrix)
        return {}

    def window(self, folder: str, target: float, wanted: int) -> dict[str, Any]:
        """The `wanted` states nearest to `target`, by Krylov-Schur: energies.npy (n,) and vectors.npy (n, n_rows)."""
        slepc = self._slepc
        eps = slepc.EPS().create(self._comm)
        eps.setOperators(self._h, self._s)
        eps.setProblemType(slepc.EPS.ProblemType.GHEP)
        eps.setWhichEigenpairs(slepc.EPS.Which.TARGET_MAGNITUDE)
        eps.setTarget(target)
        eps.setDimensions(wanted)
        eps.setTolerances(1e-11, 200)
        st = eps.getST()
        st.setType(slepc.ST.Type.SINVERT)
        st.setMatStructure(self._petsc.Mat.Structure.SAME_NONZERO_PATTERN)
        self._direct(st.getKSP())
        eps.solve()
        found = eps.getConverged()
        energies = np.array([eps.getEigenvalue(i).real for i in range(found)])
        vectors = self._gather(eps, found)
        if vectors is not None:
            np.save(Path(folder) / "energies.npy", energies)
            np.save(Path(folder) / "vectors.npy", vectors)
        steps = eps.getIterationNumber()
        eps.destroy()
        return {"found": found, "steps": steps}

    def inertia(self, energy: float | None) -> dict[str, Any]:
        """Negative, zero and positive eigenvalues of H - energy S, or of S itself for None; with the least of S."""
        if energy is None:
            matrix = self._s
        else:
            matrix = self._h.copy()
            matrix.axpy(-energy, self._s, self._petsc.Mat.Structure.SAME_NONZERO_PATTERN)
        ksp = self._petsc.KSP().create(self._comm)
        ksp.setOperators(matrix)
        self._direct(ksp)
        pc = ksp.getPC()
        pc.setUp()
        factor = pc.getFactorMatrix()
        negative, zero, positive = factor.getInertia()
        answer: dict[str, Any] = {"negative": int(negative), "zero": int(zero), "positive": int(positive)}
        answer["failed"] = int(factor.getMumpsInfog(1))
        if energy is None and not negative and answer["failed"] >= 0:
            answer["least"] = self._least(ksp)
        ksp.destroy()
        return answer

    def _direct(self, ksp: Any) -> None:
        ksp.setType("preonly")
        pc = ksp.getPC()
        pc.setType("cholesky")
        pc.setFactorSolverType("mumps")
        pc.setFromOptions()

    def _least(self, ksp: Any) -> float:
        vector, image = self._s.createVecs()
        random = self._petsc.Random().create(self._comm)
        vector.setRandom(random)
        for _ in range(INVERSE_STEPS):
            ksp.solve(vector, image)
            image.normalize()
            vector, image = image, vector
        self._s.mult(vector, image)
        return float(vector.dot(image))

    def _spread(self, path: Path, dtype: Any) -> np.ndarray:
        """Each process its rows of the numbers in a file that the first one reads."""
        own = np.empty(int(self._nnz[self._comm.Get_rank()]), dtype=dtype)
        if self._comm.Get_size() == 1:
            return np.asarray(np.load(path), dtype=dtype)
        if not self._first:
            self._comm.Recv(own, source=0)
            return own
        start, whole = 0, np.load(path, mmap_mode="r")
        for rank, count in enumerate(self._nnz.tolist()):
            part = np.ascontiguousarray(whole[start : start + count], dtype=dtype)
            if rank:
                self._comm.Send(part, dest=rank)
            else:
                own = part
            start += count
        return own

    def _gather(self, eps: Any, found: int) -> np.ndarray | None:
        vector = self._s.createVecRight()
        scatter, whole = self._petsc.Scatter.toZero(vector)
        rows = np.empty((found, int(self._bounds[-1]))) if self._first else None
        for i in range(found):
            eps.getEigenvector(i, vector)
            scatter.scatter(vector, whole)
            if rows is not None:
                rows[i] = whole.getArray()
        return rows


def main() -> None:
    """Start MPI and serve."""
    import petsc4py

    # 24: null pivots are found and counted; 14: per cent of room beyond what the analysis expects
    petsc4py.init(["hamnet", "-mat_mumps_icntl_24", "1", "-mat_mumps_icntl_14", "50"])
    from mpi4py import MPI
    from petsc4py import PETSc
    from slepc4py import SLEPc

    Worker(MPI, PETSc, SLEPc).serve()


if __name__ == "__main__":
    main()
