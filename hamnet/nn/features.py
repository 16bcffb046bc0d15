"""Features of O(3): their layout, and linear maps between layouts.

A feature tensor is (n, (lmax+1)^2, channels): rows run over (l, m = -l..l) in our order, and every degree has the
same channels, in four classes one after another. An irrep is natural when its parity is (-1)^l; the time-reversal
grade says whether it turns its sign with the moments. One rotation matrix then serves all channels at once.

Without spin-orbit coupling spin has axes of its own. Features odd under time reversal are then vectors of spin space,
even ones scalars: the odd channels stand there once for each axis, and share their weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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
        axes: spin components of each odd channel, stored one after another: 1, or 3 for vectors of spin space.
    """

    lmax: int
    natural: int
    unnatural: int = 0
    natural_odd: int = 0
    unnatural_odd: int = 0
    axes: int = 1

    @property
    def rows(self) -> int:
        """Number of rows (l, m)."""
        return (self.lmax + 1) ** 2

    @property
    def channels(self) -> int:
        """Number of channels of all classes and axes."""
        return self.even_channels + self.axes * self.odd_channels

    @property
    def _counts(self) -> tuple[int, int, int, int]:
        return self.natural, self.unnatural, self.natural_odd, self.unnatural_odd

    @cached_property
    def classes(self) -> tuple[slice, slice, slice, slice]:
        """Channels of (natural, unnatural, natural odd, unnatural odd); odd ones of the first axis."""
        a, b, c, d = self._counts
        return slice(0, a), slice(a, a + b), slice(a + b, a + b + c), slice(a + b + c, a + b + c + d)

    @cached_property
    def parts(self) -> tuple[tuple[int, slice], ...]:
        """(number of the class, its channels) of all that is stored, in order: odd classes for each axis."""
        even, odd = enumerate(self.classes[:2]), list(enumerate(self.classes[2:], start=2))
        shift = self.odd_channels
        turns = range(self.axes)
        return (*even, *((k, slice(s.start + a * shift, s.stop + a * shift)) for a in turns for k, s in odd))

    def span(self, grade: int) -> slice:
        """All channels of one grade, of all axes."""
        return slice(0, self.even_channels) if grade == 1 else slice(self.even_channels, self.channels)

    def axes_of(self, grade: int) -> int:
        """Spin components of the channels of one grade."""
        return 1 if grade == 1 else self.axes

    def grade(self, grade: int) -> tuple[slice, slice]:
        """Channels of the natural and the unnatural class of one grade; of the first axis."""
        first = 0 if grade == 1 else 2
        return self.classes[first], self.classes[first + 1]

    @property
    def grades(self) -> tuple[int, ...]:
        """Grades that have channels."""
        return tuple(g for g in GRADES if any(s.stop > s.start for s in self.grade(g)))

    def with_lmax(self, lmax: int) -> FeatureLayout:
        """The same channels up to another degree."""
        return replace(self, lmax=lmax)

    def within(self, other: FeatureLayout) -> FeatureLayout:
        """The classes that another layout has, too."""
        pairs = zip(self._counts, other._counts, strict=True)
        a, b, c, d = (mine if theirs else 0 for mine, theirs in pairs)
        return FeatureLayout(self.lmax, a, b, c, d, self.axes)

    def alone(self, grade: int) -> FeatureLayout:
        """The classes of one grade of time reversal."""
        a, b, c, d = self._counts
        return FeatureLayout(self.lmax, a, b) if grade == 1 else FeatureLayout(self.lmax, 0, 0, c, d, self.axes)

    @property
    def even_channels(self) -> int:
        """Number of channels even under time reversal; they stand first."""
        return self.natural + self.unnatural

    @property
    def odd_channels(self) -> int:
        """Number of channels odd under time reversal, each counted once for all its axes."""
        return self.natural_odd + self.unnatural_odd

    def e3nn_irreps(self) -> o3.Irreps:
        """Irreps as e3nn writes them, class by class and degree by degree, without the grade."""
        return o3.Irreps(
            [
                (part.stop - part.start, (l, (-1) ** l * (1 if k % 2 == 0 else -1)))
                for k, part in self.parts
                for l in range(self.lmax + 1)
                if part.stop > part.start
            ]
        )

    def to_e3nn(self, features: torch.Tensor) -> torch.Tensor:
        """(n, rows, channels) -> (n, dim) in the order of `e3nn_irreps`."""
        parts = []
        for _, part in self.parts:
            for l in range(self.lmax + 1 if part.stop > part.start else 0):
                block = features[:, l * l : (l + 1) ** 2, part]
                parts.append(block.transpose(1, 2).reshape(len(features), -1))
        return torch.cat(parts, dim=1)

    def from_e3nn(self, flat: torch.Tensor) -> torch.Tensor:
        """Inverse of `to_e3nn`."""
        result, start = flat.new_empty((len(flat), self.rows, self.channels)), 0
        for _, part in self.parts:
            count = part.stop - part.start
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
        layout_out: of the output; with as many axes.
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
        self.parts = [(k, part.stop - part.start) for k, part in layout_in.parts]
        self.widths = [width for _, width in self.parts]
        self.register_buffer("degree", degree_of_rows(self.lmax), persistent=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(n, rows_in, channels_in) -> (n, rows_out, channels_out)."""
        rows = (self.lmax + 1) ** 2
        inputs = features[:, :rows] if features.shape[1] > rows else features
        columns = [
            torch.einsum("nkc,kcd->nkd", part, weight.index_select(0, self.degree))
            if weight.shape[1]
            else inputs.new_zeros((len(features), rows, weight.shape[2]))
            for part, (k, _) in zip(torch.split(inputs, self.widths, dim=-1), self.parts, strict=True)
            if (weight := self.weights[k]).shape[2]
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
        odd = (layout.lmax + 1) * layout.odd_channels
        self.odd_gates = torch.nn.Linear(layout.natural, odd) if odd else None
        self.register_buffer("degree", degree_of_rows(layout.lmax), persistent=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(n, rows, channels) -> the same shape."""
        layout = self.layout
        scalars = features[:, 0, : layout.natural]
        gates = torch.sigmoid(self.gates(scalars)).reshape(len(features), layout.lmax + 1, layout.even_channels)
        if self.odd_gates is not None:
            odd = torch.sigmoid(self.odd_gates(scalars)).reshape(len(features), layout.lmax + 1, -1)
            gates = torch.cat((gates, *[odd] * layout.axes), dim=-1)
        gated = features * gates.index_select(1, self.degree)
        first = torch.cat((torch.nn.functional.silu(scalars), gated[:, 0, layout.natural :]), dim=-1)
        return torch.cat((first.unsqueeze(1), gated[:, 1:]), dim=1)
