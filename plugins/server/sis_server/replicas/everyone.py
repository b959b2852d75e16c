"""Pages that tell of all replicas: metrics, texts on their way, and where the time of a request went."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from starlette.responses import Response
from starlette.types import Scope

from sis_server.answering import Answer
from sis_server.errors import ApiError
from sis_server.replicas.asking import ENDED, followed
from sis_server.replicas.places import Place, State
from sis_server.replicas.replica import plain

log = logging.getLogger(__name__)
SECONDS = 5.0  # that a replica may take: who takes longer is left out


async def metrics(places: Sequence[Place], scope: Scope) -> Response:
    """Prometheus' text: what each replica counts, by its number, and what the front knows of them."""
    found = await _answers(places, scope)
    texts = {place.number: body.decode() for place, (status, body) in found.items() if status == 200}
    registry = CollectorRegistry()
    registry.register(_Families([*_own(places), *labelled(texts)]))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


async def slots(places: Sequence[Place], scope: Scope) -> Response:
    """The texts of all, each with the number of its replica."""
    found = await _answers(places, scope)
    texts = {place.number: msgspec.json.decode(body) for place, (status, body) in found.items() if status == 200}
    return Answer([{"replica": number, **text} for number, listed in texts.items() for text in listed])


async def trace(places: Sequence[Place], scope: Scope) -> Response:
    """That of the replica which remembers it; ApiError 404 where none does."""
    for status, body in (await _answers(places, scope)).values():
        if status == 200:
            return Response(body, media_type=Answer.media_type)
    raise ApiError(404, "no request of that id is remembered")


def labelled(texts: Mapping[int, str]) -> list[Metric]:
    """What several replicas count, in one family of each name, with a label ``replica``."""
    families: dict[str, Metric] = {}
    for number, text in texts.items():
        for family in text_string_to_metric_families(text):
            kept = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                kept.add_sample(sample.name, {"replica": str(number), **sample.labels}, sample.value)
    return list(families.values())


def _own(places: Sequence[Place]) -> list[Metric]:
    labels = ["replica", "machine"]
    ready = GaugeMetricFamily("sis_replica_ready", "Whether a replica takes requests.", labels=labels)
    under_way = GaugeMetricFamily("sis_replica_open", "Requests under way.", labels=labels)
    requests = CounterMetricFamily("sis_replica_requests", "Requests that a replica was asked.", labels=labels)
    lost = CounterMetricFamily("sis_replica_lost", "How often a replica was lost.", labels=labels)
    for place in places:
        names = [str(place.number), place.remote.where]
        ready.add_metric(names, place.state is State.READY)
        under_way.add_metric(names, place.open)
        requests.add_metric(names, place.n_requests)
        lost.add_metric(names, place.n_lost)
    return [ready, under_way, requests, lost]


class _Families(Collector):
    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


async def _answers(places: Sequence[Place], scope: Scope) -> dict[Place, tuple[int, bytes]]:
    """The status and the body with which replicas answer a request that has none."""
    there = [place for place in places if place.there]
    found = await asyncio.gather(*(_answer(place, scope) for place in there), return_exceptions=True)
    answers = {}
    for place, answer in zip(there, found, strict=True):
        if isinstance(answer, BaseException):
            log.info("replica %d is left out of %s: %s", place.number, scope["path"], answer or "it takes too long")
        else:
            answers[place] = answer
    return answers


async def _answer(place: Place, scope: Scope) -> tuple[int, bytes]:
    messages = followed(place.remote, "ask", uuid.uuid4().hex, plain(scope), b"")
    status, body = 0, b""
    async with asyncio.timeout(SECONDS):
        while (message := await messages.get()) is not ENDED:
            if isinstance(message, BaseException):
                raise message
            status = message.get("status", status)
            body += message.get("body", b"")
    return status, body
