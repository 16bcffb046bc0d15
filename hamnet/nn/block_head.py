"""Heads: from node features to the irreps of on-site and off-site blocks, and by Clebsch-Gordan to the blocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from hamnet.data.irrep_blocks import BlockIrreps, IrrepTerm
from hamnet.nn.features import EquivariantLinear, FeatureLayout
from hamnet.nn.frames import EdgeFrames, frame_rows
from hamnet.nn.radial import RadialNetwork
from hamnet.nn.so2 import O2Features, O2Layout, O2Linear, frame_layout, into_frame
from hamnet.nn.statistics import GroupStatistics


class BlockScaling(torch.nn.Module):
    """Coefficients of irreps -> block values: Q (mean + scale exp(-decay d) c), with Q of `BlockIrreps`.

    Args:
        irreps: change of basis of the blocks.
        statistics: scales.
    """

    scaled_matrix: torch.Tensor

    def __init__(self, irreps: BlockIrreps, statistics: GroupStatistics) -> None:
        super().__init__()
        self.decay = statistics.decay
        scaled = torch.from_numpy(np.ascontiguousarray((irreps.matrix * statistics.scale).T))
        self.register_buffer("scaled_matrix", scaled, persistent=False)
        # kept apart from the buffers: stays in float64 when the network is cast to float32
        self.mean = torch.from_numpy(irreps.matrix @ statistics.mean)

    def forward(self, coefficients: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
        """(n, n_coefficients), (n,) Angstrom -> (n, n_i * n_j * n_channels) float64, eV."""
        if self.decay:
            coefficients = coefficients * torch.exp(-self.decay * distance).unsqueeze(-1)
        blocks: torch.Tensor = coefficients @ self.scaled_matrix
        return blocks.double() + self.mean.to(blocks.device)


class OnSiteReadout(torch.nn.Module):
    """Node features -> blocks of one species with itself: one linear map for each irrep.

    Args:
        layout: of the features; irreps that it lacks stay zero.
        irreps: of the blocks.
        statistics: scales.
    """

    def __init__(self, layout: FeatureLayout, irreps: BlockIrreps, statistics: GroupStatistics) -> None:
        super().__init__()
        self.layout = layout
        self.runs = _runs(irreps.terms)
        self.weights = torch.nn.ParameterList()
        for count, l, parity, grade in self.runs:
            width = _width(layout, grade, parity == (-1) ** l) if l <= layout.lmax else 0
            self.weights.append(torch.nn.Parameter(torch.randn(width, count) / max(width, 1) ** 0.5))
        self.scaling = BlockScaling(irreps, statistics)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(n, rows, channels) -> (n, n_i * n_i * n_channels) float64, eV."""
        parts = []
        for (count, l, parity, grade), weight in zip(self.runs, self.weights, strict=True):
            if weight.shape[0]:
                part = self.layout.grade(grade)[0 if parity == (-1) ** l else 1]
                values = features[:, l * l : (l + 1) ** 2, part] @ weight
                parts.append(values.transpose(1, 2).flatten(1))
            else:
                parts.append(features.new_zeros((len(features), count * (2 * l + 1))))
        coefficients = torch.cat(parts, dim=1)
        blocks: torch.Tensor = self.scaling(coefficients, coefficients.new_zeros(len(features)))
        return blocks


class PairReadout(torch.nn.Module):
    """Pair features in the edge's frame -> blocks of one ordered pair of species.

    Linear maps in the frame give each irrep's components there; one rotation brings all of them back.

    Args:
        hidden: irreps of the pair features for each grade.
        irreps: of the blocks.
        statistics: scales.
    """

    scatter: torch.Tensor
    signs: torch.Tensor
    gather: torch.Tensor

    def __init__(self, hidden: dict[int, O2Layout], irreps: BlockIrreps, statistics: GroupStatistics) -> None:
        super().__init__()
        self.lmax = max(term.l for term in irreps.terms)
        self.grades = tuple(g for g in hidden if any(t.grade == g for t in irreps.terms))
        terms = {g: [t for t in irreps.terms if t.grade == g] for g in self.grades}
        layouts = [_term_layout(terms[g], self.lmax) for g in self.grades]
        self.linear = torch.nn.ModuleList(
            [O2Linear(hidden[g], layout) for g, layout in zip(self.grades, layouts, strict=True)]
        )
        scatter, signs, gather, self.width = _placement(
            irreps.terms, [terms[g] for g in self.grades], layouts, self.lmax
        )
        self.register_buffer("scatter", torch.from_numpy(scatter), persistent=False)
        self.register_buffer("signs", torch.from_numpy(signs), persistent=False)
        self.register_buffer("gather", torch.from_numpy(gather), persistent=False)
        self.scaling = BlockScaling(irreps, statistics)

    def forward(self, features: dict[int, O2Features], matrix: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
        """Features of each grade, (n, n_frame_rows, rows) of the frames, (n,) Angstrom -> (n, n_values) float64, eV."""
        flat = []
        for grade, linear in zip(self.grades, self.linear, strict=True):
            turned: O2Features = linear(features[grade])
            flat += [*turned.singlets, *(member for doublet in turned.doublets for member in doublet)]
        n = len(distance)
        flat.append(distance.new_zeros((n, 1)))
        in_frame = torch.cat(flat, dim=1).index_select(1, self.scatter) * self.signs
        back = torch.bmm(matrix.transpose(1, 2), in_frame.reshape(n, matrix.shape[1], self.width))
        blocks: torch.Tensor = self.scaling(back.flatten(1).index_select(1, self.gather), distance)
        return blocks


class PairFeatures(torch.nn.Module):
    """Features of a pair in its frame: gate(w(d, x_i, x_j) * W D^T (A x_i + B x_j)).

    The weights w depend on the distance and on invariants of both atoms and vanish at the pair cutoff.

    Args:
        layout: node features.
        radial_functions, radial_hidden: of the radial network.
    """

    def __init__(self, layout: FeatureLayout, radial_functions: int, radial_hidden: int) -> None:
        super().__init__()
        self.layout = layout
        self.from_i, self.from_j = EquivariantLinear(layout, layout), EquivariantLinear(layout, layout)
        self.invariants = torch.nn.Linear(layout.natural, layout.natural)
        self.hidden = {grade: _hidden(frame_layout(layout, grade, layout.lmax)) for grade in layout.grades}
        self.gated = {grade: _with_gates(inner) for grade, inner in self.hidden.items()}
        self.linear = torch.nn.ModuleList(
            [O2Linear(frame_layout(layout, grade, layout.lmax), gated) for grade, gated in self.gated.items()]
        )
        n_weights = sum(sum(gated.sizes) for gated in self.gated.values())
        self.radial = RadialNetwork(radial_functions, 2 * layout.natural, radial_hidden, n_weights)

    def forward(
        self,
        features: torch.Tensor,
        pair_i: torch.Tensor,
        pair_j: torch.Tensor,
        frames: EdgeFrames,
        scaled_distance: torch.Tensor,
    ) -> dict[int, O2Features]:
        """Node features -> features of the pairs for each grade."""
        scalars = self.invariants(features[:, 0, : self.layout.natural])
        weights = self.radial(
            scaled_distance, torch.cat([scalars.index_select(0, k) for k in (pair_i, pair_j)], dim=-1)
        )
        source = self.from_i(features).index_select(0, pair_i) + self.from_j(features).index_select(0, pair_j)
        matrix = frames.matrix(self.layout.lmax)
        result, start = {}, 0
        for (grade, gated), linear in zip(self.gated.items(), self.linear, strict=True):
            stop = start + sum(gated.sizes)
            turned = linear(into_frame(source, self.layout, grade, matrix)).scaled(weights[:, start:stop], gated)
            result[grade] = _gate(turned, self.hidden[grade])
            start = stop
        return result


def _hidden(full: O2Layout) -> O2Layout:
    """Half of the doublets that the nodes give: a pair needs fewer than it is made from."""
    return O2Layout(full.scalars, full.pseudoscalars, tuple((count + 1) // 2 for count in full.doublets))


def _with_gates(layout: O2Layout) -> O2Layout:
    gates = layout.pseudoscalars + sum(layout.doublets)
    return O2Layout(layout.scalars + gates, layout.pseudoscalars, layout.doublets)


def _gate(features: O2Features, layout: O2Layout) -> O2Features:
    """SiLU of the scalars, sigmoid gates for all else."""
    scalars, *gates = torch.split(features.singlets[0], list(layout.sizes), dim=1)
    gates = [torch.sigmoid(gate) for gate in gates]
    doublets = tuple((a * g, b * g) for (a, b), g in zip(features.doublets, gates[1:], strict=True))
    return O2Features((torch.nn.functional.silu(scalars), features.singlets[1] * gates[0]), doublets)


def _width(layout: FeatureLayout, grade: int, natural: bool) -> int:
    part = layout.grade(grade)[0 if natural else 1]
    return int(part.stop - part.start)


def _runs(terms: Sequence[IrrepTerm]) -> list[tuple[int, int, int, int]]:
    """(count, l, parity, grade) of each run of equal irreps, in order."""
    runs: list[tuple[int, int, int, int]] = []
    for term in terms:
        kind = (term.l, term.parity, term.grade)
        if runs and runs[-1][1:] == kind:
            runs[-1] = (runs[-1][0] + 1, *kind)
        else:
            runs.append((1, *kind))
    return runs


def _is_natural(term: IrrepTerm) -> bool:
    return bool(term.parity == (-1) ** term.l)


def _term_layout(terms: Sequence[IrrepTerm], lmax: int) -> O2Layout:
    natural = sum(_is_natural(t) for t in terms)
    doublets = tuple(sum(t.l >= m for t in terms) for m in range(1, lmax + 1))
    return O2Layout(natural, len(terms) - natural, doublets)


def _placement(
    terms: Sequence[IrrepTerm], by_grade: Sequence[Sequence[IrrepTerm]], layouts: Sequence[O2Layout], lmax: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Where the components in the frame stand, with their signs; and where the coefficients are found afterwards.

    Returns `scatter` and `signs` (n_frame_rows * width,): component of each place (the last one is zero);
    `gather` (n_coefficients,): place of each coefficient after the rotation; and the width.
    """
    slots = {id(t): sum(u.l == t.l for u in terms[: terms.index(t)]) for t in terms}
    width = max(sum(t.l == l for t in terms) for l in range(lmax + 1))
    row = {lm: r for r, lm in enumerate(frame_rows(lmax, lmax))}
    total = sum(s.scalars + s.pseudoscalars + 2 * sum(s.doublets) for s in layouts)
    scatter, signs = np.full(len(row) * width, total), np.zeros(len(row) * width)
    start = 0
    for group, layout in zip(by_grade, layouts, strict=True):
        ordered = [t for t in group if _is_natural(t)] + [t for t in group if not _is_natural(t)]
        for k, t in enumerate(ordered):
            place = row[t.l, 0] * width + slots[id(t)]
            scatter[place], signs[place] = start + k, 1.0
        start += len(ordered)
        for m, count in enumerate(layout.doublets, start=1):
            for k, t in enumerate([t for t in ordered if t.l >= m]):
                plus, minus = (row[t.l, sign * m] * width + slots[id(t)] for sign in (1, -1))
                even, odd = start + k, start + count + k
                if _is_natural(t):
                    scatter[plus], signs[plus], scatter[minus], signs[minus] = even, 1.0, odd, 1.0
                else:
                    scatter[plus], signs[plus], scatter[minus], signs[minus] = odd, -1.0, even, 1.0
            start += 2 * count
    gather = np.concatenate([(t.l * t.l + np.arange(2 * t.l + 1)) * width + slots[id(t)] for t in terms])
    return scatter, signs, gather, width
