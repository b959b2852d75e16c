"""``sis serve --ray N``"""

from __future__ import annotations

import socket
from typing import Any

import click

from sis_core.cli.common import recipe_of, registry_of
from sis_server.alike import start_alike
from sis_server.guard import Guard, Rules
from sis_server.replicas.front import AT_ONCE, Front
from sis_server.replicas.replica import Replica, Serving
from sis_server.running import serve


def serve_replicas(
    ctx: click.Context, options: dict[str, Any], n: int, rules: Rules, serving: Serving, listening: socket.socket
) -> None:
    """Serve the model of the options by ``n`` replicas until an interrupt or SIGTERM.

    Raises:
        SisError: the cluster cannot be joined, or a machine cannot load what the others load.
    """
    recipe, cluster = recipe_of(ctx, options), registry_of(ctx).get("clusters", "ray", where="--ray")
    with cluster.join() as machines:
        replicas, identity = start_alike(machines, n, Replica, recipe, serving, at_once=AT_ONCE)
        about = replicas[0].call("about").result()
        app = Guard(Front(replicas, identity, serving.limits), rules)
        sizes = f" ({n} replicas, each of context {about['n_ctx']} tokens, cache {about['cache_tokens']})"
        serve(app, listening, serving.limits, serving.grace, what=about["id"], sizes=sizes)
