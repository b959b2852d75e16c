"""Measuring speed: prompts (pp) and generation (tg) at several batch sizes and depths, beside llama.cpp.

cases      what is measured
own        sis itself
peer       llama.cpp: its Python package in an interpreter of its own, or its llama-bench
peer_main  what that interpreter runs; imports nothing of sis
"""

from sis_core.workbench.benchmark.cases import Case, Summary, make_cases, summarise
from sis_core.workbench.benchmark.own import Runner
from sis_core.workbench.benchmark.peer import BinaryPeer, Peer, PythonPeer

__all__ = ["BinaryPeer", "Case", "Peer", "PythonPeer", "Runner", "Summary", "make_cases", "summarise"]
