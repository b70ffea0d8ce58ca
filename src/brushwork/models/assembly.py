"""A module built without memory gets its weights one by one, strictly: all of them, and nothing else."""

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from brushwork.errors import UserError, listed
from brushwork.tensor_file import described


def assemble(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    dtype: torch.dtype,
    device: torch.device | str,
    what: str,
) -> nn.Module:
    """Give a module on the meta device its weights, cast and moved one at a time; it comes back frozen, in eval mode.

    `tensors` may read its values when they are asked for, so that no more than one is held twice.

    Args:
        module: built under `torch.device("meta")`.
        tensors: by the module's own parameter names.
        what: the part and where it comes from, for messages: "vae of model.safetensors".
    """
    expected = module.state_dict()
    _refuse("are missing", what, expected.keys() - set(tensors))
    _refuse("are not known to this network", what, set(tensors) - expected.keys())
    weights = {}
    for name, placeholder in expected.items():
        tensor = tensors[name]
        if tensor.shape != placeholder.shape:
            raise UserError(
                f"{what}: {name} has the shape {list(tensor.shape)}; {list(placeholder.shape)} was expected.",
                fix="the configuration and the weights do not belong together; take both from the same place",
            )
        weights[name] = tensor.to(device=device, dtype=dtype)
    module.load_state_dict(weights, strict=True, assign=True)
    return module.requires_grad_(False).eval()


class Renamed(Mapping[str, Tensor]):
    """A state dict under other names, which reads its tensors when they are asked for."""

    def __init__(self, tensors: Mapping[str, Tensor], old_names: Mapping[str, str]) -> None:
        self._tensors = tensors
        self._old_names = old_names

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[self._old_names[name]]

    def __contains__(self, name: object) -> bool:
        return name in self._old_names  # without this, Mapping would read the tensor to find out

    def describe(self, name: str) -> Tensor:
        """Shape and type of a tensor, without reading it where that can be."""
        return described(self._tensors, self._old_names[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._old_names)

    def __len__(self) -> int:
        return len(self._old_names)


def _refuse(complaint: str, what: str, names: Iterable[str]) -> None:
    found = sorted(names)
    if found:
        raise UserError(
            f"{what}: {len(found)} tensors {complaint}: {listed(found)}.",
            fix="the file is cut short or is another model than it is taken for; download it again",
        )
