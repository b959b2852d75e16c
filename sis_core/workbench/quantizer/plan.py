"""What happens to each tensor: copied as it is, or encoded in a format. Everything that can be refused early is."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from math import prod

from attrs import frozen

from sis_core.arrays import F32
from sis_core.errors import FormatError, PluginError, SisError, package_for, suggest
from sis_core.gguf_file import TENSOR_TYPES, ModelFile, TensorInfo
from sis_core.loading.weights import file_weight
from sis_core.quant import PLAIN, QuantFormat, Weight
from sis_core.registry import Registry
from sis_core.workbench.quantizer.recipes import HEAD_BITS, RECIPES, Recipe, Stack, head_formats

UNQUANTISED = (*PLAIN, "F64")
TINY = 256  # values: a smaller tensor is not worth the loss
KEEP = "keep"
KEPT_SUFFIXES = ("_norm.weight", "ffn_gate_inp.weight", "ssm_conv1d.weight")
KEPT_NAMES = ("position_embd.weight", "token_types.weight")


@frozen(eq=False)
class Rule:
    """Tensors whose name matches a glob get a format; None keeps them as they are."""

    pattern: str
    format: QuantFormat | None


@frozen(eq=False)
class TensorPlan:
    """One tensor.

    Attributes:
        info: the tensor in the input.
        weight: its values; None when the bytes are copied.
        format: what it is encoded in; None when the bytes are copied.
        package: what brings a format that GGUF has no id for.
        note: why this is not what was asked for; empty when it is.
        column_weights: what squared errors in each column are multiplied by, ``(n_cols,)``, where sides are; or None.
    """

    info: TensorInfo
    weight: Weight | None = None
    format: QuantFormat | None = None
    package: str = ""
    note: str = ""
    column_weights: F32 | None = None

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def type_name(self) -> str:
        """The format it will have, as GGUF spells it."""
        return self.info.type_name if self.format is None else self.format.name

    @property
    def type(self) -> str | int:
        """What the writer is told: GGUF's id, or the name of a format without one."""
        if self.format is None:
            return self.info.type_name if self.info.type_id is None else self.info.type_id
        return self.format.name if self.format.type_id is None else self.format.type_id

    @property
    def n_bytes(self) -> int:
        if self.format is None or self.weight is None:
            return self.info.n_bytes
        return self.weight.n_rows * self.format.row_bytes(self.weight.n_cols)

    @property
    def n_values(self) -> int:
        return prod(self.info.shape)


@frozen(eq=False)
class Plan:
    """All tensors in file order. ``label`` is the format or recipe that was asked for, in GGUF's spelling."""

    label: str
    tensors: Sequence[TensorPlan]

    @property
    def n_bytes(self) -> int:
        return sum(tensor.n_bytes for tensor in self.tensors)

    @property
    def bits_per_weight(self) -> float:
        """Over every value of the file, also those that are copied."""
        return 8 * self.n_bytes / max(1, sum(tensor.n_values for tensor in self.tensors))


def find_format(registry: Registry, name: str, where: str) -> QuantFormat:
    """The format of that name in any case, able to encode and alone with its id.

    Raises:
        PluginError: it is not installed, or two plugins claim its name or its id.
        FormatError: it cannot encode.
    """
    known = registry.names("quant_formats")
    exact = name if name in known else next((k for k in known if k.casefold() == name.casefold()), name)
    able = sorted(f.name for f in registry.records("quant_formats") if f.can_quantize)
    if exact not in known and package_for("quant_formats", exact.upper()) is None:
        raise PluginError(
            f"no installed plugin brings the format {name!r}{suggest(exact.upper(), able)}",
            where=where,
            fix=f"formats that can be written are: {', '.join(able)}",
        )
    found: QuantFormat = registry.get("quant_formats", exact.upper() if exact not in known else exact, where=where)
    if not found.can_quantize:
        raise FormatError(
            f"the format {found.name} can only be read: it has no encoder",
            where=where,
            fix=f"formats that can be written are: {', '.join(able)}",
        )
    if found.type_id is not None and registry.find("quant_formats", f"type {found.type_id}") is not found:
        raise PluginError(
            f"type {found.type_id} is preferred to mean another format than {found.name}",
            where=where,
            fix=f"--prefer {found.type_id}={registry.owner('quant_formats', found)}",
        )
    return found


def find_target(registry: Registry, name: str, where: str = "--to") -> tuple[str, Recipe | None, QuantFormat]:
    """A recipe or a format by name: its spelling, the recipe if it is one, and the base format."""
    upper = name.upper().replace("-", "_")
    if upper in RECIPES:
        return upper, RECIPES[upper], find_format(registry, RECIPES[upper].base, where)
    try:
        found = find_format(registry, name, where)
    except PluginError as error:
        claimed = any(known.casefold() == name.casefold() for known in registry.names("quant_formats"))
        hint = "" if claimed else suggest(upper, list(RECIPES))
        if not hint:
            raise
        raise PluginError(error.what + hint, where=error.where, fix=error.fix) from None
    return found.name, None, found


def parse_rule(registry: Registry, text: str) -> Rule:
    """A rule from ``PATTERN=FORMAT``; the format ``keep`` copies the tensor."""
    pattern, equals, name = text.rpartition("=")
    if not (pattern and equals and name):
        raise FormatError(
            f"{text!r} is not PATTERN=FORMAT", where="--tensor", fix="write --tensor 'output.weight=Q6_K'"
        )
    return Rule(pattern, None if name.casefold() == KEEP else find_format(registry, name, "--tensor"))


def may_quantize(info: TensorInfo) -> bool:
    """Whether a tensor is a matrix of weights: not a norm, bias, router or table of positions, and not tiny."""
    if len(info.shape) < 2 or prod(info.shape) < TINY or not info.name.endswith(".weight"):
        return False
    return not info.name.endswith(KEPT_SUFFIXES) and info.name not in KEPT_NAMES


def make_plan(
    file: ModelFile,
    registry: Registry,
    target: str,
    *,
    rules: Sequence[Rule] = (),
    fallbacks: Sequence[QuantFormat] = (),
    pure: bool = False,
    requantize: bool = False,
) -> Plan:
    """Decide about every tensor of ``file``.

    Args:
        target: a format or a recipe, in any case.
        rules: the first whose pattern matches decides, before the recipe.
        fallbacks: formats for tensors whose rows do not divide, the first that fits.
        pure: the target for every matrix, also where the head would get a better one.
        requantize: allow tensors that are already quantised to be decoded and encoded again.

    Raises:
        SisError: see the module `sis_core.workbench.quantizer`: an unknown or read-only format, a rule that matches
            nothing, rows that do not divide, a quantised input.
    """
    label, recipe, base = find_target(registry, target)
    infos = list(file.tensors.values())
    able = [info for info in infos if may_quantize(info)]
    for rule in rules:
        if not any(fnmatchcase(info.name, rule.pattern) for info in able):
            raise FormatError(
                f"no tensor that can be quantised is called like {rule.pattern!r}",
                where="--tensor",
                fix=f"`sis inspect {file.path.name}` lists the names",
            )
    architecture = str(file.metadata.get("general.architecture", ""))
    n_expert = file.metadata.get(f"{architecture}.expert_count", 0)
    stack = Stack.of(file.tensors, architecture, n_expert if isinstance(n_expert, int) else 0)
    chooser = _Chooser(registry, base, recipe, pure, "output.weight" in file.tensors, stack)
    tensors = []
    for info in infos:
        if not may_quantize(info):
            tensors.append(TensorPlan(info, package=info.package))
            continue
        named = next((rule for rule in rules if fnmatchcase(info.name, rule.pattern)), None)
        wanted = named.format if named else chooser.choose(info)
        tensors.append(_plan_one(file, info, wanted, fallbacks, registry))
    if not requantize:
        _refuse_requantizing(tensors, str(file.path))
    sides = _sides(tensors)
    return Plan(label, [tensor for tensor in tensors if tensor.name not in sides])


def _sides(tensors: Sequence[TensorPlan]) -> set[str]:
    """What lies beside tensors that are decoded, and is in their values then."""
    decoded = [tensor.weight for tensor in tensors if tensor.weight is not None]
    return {place.tensor for weight in decoded for place in weight.format.side_names(weight.name).values()}


def _plan_one(
    file: ModelFile,
    info: TensorInfo,
    wanted: QuantFormat | None,
    fallbacks: Sequence[QuantFormat],
    registry: Registry,
) -> TensorPlan:
    n_cols, note = info.shape[-1], ""
    if wanted is not None and n_cols % wanted.block_size:
        what = f"rows of {n_cols} values are not whole blocks of {wanted.block_size} of {wanted.name}"
        fitting = next((f for f in fallbacks if n_cols % f.block_size == 0), None)
        if fitting is None:
            tried = f", nor of {' or '.join(f.name for f in fallbacks)}" if fallbacks else ""
            raise FormatError(
                what + tried,
                where=f"{file.path}: tensor {info.name}",
                fix="name a format for such tensors with --fallback (F16 always fits), or keep it: "
                f"--tensor '{info.name}={KEEP}'",
            )
        note, wanted = f"{what}: {fitting.name} instead", fitting
    if wanted is None or wanted.name == info.type_name:  # copied: no codec of what it is in is needed
        return TensorPlan(info, package=info.package, note=note)
    weight = file_weight(file, registry, info)
    package = "" if wanted.type_id in TENSOR_TYPES else _package(registry, wanted)
    return TensorPlan(info, weight, wanted, package, note)


def _package(registry: Registry, format: QuantFormat) -> str:
    """The distribution that brings a format; empty for a single file, whose name may be somebody else's package."""
    owner = registry.owner("quant_formats", format)
    plugin = next(plugin for plugin in registry.plugins if plugin.name == owner)
    return plugin.origin if plugin.version else ""


def _refuse_requantizing(tensors: Sequence[TensorPlan], where: str) -> None:
    quantised = [t for t in tensors if t.weight is not None and t.weight.format.name not in UNQUANTISED]
    if quantised:
        first = quantised[0]
        raise FormatError(
            f"{len(quantised)} of its tensors are quantised already ({first.name} is {first.info.type_name})",
            where=where,
            fix="start from the F16 or F32 file; or, at a further loss of quality, add --requantize",
        )


@frozen(eq=False)
class _Chooser:
    """The format of a tensor that no rule names."""

    registry: Registry
    base: QuantFormat
    recipe: Recipe | None
    pure: bool
    has_head: bool
    stack: Stack

    def choose(self, info: TensorInfo) -> QuantFormat:
        if self.pure:
            return self.base
        if info.name == ("output.weight" if self.has_head else "token_embd.weight"):
            return self._head(info.shape[-1])
        if self.recipe is None:
            return self.base
        return find_format(self.registry, self.recipe.format_of(info.name, self.stack), "--to")

    def _head(self, n_cols: int) -> QuantFormat:
        if self.base.bits_per_weight >= HEAD_BITS:
            return self.base
        for name in head_formats(self.stack):
            try:
                found = find_format(self.registry, name, "--to")
            except SisError:
                continue
            if n_cols % found.block_size == 0:
                return found
        return self.base
