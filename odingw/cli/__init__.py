"""The ``odingw`` command.

Each module holds the commands of one concern and is loaded when one of them is called, so that
``odingw --help`` and completion need neither Twisted nor an HTTP client.
"""
