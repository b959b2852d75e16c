"""From what a user typed to a chain: what joins, what is refused, and what the refusal says."""

from __future__ import annotations

import math
from typing import Any

import attrs
import numpy as np
import pytest
import sis_samplers
from attrs import field, frozen

from sis_core.errors import PluginError, SamplerError
from sis_core.hookspecs import hookimpl
from sis_core.registry import Registry
from sis_core.sampler import Sampler, SamplerContext, SamplerState, number_option
from sis_core.texts.chain import Chain
from sis_core.texts.chain_text import RESERVED, make_chain, sampler_options
from sis_core.texts.language_model import LanguageModel

REGISTRY = Registry.of(sis_samplers)


def chain(sampler: Any = None, samplers: Any = None, **options: Any) -> str:
    """The chain as text: names with the options that are not at their defaults."""
    return "; ".join(map(spell, make_chain(REGISTRY, sampler, samplers, options)))


def spell(sampler: Any) -> str:
    changed = [
        f"{f.name}={getattr(sampler, f.name)}"
        for f in attrs.fields(type(sampler))
        if getattr(sampler, f.name) != f.default
    ]
    return " ".join([sampler.name, *changed])


class Plugin:
    """A plugin that offers these sampler classes."""

    def __init__(self, *samplers: type[Sampler]) -> None:
        self.samplers = samplers

    @hookimpl
    def sis_register_samplers(self) -> list[type[Sampler]]:
        return list(self.samplers)


class Doing(SamplerState):
    def apply(self, logits: Any) -> None:
        pass


class Base(Sampler):
    def start(self, context: SamplerContext) -> SamplerState:
        return Doing()


@frozen
class Foreign(Base):
    name = "foreign"
    tau: float = number_option(1, low=0, help="another tau")
    repeat_penalty: float = number_option(1, low=0, help="another penalty")
    temperature: float = number_option(1, low=0, help="another temperature")
    seed: int = field(default=1, metadata={"help": "clashes with the session's"})
    loud: bool = field(default=False, metadata={"help": "a switch"})
    word: str = field(default="a", metadata={"help": "text"})


@frozen
class OtherTopP(Base):
    name = "top-p"
    default = True
    sharpness: float = number_option(1, low=0, help="of its own")


@frozen
class Needs(Base):
    name = "needs"
    most: float = field(validator=attrs.validators.le(2), metadata={"help": "has no default"})


WITH_FOREIGN = Registry.of(sis_samplers, Plugin(Foreign, Needs))
CLASH = Registry.of(sis_samplers, Plugin(OtherTopP))


# What joins -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "top-k; top-p; min-p; temperature"),
        ({"temperature": 1.0, "top_k": 5}, "top-k top_k=5; top-p; min-p; temperature temperature=1.0"),
        (
            {"temperature": None, "repeat_penalty": 1.1},
            "penalties repeat_penalty=1.1; top-k; top-p; min-p; temperature",
        ),
        ({"xtc_threshold": 0.2}, "top-k; top-p; min-p; xtc xtc_threshold=0.2; temperature"),
        ({"sampler": "top-p"}, "top-p; temperature"),
        ({"sampler": "top-p", "top_p": 0.5, "temperature": 2}, "top-p top_p=0.5; temperature temperature=2.0"),
        ({"sampler": "top-p=0.5"}, "top-p top_p=0.5; temperature"),
        ({"sampler": "top-p", "top_k": 9, "dry_base": 2}, "dry dry_base=2.0; top-k top_k=9; top-p; temperature"),
        ({"sampler": "temperature"}, "temperature"),
        ({"sampler": "temperature", "temperature": 0}, "temperature temperature=0.0"),
        ({"sampler": "penalties:frequency_penalty=1"}, "penalties frequency_penalty=1.0; temperature"),
        ({"sampler": "greedy"}, "greedy"),
        ({"sampler": "greedy", "repeat_penalty": 1.1}, "penalties repeat_penalty=1.1; greedy"),
        ({"sampler": "mirostat-v2"}, "mirostat-v2"),
        ({"sampler": "mirostat", "mirostat_tau": 3, "temperature": 1}, "temperature temperature=1.0; mirostat tau=3.0"),
        ({"sampler": "mirostat-v2", "mirostat_v2_tau": 3}, "mirostat-v2 tau=3.0"),
        ({"logit_bias": {5: -math.inf}, "sampler": "greedy"}, "logit-bias logit_bias=((5, -inf),); greedy"),
        ({"penalties_repeat_penalty": 2, "sampler": "greedy"}, "penalties repeat_penalty=2.0; greedy"),
    ],
    ids=str,
)
def test_one_sampler_and_options(options: dict[str, Any], expected: str) -> None:
    assert chain(**options) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("temperature;top-p", "temperature; top-p"),
        ("top-p=0.9;temperature=0.5;top-p=0.8", "top-p top_p=0.9; temperature temperature=0.5; top-p top_p=0.8"),
        (" top-k = 40 ; top-p = 0.9 ", "top-k; top-p top_p=0.9"),
        ("penalties:repeat_penalty=1.1, frequency-penalty = 0.2", "penalties repeat_penalty=1.1 frequency_penalty=0.2"),
        ("xtc:probability=0.1,threshold=0.2", "xtc xtc_probability=0.1 xtc_threshold=0.2"),
        ("penalties=1.3;greedy", "penalties repeat_penalty=1.3; greedy"),
        ("logit-bias=5=+1.5,6=-inf;greedy", "logit-bias logit_bias=((5, 1.5), (6, -inf)); greedy"),
        ("mirostat:tau=2,eta=0.3", "mirostat tau=2.0 eta=0.3"),
    ],
)
def test_a_whole_chain(text: str, expected: str) -> None:
    assert chain(samplers=text) == expected


def test_options_fill_in_what_a_chain_leaves_open() -> None:
    assert chain(samplers="temperature;top-p", top_p=0.5) == "temperature; top-p top_p=0.5"
    assert chain(samplers="temperature=2;top-p", temperature=2) == "temperature temperature=2.0; top-p"


def test_ready_samplers() -> None:
    ready = make_chain(REGISTRY, samplers="top-k=3;temperature")
    assert make_chain(REGISTRY, ready[0]) == ready[:1]
    assert make_chain(REGISTRY, ready) == ready
    assert make_chain(REGISTRY, samplers=ready) == ready
    assert make_chain(REGISTRY, []) == []  # a draw from what the model says
    with pytest.raises(SamplerError, match="top_k has no effect on samplers that are ready"):
        make_chain(REGISTRY, ready, options={"top_k": 3})


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"temprature": 1},
            r"no installed sampler has an option 'temprature' \(did you mean 'temperature'\?\). Options are: dry",
        ),
        ({"tau": 1}, "mirostat and mirostat-v2 both have an option tau. Write mirostat_tau or mirostat_v2_tau"),
        (
            {"mirostat_tau": 1},
            "mirostat: the option mirostat_tau belongs to a sampler that was not chosen. Choose it: --sampler",
        ),
        ({"sampler": "greedy", "temperature": 1}, "greedy: the option temperature would change nothing .* Leave temp"),
        ({"sampler": "greedy", "top_p": 0.5}, "greedy: the option top_p"),
        ({"sampler": "mirostat", "top_k": 4}, "mirostat: the option top_k would"),
        ({"sampler": "mirostat", "mirostat_v2_tau": 4}, "mirostat: the option mirostat_v2_tau would"),
        ({"sampler": "greedy=1"}, "sampler: greedy takes no value"),
        ({"sampler": "top-k;top-p"}, r"sampler: 'top-k;top-p' is not a sampler. A chain is written as --samplers"),
        ({"sampler": ""}, "sampler: is empty"),
        ({"sampler": "top-p=0.5", "top_p": 0.6}, "top-p: top_p is given twice, as 0.5 and as 0.6"),
        ({"top_p": 0.5, "top_p_top_p": 0.6}, "top-p: top_p is given twice"),
        ({"sampler": "top-p", "samplers": "top-k"}, "both one sampler and a whole chain"),
        ({"top_p": 1.5}, "sampler top-p: top_p is 1.5, but must be a number from 0 to 1"),
        ({"samplers": "top-k;"}, "samplers, item 2: is empty. A chain is written as"),
        ({"samplers": "top-k;;top-p"}, "samplers, item 2: is empty"),
        ({"samplers": "top-k,top-p"}, "samplers, item 1: 'top-k,top-p' is not a sampler"),
        ({"samplers": "top-k 40"}, "samplers, item 1: 'top-k 40' is not a sampler"),
        ({"samplers": "top-p;top-k=many"}, "item 2: top_k of top-k is 'many', but must be a whole number, 0 or more"),
        ({"samplers": "top-p="}, "item 1: top_p of top-p is '', but must be a number from 0 to 1"),
        ({"samplers": "top-p=nan"}, "top_p is nan"),
        (
            {"samplers": "xtc:probabilty=1"},
            r"item 1: xtc has no field 'probabilty' .*did you mean 'xtc_probability'.* Its fields",
        ),
        ({"samplers": "xtc:0.5"}, "item 1: '0.5' is not field=value"),
        ({"samplers": "xtc:probability=1,xtc_probability=1"}, "item 1: xtc_probability is given twice"),
        ({"samplers": "top-k", "top_p": 0.5}, "samplers: the option top_p belongs to top-p, which is not in the chain"),
        ({"samplers": "top-k=3", "top_k": 4}, "top_k is given twice, as 3 and as 4"),
    ],
    ids=str,
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SamplerError, match=message):
        chain(**options)


@pytest.mark.parametrize("options", [{"sampler": "topp"}, {"samplers": "top-k;topp"}])
def test_an_unknown_sampler_lists_what_is_installed(options: dict[str, Any]) -> None:
    with pytest.raises(PluginError) as caught:
        chain(**options)
    assert "no installed plugin brings the sampler 'topp' (did you mean 'top-p'?)" in str(caught.value)
    for name in REGISTRY.names("samplers"):
        assert name in str(caught.value)
    assert "samplers" not in options or "item 2" in str(caught.value)


def test_nothing_installed() -> None:
    with pytest.raises(PluginError, match=r"no installed plugin brings a default sampler. `pip install sis-samplers`"):
        make_chain(Registry.of())


# Plugins --------------------------------------------------------------------------------------------------------------


def test_two_plugins_with_one_name() -> None:
    for ask in (
        {"sampler": "top-p"},
        {"samplers": "top-p"},
        {},
        {"options": {"top_p": 0.5}},
        {"options": {"sharpness": 2}},
    ):
        with pytest.raises(
            PluginError, match=r"'top-p' is claimed by two plugins: .*Plugin.*sis_samplers.*--prefer top-p="
        ):
            make_chain(CLASH, **ask)
    assert make_chain(CLASH, "greedy")[0].name == "greedy"  # an error only for whom asks for it
    assert not {"top_p", "sharpness"} & {option.name for option in sampler_options(CLASH)}
    own = CLASH.entries("samplers")[0].plugin
    preferred = Registry.of(sis_samplers, Plugin(OtherTopP), prefer={"top-p": own})
    assert isinstance(make_chain(preferred, "top-p")[0], OtherTopP)
    assert [type(s).__name__ for s in make_chain(preferred)] == ["TopK", "OtherTopP", "MinP", "Temperature"]


def test_names_of_options() -> None:
    names = {(o.sampler.name, o.field.name): (o.option, o.name) for o in sampler_options(REGISTRY)}
    assert names["top-p", "top_p"] == ("--top-p", "top_p")
    assert names["penalties", "repeat_last_n"] == ("--repeat-last-n", "repeat_last_n")
    assert names["mirostat-v2", "tau"] == ("--mirostat-v2-tau", "mirostat_v2_tau")
    types = {o.name: o.field.type for o in sampler_options(REGISTRY)}
    assert (types["top_k"], types["top_p"]) == (int, float)
    assert all(o.field.metadata["help"] for o in sampler_options(REGISTRY))


def test_names_that_several_samplers_want() -> None:
    names = {(o.sampler.name, o.field.name): o.name for o in sampler_options(WITH_FOREIGN)}
    assert len(set(names.values())) == len(names)
    assert names["temperature", "temperature"] == "temperature"  # the sampler that is called so keeps it
    assert names["foreign", "temperature"] == "foreign_temperature"
    assert names["penalties", "repeat_penalty"] == "penalties_repeat_penalty"
    assert names["foreign", "seed"] == "foreign_seed"
    assert names["foreign", "loud"] == "loud"
    made = make_chain(WITH_FOREIGN, "foreign", options={"foreign_seed": 4, "temperature": 0.5, "foreign_tau": 3})
    assert [spell(s) for s in made] == ["foreign tau=3.0 seed=4", "temperature temperature=0.5"]


def test_requests_options_are_reserved() -> None:
    import inspect

    own = {p.name for p in inspect.signature(LanguageModel.request).parameters.values() if p.kind != p.VAR_KEYWORD}
    assert own - {"self"} <= RESERVED


def test_text_for_fields_of_other_types() -> None:
    made = make_chain(WITH_FOREIGN, samplers="foreign:loud=yes,word= any text ,seed=7")[0]
    assert made == Foreign(loud=True, word="any text", seed=7)
    with pytest.raises(SamplerError, match="loud of foreign is 'maybe', but must be bool"):
        make_chain(WITH_FOREIGN, samplers="foreign:loud=maybe")


def test_strangers_validators_and_missing_values() -> None:
    assert make_chain(WITH_FOREIGN, samplers="needs=1.5") == [Needs(1.5)]
    with pytest.raises(SamplerError, match="sampler needs: needs a value for most"):
        make_chain(WITH_FOREIGN, "needs")
    with pytest.raises(SamplerError, match="sampler needs: ValueError: 'most' must be <= 2"):
        make_chain(WITH_FOREIGN, samplers="needs=3")


def test_a_sampler_that_does_not_keep_the_contract_is_named() -> None:
    class Returning(SamplerState):
        def apply(self, logits: Any) -> Any:
            return logits * 2

    class Given(Sampler):
        name = "given"

        def __init__(self, state: Any) -> None:
            self.state = state

        def start(self, context: SamplerContext) -> Any:
            return self.state

    context = SamplerContext(4, [])
    with pytest.raises(SamplerError, match="sampler given: start returned NoneType, not a SamplerState"):
        Chain.start([Given(None)], context)
    with pytest.raises(SamplerError, match=r"sampler given: apply returned a value: it changes the logits in place"):
        Chain.start([Given(Returning())], context).choose(np.zeros(4, np.float32), 0)
