"""Three nodes of Ray on loopback, as long as standard input is open.

Prints their address; `kill N` ends one the hard way, `add` adds another, and each is answered by a line."""

from __future__ import annotations

import os
import sys

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # where it is unset, `ray.init` waits for ever on such clusters

from ray.cluster_utils import Cluster

NODE = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "object_store_memory": 80 << 20, "include_dashboard": False}


def main() -> None:
    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    nodes = [cluster.head_node, *(cluster.add_node(**NODE) for _ in range(2))]
    print(cluster.address, flush=True)
    for line in sys.stdin:
        word, _, number = line.strip().partition(" ")
        if word == "kill":
            cluster.remove_node(nodes[int(number)], allow_graceful=False)
        else:
            nodes.append(cluster.add_node(**NODE))
        print("done", flush=True)
    cluster.shutdown()


main()
