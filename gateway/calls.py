"""What the rules of a request (pipeline.py) speak of: the call, its route, and the steps that it may have to take next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from .accounts import Account
from .auth import Identity
from .bucket import Limit
from .headers import Headers
from .outages import Outage
from .pool import Service, Target

if TYPE_CHECKING:
    from .transforming import Transforms

_INFINITE = float("inf")

HeaderPairs = tuple[tuple[str, str], ...]


class UpstreamFailed(Exception):
    """No usable answer came from the target. code: the reason, as in X-Brain-Error. The others are `retry.decide`'s."""

    def __init__(
        self, code: str, *, timed_out: bool = False, written: bool = True, stale: bool = False,
        replayable: bool = True, answered: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(code)
        self.answered = answered
        self.code, self.timed_out, self.written = code, timed_out, written
        self.stale, self.replayable = stale, replayable


@dataclass(frozen=True, slots=True)
class Refusal:
    """code: the reason for machines, sent as X-Brain-Error. body: given instead of a problem document. is_open: a plugin may
    answer instead, so it counts when `pipeline.refused` says with what status."""

    status: int
    code: str
    detail: str
    headers: HeaderPairs = ()
    body: bytes | None = None
    content_type: str = ""
    is_open: bool = False


@dataclass(frozen=True, slots=True)
class TakeTokens:
    """Take `cost` tokens from each bucket of the account, or none."""

    account: Account
    cost: int


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


@dataclass(frozen=True, slots=True)
class Transform:
    """The request is to be changed."""


TRANSFORM = Transform()


@dataclass(frozen=True, slots=True)
class Relay:
    """The response's head is there. Stream the body, then resume `steps`; throw UpstreamFailed if it breaks off."""

    status: int


@dataclass(slots=True, eq=False)
class Route:
    """methods: all that are taken, HEAD with GET. roles: any one of them will do; scopes: all of them are needed.

    limits: without their keys. timeouts in seconds: until the response's head, between two pieces, in all.
    strip: how many bytes of the path the target does not see. outage: why it answers 503 to everybody.
    """

    name: str
    service: Service
    path: str = "/"
    path_kind: str = "prefix"
    methods: frozenset[str] = frozenset()
    auth_required: bool = True
    roles: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()
    limits: tuple[Limit, ...] = ()
    plan: str = ""
    counted_by: str = "caller"
    on_store_down: str = ""  # empty: the setting decides
    is_exact: bool = False
    ipv6_prefix: int = 64  # by which addresses are counted
    cost: int = 1
    response_timeout_s: float = 30.0
    idle_timeout_s: float = 30.0
    total_timeout_s: float = _INFINITE
    connect_timeout_s: float = 2.0
    strip: int = 0
    keeps_host: bool = False
    hides_credentials: bool = True
    transforms: Transforms | None = None
    fallback: Refusal | None = None
    stale_s: float = 0.0
    outage: Outage | None = None


class Access(Protocol):
    """What `decide` asks about credentials; the snapshot is one."""

    def identify(
        self, authorization: bytes | None, api_key: bytes | None, wall: float
    ) -> Identity | None: ...


class Recorder(Protocol):
    def finished(
        self, route: str, service: str, target: str, method: str, status: int, plan: str, total_s: float,
        upstream_s: float, received_bytes: int, sent_bytes: int,
    ) -> None: ...  # fmt: skip
    def refused(self, code: str) -> None: ...
    def limited(self, route: str) -> None: ...
    def retried(self, service: str) -> None: ...
    def retry_denied(self, service: str) -> None: ...
    def upstream_failed(self, target: str, code: str) -> None: ...
    def answered_stale(self, route: str, code: str) -> None: ...


class Call:
    """One request on its way. started: monotonic seconds. status: 0 until the call is over.

    key: what consistent hashing goes by. upstream_s: spent at targets; began, opened: when the present target was asked
    and when the head of its response came (0.0: not yet). freed: has had its free retry.
    """

    # Slots: two dozen attributes are read some fifty times a request, and a default on the class takes seven times as long.
    __slots__ = (
        "account", "api_key", "authorization", "began", "bytes_in", "bytes_out", "client_ip", "code", "deadline", "epoch",
        "freed", "identity", "key", "method", "opened", "recorder", "retrying", "route", "started", "status", "target",
        "tried", "upstream_s",
    )  # fmt: skip
    route: Route | None
    method: str
    client_ip: str
    started: float
    recorder: Recorder

    def __init__(self) -> None:
        """The caller sets what has no default."""
        self.authorization: bytes | None = None
        self.api_key: bytes | None = None
        self.key: bytes | None = None
        self.identity: Identity | None = None
        self.account: Account | None = None
        self.target: Target | None = None
        self.tried: tuple[Target, ...] = ()
        self.epoch = self.status = self.bytes_in = self.bytes_out = 0
        self.freed = self.retrying = False
        self.code = ""
        self.began = self.opened = self.upstream_s = 0.0
        self.deadline = _INFINITE

    def takes(self) -> frozenset[str]:
        """The methods that a request like this could have, by this route or its neighbours."""
        return self.route.methods if self.route is not None else frozenset()

    def older_answer(self, code: str, now: float) -> Refusal | None:
        """A target's good answer to the same request from before, to be given while none answers for the reason `code`.
        The DRF door keeps none."""
        return None

    def credentials(self, key_header: bytes) -> Headers:
        """Those that the target is to see: on an open route Authorization is the target's own business."""
        found: Headers = []
        if self.identity is not None and self.route is not None and self.route.hides_credentials:
            return found
        if self.authorization is not None:
            found.append((b"Authorization", self.authorization))
        if self.identity is not None and self.api_key is not None:
            found.append((key_header, self.api_key))
        return found


Step = Refusal | TakeTokens | Transform | Target | Pause
