"""The sums of boosted trees, compiled and in plain NumPy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from scld.kernels.jit import njit


class Trees(NamedTuple):
    """Binary trees as arrays ``[trees, nodes]``; `validate_trees` says what holds for them."""

    feature: np.ndarray  # the feature that a node compares
    threshold: np.ndarray  # go left if the feature is at most this
    left: np.ndarray  # next node; a leaf is its own
    right: np.ndarray
    value: np.ndarray  # added at a leaf


def validate_trees(trees: Trees, features: int) -> None:
    """Raise `ValueError` unless a descent ends, and reads and writes within the arrays.

    Every child is the node itself (a leaf) or a later node, so no descent can return.
    """
    shape = trees.feature.shape
    if len(shape) != 2 or any(array.shape != shape for array in trees):
        raise ValueError("trees: arrays of different shapes")
    if shape[1] == 0:
        raise ValueError("trees: no nodes")
    integers, floats = (trees.feature, trees.left, trees.right), (trees.threshold, trees.value)
    if any(array.dtype != np.int64 for array in integers):
        raise ValueError("trees: features and children must be int64")
    if any(array.dtype != np.float64 for array in floats):
        raise ValueError("trees: thresholds and values must be float64")
    if not all(np.isfinite(array).all() for array in floats):
        raise ValueError("trees: non-finite thresholds or values")
    node = np.arange(shape[1])
    later = all(((child >= node) & (child < shape[1])).all() for child in (trees.left, trees.right))
    if not later or ((trees.left == node) != (trees.right == node)).any():
        raise ValueError("trees: children that are no later nodes")
    if (trees.feature < 0).any() or (trees.feature >= features).any():
        raise ValueError(f"trees: features outside 0 to {features - 1}")


def sum_of_trees(table: np.ndarray, trees: Trees) -> np.ndarray:
    """Sum over trees of the leaf values that each row of ``table [cells, features]`` reaches."""
    total: np.ndarray = _sum_of_trees(table, *trees)
    return total


def sum_of_trees_plain(table: np.ndarray, trees: Trees) -> np.ndarray:
    """The same in plain NumPy."""
    total = np.zeros(len(table))
    for feature, threshold, left, right, value in zip(*trees, strict=True):
        node = np.zeros(len(table), np.int64)
        for _ in range(len(value)):
            goes_left = table[np.arange(len(table)), feature[node]] <= threshold[node]
            node = np.where(goes_left, left[node], right[node])
        total += value[node]
    return total


@njit()
def _sum_of_trees(
    table: np.ndarray,
    feature: np.ndarray,
    threshold: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
    value: np.ndarray,
) -> np.ndarray:
    total = np.zeros(len(table))
    for cell in range(len(table)):
        for tree in range(len(feature)):
            node, last = 0, -1
            while node != last:  # children are later nodes or the node itself
                last = node
                goes_left = table[cell, feature[tree, node]] <= threshold[tree, node]
                node = left[tree, node] if goes_left else right[tree, node]
            total[cell] += value[tree, node]
    return total
