"""Convert property values between Pulumi's wire format and plain Python.

A wire value is JSON: None, bool, number, str, list, dict. Two things ride on it as tagged dicts (secret, asset) and one
as a fixed string (unknown: known only after an update). The tags are those of Pulumi's deployment protocol.
"""

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pulumi
from google.protobuf import struct_pb2  # type: ignore[import-untyped]
from pulumi.runtime import rpc

Props = dict[str, Any]

UNKNOWN: str = rpc.UNKNOWN
SIGNATURE: str = rpc._special_sig_key
SECRET: str = rpc._special_secret_sig
ASSETS: frozenset[str] = frozenset({rpc._special_asset_sig, rpc._special_archive_sig})
RESOURCE: str = rpc._special_resource_sig


def from_struct(struct: struct_pb2.Struct) -> Props:
    """Return a wire struct as plain Python, without null members."""
    fields = {key: from_value(value) for key, value in struct.fields.items()}
    return {key: value for key, value in fields.items() if value is not None}


def from_value(value: struct_pb2.Value) -> Any:
    """Return one wire value as plain Python; whole numbers become int."""
    match value.WhichOneof("kind"):
        case "struct_value":
            return from_struct(value.struct_value)
        case "list_value":
            return [from_value(item) for item in value.list_value.values]
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case _:
            return None


def to_struct(props: Mapping[str, Any]) -> struct_pb2.Struct:
    """Return plain Python as a wire struct."""
    struct = struct_pb2.Struct()
    struct.update({key: value for key, value in props.items() if value is not None})
    return struct


def secret(value: Any) -> Props:
    """Return the value tagged as a secret."""
    return {SIGNATURE: SECRET, "value": value}


def is_secret(value: Any) -> bool:
    """Return whether the value itself has the secret tag."""
    return isinstance(value, dict) and value.get(SIGNATURE) == SECRET


def has_secret(value: Any) -> bool:
    """Return whether the value contains a secret at any depth."""
    if isinstance(value, dict):
        return is_secret(value) or any(has_secret(item) for item in value.values())
    return isinstance(value, list) and any(has_secret(item) for item in value)


def plain(value: Any) -> Any:
    """Return the value without secret tags, at every depth."""
    if isinstance(value, dict):
        return plain(value["value"]) if is_secret(value) else {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def has_unknown(value: Any) -> bool:
    """Return whether the value contains something that is known only after an update."""
    if isinstance(value, dict):
        return any(has_unknown(item) for item in value.values())
    return any(has_unknown(item) for item in value) if isinstance(value, list) else bool(value == UNKNOWN)


def without_unknown(props: Mapping[str, Any]) -> Props:
    """Return the members that contain nothing unknown."""
    return {key: value for key, value in props.items() if not has_unknown(value)}


def is_asset(value: Any) -> bool:
    """Return whether the value is an asset or archive on the wire."""
    return isinstance(value, dict) and value.get(SIGNATURE) in ASSETS


def asset_content(asset: Mapping[str, Any]) -> bytes:
    """Return the bytes of an asset (text, or a file's path).

    Raises:
        ValueError: the asset is neither text nor a file.
        OSError: the file cannot be read.
    """
    if "text" in asset:
        return str(asset["text"]).encode()
    if "path" in asset:
        return Path(asset["path"]).read_bytes()
    raise ValueError("only assets of text or of one local file are supported")


def fingerprint(value: Any) -> Any:
    """Return the value with each asset's content hash, so that two versions of a file compare unequal."""
    if is_asset(value):
        return {**value, "hash": hashlib.sha256(asset_content(value)).hexdigest()}
    if isinstance(value, dict):
        return {key: fingerprint(item) for key, item in value.items()}
    return [fingerprint(item) for item in value] if isinstance(value, list) else value


def comparable(value: Any) -> Any:
    """Return the part of a value that a diff compares: no secret tags, assets by their hash alone."""
    if is_asset(value) and "hash" in value:
        return value["hash"]
    if isinstance(value, dict):
        return comparable(value["value"]) if is_secret(value) else {k: comparable(v) for k, v in value.items()}
    return [comparable(item) for item in value] if isinstance(value, list) else value


def from_sdk(value: Any) -> Any:
    """Return a value that the SDK passes to mocks (Asset objects, Unknown) as a wire value."""
    if isinstance(value, dict):
        return {key: from_sdk(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [from_sdk(item) for item in value]
    if isinstance(value, pulumi.StringAsset):
        return {SIGNATURE: rpc._special_asset_sig, "text": value.text}
    if isinstance(value, pulumi.FileAsset | pulumi.FileArchive):
        return {SIGNATURE: rpc._special_asset_sig, "path": str(value.path)}
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return UNKNOWN if type(value).__name__ == "Unknown" else value


def body(content: Any, content_base64: Any, source: Any) -> bytes:
    """Return the bytes of an object from whichever of its three inputs is set."""
    if source is not None:
        return asset_content(source) if isinstance(source, dict) else Path(source).read_bytes()
    return base64.b64decode(content_base64) if content_base64 is not None else str(content or "").encode()
