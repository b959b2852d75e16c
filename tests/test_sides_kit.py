"""`check_quant_format` holds the sides that a format names to its layout and to each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest

from sis_core.errors import FormatError
from sis_core.layout import Bits, Layout, Scale
from sis_core.quant import BlockFormat
from sis_core.sides import SideName
from sis_core.testing import QuantFormatSuite
from sis_core.transform import PerColumn


class Sided(BlockFormat):
    """Columns are multiplied by what lies beside the weight."""

    name, block_size, type_size = "SIDED", 32, 18
    layout = Layout(4, 32, Scale("f16", 0), zero=8, codes=Bits(2, 4), transform=PerColumn("columns"))

    def side_names(self, tensor: str) -> Mapping[str, SideName]:
        return {"columns": SideName(tensor.removesuffix(".weight") + ".col_scale", "column")}


def check(names: Any) -> None:
    format = type("Wrong", (Sided,), {"side_names": lambda self, tensor: names(tensor)})()
    type("Suite", (QuantFormatSuite,), {"format": format})().test_declaration()


def test_right_ones_pass() -> None:
    check(Sided().side_names)


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (lambda tensor: {"colums": SideName(f"{tensor}.s", "column")}, "by the side 'columns', .* gives 'colums'"),
        (lambda tensor: {}, "by the side 'columns', but side_names gives none"),
        (lambda tensor: {"columns": SideName(f"{tensor}.s", "row")}, "which has a number for each row"),
        (lambda tensor: {"columns": SideName("scales", "column")}, "gives scales to blk.0.ffn_down.weight too"),
        (lambda tensor: {"columns": SideName("output.weight", "column")}, "takes the weight output.weight for its"),
        (lambda tensor: {"columns": f"{tensor}.s"}, "not a name with a SideName"),
        (lambda tensor: [tensor], "side_names returns list"),
        (lambda tensor: tensor[99], "side_names fails: IndexError"),
        (lambda tensor: {"columns": SideName(f"{tensor}.s", cast("Any", "col"))}, "'col' is no axis; there are tensor"),
    ],
)
def test_wrong_ones_are_named(names: Any, fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        check(names)


def test_an_axis_that_is_none_is_refused_when_it_is_named() -> None:
    with pytest.raises(FormatError, match=r"side a.scale: 'col' is no axis; there are tensor, expert, row, column"):
        SideName("a.scale", cast("Any", "col"))
