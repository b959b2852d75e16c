"""The whole test of a backend: the kit compares it with the reference on networks that use every op."""

from sis_decoded import Decoded

from sis_core.testing import check_backend


def test_decoded() -> None:
    check_backend(Decoded())
