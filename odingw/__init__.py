"""odingw: an ODIN voice gateway and a TURN REST server in one Twisted process."""

__version__ = "0.1.0"
