"""JSON-RPC 2.0, and the client and server APIs that speak it."""
