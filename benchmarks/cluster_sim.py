"""A thousand machines on paper: where a cluster of sis breaks, from what one hop and one machine were measured to take.

    uv run --group ray python benchmarks/cluster_sim.py                 # all tables, some seconds
    uv run --group ray python benchmarks/cluster_sim.py --measure       # what a hop takes here, first

Discrete events (simpy). What is measured or assumed stands in `Measured`, and is printed; nothing else is put in. Four
questions: how long until a model lies on all machines; what a batch loses to machines that fail; what replicas gain
from choosing by beginnings, and where a hot one breaks that; what stages cost by their links.
"""

from __future__ import annotations

import argparse
import heapq
import random
import statistics
import time
from collections.abc import Iterator
from typing import Any

import simpy
from attrs import asdict, evolve, field, frozen

HOUR = 3600.0
SLACK = 4  # as of `sis serve --ray`


@frozen
class Measured:
    """What the tables follow from.

    Attributes:
        hop_ms: from one actor to another and back, with a few KiB.
        restart_s: from the end of a process to its answering again, without reading the model.
        read_gib_s: how fast a machine reads a model from its disk.
        model_gib: the model's file.
        link_gbit_s: of each machine's network.
        prompt_tokens_s: how fast a machine reads prompts.
        token_ms: a step that writes a token for up to `texts` texts at once.
        texts: of a machine, beside each other.
        failures_per_hour: of one machine; the default is one in a hundred days.
    """

    hop_ms: float = field(default=0.85, metadata={"from": "an actor call with 8 KiB, loopback"})
    restart_s: float = field(default=11.0, metadata={"from": "a killed node's actor, loopback"})
    read_gib_s: float = field(default=1.0, metadata={"from": "assumed"})
    model_gib: float = field(default=5.0, metadata={"from": "assumed: 8B in Q4_K_M"})
    link_gbit_s: float = field(default=10.0, metadata={"from": "assumed"})
    prompt_tokens_s: float = field(default=300.0, metadata={"from": "assumed: 8B on 16 cores"})
    token_ms: float = field(default=120.0, metadata={"from": "assumed: the same, 8 texts"})
    texts: int = field(default=8, metadata={"from": "assumed"})
    failures_per_hour: float = field(default=1 / 2400, metadata={"from": "assumed: one in 100 days"})

    @property
    def copy_s(self) -> float:
        """A model from one machine to another, with nobody else on their links."""
        return self.model_gib * 8 * 1.073741824 / self.link_gbit_s

    @property
    def back_s(self) -> float:
        """From a failure until the model answers again."""
        return self.restart_s + self.model_gib / self.read_gib_s


def copied(m: Measured, n: int, fan_out: bool) -> float:
    """Seconds until ``n`` machines have the model: all from the first, by one link, or each from any that has it."""
    env = simpy.Environment()
    sources = simpy.Store(env)
    sources.put(0)

    def receive(machine: int) -> Iterator[Any]:
        source = yield sources.get()
        yield env.timeout(m.copy_s)
        sources.put(source)
        if fan_out:
            sources.put(machine)

    for machine in range(1, n):
        env.process(receive(machine))
    env.run()
    return float(env.now)


def batch(m: Measured, n: int, shard: int, seed: int, hours: float = 1.0) -> tuple[float, int]:
    """Hours that a batch takes which would take ``hours`` without failures, and how many there were.

    A shard is lost with its machine, and begun again by whoever asks next.
    """
    draw, env = random.Random(seed), simpy.Environment()
    seconds = shard * 64 * m.token_ms / 1000 / m.texts  # 64 tokens a request
    total = left = max(1, round(hours * HOUR / seconds)) * n
    finished = lost = 0

    def machine() -> Iterator[Any]:
        nonlocal left, finished, lost
        fails = draw.expovariate(m.failures_per_hour / HOUR)
        while finished < total:
            if not left:  # a shard may be given back
                yield env.timeout(1)
                continue
            left -= 1
            if env.now + seconds > fails:
                yield env.timeout(max(0.0, fails - env.now) + m.back_s)
                left += 1
                lost += 1
                fails = env.now + draw.expovariate(m.failures_per_hour / HOUR)
                continue
            yield env.timeout(seconds)
            finished += 1

    for _ in range(n):
        env.process(machine())
    env.run()
    return env.now / HOUR, lost


def replicas(
    m: Measured, n: int, load: float, share: float, way: str, seed: int, requests: int = 20_000
) -> tuple[float, float, float]:
    """Median and 99th percentile of seconds to the first token, and the share of prompt tokens that were read before.

    Prompts have 1,600 tokens, of which 1,500 are one of 4 n beginnings; ``share`` of all requests have the same one.
    Requests come by chance, so many that machines are busy for ``load`` of the time if nothing is shared.

    ``way`` is how a machine is chosen: by ``chance``; by ``beginning``, the one that has read it unless that has
    `SLACK` requests more than another; or by ``beginning alone``, whatever that one has to do.
    """
    draw = random.Random(seed)
    whole, rest, written = 1600 / m.prompt_tokens_s, 100 / m.prompt_tokens_s, 64 * m.token_ms / 1000 / m.texts
    gap = (whole + written) / n / load
    free = [0.0] * n  # when a machine is done with what it has
    waiting: list[list[float]] = [[] for _ in range(n)]
    known: list[set[int]] = [set() for _ in range(n)]
    readers: dict[int, list[int]] = {}
    first_token, shared, now = [], 0, 0.0
    for _ in range(requests):
        now += draw.expovariate(1 / gap)
        beginning = 0 if draw.random() < share else 1 + draw.randrange(4 * n)
        place = draw.randrange(n)
        if way != "chance":
            candidates = readers.get(beginning, [])
            tried = [place, draw.randrange(n)]  # the least busy of a few stands for the least busy of all
            for each in (*candidates, *tried):
                while waiting[each] and waiting[each][0] <= now:
                    heapq.heappop(waiting[each])
            least = min(tried, key=lambda each: len(waiting[each]))
            most = len(waiting[least]) + SLACK if way == "beginning" else len(first_token)
            able = [each for each in candidates if len(waiting[each]) <= most]
            place = min(able, key=lambda each: len(waiting[each])) if able else least
        seen = beginning in known[place]
        begin = max(now, free[place])
        free[place] = begin + (rest if seen else whole) + written
        heapq.heappush(waiting[place], free[place])
        first_token.append(begin - now + (rest if seen else whole) + m.hop_ms / 1000)
        shared += seen
        if not seen:
            known[place].add(beginning)
            readers.setdefault(beginning, []).append(place)
    ordered = sorted(first_token)
    return statistics.median(ordered), ordered[int(0.99 * len(ordered))], shared / requests


def waits_ms(m: Measured, n: int, link_ms: float) -> float:
    """What a token waits in ``n`` stages: for each a call, and half of ``link_ms``, the way there and back.

    The first stage lies where the text is asked for, and the last one's answer comes back there.
    """
    return n * (m.hop_ms + link_ms / 2)


def stages(m: Measured, n: int, link_ms: float, batches: int) -> float:
    """Tokens a second of all ``batches``, of `texts` texts each, when ``n`` stages share a step of `token_ms`."""
    env = simpy.Environment()
    places = [simpy.Resource(env) for _ in range(n)]
    steps = [0]

    def follow() -> Iterator[Any]:
        while True:
            for place in places:
                yield env.timeout(waits_ms(m, n, link_ms) / n / 1000)
                with place.request() as turn:
                    yield turn
                    yield env.timeout(m.token_ms / 1000 / n)
            steps[0] += 1

    for _ in range(batches):
        env.process(follow())
    env.run(until=60)
    return steps[0] * m.texts / 60


def table(title: str, head: list[str], rows: list[list[str]]) -> None:
    print(f"\n### {title}\n\n| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def measured_hop(calls: int) -> float:
    """Milliseconds of a call of an actor on this machine, with 8 KiB there and back."""
    from sis_ray.cluster import RayCluster

    with RayCluster().join() as machines:
        remote = machines.make(Echo)
        remote.wait(300)
        data = bytes(8 << 10)
        times = []
        for _ in range(calls):
            began = time.perf_counter()
            remote.call("echo", data).result()
            times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)


class Echo:
    def echo(self, data: bytes) -> bytes:
        return data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machines", default="1,10,100,1000", help="how many, with commas between")
    parser.add_argument("--measure", type=int, nargs="?", const=500, metavar="CALLS", help="measure a hop, with Ray")
    parser.add_argument("--hop-ms", type=float, help="what a hop takes")
    parser.add_argument("--restart-s", type=float, help="what a process takes to be back")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    m = Measured()
    if given.measure:
        m = evolve(m, hop_ms=measured_hop(given.measure))
    for name in ("hop_ms", "restart_s"):
        if getattr(given, name) is not None:
            m = evolve(m, **{name: getattr(given, name)})
    counts = [int(n) for n in given.machines.split(",")]
    print(f"What all follows from: {', '.join(f'{name} {value:g}' for name, value in asdict(m).items())}")

    def minutes(seconds: float) -> str:
        return f"{seconds / 60:.1f}"

    table(
        "A model on all machines, minutes",
        ["machines", "all from one", "each from any that has it"],
        [[str(n), minutes(copied(m, n, False)), minutes(copied(m, n, True))] for n in counts],
    )
    rows = []
    for n in counts:
        for worse in (1, 100):
            each = evolve(m, failures_per_hour=m.failures_per_hour * worse)
            for shard in (128, 4096):
                hours, lost = batch(each, n, shard, given.seed)
                rows.append([str(n), f"{24 * n * each.failures_per_hour:.2g}", str(shard), f"{hours:.2f}", str(lost)])
    table("A batch of an hour", ["machines", "failures a day", "requests a shard", "hours", "shards lost"], rows)
    rows = []
    for n in counts:
        for share in (0.0, 0.5):
            for way in ("chance", "beginning", "beginning alone"):
                half, most, shared = replicas(m, n, 0.8, share, way, given.seed)
                rows.append([str(n), f"{share:.0%}", way, f"{half:.2f}", f"{most:.2f}", f"{shared:.0%}"])
    head = ["machines", "with the hot beginning", "chosen by", "first token, median s", "99 of 100, s", "read before"]
    table("Replicas at 80 % of what they could do without sharing", head, rows)
    rows = []
    links = {"loopback": 0.0, "one room, 0.2 ms": 0.2, "a city, 2 ms": 2.0, "a continent, 40 ms": 40.0}
    for name, link in links.items():
        for n in (2, 8):
            found = [stages(m, n, link, batches) for batches in (1, n)]
            rows.append([name, str(n), f"{waits_ms(m, n, link):.1f}", *(f"{each:.1f}" for each in found)])
    head = [
        "link, there and back",
        "stages",
        "a token waits, ms",
        "tokens/s, one batch on its way",
        "as many as stages",
    ]
    table("Stages", head, rows)
    tensor = 2 * 32 * m.hop_ms
    print(f"\nTensor slices would wait 64 times a token (32 layers, twice): {tensor:.0f} ms beside {m.token_ms:g} ms.")


if __name__ == "__main__":
    main()
