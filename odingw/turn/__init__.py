"""TURN REST: settings, credentials, the keys that callers sign with, and the watched servers."""
