"""What a gateway writes when Redis is back: what it missed, and what it may have lost."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import astuple

if TYPE_CHECKING:
    from odingw.state.redis.pool import RedisGrid

PART: Final = 200
"""Items in one call."""


async def restore(pool: "RedisGrid", *, lost: bool) -> None:
    """Write what Redis does not have.

    Args:
        pool: the pool.
        lost: Redis may have lost what it was told; if not, it only misses what happened since.

    Raises:
        RedisAwayError: it is away again.
    """
    copies = pool.copies
    if lost:
        await _put(pool, "facts", list(copies.facts.items()))
        await _put(pool, "servers", [(a, astuple(row)) for a, row in copies.rows.items()])
        await _put(pool, "done", list(pool.arrived))
        await _put(pool, "tasks", sorted(pool.accepted.items()))
    for address, heard in list(copies.heard.items()):
        if lost or heard.busy or heard.said is not heard.written:
            await pool.reports.write_again(address, heard)
    places = [
        (
            grant.room,
            grant.user,
            grant.customer,
            grant.address,
            grant.ends,
            grant.made,
            grant.customer,
        )
        for grant in copies.grants.values()
    ]
    await _put(pool, "places", places)
    unsettled, pool.unsettled = pool.unsettled, []
    try:
        while unsettled:
            await pool.run(*unsettled[0])
            del unsettled[0]
    finally:
        pool.unsettled = unsettled + pool.unsettled
    await pool.run("restore", "end", [])
    copies.apart.clear()


async def _put(pool: "RedisGrid", kind: str, items: Sequence[Any]) -> None:
    for start in range(0, len(items), PART):
        await pool.run("restore", kind, items[start : start + PART])
