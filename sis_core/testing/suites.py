"""The kits as classes: a plugin's test subclasses one and names what is tested; each fault is a test of its own.

>>> class TestMine(SamplerSuite):
...     sampler = Mine
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from sis_core.arrays import F64
from sis_core.backend import Backend
from sis_core.quant import QuantFormat
from sis_core.sampler import Sampler
from sis_core.testing import sampler as sampler_kit
from sis_core.testing.backend import FORMATS, check_backend
from sis_core.testing.faithfulness import check_faithfulness, check_importance
from sis_core.testing.format_declaration import check_declaration
from sis_core.testing.format_probe import FormatProbe
from sis_core.testing.native_decoder import check_native_decoder
from sis_core.testing.quant_format import check_decoding, check_encoding, check_layouts, check_refusal_to_encode
from sis_core.testing.sampler_cases import logits_of_kinds, with_ends


class QuantFormatSuite:
    """`check_quant_format` in parts.

    Attributes:
        format: the instance under test.
        max_error: as in `check_quant_format`; a format that is coarse on purpose must say it.
    """

    format: ClassVar[QuantFormat]
    max_error: ClassVar[float | None] = None

    def test_declaration(self) -> None:
        """Name, sizes, and the length of rows."""
        check_declaration(self._probe())

    def test_decoding(self) -> None:
        """Any bytes; the same again, row by row, out of longer rows, in threads."""
        check_decoding(self._probe())

    def test_encoding(self) -> None:
        """Any values; or a refusal, where the format only decodes."""
        probe = self._probe()
        if self.format.can_quantize:
            check_encoding(probe)
        else:
            check_refusal_to_encode(probe)

    def test_faithfulness(self) -> None:
        """How near decoded values are to the encoded ones."""
        if self.format.can_quantize:
            check_faithfulness(self._probe(), self.max_error)

    def test_importance(self) -> None:
        """Columns that matter more are kept better, where the format can weigh them."""
        if self.format.can_quantize:
            check_importance(self._probe())

    def test_layout(self) -> None:
        """The declared layout, where there is one, says what the decoder does."""
        check_layouts(self._probe())

    def test_native_decoder(self) -> None:
        """The C function, where there is one, gives what Python gives."""
        check_native_decoder(self._probe())

    def _probe(self) -> FormatProbe:
        return FormatProbe(self.format)


class SamplerSuite:
    """`check_sampler` in parts.

    Attributes:
        sampler: the class under test.
        options: with which it has an effect.
        chance: whether it does something by chance.
    """

    sampler: ClassVar[type[Sampler]]
    options: ClassVar[Mapping[str, Any]] = {}
    chance: ClassVar[bool] = False

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """A test of behaviour for each kind of logits and each end of an option."""
        if metafunc.function.__name__ == "test_behaviour":
            suite = metafunc.cls
            ends = list(with_ends(suite.sampler, dict(suite.options)))
            cases = [(title, chosen, case) for title, chosen in ends for case, _ in logits_of_kinds()]
            metafunc.parametrize(("title", "chosen", "case"), cases, ids=[title + case for title, _, case in cases])

    def test_options(self) -> None:
        """A name, a place in the chain, options that refuse nonsense."""
        self._check().options(dict(self.options))

    def test_effect(self) -> None:
        """It changes something."""
        check = self._check()
        check.effect(check.make(dict(self.options)))

    def test_behaviour(self, title: str, chosen: dict[str, Any], case: str) -> None:
        """In place, without faults, the same again; states, copies and neighbours."""
        check = self._check()
        made, logits = check.make(chosen), dict(logits_of_kinds())[case]
        check.one(made, logits, title + case)
        check.accepting(made, logits, title + case)
        check.forcing(made, logits, title + case)

    def test_seeds(self) -> None:
        """Chance comes from the seed, and only where the sampler says so."""
        check = self._check()
        check.seeds(check.make(dict(self.options)))

    def definition(self, logits: F64, prompt: Sequence[int]) -> F64:
        """What the sampler should do, as in `check_sampler`; a subclass may say it."""
        raise NotImplementedError

    def test_definition(self) -> None:
        """The distribution that it leaves, and thousands of draws, where there is a definition."""
        if type(self).definition is not SamplerSuite.definition:
            check = self._check()
            check.definition(check.make(dict(self.options)), self.definition)

    def _check(self) -> sampler_kit._Check:
        return sampler_kit._Check(self.sampler, self.chance)


class BackendSuite:
    """`check_backend` in parts: one test for each weight format and type of cache.

    Attributes:
        backend: the instance under test.
        formats, kv_types, tolerance: as in `check_backend`.
    """

    backend: ClassVar[Backend]
    formats: ClassVar[Sequence[QuantFormat]] = FORMATS
    kv_types: ClassVar[Sequence[str]] = ("f32", "f16")
    tolerance: ClassVar[float] = 1e-4

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """A test for each format and type of cache."""
        if metafunc.function.__name__ == "test_whole_models":
            suite = metafunc.cls
            cases = [(format, kv_type) for format in suite.formats for kv_type in suite.kv_types]
            ids = [f"{format.name} with {kv_type} cache" for format, kv_type in cases]
            metafunc.parametrize(("format", "kv_type"), cases, ids=ids)

    def test_whole_models(self, format: QuantFormat, kv_type: str) -> None:
        """The reference's numbers on networks that together use every op."""
        check_backend(self.backend, formats=[format], tolerance=self.tolerance, kv_types=[kv_type], must_bind=False)

    def test_it_does_something(self) -> None:
        """It does not answer None to everything."""
        check_backend(self.backend, formats=self.formats[:1], tolerance=np.inf, kv_types=self.kv_types[:1])
