"""What `@cached` was told about one function: lives, timeouts, what is kept and what is not. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from . import early as xfetch

DEFAULT: Final = object()  # the setting's value, read when a call is made


@dataclass(frozen=True, slots=True)
class Rules:
    """All in seconds; None = no limit."""

    ttl_s: Any = DEFAULT  # None: for ever
    lock: bool = True
    early: float = xfetch.BETA
    sliding: bool = False
    jitter: float | None = None
    stale_s: float = 0.0
    retry_s: float = 1.0
    soft_timeout_s: float | None = None
    hard_timeout_s: float | None = None
    unless: Callable[[Any], object] | None = None
    negative: Callable[[Any], object] | None = None
    negative_ttl_s: float | None = None
    cache_errors: tuple[type[Exception], ...] = ()
    error_ttl_s: float | None = None

    def __post_init__(self) -> None:
        """Raises ValueError or TypeError for what cannot be meant."""
        if self.ttl_s is not DEFAULT and self.ttl_s is not None and not self.ttl_s > 0:
            raise ValueError("ttl_s is a positive number of seconds, or None for ever")
        for name in ("negative_ttl_s", "error_ttl_s", "soft_timeout_s", "hard_timeout_s"):
            given = getattr(self, name)
            if given is not None and not given > 0:
                raise ValueError(f"{name} is a positive number of seconds")
        if not min(self.early, self.stale_s, self.retry_s) >= 0:
            raise ValueError("early, stale_s and retry_s are at least 0")
        if self.jitter is not None and not 0 <= self.jitter <= 0.5:
            raise ValueError("jitter is a share of the ttl, from 0 to 0.5")
        if self.soft_timeout_s is not None and not self.stale_s:
            raise ValueError("soft_timeout_s needs stale_s: an entry past its life that it may answer with")
        if self.negative is not None and self.negative_ttl_s is None:
            raise ValueError("negative needs negative_ttl_s")
        if self.sliding and self.ttl_s is None:
            raise ValueError("sliding needs a ttl: what lives for ever does not slide")
        if self.sliding and self.stale_s:
            raise ValueError("sliding goes without stale_s: nothing of the entry is left after its life")
        self._check_errors()

    def _check_errors(self) -> None:
        if bool(self.cache_errors) != (self.error_ttl_s is not None):
            raise ValueError("cache_errors and error_ttl_s go together")
        for kind in self.cache_errors:
            if not (isinstance(kind, type) and issubclass(kind, Exception)):
                raise TypeError("cache_errors lists classes of exceptions")

    @property
    def is_timed(self) -> bool:
        """Whether a caller may go before the load has ended."""
        return self.soft_timeout_s is not None or self.hard_timeout_s is not None

    def life_s(self, value: Any, default_s: float) -> float | None:
        if self.is_negative(value):
            return self.negative_ttl_s
        return default_s if self.ttl_s is DEFAULT else self.ttl_s

    def is_negative(self, value: Any) -> bool:
        """Whether it lives for negative_ttl_s."""
        return self.negative_ttl_s is not None and bool((self.negative or _is_none)(value))

    def patience_s(self, has_stale: bool) -> float | None:
        """How long a caller waits for the load."""
        if has_stale and self.soft_timeout_s is not None:
            return self.soft_timeout_s
        return self.hard_timeout_s


def of(options: Mapping[str, Any]) -> Rules:
    """From the arguments of `cached`: `ttl` is another word for ttl_s. Raises TypeError for an unknown one."""
    if "ttl" not in options:
        return Rules(**options)
    if "ttl_s" in options:
        raise TypeError("ttl_s and ttl are the same: give one")
    return Rules(**{"ttl_s" if name == "ttl" else name: value for name, value in options.items()})


# --- exceptions, for functions that ask for keeping them -------------------------------------------------------------
# Their entries are {"value": …} or {"error": name, "args": […]}, under keys of their own (`version!`): no value can be
# taken for an error, and a function that stops asking for it never reads one.


def wrapped(value: Any) -> dict[str, Any]:
    return {"value": value}


def error_form(error: Exception, kinds: tuple[type[Exception], ...]) -> dict[str, Any] | None:
    """None: not one of the listed classes themselves, or one that cannot be made anew of JSON."""
    kind = type(error)
    if kind not in kinds or not _is_json(list(error.args)):
        return None
    form = {"error": _name(kind), "args": list(error.args)}
    is_usable, made = unwrapped(form, kinds)
    return form if is_usable and made.error.args == error.args else None


def unwrapped(form: Any, kinds: tuple[type[Exception], ...]) -> tuple[bool, Any]:
    """(whether it can be used, the value, or the error made anew): only classes of the list are ever made."""
    if not isinstance(form, Mapping):
        return False, None
    if "value" in form:
        return True, form["value"]
    kind = next((kind for kind in kinds if _name(kind) == form.get("error")), None)
    try:
        return kind is not None, kind and Kept(kind(*form["args"]))
    except Exception:  # noqa: BLE001  (its constructor has changed since)
        return False, None


@dataclass(frozen=True, slots=True)
class Kept:
    """An exception that came from the cache."""

    error: Exception


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _is_none(value: Any) -> bool:
    return value is None


def _is_json(value: Any) -> bool:
    if type(value) is list:
        return all(map(_is_json, value))
    if type(value) is dict:
        return all(type(key) is str and _is_json(item) for key, item in value.items())
    if type(value) is int:
        return -(2**63) <= value < 2**63
    return value is None or type(value) in (str, bool) or (type(value) is float and abs(value) < float("inf"))
