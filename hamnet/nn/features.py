"""Features of O(3): their layout, and linear maps between layouts.

A feature tensor is (n, (lmax+1)^2, channels): rows run over (l, m = -l..l) in our order, and every degree has the
same channels, in four classes one after another. An irrep is natural when its parity is (-1)^l; the time-reversal
grade says whether it turns its sign with the moments. One rotation matrix then serves all channels at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from e3nn import o3

GRADES = (1, -1)
"""Even and odd under time reversal."""


def degree_of_rows(lmax: int) -> torch.Tensor:
    """((lmax+1)^2,) degree l of each row."""
    return torch.tensor([l for l in range(lmax + 1) for _ in range(2 * l + 1)])


@dataclass(frozen=True)
class FeatureLayout:
    """Degrees and channels of a feature tensor.

    Args:
        lmax: largest degree.
        natural, unnatural: channels of both kinds of parity, even under time reversal.
        natural_odd, unnatural_odd: the same, odd under time reversal.
    """

    lmax: int
    natural: int
    unnatural: int = 0
    natural_odd: int = 0
    unnatural_odd: int = 0

    @property
    def rows(self) -> int:
        """Number of rows (l, m)."""
        return (self.lmax + 1) ** 2

    @property
    def channels(self) -> int:
        """Number of channels of all classes."""
        return sum(self._counts)

    @property
    def _counts(self) -> tuple[int, int, int, int]:
        return self.natural, self.unnatural, self.natural_odd, self.unnatural_odd

    @cached_property
    def classes(self) -> tuple[slice, slice, slice, slice]:
        """Channels of (natural, unnatural, natural odd, unnatural odd)."""
        a, b, c, d = self._counts
        return slice(0, a), slice(a, a + b), slice(a + b, a + b + c), slice(a + b + c, a + b + c + d)

    def grade(self, grade: int) -> tuple[slice, slice]:
        """Channels of the natural and the unnatural class of one grade."""
        first = 0 if grade == 1 else 2
        return self.classes[first], self.classes[first + 1]

    @property
    def grades(self) -> tuple[int, ...]:
        """Grades that have channels."""
        return tuple(g for g in GRADES if any(s.stop > s.start for s in self.grade(g)))

    def with_lmax(self, lmax: int) -> FeatureLayout:
        """The same channels up to another degree."""
        return FeatureLayout(lmax, *self._counts)

    def within(self, other: FeatureLayout) -> FeatureLayout:
        """The classes that another layout has, too."""
        pairs = zip(self._counts, other._counts, strict=True)
        return FeatureLayout(self.lmax, *(mine if theirs else 0 for mine, theirs in pairs))

    def alone(self, grade: int) -> FeatureLayout:
        """The classes of one grade of time reversal."""
        a, b, c, d = self._counts
        return FeatureLayout(self.lmax, a, b) if grade == 1 else FeatureLayout(self.lmax, 0, 0, c, d)

    @property
    def even_channels(self) -> int:
        """Number of channels even under time reversal; they stand first."""
        return self.natural + self.unnatural

    def e3nn_irreps(self) -> o3.Irreps:
        """Irreps as e3nn writes them, class by class and degree by degree, without the grade."""
        return o3.Irreps(
            [
                (count, (l, (-1) ** l * (1 if natural else -1)))
                for count, natural in zip(self._counts, (True, False, True, False), strict=True)
                for l in range(self.lmax + 1)
                if count
            ]
        )

    def to_e3nn(self, features: torch.Tensor) -> torch.Tensor:
        """(n, rows, channels) -> (n, dim) in the order of `e3nn_irreps`."""
        parts = []
        for part, count in zip(self.classes, self._counts, strict=True):
            for l in range(self.lmax + 1 if count else 0):
                block = features[:, l * l : (l + 1) ** 2, part]
                parts.append(block.transpose(1, 2).reshape(len(features), -1))
        return torch.cat(parts, dim=1)

    def from_e3nn(self, flat: torch.Tensor) -> torch.Tensor:
        """Inverse of `to_e3nn`."""
        result, start = flat.new_empty((len(flat), self.rows, self.channels)), 0
        for part, count in zip(self.classes, self._counts, strict=True):
            for l in range(self.lmax + 1 if count else 0):
                stop = start + count * (2 * l + 1)
                result[:, l * l : (l + 1) ** 2, part] = (
                    flat[:, start:stop].reshape(-1, count, 2 * l + 1).transpose(1, 2)
                )
                start = stop
        return result


class EquivariantLinear(torch.nn.Module):
    """y_lm = x_lm W_l within each class, for every degree that both layouts have; other degrees are zero.

    Args:
        layout_in: of the input.
        layout_out: of the output.
    """

    degree: torch.Tensor

    def __init__(self, layout_in: FeatureLayout, layout_out: FeatureLayout) -> None:
        super().__init__()
        self.layout_in, self.layout_out = layout_in, layout_out
        self.lmax = min(layout_in.lmax, layout_out.lmax)
        weights = []
        for part_in, part_out in zip(layout_in.classes, layout_out.classes, strict=True):
            n_in, n_out = part_in.stop - part_in.start, part_out.stop - part_out.start
            weights.append(torch.nn.Parameter(torch.randn(self.lmax + 1, n_in, n_out) / max(n_in, 1) ** 0.5))
        self.weights = torch.nn.ParameterList(weights)
        self.widths = [part.stop - part.start for part in layout_in.classes]
        self.register_buffer("degree", degree_of_rows(self.lmax), persistent=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(n, rows_in, channels_in) -> (n, rows_out, channels_out)."""
        rows = (self.lmax + 1) ** 2
        inputs = features[:, :rows] if features.shape[1] > rows else features
        columns = [
            torch.einsum("nkc,kcd->nkd", part, weight.index_select(0, self.degree))
            if weight.shape[1]
            else inputs.new_zeros((len(features), rows, weight.shape[2]))
            for part, weight in zip(torch.split(inputs, self.widths, dim=-1), self.weights, strict=True)
            if weight.shape[2]
        ]
        result = torch.cat(columns, dim=-1) if len(columns) > 1 else columns[0]
        missing = self.layout_out.rows - rows
        return torch.nn.functional.pad(result, (0, 0, 0, missing)) if missing else result


class FeatureGate(torch.nn.Module):
    """Nonlinearity of nodes: even scalars through SiLU, all else times the sigmoid of a linear map of them.

    Args:
        layout: of input and output; needs natural channels.
    """

    degree: torch.Tensor

    def __init__(self, layout: FeatureLayout) -> None:
        super().__init__()
        self.layout = layout
        self.gates = torch.nn.Linear(layout.natural, (layout.lmax + 1) * layout.even_channels)
        odd = (layout.lmax + 1) * (layout.channels - layout.even_channels)
        self.odd_gates = torch.nn.Linear(layout.natural, odd) if odd else None
        self.register_buffer("degree", degree_of_rows(layout.lmax), persistent=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(n, rows, channels) -> the same shape."""
        layout = self.layout
        scalars = features[:, 0, : layout.natural]
        gates = torch.sigmoid(self.gates(scalars)).reshape(len(features), layout.lmax + 1, layout.even_channels)
        if self.odd_gates is not None:
            odd = torch.sigmoid(self.odd_gates(scalars)).reshape(len(features), layout.lmax + 1, -1)
            gates = torch.cat((gates, odd), dim=-1)
        gated = features * gates.index_select(1, self.degree)
        first = torch.cat((torch.nn.functional.silu(scalars), gated[:, 0, layout.natural :]), dim=-1)
        return torch.cat((first.unsqueeze(1), gated[:, 1:]), dim=1)
