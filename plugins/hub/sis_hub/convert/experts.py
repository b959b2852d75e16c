"""Experts as GGUF has them: one stack ``(n_expert, n_rows, n_cols)`` for each of the three matrices of a layer.

Checkpoints have a matrix for each expert, or stacks with gate and up in one, as transformers 5 keeps them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from sis_core.arrays import U8
from sis_core.errors import SourceError
from sis_core.quant import Weight
from sis_hub.convert.arrange import halves

_ONE = re.compile(r"(?P<stack>.+\.experts)\.(?P<no>[0-9]{1,5})\.(?P<part>[a-z0-9_]+\.weight)")
_GATE_UP, _DOWN = ".experts.gate_up_proj", ".experts.down_proj"


def stacked(weights: Mapping[str, Weight], where: str) -> dict[str, Weight]:
    """The weights with those of experts put together, each stack in the place of its first matrix.

    Raises:
        SourceError: an expert is missing, or is of another shape or type than the others.
    """
    found: dict[str, Weight] = {}
    stacks: dict[str, dict[int, Weight]] = defaultdict(dict)
    for name, weight in weights.items():
        bare = name.removesuffix(".weight")
        if match := _ONE.fullmatch(name):
            stack = f"{match['stack']}.{match['part']}"
            stacks[stack][int(match["no"])] = weight
            found.setdefault(stack, weight)
        elif bare.endswith(_GATE_UP) and len(weight.shape) == 3 and weight.shape[1] % 2 == 0:
            stem = bare.removesuffix("gate_up_proj")
            found |= halves(weight, f"{stem}gate_proj.weight", f"{stem}up_proj.weight")
        elif bare.endswith(_DOWN):
            found[f"{bare}.weight"] = weight
        else:
            found[name] = weight
    return found | {name: _stack(name, numbered, where) for name, numbered in stacks.items()}


def _stack(name: str, numbered: Mapping[int, Weight], where: str) -> Weight:
    members = [numbered[no] for no in sorted(numbered)]
    first = members[0]
    kinds = {(member.shape, member.format.name) for member in members}
    if sorted(numbered) != list(range(len(members))) or len(kinds) > 1:
        raise SourceError(
            f"the experts of {name[:80]!r} are not all there, or not all alike", where=where, fix="download it again"
        )
    return Weight.of(name, first.format, (len(members), *first.shape), _joined(members))


def _joined(members: Sequence[Weight]) -> Callable[[], U8]:
    return lambda: np.concatenate([member.raw.reshape(-1) for member in members])
