"""Sums over edges: torch-scatter where it is installed, PyTorch's own index_add elsewhere."""

from __future__ import annotations

import importlib.util

import torch

HAS_TORCH_SCATTER = importlib.util.find_spec("torch_scatter") is not None


def sum_edges(values: torch.Tensor, index: torch.Tensor, n_nodes: int) -> torch.Tensor:
    """(n_edges, dim) -> (n_nodes, dim): out[n] = sum of values whose index is n.

    PyTorch's index_add on edges sorted by `index` is as fast on the CPU as torch-scatter, which is used on GPUs.
    """
    if HAS_TORCH_SCATTER and values.is_cuda:
        return sum_edges_torch_scatter(values, index, n_nodes)
    return values.new_zeros((n_nodes, values.shape[1])).index_add(0, index, values)


def sum_edges_torch_scatter(values: torch.Tensor, index: torch.Tensor, n_nodes: int) -> torch.Tensor:
    """The same sum by the optional package torch-scatter."""
    from torch_scatter import scatter

    result: torch.Tensor = scatter(values, index, dim=0, dim_size=n_nodes, reduce="sum")
    return result
