"""Spherical convolution for equirectangular images, as a pyconv plugin.

The taps of a kernel lie on the plane that touches the sphere at the pixel, a regular grid there,
and are projected onto the sphere from its centre (Coors et al., "SphereNet", ECCV 2018): a kernel
sees the same solid angle at the equator and near the poles, where the image is stretched. The
longitude wraps around; beyond the centres of the first and last rows these rows go on.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from pyconv import checks, engine, reference
from pyconv.checks import Verbatim
from pyconv.kernels import pack_weights
from pyconv.operator import Case, Cost, Operator, Problem
from pyconv_spherical._sampler import Sampler

__all__ = ["OPERATOR", "coordinates", "spherical_conv"]


def spherical_conv(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    stride: Any = 1,
    dilation: Any = 1,
    layout: str = "channels_first",
    algorithm: str = "auto",
    max_workspace: int | None = None,
    threads: int | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Convolve an equirectangular image on the sphere.

    Parameters
    ----------
    x : array, shape (N, C, H, W) or (C, H, W)
        Images whose rows are latitudes from the north pole to the south pole and whose columns are
        all longitudes.
    weight : array, shape (O, C/groups, kh, kw)
        A kernel for each output channel and each input channel of its group.
    bias : array, shape (O,), optional
        Added to each output channel.
    stride : int or sequence of int
        Rows and columns between results; columns in steps that divide W.
    dilation : int or sequence of int
        Distance between taps, in pixels at the equator.
    layout : {"channels_first", "channels_last"}
        Axis order of the images and the result.
    algorithm : {"auto", "direct"}
        Both are the same.
    max_workspace, threads, out
        As for `pyconv.conv`.

    Returns
    -------
    ndarray, shape (N, O, ceil(H / stride), W / stride)

    Examples
    --------
    A constant image stays constant, poles included:

    >>> import numpy as np
    >>> from pyconv_spherical import spherical_conv
    >>> y = spherical_conv(np.ones((1, 4, 8)), np.full((1, 1, 3, 3), 1 / 9))
    >>> bool(np.allclose(y, 1))
    True
    """
    return OPERATOR(
        x, weight, bias, stride=stride, dilation=dilation, layout=layout, algorithm=algorithm,
        max_workspace=max_workspace, threads=threads, out=out,
    )  # fmt: skip


@dataclass(frozen=True)
class Grid:
    """Where the taps look: tables for the sampler, see `Sampler`."""

    rows: np.ndarray
    first: np.ndarray
    weights: np.ndarray


def latitudes_and_turns(
    size: tuple[int, int], taps: tuple[int, int], stride: int, dilation: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Row of the image, and columns to the east, where each tap of each row of the result looks."""
    height, width = size
    centre = np.arange(-(-height // stride)) * stride + (stride - 1) / 2
    phi = np.pi / 2 - (np.minimum(centre, height - 1) + 0.5) * np.pi / height
    phi = phi[:, np.newaxis, np.newaxis]
    south, east = (
        np.tan(np.clip((np.arange(k) - (k - 1) / 2) * d * angle, -1.5, 1.5))
        for k, d, angle in zip(taps, dilation, (np.pi / height, 2 * np.pi / width), strict=True)
    )
    north, east = np.broadcast_arrays(-south[:, np.newaxis], east)
    rho = np.hypot(east, north)
    nu = np.arctan(rho)
    ratio = np.divide(np.sin(nu), rho, out=np.ones_like(rho), where=rho > 0)
    latitude = np.arcsin(np.clip(np.cos(nu) * np.sin(phi) + north * ratio * np.cos(phi), -1, 1))
    turn = np.arctan2(
        east * ratio, np.cos(phi) * np.cos(nu) - north * ratio * np.sin(phi)
    )  # to the east
    rows = (np.pi / 2 - latitude) * height / np.pi - 0.5
    flat = (len(phi), -1)
    return rows.reshape(flat), (turn * width / (2 * np.pi)).reshape(flat)


@lru_cache(64)
def make_grid(
    size: tuple[int, int], taps: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]
) -> Grid:
    """Tables for images of this size."""
    height, width = size
    rows, columns = latitudes_and_turns(size, taps, stride[0], dilation)
    rows = np.clip(rows, 0, height - 1)
    upper = np.minimum(rows.astype(np.intp), height - 1)
    columns = columns + (stride[1] - 1) / 2
    left = np.floor(columns)
    down, right = rows - upper, columns - left
    weights = [(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right]
    return Grid(
        np.stack([upper, np.minimum(upper + 1, height - 1)], axis=-1),
        np.mod(left, width).astype(np.intp),
        np.stack(weights, axis=-1),
    )


def coordinates(
    size: tuple[int, int],
    taps: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
) -> np.ndarray:
    """The same grid for `pyconv.sampled_conv`, ``(kh, kw, 2, H_out, W_out)``, in float64.

    With ``padding_mode=("zeros", "circular")`` it computes the same, from much larger tables.
    """
    height, width = size
    rows, columns = latitudes_and_turns(size, taps, stride[0], dilation)
    across = np.arange(width // stride[1]) * stride[1] + (stride[1] - 1) / 2
    rows, columns = np.broadcast_arrays(
        np.clip(rows, 0, height - 1)[..., np.newaxis], columns[..., np.newaxis] + across
    )
    points = np.stack([rows, columns], axis=0)  # (2, H_out, taps, W_out)
    return np.moveaxis(points, 2, 0).reshape(*taps, 2, len(rows), len(across))


@dataclass(frozen=True)
class SphericalProblem(Problem):
    """A spherical convolution."""

    batched: bool = True
    last: bool = False
    groups: int = 1
    size: tuple[int, int] = (1, 1)
    taps: tuple[int, int] = (1, 1)
    extent: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    channels: int = 0

    def view(self, image: np.ndarray) -> np.ndarray:
        """An image as ``(N, C, H, W)``."""
        return engine.plain(image, batched=self.batched, channels_last=self.last)

    def weight(self, weight: np.ndarray) -> np.ndarray:
        """Weights as ``(G, M, kh, kw, C)``: the depths of the sampler are (tap, channel)."""
        shape = (self.groups, len(weight) // self.groups, *weight.shape[1:])
        return np.moveaxis(weight.reshape(shape), 2, -1)

    def sampler(self) -> Sampler:
        """What fills the panels."""
        grid = make_grid(self.size, self.taps, self.stride, self.dilation)
        return Sampler(
            grid.rows, grid.first, grid.weights, self.channels // self.groups, self.size[1],
            self.extent[1], self.stride[1],
        )  # fmt: skip


class Spherical(Operator):
    """Spherical convolution."""

    name = "spherical"
    aliases = ("equirectangular",)
    summary = "Kernels on the tangent planes of a sphere, for 360-degree images"
    url = "https://openaccess.thecvf.com/content_ECCV_2018/html/Benjamin_Coors_SphereNet_Learning_Spherical_ECCV_2018_paper.html"
    function = staticmethod(spherical_conv)

    def problem(self, shapes: dict[str, Any], params: dict[str, Any]) -> SphericalProblem:
        """Check shapes and parameters."""
        name, x, weight = self.name, shapes["x"], shapes["weight"]
        layouts = ("channels_first", "channels_last")
        last = checks.choice(name, "layout", params["layout"], layouts) == layouts[1]
        stride = checks.integers(name, "stride", params["stride"], 2, minimum=1)
        dilation = checks.integers(name, "dilation", params["dilation"], 2, minimum=1)
        checks.choice(name, "algorithm", params["algorithm"], self.algorithms)
        if len(weight) != 4 or min(weight[2:]) < 1:
            rule = "have shape (O, C/groups, kh, kw)"
            checks.fail(name, "weight", rule, Verbatim(f"shape {weight}"))
        if len(x) not in (3, 4):
            checks.fail(name, "x", "have 3 or 4 axes", Verbatim(f"shape {x}"))
        batched, inner = len(x) == 4, x[-3:]
        channels, size = (inner[2], inner[:2]) if last else (inner[0], inner[1:])
        if min(size) < 1 or size[1] % stride[1]:
            rule = f"have rows, and columns that stride {stride[1]} divides"
            checks.fail(name, "x", rule, Verbatim(f"shape {x}"))
        groups = max(1, channels // weight[1]) if weight[1] else 1
        if channels != groups * weight[1] or weight[0] % groups:
            rule = f"have groups of {weight[1]} channels, as many as divide {weight[0]} outputs"
            checks.fail(name, "x", rule, Verbatim(f"{channels} channels (shape {x})"))
        bias = shapes["bias"]
        if bias is not None and bias != weight[:1]:
            checks.fail(name, "bias", f"have shape {weight[:1]}", Verbatim(f"shape {bias}"))
        extent = (-(-size[0] // stride[0]), size[1] // stride[1])
        image = (*extent, weight[0]) if last else (weight[0], *extent)
        output = (x[0], *image) if batched else image
        macs = (x[0] if batched else 1) * prod(weight) * prod(extent)
        moved = 4 * sum(map(prod, (x, weight, bias or (0,), output)))
        return SphericalProblem(
            output, "direct", "implicit GEMM, its panels filled by the plugin",
            Cost(macs, macs, prod(weight) + prod(bias or (0,)), moved), batched=batched, last=last,
            groups=groups, size=size, taps=weight[2:], extent=extent, stride=stride,
            dilation=dilation, channels=channels,
        )  # fmt: skip

    def compute(
        self, problem: Any, arrays: dict[str, Any], out: np.ndarray, run: Any, prepared: Any = None
    ) -> int:
        """Fill the result."""
        return problem.sampler().convolve(
            problem.view(arrays["x"]), problem.weight(arrays["weight"]), arrays["bias"],
            problem.view(out), run, prepared,
        )  # fmt: skip

    def prepare(self, problem: Any, arrays: dict[str, Any], run: Any) -> Any:
        """Put the weights of a plan in order."""
        return pack_weights(run, problem.weight(arrays["weight"]), problem.extent)

    def gradients(
        self, problem: Any, grad: np.ndarray, arrays: dict[str, Any], out: dict[str, Any], run: Any
    ) -> None:
        """Fill the gradients that are asked for."""
        sampler, dy = problem.sampler(), problem.view(grad)
        if "x" in out:
            weight = problem.weight(arrays["weight"])
            sampler.input_gradient(weight, dy, problem.view(out["x"]), run)
        if "weight" in out:
            x = problem.view(arrays["x"])
            sampler.weight_gradient(x, dy, problem.weight(out["weight"]), run)
        if "bias" in out:
            engine.bias_gradient(run, dy[..., np.newaxis, :, :], out["bias"])

    def define(self, problem: Any, arrays: dict[str, Any]) -> np.ndarray:
        """The result by definition: samples at the coordinates, one by one."""
        points = coordinates(problem.size, problem.taps, problem.stride, problem.dilation)
        x = problem.view(arrays["x"])
        points = points.astype(np.result_type(x, np.float64))
        points = points.reshape(1, -1, *problem.extent)
        points = np.broadcast_to(points, (len(x), *points.shape[1:]))
        wrap = (False, True)
        y = reference.sampled(x, points, arrays["weight"], arrays["bias"], None, wrap)
        y = y.astype(np.result_type(*(a for a in arrays.values() if a is not None)))
        y = np.moveaxis(y, 1, -1) if problem.last else y
        return y if problem.batched else y[0]

    def cases(self) -> Any:
        """Example calls."""
        yield _case("3x3", (2, 3, 6, 8), (4, 3, 3, 3))
        yield _case("groups", (2, 4, 5, 6), (6, 2, 3, 5), dilation=(2, 1))
        yield _case("stride", (1, 2, 9, 12), (3, 2, 2, 3), stride=(2, 3))
        yield _case("unbatched", (3, 4, 10), (2, 3, 1, 3))
        yield _case("channels last", (2, 6, 4, 16), (5, 16, 3, 3), layout="channels_last")


def _case(name: str, x: Any, weight: Any, **params: Any) -> Case:
    return Case(name, {"x": x, "weight": weight, "bias": weight[:1]}, params)


OPERATOR = Spherical()
