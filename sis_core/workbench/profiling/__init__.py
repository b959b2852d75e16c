"""Where the time of a token goes.

Nothing of this is in the way of a normal run: a backend that binds timed callables is added to the registry of the one
model that is profiled.

    recorder   spans and their nesting
    binding    a backend that wraps what other backends bind
    sampling   samplers that are timed
    summary    spans -> rows
    trace      spans -> a file that Perfetto and chrome://tracing open
"""

from sis_core.workbench.profiling.binding import NAME, profiling
from sis_core.workbench.profiling.recorder import Recorder, Span
from sis_core.workbench.profiling.sampling import timed_samplers
from sis_core.workbench.profiling.session import profile_text
from sis_core.workbench.profiling.summary import Profile, summarise
from sis_core.workbench.profiling.trace import trace_events

__all__ = [
    "NAME",
    "Profile",
    "Recorder",
    "Span",
    "profile_text",
    "profiling",
    "summarise",
    "timed_samplers",
    "trace_events",
]
