"""JSON Schemas in tests: meta-schemas without a network, and what no schema speaks of."""

import json
from typing import Any

from jsonschema import Draft7Validator, Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

from odingw.rpc.openrpc import META_SCHEMA
from tests.process import DATA

OPENRPC = json.loads((DATA / "openrpc_meta_schema.json").read_text("utf-8"))
_JSON_SCHEMA = json.loads((DATA / "json_schema_meta_schema.json").read_text("utf-8"))


def _resource(schema: dict[str, Any]) -> Resource[Any]:
    # They name each other as their dialect, which is draft 7 but for its name.
    plain = {key: value for key, value in schema.items() if key not in ("$schema", "$id")}
    return Resource.from_contents(plain, default_specification=DRAFT7)


REGISTRY: Registry[Any] = Registry().with_resources(
    [
        ("https://meta.json-schema.tools", _resource(_JSON_SCHEMA)),
        ("https://meta.json-schema.tools/", _resource(_JSON_SCHEMA)),
        ("https://meta.open-rpc.org/", _resource(OPENRPC)),
        (META_SCHEMA, _resource(OPENRPC)),
    ]
)


def wrong_openrpc(document: Any) -> list[str]:
    """Return what the OpenRPC meta-schema has against a document."""
    schema = {"$ref": "https://meta.open-rpc.org/"}
    return [
        error.message for error in Draft7Validator(schema, registry=REGISTRY).iter_errors(document)
    ]


def closed(schema: Any) -> Any:
    """Return a schema that allows no members which it does not name."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    members = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        members.setdefault("additionalProperties", False)
    return members


def wrong(document: Any, schema: Any, value: Any, *, strict: bool = True) -> list[str]:
    """Return what a schema of a document has against a value, by both drafts.

    Args:
        document: its components are what the schema refers to.
        schema: what the value must be.
        value: JSON.
        strict: whether members that no schema names are wrong, too.
    """
    whole = {**schema, "components": document["components"]}
    if strict:
        whole = closed(whole)
    found = []
    for validator in (Draft7Validator, Draft202012Validator):
        errors = validator(whole, registry=REGISTRY).iter_errors(value)
        found += [f"{error.json_path}: {error.message[:300]}" for error in errors]
    return found
