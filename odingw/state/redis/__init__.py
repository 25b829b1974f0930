"""State in Redis: several gateways, one grid.

Each gateway keeps a grid of its own, by the same rules as anywhere (:mod:`odingw.grid`), and works
on that. What it changes it commits to Redis in one round trip (``commit.lua``), which decides where
gateways contradict each other: where a base lives, who holds a task, whether a ban stands. Redis
tells all gateways what was committed, and they put it into their grids.
"""
