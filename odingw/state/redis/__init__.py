"""State in Redis: several gateways, one grid.

Redis holds the state, and each call of :class:`odingw.grid.store.GridStore` is one script in it
(``scripts/``), by the same rules and with the same names as :mod:`odingw.grid`. Nothing is told to
gateways that did not ask: each keeps the servers, which it reads once a second, the rooms of the
servers that report to it, and its own last answers, so that known rooms are served while Redis is
away.
"""
