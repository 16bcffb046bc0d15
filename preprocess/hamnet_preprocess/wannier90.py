"""Wannier90's _hr.dat: H in an orthonormal basis, H'(k) = S(k)^(-1/2) H(k) S(k)^(-1/2) (Loewdin), in real space.

S^(-1/2) has no sharp end in real space, unlike S: H' is computed on a k-mesh that grows until the bands half a step
off the mesh are right. Each block stands at the image where its atoms are nearest (equal ones share it), so that
neither degeneracies (all 1) nor a _wsvec.dat are needed. Beside it goes a .win with cell and atoms, which most
programs that read an _hr.dat ask for. Source: the Wannier90 user guide, "seedname_hr.dat".
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh, eigvalsh

from hamnet.core.bloch import BlochSum, flat_targets, spin_overlap
from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.errors import ConfigError, PhysicsError
from hamnet_preprocess.elements import cell_for_file, symbol_of
from hamnet_preprocess.pyscf_basis import orbital_order
from hamnet_preprocess.pyscf_periodic import Mesh, blocks_from_mesh, off_mesh_point

SUFFIX = "_hr.dat"
DEVIATION = 1e-6
"""eV: the mesh grows until bands off the mesh deviate by less."""
REFUSED = 1e-2
"""eV: a larger deviation at the largest mesh is an error."""
LARGEST = 5e7
"""Numbers in H' on the largest mesh: 0.8 GB."""
SMALLEST = 5e-13
"""Images whose numbers are all zero when printed with twelve decimals are left out."""


def write_wannier90(calculation: Calculation, path: Path, tolerance: float = DEVIATION) -> dict[str, Any]:
    """Write seedname_hr.dat and seedname.win; collinear spin gives seedname_up_hr.dat and seedname_dn_hr.dat.

    Energies keep their zero; the Fermi level stands in the first line. Spinors: all up orbitals, then all down.

    Args:
        calculation: has a Hamiltonian.
        path: ends in _hr.dat.
        tolerance: eV; the k-mesh grows until bands half a step off it deviate by less.

    Returns:
        "mesh", and "deviation": largest error (eV) of the bands at a k-point off the mesh.

    Raises:
        ConfigError: the path does not end in _hr.dat.
        PhysicsError: no Hamiltonian, S is not positive definite, or no affordable mesh is fine enough.
    """
    if not path.name.endswith(SUFFIX):
        raise ConfigError(f"{path}: Wannier90 files end in {SUFFIX}, as graphene{SUFFIX}")
    if calculation.hamiltonian is None:
        raise PhysicsError("there is an overlap but no Hamiltonian: nothing to write to Wannier90's file")
    matrix, mesh, deviation = orthogonalised(calculation, tolerance)
    fermi = calculation.fermi_energy
    head = (
        f"hamnet: Loewdin-orthogonalised H = S^-1/2 H S^-1/2 (eV), k-mesh {'x'.join(map(str, mesh))}, bands off it "
        f"to {deviation:.1e} eV, E_F = {'unknown' if fermi is None else f'{fermi:.12f}'}"
    )
    seed = path.name.removesuffix(SUFFIX)
    if matrix.spin is Spin.COLLINEAR:
        for s, name in enumerate(("up", "dn")):
            _write_hr(path.with_name(f"{seed}_{name}{SUFFIX}"), f"{head}, spin {name}", matrix, s)
    else:
        _write_hr(path, head, matrix, 0)
    path.with_name(f"{seed}.win").write_text(_win(calculation.structure, _size(matrix)))
    return {"mesh": list(mesh), "deviation": deviation}


def orthogonalised(calculation: Calculation, tolerance: float = DEVIATION) -> tuple[BlockMatrix, Mesh, float]:
    """H' in real space, the k-mesh it was made on, and the deviation (eV) of its bands off the mesh.

    Raises:
        PhysicsError: no Hamiltonian, S is not positive definite, or no affordable mesh is fine enough.
    """
    hamiltonian = calculation.hamiltonian
    if hamiltonian is None:
        raise PhysicsError("there is no Hamiltonian to orthogonalise")
    h, s = BlochSum(hamiltonian), BlochSum(calculation.overlap)
    reach = np.abs(hamiltonian.pairs.cell_shift).max(axis=0, initial=0)
    factor = 1.0
    while True:
        size = np.where(reach > 0, np.ceil((2 * reach + 1) * factor), 1).astype(int)
        mesh = (int(size[0]), int(size[1]), int(size[2]))
        matrix = _on_mesh(calculation, hamiltonian, h, s, mesh)
        point = off_mesh_point(mesh, reach > 0)[0]
        theirs = np.array([eigvalsh(part) for part in _channels(BlochSum(matrix).dense(point))])
        ours = np.array(
            [eigvalsh(_loewdin(part, _inverse_root(s, point, h.spin))) for part in _channels(h.dense(point))]
        )
        deviation = float(np.abs(theirs - ours).max())
        following = float(np.prod(np.where(reach > 0, size * 1.5, 1))) * h.size**2 * len(_channels(theirs))
        if deviation < tolerance or following > LARGEST or not reach.any():
            break
        factor *= 1.5
    if deviation > REFUSED:
        raise PhysicsError(
            f"Loewdin orthogonalisation reaches too far: on the largest mesh tried, {'x'.join(map(str, mesh))}, "
            f"bands off the mesh deviate by {deviation:.3g} eV (allowed {REFUSED:g}): S is nearly singular; "
            "use --to sisl, which keeps S"
        )
    return matrix, mesh, deviation


def _on_mesh(calculation: Calculation, hamiltonian: BlockMatrix, h: BlochSum, s: BlochSum, mesh: Mesh) -> BlockMatrix:
    kpoints = np.array(list(product(*(np.arange(m) / m for m in mesh))))
    matrices = []
    for k in kpoints:
        root = _inverse_root(s, k, h.spin)
        parts = [_loewdin(part, root) for part in _channels(h.dense(k))]
        matrices.append(np.stack(parts) if h.spin is Spin.COLLINEAR else parts[0])
    # blocks_from_mesh takes PySCF's orbital order
    back = np.argsort(orbital_order(calculation.basis, calculation.structure.species))
    back = np.concatenate((back, back + len(back))) if h.spin is Spin.SPINOR else back
    coded = np.stack(matrices)[..., back[:, None], back[None, :]]
    frame = calculation.structure, calculation.basis, h.spin
    return blocks_from_mesh(coded, kpoints, *frame, hamiltonian.pairs)


def _inverse_root(s: BlochSum, kpoint: NDArray[np.float64], spin: Spin) -> NDArray[Any]:
    values, vectors = eigh(s.dense(kpoint))
    if values[0] <= 0:
        raise PhysicsError(f"S(k) has the eigenvalue {values[0]:.3g} at k = {kpoint.tolist()}: it has no inverse root")
    root: NDArray[Any] = (vectors / np.sqrt(values)) @ vectors.conj().T
    return spin_overlap(root) if spin is Spin.SPINOR else root


def _loewdin(h: NDArray[Any], root: NDArray[Any]) -> NDArray[Any]:
    product_: NDArray[Any] = root @ h @ root
    result: NDArray[Any] = (product_ + product_.conj().T) / 2
    return result


def _channels(matrix: NDArray[Any]) -> NDArray[Any]:
    return matrix if matrix.ndim == 3 else matrix[None]


def _size(matrix: BlockMatrix) -> int:
    return matrix.n_orbitals * (2 if matrix.spin is Spin.SPINOR else 1)


def _write_hr(path: Path, head: str, matrix: BlockMatrix, channel: int) -> None:
    n, pairs = _size(matrix), matrix.pairs
    target = flat_targets(matrix)
    owner = np.repeat(np.arange(pairs.n_pairs), np.diff(matrix.offsets))
    mine = target // (n * n) == channel
    target, owner, values = target[mine] - channel * n * n, owner[mine], matrix.values[mine]
    images, which = np.unique(pairs.cell_shift, axis=0, return_inverse=True)
    which = which.ravel()[owner]
    largest = np.zeros(len(images))
    np.maximum.at(largest, which, np.abs(values))
    kept = np.flatnonzero(largest > SMALLEST)
    # Wannier90 runs over m first; one format for a whole image is ten times faster than one for each line
    rows, columns = np.divmod(np.arange(n * n).reshape(n, n).T.ravel(), n)
    body = "".join(
        f"%(R)s{m + 1:5d}{c + 1:5d}%20.12f%20.12f\n" for m, c in zip(rows.tolist(), columns.tolist(), strict=True)
    )
    degeneracies = ["1"] * len(kept)
    with path.open("w") as file:
        lines = ["    ".join(degeneracies[at : at + 15]) for at in range(0, len(kept), 15)]
        file.write("\n".join([head, f"{n:12d}", f"{len(kept):12d}", *(f"    {line}" for line in lines)]) + "\n")
        for image in kept.tolist():
            at = which == image
            dense = np.zeros(n * n, dtype=np.complex128)
            dense[target[at]] = values[at]
            prefix = "".join(f"{x:5d}" for x in images[image].tolist())
            numbers = dense.reshape(n, n).T.ravel().view(np.float64)
            file.write(body.replace("%(R)s", prefix) % tuple(numbers.tolist()))


def _win(structure: AtomicStructure, n: int) -> str:
    cell = [" ".join(f"{x:18.12f}" for x in row) for row in cell_for_file(structure)]
    atoms = [
        f"{symbol_of(z)} " + " ".join(f"{x:18.12f}" for x in row)
        for z, row in zip(structure.atomic_numbers.tolist(), structure.positions, strict=True)
    ]
    return "\n".join(
        [
            f"num_wann = {n}",
            "",
            "begin unit_cell_cart",
            "ang",
            *cell,
            "end unit_cell_cart",
            "",
            "begin atoms_cart",
            "ang",
        ]
        + [*atoms, "end atoms_cart", ""]
    )
