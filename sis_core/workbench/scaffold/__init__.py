"""New plugins from templates: `sis new` writes a package that installs and passes its own test at once.

names      the spellings of a plugin's name, and which names are refused
write      templates to files
templates  one folder for each kind, and what all kinds have in common; ``$name`` marks what is filled in
"""

from sis_core.workbench.scaffold.names import Names
from sis_core.workbench.scaffold.write import KINDS, write_plugin

__all__ = ["KINDS", "Names", "write_plugin"]
