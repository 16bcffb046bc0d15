"""Heads: from node features to the irreps of on-site and off-site blocks, and by Clebsch-Gordan to the blocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from hamnet.data.irrep_blocks import BlockIrreps, IrrepTerm
from hamnet.nn.features import GRADES, FeatureLayout
from hamnet.nn.frames import frame_rows
from hamnet.nn.pair_features import Sector
from hamnet.nn.so2 import O2Features, O2Layout, O2Linear, axes_to_edges, edges_to_axes, for_axes, joined
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

    With several spin axes there is one block for each of them: A_0, the same in all, beside one A_a.

    Args:
        layout: of the features; irreps that it lacks stay zero.
        irreps: of the blocks.
        statistics: scales.
    """

    def __init__(self, layout: FeatureLayout, irreps: BlockIrreps, statistics: GroupStatistics) -> None:
        super().__init__()
        self.layout, self.terms = layout, irreps.terms
        self.runs = _runs(irreps.terms)
        self.weights = torch.nn.ParameterList()
        for count, l, parity, grade in self.runs:
            width = _width(layout, grade, parity == (-1) ** l) if l <= layout.lmax else 0
            self.weights.append(torch.nn.Parameter(torch.randn(width, count) / max(width, 1) ** 0.5))
        self.scaling = BlockScaling(irreps, statistics)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(n, rows, channels) -> (n * axes, n_i * n_i * n_channels) float64, eV."""
        axes, even = self.layout.axes, self.layout.even_channels
        odd = axes_to_edges(features[..., even:], axes) if axes > 1 else features[..., even:]
        parts = []
        for (count, l, parity, grade), weight in zip(self.runs, self.weights, strict=True):
            if weight.shape[0]:
                part = self.layout.grade(grade)[0 if parity == (-1) ** l else 1]
                rows = slice(l * l, (l + 1) ** 2)
                inputs = features[:, rows, part] if grade == 1 else odd[:, rows, part.start - even : part.stop - even]
                values = (inputs @ weight).transpose(1, 2).flatten(1)
                parts.append(for_axes(values, axes) if grade == 1 else values)
            else:
                parts.append(features.new_zeros((len(features) * axes, count * (2 * l + 1))))
        coefficients = torch.cat(parts, dim=1)
        blocks: torch.Tensor = self.scaling(coefficients, coefficients.new_zeros(len(coefficients)))
        return blocks


class PairReadout(torch.nn.Module):
    """Pair features in the edge's frame -> blocks of one ordered pair of species.

    Linear maps in the frame give each irrep's components there; one rotation brings all of them back. Between equal
    species the maps keep the symmetry of exchange, so that the block of the reverse pair is the hermitian partner.

    Args:
        hidden: irreps of the pair features for each grade and exchange parity.
        irreps: of the blocks.
        statistics: scales.
        signs: (n_channels,) of the channels under transposition, for equal species; None for different ones.
        axes: spin components of the odd features: a block for each, as in `OnSiteReadout`.
    """

    scatter: torch.Tensor
    signs: torch.Tensor
    gather: torch.Tensor

    def __init__(
        self,
        hidden: dict[Sector, O2Layout],
        irreps: BlockIrreps,
        statistics: GroupStatistics,
        signs: NDArray[np.float64] | None,
        axes: int = 1,
    ) -> None:
        super().__init__()
        self.terms, self.axes = irreps.terms, axes
        self.lmax = max(term.l for term in irreps.terms)
        self.grades = tuple(g for g in GRADES if any(t.grade == g for t in irreps.terms) and (g, 1) in hidden)
        partners = None if signs is None else exchange_partners(irreps, signs)
        self.linear = torch.nn.ModuleList(
            [TermLinear((hidden[g, 1], hidden[g, -1]), irreps.terms, g, self.lmax, partners) for g in self.grades]
        )
        by_grade = [ordered_terms(irreps.terms, g) for g in self.grades]
        scatter, placed, gather, self.width = _placement(irreps.terms, by_grade, self.lmax)
        self.register_buffer("scatter", torch.from_numpy(scatter), persistent=False)
        self.register_buffer("signs", torch.from_numpy(placed), persistent=False)
        self.register_buffer("gather", torch.from_numpy(gather), persistent=False)
        self.scaling = BlockScaling(irreps, statistics)

    def forward(self, features: dict[Sector, O2Features], matrix: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
        """Features, (n, n_frame_rows, rows) of the frames, (n,) Angstrom -> (n * axes, n_values) float64, eV."""
        flat = []
        for grade, linear in zip(self.grades, self.linear, strict=True):
            turned: O2Features = linear(joined(features[grade, 1], features[grade, -1]))
            members = [*turned.singlets, *(member for doublet in turned.doublets for member in doublet)]
            flat += [for_axes(member, self.axes) for member in members] if grade == 1 else members
        n = len(distance) * self.axes
        flat.append(distance.new_zeros((n, 1)))
        in_frame = torch.cat(flat, dim=1).index_select(1, self.scatter) * self.signs
        in_frame = in_frame.reshape(n, matrix.shape[1], self.width)
        if self.axes > 1:
            back = axes_to_edges(torch.bmm(matrix.transpose(1, 2), edges_to_axes(in_frame, self.axes)), self.axes)
        else:
            back = torch.bmm(matrix.transpose(1, 2), in_frame)
        lengths = for_axes(distance, self.axes)
        blocks: torch.Tensor = self.scaling(back.flatten(1).index_select(1, self.gather), lengths)
        return blocks


class TermLinear(O2Linear):
    """From pair features to the terms of a block, O(2) irrep by irrep, keeping exchange between equal species.

    Args:
        hidden: irreps even and odd under exchange.
        terms: irreps of the block.
        grade: the grade of time reversal that this map serves.
        lmax: largest degree of the terms.
        partners: for each term its partner under exchange and the sign, by start; None between different species.
    """

    def __init__(
        self,
        hidden: tuple[O2Layout, O2Layout],
        terms: Sequence[IrrepTerm],
        grade: int,
        lmax: int,
        partners: dict[int, tuple[int, int]] | None,
    ) -> None:
        ordered = ordered_terms(terms, grade)
        both = O2Layout(
            hidden[0].scalars + hidden[1].scalars,
            hidden[0].pseudoscalars + hidden[1].pseudoscalars,
            tuple(a + b for a, b in zip(hidden[0].doublets, hidden[1].doublets, strict=True)),
        )
        super().__init__(both, _term_layout(ordered, lmax))
        self.tables = None if partners is None else self._tables(hidden, ordered, partners)

    def _tables(
        self, hidden: tuple[O2Layout, O2Layout], ordered: Sequence[IrrepTerm], partners: dict[int, tuple[int, int]]
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """For each weight matrix: the partner of each column; the sign of each element when columns are exchanged."""
        natural, unnatural = ([t for t in ordered if is_natural(t) == kind] for kind in (True, False))
        columns = [natural, unnatural, *([t for t in ordered if t.l >= m] for m in range(1, len(self.weights) - 1))]
        tables = []
        for terms, even, odd in zip(columns, hidden[0].sizes, hidden[1].sizes, strict=False):
            place = {t.start: k for k, t in enumerate(terms)}
            partner = torch.tensor([place[partners[t.start][0]] for t in terms], dtype=torch.int64)
            sign = torch.tensor([float(partners[t.start][1]) for t in terms])
            parity = torch.cat((torch.ones(even), -torch.ones(odd)))
            tables.append((partner, parity[:, None] * sign))
        return tables

    def forward(self, features: O2Features) -> O2Features:
        """Features of both exchange parities -> terms; weights are projected onto what exchange allows."""
        weights = list(self.weights)
        if self.tables is not None:
            weights = [
                (w + w.index_select(1, partner.to(w.device)) * sign.to(w)) / 2
                for w, (partner, sign) in zip(weights, self.tables, strict=True)
            ]
        return self.apply_weights(features, weights)


def exchange_partners(irreps: BlockIrreps, signs: NDArray[np.float64]) -> dict[int, tuple[int, int]]:
    """Start of each term of a block between equal species -> (start of its partner, sign).

    Exchange of the atoms, followed by inversion about their centre, leaves the pair vector in place and takes the
    coefficients c to L c: the transposition of the block, with the parity of each term.

    Args:
        irreps: of the blocks.
        signs: (n_channels,) of the channels under transposition.
    """
    n = round((len(irreps.matrix) / len(signs)) ** 0.5)
    matrix = irreps.matrix.reshape(n, n, len(signs), -1)
    transposed = (matrix.transpose(1, 0, 2, 3) * signs[:, None]).reshape(irreps.matrix.shape)
    table = irreps.matrix.T @ transposed
    result = {}
    for term in irreps.terms:
        column = table[:, term.start]
        partner = int(np.abs(column).argmax())
        result[term.start] = (partner, round(float(column[partner])) * term.parity)
    return result


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


def ordered_terms(terms: Sequence[IrrepTerm], grade: int) -> list[IrrepTerm]:
    """Terms of one grade, natural ones first, as the scalars and pseudoscalars of a frame stand."""
    chosen = [t for t in terms if t.grade == grade]
    return [t for t in chosen if is_natural(t)] + [t for t in chosen if not is_natural(t)]


def is_natural(term: IrrepTerm) -> bool:
    """Whether the parity is (-1)^l."""
    return bool(term.parity == (-1) ** term.l)


def _term_layout(terms: Sequence[IrrepTerm], lmax: int) -> O2Layout:
    natural = sum(is_natural(t) for t in terms)
    doublets = tuple(sum(t.l >= m for t in terms) for m in range(1, lmax + 1))
    return O2Layout(natural, len(terms) - natural, doublets)


def _placement(
    terms: Sequence[IrrepTerm], by_grade: Sequence[Sequence[IrrepTerm]], lmax: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Where the components in the frame stand, with their signs; and where the coefficients are found afterwards.

    Returns `scatter` and `signs` (n_frame_rows * width,): component of each place (the last one is zero);
    `gather` (n_coefficients,): place of each coefficient after the rotation; and the width.
    """
    slots = {id(t): sum(u.l == t.l for u in terms[: terms.index(t)]) for t in terms}
    width = max(sum(t.l == l for t in terms) for l in range(lmax + 1))
    row = {lm: r for r, lm in enumerate(frame_rows(lmax, lmax))}
    layouts = [_term_layout(group, lmax) for group in by_grade]
    total = sum(s.scalars + s.pseudoscalars + 2 * sum(s.doublets) for s in layouts)
    scatter, signs = np.full(len(row) * width, total), np.zeros(len(row) * width)
    start = 0
    for group, layout in zip(by_grade, layouts, strict=True):
        for k, t in enumerate(group):
            place = row[t.l, 0] * width + slots[id(t)]
            scatter[place], signs[place] = start + k, 1.0
        start += len(group)
        for m, count in enumerate(layout.doublets, start=1):
            for k, t in enumerate([t for t in group if t.l >= m]):
                plus, minus = (row[t.l, sign * m] * width + slots[id(t)] for sign in (1, -1))
                even, odd = start + k, start + count + k
                if is_natural(t):
                    scatter[plus], signs[plus], scatter[minus], signs[minus] = even, 1.0, odd, 1.0
                else:
                    scatter[plus], signs[plus], scatter[minus], signs[minus] = odd, -1.0, even, 1.0
            start += 2 * count
    gather = np.concatenate([(t.l * t.l + np.arange(2 * t.l + 1)) * width + slots[id(t)] for t in terms])
    return scatter, signs, gather, width
