"""What gives a model's keys and tensors as a GGUF file does, whether it is one or is made of something else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sis_core.gguf_file.arrays import Value
from sis_core.gguf_file.tensors import TensorInfo

if TYPE_CHECKING:
    from numpy import uint8
    from numpy.typing import NDArray


class ModelFile(Protocol):
    """The part of `GGUFFile` that quantising and loading weights ask for; see there."""

    @property
    def path(self) -> Path: ...

    @property
    def paths(self) -> Sequence[Path]: ...

    @property
    def alignment(self) -> int: ...

    @property
    def metadata(self) -> Mapping[str, Value]: ...

    @property
    def metadata_types(self) -> Mapping[str, str]: ...

    @property
    def tensors(self) -> Mapping[str, TensorInfo]: ...

    def raw(self, name: str) -> NDArray[uint8]: ...

    def copy(self, name: str, start: int, stop: int) -> NDArray[uint8]: ...

    def checker(self, name: str) -> Callable[[], None]: ...

    def release(self, name: str) -> None: ...
