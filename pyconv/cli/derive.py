"""What `pyconv run` gives an operator besides the image, derived from the operator itself.

An operator says which arrays it takes and, through ``output_shape``, whether their shapes are
right. So the weights are tried in every layout that convolutions use - dense, grouped, one kernel a
channel, a matrix of channels - until the operator agrees. That needs no table of operators: a
plugin's works as well. The few operators that do nothing visible, or nothing at all, without a
parameter have an entry in `DEFAULTS`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import pyconv
from pyconv.cli import kernels
from pyconv.cli.operators import AnyArray, Argument, Call, parameters, variadic
from pyconv.cli.output import CommandError, UsageError

if TYPE_CHECKING:
    from pyconv.operator import Operator


@dataclass(frozen=True)
class Wish:
    """What the user asked for, or the default; names as in `pyconv.cli.kernels`, or .npy files.

    Attributes
    ----------
    kernel, mix, offset : str or None
        The spatial kernel, the colour matrix and the offset field.
    size : int or None
        The kernel's size.
    params : dict
        Parameters of the operator.
    files : dict of str to Path
        Arrays by argument name, to be used as they are.
    """

    kernel: str | None = None
    mix: str | None = None
    offset: str | None = None
    size: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)


DEFAULTS = {
    "grouped": Wish(kernel="sharpen"),
    "depthwise": Wish(kernel="emboss"),
    "depthwise_separable": Wish(kernel="gaussian"),
    "spatially_separable": Wish(kernel="gaussian"),
    "dilated": Wish(kernel="laplacian", params={"dilation": 2}),
    "transposed": Wish(kernel="bilinear", params={"stride": 2}),
    "deformable": Wish(kernel="identity"),
    "sampled": Wish(kernel="identity"),
}
"""Defaults by operator, where they are not those of `FALLBACK`."""

FALLBACK = Wish(kernel="sobel-x", mix="sepia", offset="swirl")


_FIELDS = ("offset", "coordinates")
"""Arrays that say where an operator looks."""


@dataclass(frozen=True)
class _Candidate:
    """A value to try for an array, and the wishes that it uses."""

    value: Argument
    uses: frozenset[str]


def derive(op: Operator, x: AnyArray, wish: Wish) -> tuple[Call, str]:
    """Return the call of an operator on an image, and in words what its weights are.

    Parameters
    ----------
    op : Operator
        Any operator with an argument ``x``.
    x : ndarray, shape (1, C, H, W)
        The image.
    wish : Wish
        What the user asked for.

    Raises
    ------
    UsageError
        If the operator refuses every layout of the weights, or has no use for something that was
        asked for.
    """
    default = DEFAULTS.get(op.name, Wish())
    names = {
        name: getattr(wish, name) or getattr(default, name) or getattr(FALLBACK, name)
        for name in ("kernel", "mix", "offset")
    }
    unknown = set(wish.files) - set(op.array_names)
    if unknown:
        raise UsageError(
            f"{op.name} has no array {min(unknown)!r}; its arrays are {', '.join(op.array_names)}"
        )
    errors: list[str] = []
    for params in _parameter_sets(op, x, {**default.params, **wish.params}):
        maker = _Maker(op, x, wish, names, params)
        for arrays, uses in maker.array_sets():
            call = Call(op, arrays, params)
            try:
                call.output_shape()
            except (TypeError, ValueError) as error:
                errors.append(str(error))
                continue
            _refuse_unused(op, wish, uses)
            return call, ", ".join(f"{name} {names[name]}" for name in names if name in uses)
    raise UsageError(_most_telling(op, errors))


def _parameter_sets(
    op: Operator, x: AnyArray, given: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yield the parameters to try: those given, what is required, and a result of equal size."""
    known = parameters(op)
    params = dict(given)
    for parameter in known:
        if parameter.name not in params and parameter.default is parameter.empty:
            # One group a channel fits every image; anything else as in the operator's own example.
            examples = [case.params for case in op.cases() if parameter.name in case.params]
            if parameter.name == "groups":
                params["groups"] = x.shape[1]
            elif examples:
                params[parameter.name] = examples[0][parameter.name]
    if "padding" in {parameter.name for parameter in known} and "padding" not in params:
        yield {**params, "padding": "same"}
    yield params


class _Maker:
    """Candidates for each array of an operator, given the parameters."""

    def __init__(
        self,
        op: Operator,
        x: AnyArray,
        wish: Wish,
        names: Mapping[str, str],
        params: Mapping[str, Any],
    ) -> None:
        self.op, self.x, self.wish, self.names, self.params = op, x, wish, names, params
        self.channels = x.shape[1]

    def array_sets(self) -> Iterator[tuple[dict[str, Argument], frozenset[str]]]:
        """Yield every combination of candidates, and the wishes that it uses."""
        required = [
            name
            for name in self.op.array_names
            if name in self.wish.files or name not in ("x", *_FIELDS, *self.op.optional)
        ]
        for chosen in itertools.product(*map(self._candidates, required)):
            arrays: dict[str, Argument] = {"x": self._laid_out(self.x)}
            arrays |= {name: item.value for name, item in zip(required, chosen, strict=True)}
            uses = frozenset[str]().union(*(item.uses for item in chosen))
            fields = [n for n in _FIELDS if n in self.op.array_names and n not in arrays]
            made = {name: self._field(name, arrays) for name in fields}
            if any(field_ is None for field_ in made.values()):
                continue
            arrays |= made
            yield arrays, uses | {"offset" for _ in fields}

    def _candidates(self, name: str) -> Iterator[_Candidate]:
        if name in self.wish.files:
            array = _load(self.wish.files[name]).astype(self.x.dtype)
            yield _Candidate((array,) if name == variadic(self.op) else array, frozenset())
            return
        kernel = self._kernel()
        uses_kernel = frozenset({"kernel"})
        if kernel.ndim > 2:
            yield _Candidate(kernel.astype(self.x.dtype), uses_kernel)
        elif name == variadic(self.op):
            column, row = kernels.separated(self.names["kernel"], kernel)
            for groups in self._groups():
                factors = (column[:, None], row[None, :])
                yield _Candidate(tuple(self._spread(f, groups) for f in factors), uses_kernel)
        else:
            for groups in self._groups():
                yield _Candidate(self._spread(kernel, groups), uses_kernel)
            yield from self._mixes()

    def _groups(self) -> list[int]:
        """Return the numbers of groups to try: the parameter's, none, one a channel."""
        numbers = [self.params.get("groups"), 1, self.channels]
        fitting = [n for n in numbers if isinstance(n, int) and n > 0 and self.channels % n == 0]
        return list(dict.fromkeys(fitting))

    def _kernel(self) -> AnyArray:
        name = self.names["kernel"]
        if name in kernels.KERNELS:
            size = self.wish.size
            stride = self.params.get("stride")
            if name == "bilinear" and size is None and isinstance(stride, int) and stride > 0:
                size = 2 * stride
            return kernels.kernel(name, size)
        return _load(Path(name)).astype(np.float64)

    def _spread(self, kernel: AnyArray, groups: int) -> AnyArray:
        """Return the weight that applies a kernel to each channel and adds up none."""
        per_group = self.channels // groups
        weight = np.zeros((self.channels, per_group, *kernel.shape), self.x.dtype)
        for channel in range(self.channels):
            weight[channel, channel % per_group] = kernel
        return weight

    def _mixes(self) -> Iterator[_Candidate]:
        name = self.names["mix"]
        if name in kernels.MIXES:
            try:
                matrix = kernels.mix(name, self.channels)
            except UsageError:
                if self.wish.mix:
                    raise
                matrix = kernels.mix("identity", self.channels)
        else:
            matrix = _load(Path(name))
        matrix = matrix.astype(self.x.dtype)
        yield _Candidate(matrix, frozenset({"mix"}))
        yield _Candidate(matrix[:, :, None, None], frozenset({"mix"}))

    def _field(self, name: str, arrays: Mapping[str, Argument]) -> AnyArray | None:
        if name == "coordinates":
            return self._coordinates(arrays)
        offset = self._offset(arrays)
        return None if offset is None else self._laid_out(offset)

    def _coordinates(self, arrays: Mapping[str, Argument]) -> AnyArray | None:
        """Return where the taps of a kernel are around each pixel, moved together."""
        weight = arrays.get("weight")
        if not isinstance(weight, np.ndarray) or weight.ndim != self.x.ndim:
            return None
        taps, out = weight.shape[2:], self.x.shape[2:]
        name = self.names["offset"]
        moved = (
            kernels.displacement(name, out, out)
            if name in kernels.FIELDS
            else _load(Path(name)).astype(self.x.dtype)
        )
        places = np.indices((*taps, *out))
        rank = len(taps)
        around = [places[a] + places[rank + a] - (taps[a] - 1) // 2 for a in range(rank)]
        points = np.stack(around, axis=rank)
        try:
            points = points + moved
        except ValueError:
            return moved  # the operator itself will say what is wrong
        return points.astype(self.x.dtype)

    def _offset(self, arrays: Mapping[str, Argument]) -> AnyArray | None:
        """Return the offsets that move all taps of an output pixel together.

        A deformable convolution has as many output pixels as an ordinary one with the same weight
        and parameters: `standard` knows how many. None where it refuses them.
        """
        weight = arrays.get("weight")
        if not isinstance(weight, np.ndarray):
            return None
        shared = ("stride", "padding", "dilation", "groups")
        params = {name: self.params[name] for name in shared if name in self.params}
        params.setdefault("groups", max(1, self.channels // weight.shape[1]))
        try:
            out = pyconv.get("standard").output_shape(self.x.shape, weight.shape, **params)[2:]
        except (TypeError, ValueError):
            out = self.x.shape[2:]  # the operator itself will say what is wrong
        name = self.names["offset"]
        if name in kernels.FIELDS:
            moved = kernels.displacement(name, self.x.shape[2:], out)
        else:
            moved = _load(Path(name))
            if moved.shape != (2, *out):
                return moved.astype(self.x.dtype)
        taps = int(np.prod(weight.shape[2:]))
        return np.tile(moved, (taps, 1, 1))[None].astype(self.x.dtype)

    def _laid_out(self, array: AnyArray) -> AnyArray:
        if self.params.get("layout") == "channels_last":
            return np.moveaxis(array, 1, -1)
        return array


def _load(path: Path) -> AnyArray:
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise CommandError(f"{path}: no such file") from None
    except (OSError, ValueError, EOFError) as error:
        raise CommandError(f"{path}: not an array that NumPy can read ({error})") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        raise CommandError(f"{path}: not one array of numbers")
    return array


def _refuse_unused(op: Operator, wish: Wish, uses: frozenset[str]) -> None:
    """Complain about something asked for that would have had no effect."""
    for name in ("kernel", "mix", "offset"):
        if getattr(wish, name) is not None and name not in uses:
            raise UsageError(f"{op.name} has no use for --{name} here")
    if wish.size is not None and "kernel" not in uses:
        raise UsageError(f"{op.name} has no use for --size here")


def _most_telling(op: Operator, errors: Sequence[str]) -> str:
    """Return the error to show when the operator refuses every attempt.

    Attempts with a wrong layout of the weights are no news; an error about something else is.
    """
    for error in errors:
        about = re.match(rf"{re.escape(op.name)}: (\w+) ", error)
        if about and about[1] not in op.array_names:
            return error
    if not errors:
        return f"{op.name}: no arrays to try; give them as files: --array NAME=FILE.npy"
    return errors[0]
