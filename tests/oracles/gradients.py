"""Gradients without a backward pass: finite differences and the adjoint identity."""

from __future__ import annotations

import numpy as np


def _moved(arrays, which, step):
    """The arrays in float64, with ``step`` added to number ``which``."""
    moved = [None if a is None else np.array(a, dtype=np.float64) for a in arrays]
    moved[which] += step
    return moved


def numerical_gradient(f, arrays, grad_y, which, eps=2.0**-6):
    """Gradient of ``sum(grad_y * f(*arrays))`` for array number ``which``: central differences.

    Two calls of ``f`` per element. Every operator is linear in each element of each array (an
    offset: as long as its coordinate stays between the same integers), so there is no truncation
    error and ``eps`` may be large.
    """
    return (
        one_sided_gradient(f, arrays, grad_y, which, eps)
        + one_sided_gradient(f, arrays, grad_y, which, -eps)
    ) / 2


def one_sided_gradient(f, arrays, grad_y, which, eps=2.0**-6):
    """Right-hand (``eps < 0``: left-hand) derivative, for coordinates that are integers."""
    here = np.asarray(f(*_moved(arrays, which, 0.0)), dtype=np.float64)
    gradient = np.zeros(np.shape(arrays[which]))
    for index in np.ndindex(*gradient.shape):
        step = np.zeros_like(gradient)
        step[index] = eps
        # Subtract before summing: outputs that do not depend on the element cancel exactly.
        gradient[index] = np.sum(grad_y * (f(*_moved(arrays, which, step)) - here)) / eps
    return gradient


def directional_derivative(f, arrays, grad_y, which, direction, eps=2.0**-6):
    """Derivative along ``direction``, an array like number ``which``, by central differences.

    Compare it with ``sum(gradient * direction)``: two calls of ``f``, whatever the size. Exact for
    an array in which the operator is linear. Offsets that move along three axes at once leave an
    error of ``eps**2``: take a smaller one.
    """
    step = eps * np.asarray(direction, dtype=np.float64)
    difference = f(*_moved(arrays, which, step)) - f(*_moved(arrays, which, -step))
    return float(np.sum(grad_y * difference)) / (2 * eps)


def one_sided_directional_derivative(f, arrays, grad_y, which, direction, eps=2.0**-6):
    """Derivative along ``direction`` from its own side only.

    At integer offsets it is ``sum(right-hand gradient * direction)`` for a direction that moves one
    axis' coordinates only and has no negative element.
    """
    step = eps * np.asarray(direction, dtype=np.float64)
    difference = f(*_moved(arrays, which, step)) - f(*_moved(arrays, which, 0.0))
    return float(np.sum(grad_y * difference)) / eps


def adjoint_gap(forward, backward, x, y):
    """How far ``<forward(x), y> = <x, backward(y)>`` is from true, relative to the operands."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    ax, aty = (np.asarray(a, dtype=np.float64) for a in (forward(x), backward(y)))
    if ax.shape != y.shape or aty.shape != x.shape:
        raise ValueError(f"shapes do not match: {ax.shape}, {y.shape}; {x.shape}, {aty.shape}")
    scale = max(
        np.linalg.norm(ax) * np.linalg.norm(y), np.linalg.norm(x) * np.linalg.norm(aty), 1e-300
    )
    return abs(float(np.sum(ax * y)) - float(np.sum(x * aty))) / scale
