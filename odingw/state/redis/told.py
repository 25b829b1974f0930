"""What is published in Redis, by a second connection, which is lost when the first one is."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred

from odingw.state.redis.link import CommandProtocol, Link


class ToldProtocol(CommandProtocol):
    """Tells what is published; each SUBSCRIBE of one channel has one answer."""

    on_message: Callable[[str, bytes], None] = staticmethod(lambda _, __: None)

    def replyReceived(self, reply: Any) -> None:  # noqa: N802  -- txredisapi's name
        """Tell a message, and take in everything else as an answer."""
        if isinstance(reply, list) and reply[0] == b"message":
            self.on_message(reply[1].decode(), reply[2])
        else:
            super().replyReceived(reply)


def let_subscribe(link: Link, again: Callable[[], Awaitable[Link]]) -> Link:
    """Give a link its method ``subscribe(channels, on_message)``.

    Args:
        link: for commands.
        again: opens another one, with ``ToldProtocol``.
    """

    async def subscribe(channels: Iterable[str], on_message: Callable[[str, bytes], None]) -> None:
        told = await again()
        told.lost.addCallback(lambda _: link.close())
        link.lost.addCallback(_and_close, told)
        told.listen(on_message)
        for channel in channels:
            await told.execute("SUBSCRIBE", channel)

    link.subscribe = lambda *arguments: Deferred.fromCoroutine(subscribe(*arguments))
    return link


def _and_close(reason: str, link: Link) -> str:
    link.close()
    return reason
