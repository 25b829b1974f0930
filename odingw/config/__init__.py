"""The configuration: TOML and the command line's options, to checked and frozen values."""

from odingw.config.gateway import (
    AccessKeyConfig,
    CustomerConfig,
    CustomerSource,
    DemoLimits,
    Gateway,
    Internal,
    InternalUser,
    Pools,
)
from odingw.config.load import Options, load
from odingw.config.parts import (
    FunctionReference,
    Network,
    Networks,
    Proxies,
    Trusted,
    state_folder,
)
from odingw.config.sections import Admin, Config, Limits, Listen, Log, State, Tls
from odingw.config.state_address import Node, StateAddress, node_text
from odingw.config.turn import Turn

__all__ = [
    "AccessKeyConfig",
    "Admin",
    "Config",
    "CustomerConfig",
    "CustomerSource",
    "DemoLimits",
    "FunctionReference",
    "Gateway",
    "Internal",
    "InternalUser",
    "Limits",
    "Listen",
    "Log",
    "Network",
    "Networks",
    "Node",
    "Options",
    "Pools",
    "Proxies",
    "State",
    "StateAddress",
    "Tls",
    "Trusted",
    "Turn",
    "load",
    "node_text",
    "state_folder",
]
