"""Joining a Ray cluster, or starting one on this machine, and what it has room for.

Ray waits minutes for an address where nothing listens, and for ever for a node that is large
enough. Both are looked at first.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from critique_rl.config.checks import ConfigError

START_LOCAL = "local"
"""The address that has a cluster started on this machine."""
CONNECT_SECONDS = 5.0


@dataclass(frozen=True)
class Share:
    """What one run gets of its node."""

    cpus: int
    gpus: float

    def __str__(self) -> str:
        return f"{self.cpus} CPUs and {self.gpus:g} GPUs"


def import_ray() -> Any:
    """The package Ray.

    Raises:
        ConfigError: It is not installed.
    """
    # Read while Ray is imported. It would report to its makers how it is used.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            f"--on ray: Ray cannot be imported ({error}); pip install 'critique_rl[ray]'"
        ) from error
    return ray


def join(address: str | None) -> str:
    """Join the cluster at the address, at $RAY_ADDRESS or of this machine, or start one here.

    Args:
        address: host:port, or "local" for a new cluster on this machine; None to look.

    Returns:
        A line that says which.

    Raises:
        ConfigError: Ray is not installed, or nothing answers.
    """
    ray = import_ray()
    target = _target(address)
    options = {"logging_level": logging.ERROR, "log_to_driver": False}
    if target == START_LOCAL:
        options["include_dashboard"] = False
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=target, **options)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise ConfigError(f"--on ray: {target} cannot be joined: {error}") from error
    finally:
        # Ray's handler would end this process at once.
        signal.signal(signal.SIGTERM, handler)
    if target == START_LOCAL:
        return "Ray: started a cluster on this machine"
    return f"Ray: joined the cluster at {target}"


def _target(address: str | None) -> str:
    """host:port of a cluster that answers, or "local".

    Raises:
        ConfigError: The address that was given does not answer.
    """
    given = address or os.environ.get("RAY_ADDRESS", "")
    source = "--address" if address else "RAY_ADDRESS"
    if given == START_LOCAL:
        return START_LOCAL
    if not given or given == "auto":
        running = _running_cluster()
        if not running and given:
            raise ConfigError(f"{source}: no Ray cluster runs on this machine; ray start --head")
        return running or START_LOCAL
    expected = f"expected the host:port that `ray start --head` printed, or {START_LOCAL}"
    if "://" in given:
        raise ConfigError(
            f"{source}: got {given!r}, {expected}; give this command on a node of the cluster"
        )
    if not _answers(given):
        raise ConfigError(f"{source}: nothing answers at {given!r}, {expected}")
    return given


def _running_cluster() -> str:
    """host:port of the cluster that `ray start` has started or joined here; "" where none runs."""
    temporary = Path(os.environ.get("RAY_TMPDIR", "/tmp"))
    try:
        address = (temporary / "ray" / "ray_current_cluster").read_text().strip()
    except OSError:
        return ""
    # The file outlives a cluster that was killed.
    return address if _answers(address) else ""


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        return False
    try:
        with socket.create_connection((host, int(port)), CONNECT_SECONDS):
            return True
    except (OSError, OverflowError, UnicodeError):
        return False


def living_nodes() -> dict[str, dict[str, float]]:
    """Node's id -> its resources, of the nodes that are up."""
    import ray

    nodes = {}
    for node in ray.nodes():
        if node["Alive"]:
            nodes[node["NodeID"]] = node["Resources"]
    return nodes


def room(resources: dict[str, float], share: Share) -> int:
    """Runs that an empty node has room for."""
    runs = resources.get("CPU", 0.0) / share.cpus
    if share.gpus:
        gpus = int(resources.get("GPU", 0.0))
        # A run does not use halves of two GPUs.
        runs = min(runs, gpus * math.floor(1 / share.gpus))
    return math.floor(runs)


def check_room(nodes: dict[str, dict[str, float]], share: Share) -> int:
    """Runs that the cluster has room for.

    Raises:
        ConfigError: No node has room for one.
    """
    total = sum(room(resources, share) for resources in nodes.values())
    if total:
        return total
    sizes = []
    for resources in nodes.values():
        cpus = resources.get("CPU", 0.0)
        gpus = resources.get("GPU", 0.0)
        sizes.append(f"{cpus:g} CPUs and {gpus:g} GPUs")
    raise ConfigError(
        f"--on ray: no node has {share} for a run; the nodes that are up have "
        f"{', '.join(sorted(set(sizes)))}; give a smaller --cpus-per-run or --gpus-per-run, "
        "or start such a node first"
    )
