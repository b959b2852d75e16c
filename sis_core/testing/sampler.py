"""`check_sampler`: what every sampler must keep to, whatever it does."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeAlias

import attrs
import numpy as np

from sis_core.arrays import F32, F64
from sis_core.discovery.fields import undeclared
from sis_core.errors import SamplerError
from sis_core.sampler import Sampler, SamplerContext, SamplerState, Truncation, draw
from sis_core.testing.distribution import misfit
from sis_core.testing.sampler_cases import logits_of_kinds, nonsense, shapes, with_ends
from sis_core.texts.chain import Chain

STEPS = 24
N_DRAWS = 4000
PROMPT = (3, 1, 4, 1, 5, 9, 2, 6, 3, 1, 4, 1)
Definition: TypeAlias = Callable[[F64, Sequence[int]], F64]


def check_sampler(
    sampler: type[Sampler], /, *, chance: bool = False, definition: Definition | None = None, **fields: Any
) -> None:
    """Hold a sampler to the contract of `sis_core.sampler`, with ``fields`` and at both ends of each numeric option.

    Args:
        chance: the sampler does something by chance: then other seeds must give other results, else the same.
        definition: what the sampler should do, written from its formula: float64 logits ``(n_vocab,)`` and the prompt
            to the probability ``(n_vocab,)`` of each next token. It is held to the distribution that the sampler
            leaves, and to thousands of draws.
        fields: options with which the sampler has an effect.

    Raises:
        AssertionError: naming the sampler, the fault, and the case in which it showed.
    """
    check = _Check(sampler, chance)
    check.options(fields)
    made = check.make(fields)
    check.effect(made)
    for title, options in with_ends(sampler, fields):
        check.behaviour(check.make(options), title)
    check.seeds(made)
    if definition is not None:
        check.definition(made, definition)


class _Check:
    def __init__(self, sampler: type[Sampler], chance: bool) -> None:
        self.sampler, self.chance = sampler, chance
        self.name = getattr(sampler, "name", sampler.__name__)

    def fail(self, fault: str, case: str = "") -> NoReturn:
        raise AssertionError(f"sampler {self.name}: {fault}{f' ({case})' if case else ''}")

    def options(self, fields: dict[str, Any]) -> None:
        """The class itself: a name, an order, and options that refuse nonsense."""
        if not isinstance(getattr(self.sampler, "name", None), str):
            self.fail("has no name")
        if not isinstance(self.sampler.order, int):
            self.fail(f"its order is {self.sampler.order!r}, not a whole number")
        if fault := undeclared(self.sampler):
            self.fail(fault)
        if not attrs.has(self.sampler):
            return
        attrs.resolve_types(self.sampler)
        made = self.make(fields)
        for field in attrs.fields(self.sampler):
            if not field.metadata.get("help"):
                self.fail(f'the option {field.name} has no help: give metadata={{"help": ...}}')
            try:
                setattr(made, field.name, getattr(made, field.name))
                self.fail("can be changed after it was made: use attrs.frozen")
            except attrs.exceptions.FrozenInstanceError:
                pass
            for value in nonsense(field):
                try:
                    self.sampler(**fields | {field.name: value})
                except SamplerError as error:
                    if field.name not in str(error):
                        self.fail(f"refuses {field.name}={value!r} without naming the option: {error}")
                except Exception as error:
                    self.fail(f"refuses {field.name}={value!r} with {type(error).__name__}, not with SamplerError")
                else:
                    self.fail(f"accepts {field.name}={value!r}")

    def make(self, fields: dict[str, Any]) -> Sampler:
        try:
            return self.sampler(**fields)
        except Exception as error:
            self.fail(f"cannot be made with {fields}: {type(error).__name__}: {error}")

    def effect(self, made: Sampler) -> None:
        for case, logits in logits_of_kinds():
            run = _Run(self, made, case, len(logits))
            if any(not np.array_equal(run.step(logits), logits) for _ in range(STEPS)):
                return
        self.fail(
            "never changed a logit: it must change the array that it is given, in place. If it only does nothing with "
            "these options, give check_sampler others"
        )

    def behaviour(self, made: Sampler, title: str) -> None:
        for case, logits in logits_of_kinds():
            self.one(made, logits, title + case)
            self.accepting(made, logits, title + case)
            self.forcing(made, logits, title + case)

    def one(self, made: Sampler, logits: F32, case: str) -> None:
        """A single apply: what it does, and that it does it again."""
        numpys, pythons = np.random.get_state(legacy=False), random.getstate()
        run = _Run(self, made, case, len(logits))
        first = run.apply(logits)
        if not np.array_equal(run.apply(logits), first):
            self.fail("a second apply without accept gives another result: it must neither draw nor count", case)
        if not np.array_equal(_Run(self, made, case, len(logits)).apply(logits), first):
            self.fail("two fresh states give different results for the same logits and seed", case)
        if str(np.random.get_state(legacy=False)) != str(numpys) or random.getstate() != pythons:
            self.fail("draws from a global generator: use sis_core.sampler.uniform(context.seed, step, name)", case)
        if run.state.by_value:
            self.by_value(run, logits, first, case)

    def by_value(self, run: _Run, logits: F32, whole: F32, case: str) -> None:
        """What a state that looks at values alone makes of the allowed tokens without the others."""
        alive = np.flatnonzero(logits > -np.inf)
        if not np.array_equal(run.apply(logits[alive]), whole[alive]):
            self.fail("is by_value, but treats the allowed tokens otherwise when the others are not there", case)
        if not isinstance(run.state, Truncation):
            return
        given = logits.copy()
        ids = run.state.kept(given)
        if not np.array_equal(given, logits):
            self.fail("kept changed the logits", case)
        if ids is not None and (ids.dtype.kind != "i" or (np.diff(ids) <= 0).any()):
            self.fail("kept must give indices in ascending order, each once", case)

    def accepting(self, made: Sampler, logits: F32, case: str) -> None:
        """Sequences of steps: the same again, beside another one, with copies, and with tokens that were forced."""
        wanted = [run.step(logits) for run in [_Run(self, made, case, len(logits))] for _ in range(STEPS)]

        def compare(run: _Run, first: int, fault: str) -> None:
            for step in range(first, STEPS):
                if not np.array_equal(run.step(logits), wanted[step]):
                    self.fail(fault, f"{case}, step {step}")

        compare(_Run(self, made, case, len(logits)), 0, "two sequences with the same seed and tokens differ")
        one, other = _Run(self, made, case, len(logits)), _Run(self, made, case, len(logits), seed=99)
        for step in range(STEPS):
            other.state.accept(step % len(logits))
            other.apply(logits[::-1])
            if not np.array_equal(one.step(logits), wanted[step]):
                self.fail("a sequence changes when another one runs beside it: state belongs into SamplerState", case)
        run = _Run(self, made, case, len(logits))
        for _ in range(STEPS // 3):
            run.step(logits)
        kept, spoilt = run.copy(), run.copy()
        for step in range(6):
            spoilt.apply(logits[::-1])
            spoilt.state.accept((7 * step) % len(logits))
        shared = "accept on a copy changes the original: copy must share nothing that changes"
        if type(run.state).copy is SamplerState.copy:
            shared = (
                "accept changes its state, but it has no copy of its own: define copy, which gives an independent state"
            )
        compare(run, STEPS // 3, shared)
        compare(kept, STEPS // 3, "a copy does not go on as its original did")

    def forcing(self, made: Sampler, logits: F32, case: str) -> None:
        """A text that is drawn token by token, and the same text of which tokens are accepted without a look at logits,
        unless the state learns from them: what is forced must come, and both must end in the same state."""
        plain, quick = _Run(self, made, case, len(logits)), _Run(self, made, case, len(logits))
        promised: list[int] = []
        for step in range(STEPS):
            at = f"{case}, step {step}"
            before, promised = promised[1:], plain.forced()
            if promised[: len(before)] != before[: len(promised)] or (before and not promised):
                self.fail(f"promised {before}, and then {promised}", at)
            filtered = plain.apply(logits)
            allowed = np.flatnonzero(filtered > -np.inf).tolist()
            if promised and allowed != promised[:1]:
                self.fail(f"forces token {promised[0]}, but its apply leaves {allowed[:9]}", at)
            looks = quick.state.learns or step == STEPS - 1
            if looks and (quick.forced() != promised or not np.array_equal(quick.apply(logits), filtered)):
                self.fail("tokens accepted without apply leave another state: say learns = True", at)
            token = draw(filtered, plain.seed, step)
            plain.state.accept(token)
            quick.state.accept(token)

    def seeds(self, made: Sampler) -> None:
        case, logits = next(logits_of_kinds())
        results = []
        for seed in (1, 2, 0, -1, 2**64 - 1, 2**70):
            run = _Run(self, made, f"{case}, seed {seed}", len(logits), seed=seed)
            results.append([run.step(logits, forced=step) for step in range(64)])
        same = all(np.array_equal(a, b) for a, b in zip(results[0], results[1], strict=True))
        if self.chance and same:
            self.fail("gives the same results for every seed: chance must come from context.seed")
        if not self.chance and not same:
            self.fail("gives other results for other seeds: say so with check_sampler(..., chance=True)")

    def definition(self, made: Sampler, definition: Definition) -> None:
        """Distributions after the sampler, and draws as a session makes them, against the definition."""
        for case, logits in shapes():
            wanted = np.asarray(definition(logits.astype(np.float64), PROMPT), np.float64)
            if wanted.shape != logits.shape or not np.isclose(wanted.sum(), 1) or (wanted < 0).any():
                self.fail(f"its definition gave no {len(logits)} probabilities that sum to one", case)
            if not self.chance:
                self.distribution(_Run(self, made, case, len(logits)).apply(logits), wanted, case)
            chain = Chain.start([made], SamplerContext(len(logits), PROMPT, None, 20240229))
            counts = [0] * len(logits)
            for step in range(N_DRAWS):
                counts[chain.choose(logits, step)] += 1
                if self.chance:
                    chain.accept(0)  # chance goes by steps
            if fault := misfit(counts, wanted.tolist()):
                self.fail(f"draws do not follow the definition: {fault}", case)

    def distribution(self, filtered: F32, wanted: F64, case: str) -> None:
        """The probabilities that filtered logits stand for, token by token."""
        found = np.exp(filtered.astype(np.float64) - filtered.max())
        found /= found.sum()
        for token in np.flatnonzero((found == 0) != (wanted == 0)).tolist():
            if max(found[token], wanted[token]) > 1e-9:
                verb = "forbids" if found[token] == 0 else "allows"
                self.fail(f"{verb} token {token}, to which the definition gives {wanted[token]:.3g}", case)
        error = np.abs(found - wanted)
        if error.max() > 1e-4:
            token = int(error.argmax())
            self.fail(
                f"leaves token {token} a probability of {found[token]:.4f}, the definition {wanted[token]:.4f}", case
            )


class _Run:
    """One state with its checks on every call; the next token comes from the filtered logits, by the seed."""

    def __init__(self, check: _Check, made: Sampler, case: str, n_vocab: int, seed: int = 5) -> None:
        self.check, self.case, self.seed, self.n_steps = check, case, seed, 0
        prompt = [token % n_vocab for token in PROMPT]
        given = list(prompt)
        try:
            self.state = made.start(SamplerContext(n_vocab, given, None, seed))
        except Exception as error:
            check.fail(f"start raised {type(error).__name__}: {error}", case)
        if not isinstance(self.state, SamplerState):
            check.fail(f"start returned {type(self.state).__name__}, not a SamplerState", case)
        if given != prompt:
            check.fail("start changed the prompt", case)

    def copy(self) -> _Run:
        other = object.__new__(_Run)
        other.__dict__.update(self.__dict__)
        other.state = self.state.copy()
        if not isinstance(other.state, type(self.state)):
            self.check.fail(f"copy returned {type(other.state).__name__}", self.case)
        return other

    def step(self, logits: F32, *, forced: int | None = None) -> F32:
        """Apply, draw, accept."""
        filtered = self.apply(logits)
        self.state.accept(draw(filtered, self.seed, self.n_steps) if forced is None else forced)
        self.n_steps += 1
        return filtered

    def forced(self) -> list[int]:
        """What the state says must come next; it is asked twice."""
        first, second = list(self.state.forced()), list(self.state.forced())
        if first != second:
            self.check.fail(f"forced gave {first}, and then {second}: it must change nothing", self.case)
        return first

    def apply(self, logits: F32) -> F32:
        """What the sampler makes of ``logits``: one row of a batch that is overwritten afterwards."""
        fail, case = self.check.fail, self.case
        batch = np.stack([logits + np.float32(1), logits, logits - np.float32(1)])
        before, row = batch.copy(), batch[1]
        try:
            with np.errstate(all="raise", under="ignore"):
                returned = self.state.apply(row)
        except FloatingPointError as error:
            fail(f"apply met an arithmetic fault: {error}", case)
        except Exception as error:
            fail(f"apply raised {type(error).__name__}: {error}", case)
        if returned is not None:
            fail("apply returned an array; it must change the one it is given, in place, and return nothing", case)
        if row.shape != logits.shape:
            fail(f"apply changed the shape from {logits.shape} to {row.shape}", case)
        if not np.array_equal(batch[::2], before[::2]):
            fail("apply wrote outside of its row of the batch", case)
        result: F32 = row.copy()
        if np.isnan(result).any():
            fail(f"turned logit {int(np.isnan(result).argmax())} into NaN", case)
        if (result == np.inf).any():
            fail(f"turned logit {int((result == np.inf).argmax())} into plus infinity", case)
        revived = (logits == -np.inf) & (result > -np.inf)
        if revived.any():
            fail(f"allows token {int(revived.argmax())} again, which was forbidden (minus infinity)", case)
        if result.max() == -np.inf:
            fail("forbids every token: it must keep at least one", case)
        batch.fill(np.nan)  # a state that keeps the caller's array instead of a copy shows it now
        return result
