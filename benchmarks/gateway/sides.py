"""The sides: how each is configured and started on the gateway's core, and what it is not equal in."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.processes import ROOT, Process, environment
from tests import servers

from . import asked, binaries, configuration, cores, credentials, templates
from .ground import Ground, manage, our_environment

LIMIT_PER_S = 1_000_000  # counted for every request, never reached
LOW_PER_S = 5  # to see that it refuses
DJANGO_SERVERS = ("gunicorn", "uvicorn")
THREADS = 8  # of gunicorn, for views that wait for others


@dataclass(frozen=True, slots=True)
class Settings:
    """plan, routes: of ours alone, which else has the limit as its plan and 50 routes."""

    limit_per_s: int = LIMIT_PER_S
    plan: Mapping[str, int] | None = None
    routes: int = asked.ROUTES
    ports: tuple[int, ...] | None = None  # of the upstream; None: the ground's


@dataclass(frozen=True, slots=True)
class Started:
    process: Process
    port: int
    version: str = ""
    redis_url: str = ""


Start = Callable[[Ground, ExitStack, Settings], Started]


@dataclass(frozen=True, slots=True)
class Side:
    """peer: its name in --peers, None for ours. checks_tokens, limits: whether it refuses what it is to refuse."""

    key: str
    title: str
    start: Start = field(repr=False)
    peer: str | None = None
    checks_tokens: bool = True
    limits: bool = True


# --- ours ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Site:
    """Our platform without a door: its data directory, its Valkey, its configuration."""

    folder: Path
    env: dict[str, str]
    redis_url: str


def site(ground: Ground, stack: ExitStack, settings: Settings) -> Site:
    folder = ground.folder("brain")
    shutil.copytree(ground.migrated(), folder / "data")
    redis_url = stack.enter_context(servers.valkey())
    env = our_environment(folder / "data", redis_url)
    plan = dict(settings.plan or configuration.per_second(settings.limit_per_s))
    ports = settings.ports or ground.upstream.ports
    document = folder / "gateway.yaml"
    document.write_text(configuration.document(ports, plan, routes=settings.routes))
    manage(env, "gateway", "import", str(document))
    return Site(folder, env, redis_url)


def edge(ground: Ground, stack: ExitStack, site: Site, *, ahead_s: float | None = None) -> Started:
    """`manage.py gateway` on the gateway's core. ahead_s: of its clock."""
    port = servers.free_port()
    start = ["manage.py"] if ahead_s is None else ["-m", "benchmarks.gateway.brain.skewed", str(ahead_s)]
    argv = [sys.executable, *start, "gateway", "--host", "127.0.0.1", "--port", str(port)]
    process = _process("gateway", argv, site.env, site.folder, ground, stack)
    return Started(process, port, redis_url=site.redis_url)


def _edge(ground: Ground, stack: ExitStack, settings: Settings) -> Started:
    return edge(ground, stack, site(ground, stack, settings))


def _door(server: str) -> Start:
    def start(ground: Ground, stack: ExitStack, settings: Settings) -> Started:
        own = site(ground, stack, settings)
        return _django(server, "brain_project", own.env, own.folder, ground, stack)

    return start


# --- peers ---------------------------------------------------------------------------------------------------------------


def _usual(server: str) -> Start:
    def start(ground: Ground, stack: ExitStack, settings: Settings) -> Started:
        env = environment(
            DJANGO_SETTINGS_MODULE="benchmarks.gateway.peers.usual.settings",
            BENCH_REDIS_URL=stack.enter_context(servers.valkey()),
            BENCH_SECRET=credentials.SECRET,
            BENCH_ISSUER=credentials.ISSUER,
            BENCH_ROLE=credentials.ROLE,
            BENCH_ROUTES=asked.ROUTES,
            BENCH_LIMIT=settings.limit_per_s,
            BENCH_TARGETS=",".join(f"http://127.0.0.1:{port}" for port in ground.upstream.ports),
        )
        package = "benchmarks.gateway.peers.usual"
        return _django(server, package, env, ground.folder("usual"), ground, stack)

    return start


def _django(
    server: str, package: str, env: dict[str, str], folder: Path, ground: Ground, stack: ExitStack
) -> Started:
    """One process of our own interpreter and libraries. server: "gunicorn" (WSGI) or "uvicorn" (ASGI)."""
    port = servers.free_port()
    if server == "gunicorn":
        sizes = [
            "--workers",
            "1",
            "--worker-class",
            "gthread",
            "--threads",
            str(THREADS),
            "--keep-alive",
            "60",
        ]
        argv = [*sizes, "--bind", f"127.0.0.1:{port}", f"{package}.wsgi"]
        path = f"{binaries.gunicorn()}:{ROOT}"
    else:
        quiet = ["--no-access-log", "--log-level", "warning", "--lifespan", "off"]
        argv, path = [*quiet, "--port", str(port), f"{package}.asgi:application"], str(ROOT)
    command = [sys.executable, "-m", server, *argv]
    return Started(_process(server, command, env | {"PYTHONPATH": path}, folder, ground, stack), port)


def _nginx(ground: Ground, stack: ExitStack, settings: Settings) -> Started:
    folder, port, program = ground.folder("nginx"), servers.free_port(), binaries.nginx()
    routes = [f"location {asked.prefix(n)}/ {{ proxy_pass http://service; }}" for n in range(asked.ROUTES)]
    targets = [f"server 127.0.0.1:{target};" for target in ground.upstream.ports]
    file = templates.render(
        templates.PEERS / "nginx" / "nginx.conf",
        folder / "nginx.conf",
        folder=folder,
        port=port,
        servers="\n        ".join(targets),
        routes="\n        ".join(routes),
    )
    argv = [str(program.path), "-p", str(folder), "-c", str(file)]
    return Started(_process("nginx", argv, environment(), folder, ground, stack), port, program.version)


def _haproxy(ground: Ground, stack: ExitStack, settings: Settings) -> Started:
    folder, port, program = ground.folder("haproxy"), servers.free_port(), binaries.haproxy()
    known = folder / "routes.map"
    known.write_text("".join(f"{asked.prefix(number)}/ service\n" for number in range(asked.ROUTES)))
    targets = enumerate(ground.upstream.ports)
    file = templates.render(
        templates.PEERS / "haproxy" / "haproxy.cfg",
        folder / "haproxy.cfg",
        port=port,
        map=known,
        secret=credentials.SECRET,
        limit=settings.limit_per_s,
        servers="\n    ".join(f"server s{number} 127.0.0.1:{target}" for number, target in targets),
    )
    argv = [str(program.path), "-db", "-f", str(file)]
    return Started(_process("haproxy", argv, environment(), folder, ground, stack), port, program.version)


def _envoy(ground: Ground, stack: ExitStack, settings: Settings) -> Started:
    folder, port, program = ground.folder("envoy"), servers.free_port(), binaries.envoy()
    routes = [
        {"match": {"path_separated_prefix": asked.prefix(number)}, "route": {"cluster": "service"}}
        for number in range(asked.ROUTES)
    ]
    endpoints = [
        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": target}}}}
        for target in ground.upstream.ports
    ]
    file = templates.render(
        templates.PEERS / "envoy" / "envoy.yaml",
        folder / "envoy.yaml",
        port=port,
        issuer=credentials.ISSUER,
        jwks=credentials.jwks(),
        limit=settings.limit_per_s,
        routes=json.dumps(routes),
        endpoints=json.dumps(endpoints),
    )
    options = ["--concurrency", "1", "--disable-hot-restart", "-l", "error"]
    argv = [str(program.path), "-c", str(file), *options]
    return Started(_process("envoy", argv, environment(), folder, ground, stack), port, program.version)


def _traefik(ground: Ground, stack: ExitStack, settings: Settings) -> Started:
    folder, port, program = ground.folder("traefik"), servers.free_port(), binaries.traefik()
    routers = {
        f"route{number}": {
            "rule": f"PathPrefix(`{asked.prefix(number)}/`)",
            "service": "service",
            "entryPoints": ["web"],
            "middlewares": ["limit", "breaker"],
        }
        for number in range(asked.ROUTES)
    }
    peer, routes = templates.PEERS / "traefik", folder / "routes.yaml"
    targets = [{"url": f"http://127.0.0.1:{target}"} for target in ground.upstream.ports]
    templates.render(
        peer / "routes.yaml",
        routes,
        routers=json.dumps(routers),
        limit=settings.limit_per_s,
        servers=json.dumps(targets),
    )
    file = templates.render(peer / "traefik.yaml", folder / "traefik.yaml", port=port, routes_file=routes)
    argv = [str(program.path), f"--configfile={file}"]
    return Started(_process("traefik", argv, environment(), folder, ground, stack), port, program.version)


def _process(
    name: str, argv: list[str], env: dict[str, str], folder: Path, ground: Ground, stack: ExitStack
) -> Process:
    with cores.on(ground.cores.gateway):
        process = Process(name, argv, env, folder / f"{name}.log")
    stack.callback(process.kill)
    return process


BRAIN = Side("brain", "brain", _edge)
DOORS = tuple(Side(f"door-{server}", f"our DRF door, {server}", _door(server)) for server in DJANGO_SERVERS)
USUAL = tuple(
    Side(f"usual-{server}", f"DRF view, {server}", _usual(server), "usual") for server in DJANGO_SERVERS
)
PEERS = (
    Side("haproxy", "HAProxy", _haproxy, "haproxy"),
    Side("nginx", "nginx", _nginx, "nginx", checks_tokens=False, limits=False),
    Side("envoy", "Envoy", _envoy, "envoy"),
    Side("traefik", "Traefik", _traefik, "traefik", checks_tokens=False),
    *USUAL,
)
SIDES = {side.key: side for side in (BRAIN, *DOORS, *PEERS)}
PEER_NAMES = tuple(dict.fromkeys(side.peer for side in PEERS if side.peer))

UNEQUAL = (
    "Checks: ours looks a verified token up in its cache (`tokens` has none to find), checks expiry, issuer, type and role, and"
    " counts per client and route in Valkey. HAProxy checks the signature of each token and nothing of what it says; Envoy"
    " expiry and issuer, no role; nginx and Traefik nothing. HAProxy counts per subject, Traefik per token, Envoy all clients"
    " together, each in its own memory; nginx counts nothing.",
    "Breaker: ours and Traefik's look at every answer; Envoy has caps on what is under way; HAProxy, nginx and the DRF view"
    " have none, but nginx stops asking a target that failed.",
    "Figures: ours are by route, target, method and status, with latencies; Envoy's and HAProxy's counters are on as they come;"
    " nginx has none, Traefik's are left off. Access logs are off on all sides.",
    "Headers: ours, Envoy and Traefik add request id, upstream or forwarding headers of their own, nginx and HAProxy"
    " X-Forwarded-For alone. Ours and Envoy keep the token from the upstream, the others pass it on.",
    "Headers that repeat: the load sends the same ones on a connection again and again, and the upstream's are the same within"
    " a second. Ours does not read them again; `tokens` has other credentials each time, `differing` a header of its own in each"
    " request and each answer.",
    "Processes: one each, on one core: nginx one worker, HAProxy one thread, Envoy concurrency 1, Traefik as Go finds one"
    " core, gunicorn one worker of eight threads, uvicorn one process whose views run in threads. All of a part's sides are up while one is measured.",
    "The DRF view keeps its connections to the upstream; its throttle writes each request's time into Valkey and keeps a"
    " second of them. It has Django's smallest middleware; our door stands in the whole site.",
    "CPU is that of the gateway's processes alone: our Valkey's, as the upstream's and the load's, is not in it. It comes in"
    " ticks of 10 ms.",
    "p50 and p99 of the rows are those of 32 connections that send as fast as they are answered: at saturation, they say how"
    " long the queue is and no more. `latency` has those that mean something.",
)
