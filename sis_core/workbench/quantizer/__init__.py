"""Quantising a GGUF file: which tensor goes into which format, and writing it so that a killed run can go on.

recipes     known mixes such as Q4_K_M; the format of the head
plan        what happens to each tensor, and every refusal that needs no weights
sides       side tensors that a format makes as it encodes
importance  the importance of each input column, as `sis imatrix` measures it
encode      one tensor: decode, check and encode row panels on several threads
work        the folder beside the output in which a run can be taken up again
run         the whole file
"""

from sis_core.workbench.quantizer.importance import Importance
from sis_core.workbench.quantizer.plan import Plan, Rule, TensorPlan, find_target, make_plan, parse_rule
from sis_core.workbench.quantizer.run import Result, quantize_file
from sis_core.workbench.quantizer.sides import with_sides

__all__ = [
    "Importance",
    "Plan",
    "Result",
    "Rule",
    "TensorPlan",
    "find_target",
    "make_plan",
    "parse_rule",
    "quantize_file",
    "with_sides",
]
