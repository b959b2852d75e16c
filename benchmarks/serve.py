"""sis against llama-server: how many clients a second each serves well, on the same file and processors.

    python benchmarks/serve.py MODEL.gguf --llama-server bin/llama-server --cpus 0,1 --quick
    python benchmarks/serve.py MODEL.gguf --llama-server … --scenario short --json out.json

Clients arrive at random at a rate that rises; a rate is kept when 95 % of the requests have their first token within
two seconds and no gap of 200 ms. The servers take turns. See `benchmarks/README.md`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2 as httpx
from serving.figures import Search, figures, line, quantile
from serving.scenarios import SCENARIOS, WORDS, Prompts, Scenario
from serving.servers import Server, llama_server, sis
from serving.traffic import Seen, body_of, load, request
from speed.machine import describe, pin

from sis_core.gguf_file import GGUFFile
from sis_core.loading.vocabulary import build_tokenizer
from sis_core.registry import Registry


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--llama-server", type=Path, metavar="PROGRAM", help="the peer; without it sis runs alone")
    parser.add_argument("--slots", type=lambda text: [int(n) for n in text.split(",")], default=[16],
                        help="of llama-server; several numbers are several peers (default: 16)")  # fmt: skip
    parser.add_argument("--scenario", type=lambda text: text.split(","), default=["shared", "growing"],
                        help=f"of {', '.join(SCENARIOS)} (default: shared,growing)")  # fmt: skip
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpus", type=lambda text: [int(cpu) for cpu in text.split(",")], default=[],
                        help="processors that servers and clients are pinned to, such as 0,1")  # fmt: skip
    parser.add_argument("--seconds", type=float, default=40.0, help="that clients arrive at one rate")
    parser.add_argument(
        "--start", type=float, metavar="RATE", help="clients a second to begin with (default: the scenario's)"
    )
    parser.add_argument("--rise", type=float, default=1.25, help="from one rate to the next")
    parser.add_argument("--halvings", type=int, default=3, help="of the last rise")
    parser.add_argument("--minutes", type=float, default=math.inf,
                        help="of a scenario: no further rate is begun after them")  # fmt: skip
    parser.add_argument(
        "--quick", action="store_true", help="15 seconds a rate, larger rises, four minutes a scenario at most"
    )
    parser.add_argument("--json", type=Path, help="all figures, written after every rate")
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.rise, options.halvings, options.minutes = 15.0, 1.6, 1, 2.75
    if unknown := [name for name in options.scenario if name not in SCENARIOS]:
        parser.error(f"no scenario {unknown[0]!r}; there are {', '.join(SCENARIOS)}")
    return options


def prompts_for(model: Path) -> Prompts:
    """Words that are one token each for this model; where there are none, as in random files, their parts."""
    with GGUFFile.open(model) as file:
        tokenizer = build_tokenizer(file, Registry.load())
        coded = [tokenizer.encode(f" {word}", add_special=False) for word in WORDS.split()]
        begin = tokenizer.encode("", add_special=True)
    words = [ids[0] for ids in coded if len(ids) == 1]
    return Prompts(words or sorted({id for ids in coded for id in ids}), begin)


async def alone(client: httpx.AsyncClient, prompts: Prompts, scenario: Scenario) -> dict[str, Any]:
    """One client at a time: the first request of all, then some whose beginning is known; the last one's speed."""
    first: list[float] = []
    rate = 0.0
    for number in range(5):
        seen = Seen()
        prompt = next(prompts.client(scenario, f"alone {number}"))
        await request(client, body_of(prompt, 4 * scenario.reply if number == 4 else scenario.reply), seen)
        if seen.first is None or not seen.done:
            raise SystemExit(f"no answer: {seen.error}")
        first.append(seen.first)
        rate = len(seen.gaps) / sum(seen.gaps)
    return {"cold": first[0], "known": quantile(first[1:], 0.5), "tokens_a_second": rate}


async def course(servers: Sequence[Server], options: argparse.Namespace, scenario: Scenario, prompts: Prompts) -> Any:
    """What each server keeps; at each rate they take turns, and which goes first changes."""
    found: dict[str, Any] = {}
    until = time.monotonic() + 60 * options.minutes
    async with contextlib.AsyncExitStack() as stack:
        clients: dict[str, httpx.AsyncClient] = {}
        for server in servers:
            address = stack.enter_context(server.running())
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
            client = httpx.AsyncClient(base_url=address, timeout=httpx.Timeout(120), limits=limits)
            clients[server.name] = await stack.enter_async_context(client)
            one = await alone(client, prompts, scenario)
            found[server.name] = {"alone": one, "rates": []}
            print(
                f"{server.name:24} alone: first token {1000 * one['cold']:.0f} ms, with a known beginning "
                f"{1000 * one['known']:.0f} ms; {one['tokens_a_second']:.1f} tokens a second",
                flush=True,
            )
        searches = {
            server.name: Search(options.start or scenario.start, options.rise, options.halvings) for server in servers
        }
        for turn in itertools.count():
            going = [name for name, search in searches.items() if search.rate is not None]
            if not going:
                break
            if turn and time.monotonic() > until:
                print(f"the time is up while {', '.join(going)} might keep more", flush=True)
                break
            for name in going if turn % 2 else going[::-1]:
                rate = searches[name].rate
                assert rate is not None
                seed = f"{rate:.3f}"  # the same clients for every server
                seen = await load(
                    clients[name], lambda n, seed=seed: prompts.client(scenario, f"{seed} {n}"),
                    rate=rate, seconds=options.seconds, reply=scenario.reply, seed=seed,
                )  # fmt: skip
                told = figures(seen, rate)
                searches[name].tell(told["kept"])
                found[name]["rates"].append(told)
                print(line(name, told), flush=True)
                await asyncio.sleep(1.0)  # what was cut is given up
    for name, search in searches.items():
        found[name]["best"] = search.best
    return found


def best_of_both(ours: dict[str, Any], peer: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The figures of both at the highest rate that both keep."""
    kept = [{one["rate"]: one for one in told["rates"] if one["kept"]} for told in (ours, peer)]
    rates = set(kept[0]) & set(kept[1])
    return (kept[0][max(rates)], kept[1][max(rates)]) if rates else None


def told_of(name: str, told: dict[str, Any]) -> str:
    """A server's line of the table: the highest rate that it keeps, and what was seen there."""
    alone = f"alone {told['alone']['tokens_a_second']:.1f} tokens a second"
    kept = [one for one in told["rates"] if one["kept"]]
    if not kept:
        return f"{name:24} keeps no rate; {alone}"
    at = max(kept, key=lambda one: one["rate"])
    first, last = 1000 * at["first_p50"], 1000 * at["first_p99"]
    return (
        f"{name:24} keeps {told['best']:.2f} clients a second: first token p50 {first:.0f} ms, p99 {last:.0f}, "
        f"gap p99 {1000 * at['gap_p99']:.0f} ms; {alone}"
    )


def verdict(found: dict[str, Any]) -> str:
    """The highest rates that were kept, and sis beside the best peer."""
    lines = [told_of(name, told) for name, told in found.items()]
    peers = [told for name, told in found.items() if name != "sis"]
    if not peers:
        return "\n".join(lines)
    peer, ours = max(peers, key=lambda told: told["best"]), found["sis"]
    pairs = {"rate": (ours["best"], peer["best"])}
    for key in ("cold", "known", "tokens_a_second"):
        pairs[f"alone: {key}"] = (ours["alone"][key], peer["alone"][key])
    if both := best_of_both(ours, peer):
        for key in ("first_p50", "first_p99", "gap_p50", "gap_p99"):
            pairs[f"at {both[0]['rate']:.2f}/s: {key}"] = (both[0][key], both[1][key])
    return "\n".join(
        [*lines, *(f"sis / llama-server  {name:28} {a / b if b else math.inf:.2f}" for name, (a, b) in pairs.items())]
    )


def main() -> None:
    options = parse_options()
    pin(options.cpus)
    prompts = prompts_for(options.model)
    results: dict[str, Any] = {"machine": describe(options.threads, options.cpus), "model": options.model.name}
    for name in options.scenario:
        scenario = SCENARIOS[name]
        n_ctx = -(-(scenario.longest + 3 * scenario.reply) // 256) * 256
        sizes = {"n_threads": options.threads, "n_ctx": n_ctx, "cache": 8 * n_ctx}
        servers = [sis(options.model, **sizes)]
        if options.llama_server:
            servers += [llama_server(options.llama_server, options.model, **sizes, n_slots=n) for n in options.slots]
        print(f"{name}: {scenario.about}; replies of {scenario.reply} tokens", flush=True)
        results[name] = asyncio.run(course(servers, options, scenario, prompts))
        print(verdict(results[name]), flush=True)
        if options.json:
            options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
