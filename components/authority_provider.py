"""The dynamic provider behind `Authority`: certificates and keys, kept in SSM and nowhere else.

SSM is the register and the state file only a copy of what is public in it. Every verb reads what is there, works out
what is missing and writes that, so a run that was cut off is finished by the next one:

- all keys of the authority and the server are one parameter, so they are there together or not at all;
- a certificate's serial is registered before its bundle is written, so none is ever out of reach of a revocation;
- a serial is marked as revoked before its bundle goes, and stays so.

It runs in a process of its own under Pulumi, which imports this module by name. There it has the environment's AWS
credentials only, so it makes sure that they lead to the account the rest of the stack is in.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from pulumi.dynamic import CreateResult, DiffResult, ReadResult, ResourceProvider, UpdateResult

import contract
from openvpn import bundle as bundles
from pki import ssh, tls_crypt
from pki.authority import Certificate, CertificateAuthority, PkiError

#: Characters in the value of a standard parameter (AWS Systems Manager User Guide, "Managing parameter tiers").
PARAMETER_LIMIT = 4096

#: The server's certificate is made anew when it has less than this to live: a change nobody notices but OpenVPN.
RENEW_SERVER = timedelta(days=30)

INPUTS = ("stack", "end", "region", "account", "serverName", "profiles", "lifetimes")


class IssuerError(Exception):
    """Keys could not be made or kept; the message names parameters and error codes, never a value."""


@dataclass(frozen=True, slots=True)
class Order:
    """What the stack wants of its authority."""

    names: contract.Names
    region: str
    account: str
    server_name: str
    profiles: Mapping[str, str]
    """The profile without keys of each client that may connect."""
    ca_lifetime: timedelta
    server_lifetime: timedelta
    client_lifetime: timedelta

    @classmethod
    def of(cls, props: Mapping[str, Any]) -> "Order":
        """Read it from a resource's inputs; Pulumi's wire knows numbers as floats only."""
        days = {key: timedelta(days=int(value)) for key, value in props["lifetimes"].items()}
        return cls(
            names=contract.Names(props["stack"], props.get("end") or contract.GATEWAYS[0]),
            region=props["region"],
            account=props["account"],
            server_name=props["serverName"],
            profiles=props["profiles"],
            ca_lifetime=days["ca"],
            server_lifetime=days["server"],
            client_lifetime=days["client"],
        )


class Store:
    """A stack's parameters in SSM, read once and then kept in step; a write that changes nothing is none."""

    def __init__(self, ssm: Any, names: contract.Names) -> None:
        self._ssm = ssm
        self._tags = [{"Key": key, "Value": value} for key, value in contract.tags(names.stack).items()]
        self.values: dict[str, str] = {}
        with _quiet("read", names.root):
            paginator = ssm.get_paginator("get_parameters_by_path")
            pages = paginator.paginate(Path=names.root, Recursive=True, WithDecryption=True)
            for page in pages:
                self.values |= {found["Name"]: found["Value"] for found in page["Parameters"]}

    def under(self, path: str) -> dict[str, str]:
        """Return values by what follows `path` in their names."""
        prefix = f"{path}/"
        return {k.removeprefix(prefix): v for k, v in self.values.items() if k.startswith(prefix)}

    def put(self, name: str, value: str, *, secret: bool) -> None:
        """Write a parameter; raises `IssuerError` if it is too long or SSM refuses it."""
        if self.values.get(name) == value:
            return
        if len(value) > PARAMETER_LIMIT:
            raise IssuerError(f"{name} would have {len(value)} characters, and a parameter takes {PARAMETER_LIMIT}")
        kind = "SecureString" if secret else "String"
        with _quiet("write", name):
            if name in self.values:
                self._ssm.put_parameter(Name=name, Value=value, Type=kind, Overwrite=True)
            else:
                # Never over one that came from elsewhere in between.
                self._ssm.put_parameter(Name=name, Value=value, Type=kind, Tags=self._tags)
        self.values[name] = value

    def delete(self, names: Iterable[str]) -> None:
        """Remove parameters; those that are not there are no error."""
        doomed = list(names)
        for start in range(0, len(doomed), 10):  # as many as one call takes
            with _quiet("delete", doomed[start]):
                self._ssm.delete_parameters(Names=doomed[start : start + 10])
        for name in doomed:
            self.values.pop(name, None)


class _quiet:
    """Turns errors of the AWS API into one that holds no value: the API's own may quote what was sent."""

    def __init__(self, verb: str, name: str) -> None:
        self._what = f"cannot {verb} {name} in SSM"

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ClientError):
            raise IssuerError(f"{self._what}: {error.response.get('Error', {}).get('Code', 'unknown')}") from None
        if isinstance(error, BotoCoreError):
            raise IssuerError(f"{self._what}: {type(error).__name__}") from None


@dataclass(frozen=True, slots=True, repr=False)
class Keys:
    """What is made once for a stack; kept as one parameter."""

    ca: CertificateAuthority
    server_certificate: str
    server_key: str
    tls_crypt: str
    ssh: ssh.HostKey

    @classmethod
    def make(cls, order: Order, now: datetime) -> "Keys":
        name = order.names.resource(f"Drawbridge {order.names.stack}")
        ca = CertificateAuthority.create(name, order.ca_lifetime, now)
        return cls(ca, "", "", tls_crypt.server_key(), ssh.host_key()).with_server(order, now)

    def with_server(self, order: Order, now: datetime) -> "Keys":
        """Return the same with a server certificate that is good, a new one where need be."""
        if self.server_certificate:
            server = Certificate.read(self.server_certificate)
            if server.common_name == order.server_name and server.not_after - now > RENEW_SERVER:
                return self
        leaf = self.ca.issue_server(order.server_name, order.server_lifetime, now)
        return replace(self, server_certificate=leaf.certificate, server_key=leaf.key)

    @classmethod
    def load(cls, text: str) -> "Keys":
        kept = json.loads(text)
        return cls(
            CertificateAuthority(certificate=kept["ca"]["certificate"], key=kept["ca"]["key"]),
            kept["server"]["certificate"],
            kept["server"]["key"],
            kept["tlsCrypt"],
            ssh.HostKey(**kept["ssh"]),
        )

    def dump(self) -> str:
        return json.dumps(
            {
                "ca": {"certificate": self.ca.certificate, "key": self.ca.key},
                "server": {"certificate": self.server_certificate, "key": self.server_key},
                "tlsCrypt": self.tls_crypt,
                "ssh": {"private": self.ssh.private, "public": self.ssh.public},
            }
        )

    def for_gateway(self) -> dict[str, str]:
        """Return what the gateway may have of it, by `contract.GATEWAY_SECRETS`; not the authority's key."""
        return {
            "ca.crt": self.ca.certificate,
            "server.crt": self.server_certificate,
            "server.key": self.server_key,
            "tls-crypt-v2.key": self.tls_crypt,
            "ssh_host_ed25519_key": self.ssh.private,
        }


def converge(store: Store, order: Order, now: datetime) -> dict[str, Any]:
    """Bring SSM to what is ordered and return what of it is public; raises `IssuerError`."""
    try:
        kept = store.values.get(order.names.keys)
        keys = Keys.load(kept).with_server(order, now) if kept else Keys.make(order, now)
    except (PkiError, ValueError, KeyError, TypeError) as error:
        reason = str(error) if isinstance(error, PkiError) else type(error).__name__
        raise IssuerError(f"the authority's keys in {order.names.keys} cannot be used: {reason}") from None
    store.put(order.names.keys, keys.dump(), secret=True)
    for name, value in keys.for_gateway().items():
        store.put(order.names.secret(name), value, secret=True)

    _register_strays(store, order)
    good = _good_bundles(store, order, keys, now)
    _revoke_others(store, order, {certificate.serial for certificate in good.values()}, now)
    _delete_others(store, order, good)
    issued = {name: _issue(store, order, keys, name, now) for name in order.profiles if name not in good}
    for name in good:
        bundle = store.values[order.names.bundle(name)]
        parts = (bundles.ca_of, bundles.certificate_of, bundles.key_of, bundles.tls_crypt_of)
        _put_bundle(store, order, name, *(part(bundle) for part in parts))
    return public(store, order, keys, good | issued)


def _good_bundles(store: Store, order: Order, keys: Keys, now: datetime) -> dict[str, Certificate]:
    """The clients that are wanted and have a bundle that still works."""
    good = {}
    for name in order.profiles:
        bundle = store.values.get(order.names.bundle(name))
        if bundle is None:
            continue
        try:
            certificate = Certificate.read(bundles.certificate_of(bundle))
            signed = bundles.ca_of(bundle).strip() == keys.ca.certificate.strip()
            whole = bool(bundles.key_of(bundle) and bundles.tls_crypt_of(bundle))
        except (PkiError, bundles.BundleError):
            continue
        entry = _register(store, order).get(certificate.serial)
        if signed and whole and certificate.not_after > now and entry and not entry["revoked"]:
            good[name] = certificate
    return good


def _register_strays(store: Store, order: Order) -> None:
    """Register what somebody's hand has left a bundle of and no entry, or it could never be revoked."""
    known = _register(store, order)
    for path, bundle in store.under(order.names.clients).items():
        try:
            certificate = Certificate.read(bundles.certificate_of(bundle))
        except (PkiError, bundles.BundleError):
            continue
        if certificate.serial not in known:
            _enter(store, order, path.partition("/")[0], certificate)


def _enter(store: Store, order: Order, name: str, certificate: Certificate) -> None:
    entry = {
        "client": name,
        "fingerprint": certificate.fingerprint,
        "notAfter": _time(certificate.not_after),
        "revoked": None,
    }
    store.put(f"{order.names.issued}/{certificate.serial}", json.dumps(entry), secret=False)


def _register(store: Store, order: Order) -> dict[int, dict[str, Any]]:
    return {int(serial): json.loads(entry) for serial, entry in store.under(order.names.issued).items()}


def _revoke_others(store: Store, order: Order, serials: set[int], now: datetime) -> None:
    for serial, entry in _register(store, order).items():
        if serial not in serials and not entry["revoked"]:
            entry["revoked"] = _time(now)
            store.put(f"{order.names.issued}/{serial}", json.dumps(entry), secret=False)


def _delete_others(store: Store, order: Order, good: Iterable[str]) -> None:
    stay = {order.names.bundle(name) for name in good}
    store.delete([name for name in store.values if name.startswith(f"{order.names.clients}/") and name not in stay])


def _issue(store: Store, order: Order, keys: Keys, name: str, now: datetime) -> Certificate:
    try:
        leaf = keys.ca.issue_client(name, order.client_lifetime, now)
        tls = tls_crypt.client_key(keys.tls_crypt)
    except PkiError as error:
        raise IssuerError(f"no certificate for {name}: {error}") from None
    _enter(store, order, name, leaf)
    _put_bundle(store, order, name, keys.ca.certificate, leaf.certificate, leaf.key, tls)
    return leaf


def _put_bundle(store: Store, order: Order, name: str, ca: str, certificate: str, key: str, tls: str) -> None:
    bundle = bundles.render_bundle(order.profiles[name], ca, certificate, key, tls)
    store.put(order.names.bundle(name), bundle, secret=True)


def public(store: Store, order: Order, keys: Keys, clients: Mapping[str, Certificate]) -> dict[str, Any]:
    """Return the resource's outputs: nothing that needs to be kept secret."""
    server = Certificate.read(keys.server_certificate)
    return {
        "caCertificate": keys.ca.certificate,
        "serverFingerprint": server.fingerprint,
        "serverNotAfter": _time(server.not_after),
        "sshHostKey": keys.ssh.public,
        "clients": {
            name: {
                # As text: a serial has up to 160 bits, and Pulumi's numbers 53.
                "serial": str(certificate.serial),
                "fingerprint": certificate.fingerprint,
                "notAfter": _time(certificate.not_after),
            }
            for name, certificate in sorted(clients.items())
        },
        "revoked": {str(s): e["client"] for s, e in sorted(_register(store, order).items()) if e["revoked"]},
    }


class Issuer(ResourceProvider):
    """Creates, updates and deletes a stack's authority."""

    # It is a name of this class and holds nothing.
    serialize_as_secret_always = False

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        replaces = [key for key in ("stack", "end", "region", "account") if _olds.get(key) != _news.get(key)]
        changed = any(_olds.get(key) != _news.get(key) for key in INPUTS)
        return DiffResult(changes=changed or _is_due(_olds, _now()), replaces=replaces, delete_before_replace=True)

    def create(self, props: dict[str, Any]) -> CreateResult:
        return CreateResult(Order.of(props).names.root, self._converge(props))

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        return UpdateResult(self._converge(_news))

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        order = Order.of(props)
        store = _store(order)
        kept = store.values.get(order.names.keys)
        if kept is None:
            return ReadResult("", {})
        keys = Keys.load(kept)
        good = _good_bundles(store, order, keys, _now())
        return ReadResult(id_, {**_inputs(props), **public(store, order, keys, good)})

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        order = Order.of(_props)
        store = _store(order)
        paths = (order.names.clients, order.names.secrets, order.names.authority)
        store.delete([name for path in paths for name in list(store.values) if name.startswith(f"{path}/")])

    def _converge(self, props: dict[str, Any]) -> dict[str, Any]:
        order = Order.of(props)
        return {**_inputs(props), **converge(_store(order), order, _now())}


def _inputs(props: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs ride in the outputs, because `diff` sees only those of the last time."""
    return {key: props[key] for key in INPUTS if key in props}


def _is_due(olds: Mapping[str, Any], now: datetime) -> bool:
    """Whether time alone, or somebody's hand in SSM that a refresh has seen, asks for an update."""
    server = datetime.fromisoformat(olds["serverNotAfter"])
    clients = [datetime.fromisoformat(entry["notAfter"]) for entry in olds["clients"].values()]
    missing = set(olds["profiles"]) != set(olds["clients"])
    return missing or server - now <= RENEW_SERVER or any(end <= now for end in clients)


def _store(order: Order) -> Store:
    session = boto3.Session(region_name=order.region)
    with _quiet("reach", order.names.root):
        account = session.client("sts").get_caller_identity()["Account"]
    if account != order.account:
        raise IssuerError(
            f"the environment's AWS credentials are for account {account}, the stack's provider is in {order.account}; "
            "set AWS_PROFILE so that both are one"
        )
    return Store(session.client("ssm"), order.names)


def _now() -> datetime:
    return datetime.now(UTC)


def _time(moment: datetime) -> str:
    return moment.replace(microsecond=0).isoformat()
