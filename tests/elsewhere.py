"""A device that is not there: tensors that say they lie on it, with real values on the CPU.

Who mixes them with tensors of the CPU gets an error, as on a GPU. PyTorch's own FakeTensorMode does
that too, but a backward pass on its "cuda" needs a driver, and its tensors have no values.
"""

import contextlib
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("lazy", 0)  # which no kernel of this build computes on
COPY = torch.ops.aten.copy_.default
ACROSS = {  # whose tensors may lie in two places, also on a GPU; of the last two, indices alone
    COPY, torch.ops.aten.index.Tensor, torch.ops.aten._index_put_impl_.default,
}  # fmt: skip
WAITS = []  # kernels that would have made the CPU wait for the device, as they came
DEPENDS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}  # on values
JOINED = {torch.ops.aten.stack.default, torch.ops.aten.cat.default}  # not even a single number may


class Gpu(str):
    """The name of a device, which says that it is a GPU."""

    type = "cuda"


class Elsewhere(torch.Tensor):
    """A tensor that says that it lies on DEVICE; `held` has its values."""

    @staticmethod
    def __new__(cls, held):
        looks = {"strides": held.stride(), "dtype": held.dtype, "device": DEVICE}
        return torch.Tensor._make_wrapper_subclass(cls, held.size(), **looks)

    def __init__(self, held):
        self.held = held

    def __repr__(self, **options):
        return f"Elsewhere({self.held})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})


class Kernels(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})


class Python(TorchFunctionMode):
    """What never reaches a kernel."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.tensor and kwargs.get("device") is not None:
            return func(*args, **kwargs | {"device": "cpu"}).to(kwargs["device"])
        if func is torch.Tensor.tolist:
            return func(args[0].cpu())
        return func(*args, **kwargs)


def pin(tensor):
    """A copy from which a GPU may take its own when it gets there."""
    copy = tensor.clone()
    copy.pinned = True
    return copy


def autocast(kind: str, *args, of=torch.autocast, **options):
    return of("cpu" if kind == DEVICE.type else kind, *args, **options)


@contextlib.contextmanager
def present():
    """Within it, tensors can be on DEVICE."""
    fused = mock.patch("torch.optim.adam._device_dtype_check_for_fused", return_value=None)
    kinds = mock.patch("vae.machinery.machine.PINNED", (DEVICE.type,))
    pinned = mock.patch("torch.Tensor.pin_memory", pin)
    with Python(), Kernels(), mock.patch("torch.autocast", autocast), fused, kinds, pinned:
        yield


def each(function, found):
    """Of arguments or results, in lists, tuples and dicts: sooner than PyTorch's `tree_map`."""
    if isinstance(found, (list, tuple)):
        return type(found)([each(function, one) for one in found])
    if isinstance(found, dict):
        return {name: each(function, one) for name, one in found.items()}
    return function(found)


def tensors_of(found):
    tensors = []
    each(lambda one: isinstance(one, torch.Tensor) and tensors.append(one), found)
    return tensors


def compute(func, args, kwargs):
    tensors = tensors_of((args, kwargs))
    there = [isinstance(tensor, Elsewhere) for tensor in tensors]
    shapes = [tuple(one.shape) for one in tensors if not isinstance(one, Elsewhere)
              and (one.ndim or func in JOINED)]  # fmt: skip
    allowed = func is COPY or (func in ACROSS and there[0])
    if any(there) and shapes and not allowed:
        raise RuntimeError(f"{func}: tensors on {DEVICE}, and on the CPU of shape {shapes}")
    onto = there[0] if func in ACROSS else any(there)
    if (device := kwargs.get("device")) is not None:
        onto = torch.device(device).type == DEVICE.type
        kwargs = kwargs | {"device": torch.device("cpu")}
    note_wait(func, args, kwargs, there, onto)
    args, kwargs = each(lambda x: x.held if isinstance(x, Elsewhere) else x, (args, kwargs))
    given = {id(tensor.held): tensor for tensor in tensors if isinstance(tensor, Elsewhere)}

    def place(x):
        if not onto or not isinstance(x, torch.Tensor):
            return x
        if x.dtype == torch.float64:
            raise TypeError(f"{func}: {DEVICE} has no float64, like Apple's GPUs")
        return given[id(x)] if id(x) in given else Elsewhere(x)

    return each(place, func(*args, **kwargs))


def note_wait(func, args, kwargs, there, onto) -> None:
    """Add `func` to WAITS if it would not return before a GPU has done all that it was given."""
    tensors = tensors_of(args)
    if func in (COPY, torch.ops.aten._to_copy.default):
        asked = kwargs.get("non_blocking") or True in args[2:]
        waits = onto != there[-1] and not (onto and asked and hasattr(tensors[-1], "pinned"))
    elif "index" in func.name():  # by a mask, whose places have to be counted
        waits = any(there) and any(tensor.dtype == torch.bool for tensor in tensors[1:])
    else:
        waits = any(there) and DEPENDS & set(func.tags)
    if waits:
        WAITS.append(str(func))
