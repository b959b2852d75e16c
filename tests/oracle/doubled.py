"""float64 throughout: transformers asks for float32 in norms, softmax, rotations and routers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class Doubled(TorchFunctionMode):
    """While it is active, whoever asks PyTorch for float32 gets float64."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        arguments: Sequence[Any] = (),
        keywords: Mapping[str, Any] | None = None,
    ) -> Any:
        if function is torch.Tensor.float:
            function = torch.Tensor.double
        return function(*map(_doubled, arguments), **{key: _doubled(value) for key, value in (keywords or {}).items()})


def _doubled(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value
