"""Makes ``odingw`` a command of ``twistd``."""

from twisted.application.service import ServiceMaker

odingw = ServiceMaker("odingw", "odingw.tap", "ODIN voice gateway and TURN REST server", "odingw")
