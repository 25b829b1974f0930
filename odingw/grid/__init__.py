"""Rooms, servers, placement, limits, bans and tasks: the grid's rules, without I/O."""
