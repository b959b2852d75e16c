"""The conformance kit: one check for each kind of plugin, and suites that show each fault as a test of its own."""

from sis_core.testing.architecture import check_architecture as check_architecture
from sis_core.testing.backend import check_backend as check_backend
from sis_core.testing.models import write_model as write_model
from sis_core.testing.quant_format import check_quant_format as check_quant_format
from sis_core.testing.sampler import check_sampler as check_sampler
from sis_core.testing.source import check_source as check_source
from sis_core.testing.suites import BackendSuite as BackendSuite
from sis_core.testing.suites import QuantFormatSuite as QuantFormatSuite
from sis_core.testing.suites import SamplerSuite as SamplerSuite
