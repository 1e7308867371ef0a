"""A channel on whichever server Sentinel says is the master."""

from __future__ import annotations

from typing import Any

import redis
from kombu.transport import redis as base
from kombu.utils.url import url_to_parts
from redis.sentinel import Sentinel

from .channel import Channel


class SentinelChannel(Channel, base.SentinelChannel):
    """Transport option `master_name` is needed; `sentinel_kwargs`, `min_other_sentinels` as in Kombu."""

    from_transport_options: Any = tuple(
        dict.fromkeys((*Channel.from_transport_options, *base.SentinelChannel.from_transport_options))
    )
    master_name: str | None = None
    min_other_sentinels = 0
    sentinel_kwargs: dict[str, Any] | None = None

    def _sentinel_managed_pool(self, asynchronous: bool = False) -> Any:
        """Stock Kombu reads the alternates that are spelled `sentinel://` only; ours are not."""
        if self.master_name is None:
            raise ValueError("the transport option 'master_name' must name the group that Sentinel watches")
        parameters = self._connparams(asynchronous)
        own = parameters.pop("host"), parameters.pop("port")
        watcher = Sentinel(
            self._nodes() or [own],
            min_other_sentinels=self.min_other_sentinels,
            sentinel_kwargs=self.sentinel_kwargs,
            **parameters,
        )
        # Kombu closes them with the pools.
        if asynchronous:
            self._async_sentinel_manager = watcher
        else:
            self._sentinel_manager = watcher
        login = {name: parameters[name] for name in ("username", "password") if name in parameters}
        return watcher.master_for(self.master_name, redis.Redis, **login).connection_pool

    def _nodes(self) -> list[tuple[str, int]]:
        found = map(url_to_parts, self.connection.client.alt)
        return [(url.hostname or "127.0.0.1", url.port or self.connection.default_port) for url in found]
