"""Customers and their access keys: who is let in, and keeping that list fresh."""

from odingw.customers.directory import (
    Customer,
    CustomerKey,
    Directory,
    combined,
    directory,
    static_directory,
)
from odingw.customers.function import FunctionSource
from odingw.customers.refresher import CustomerRefresher, refresher
from odingw.customers.sources import FileSource, Source, SourceError, UrlSource

__all__ = [
    "Customer",
    "CustomerKey",
    "CustomerRefresher",
    "Directory",
    "FileSource",
    "FunctionSource",
    "Source",
    "SourceError",
    "UrlSource",
    "combined",
    "directory",
    "refresher",
    "static_directory",
]
