"""The dynamic provider behind `Authority`: certificates and keys, kept in SSM and, of many clients, bundles in S3.

SSM is the register, and the state file only a copy of what is public in it. Every verb reads SSM, works out what is
missing and writes that, so a run that was cut off is finished by the next one:

- the owner, an identifier that the deployment's state held before, is written before everything else, so that no other
  deployment changes what it did not create;
- all keys of the authority and the server are one parameter, so they are there together or not at all;
- a certificate's serial is registered before its bundle is written, so none is ever out of reach of a revocation;
- a serial is marked as revoked before its bundle goes, and stays so until its certificate has ended;
- the authority's certificate is renewed for the same key, so bundles with the former one stay as they are: in each of
  them, the client's certificate ends first;
- a client's certificate that is renewed names the one that it renews, which thus stays valid until it ends, also after
  a cut;
- bundles that move between SSM and S3 are all written in the new place before they go in the former one;
- with keys and serials is stored which rotation made them, so each rotation is carried out once;
- an authority that was restored from a backup belongs to the deployment that comes first, once it is complete.

It runs in a process of its own under Pulumi, which imports this module by name. There it has the environment's AWS
credentials only, so it makes sure that they lead to the account the rest of the stack is in.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pulumi
from botocore.config import Config
from pulumi.dynamic import CreateResult, DiffResult, ReadResult, ResourceProvider, UpdateResult

import contract
from components.bundle_store import S3_CONFIG, BundlePlace, Bundles, ObjectBundles, ParameterBundles
from components.progress import Progress
from components.register import Entry, IssuerError, ParameterStore, Register, format_time, translate_errors
from components.renewals import find_due, find_ending_former, find_ordered, find_reordered, warn_of_renewals
from components.schedule import Schedule
from openvpn import bundle as bundles
from pki import ssh, tls_crypt
from pki.authority import Certificate, CertificateAuthority, PkiError, certifies, check_request, is_same_authority

#: SSM takes 3 PutParameter calls per second from an account and region ("AWS Systems Manager endpoints and quotas" in
#: the AWS General Reference), and each new client needs one. The adaptive mode lowers the rate of calls to what SSM
#: takes. Other calls of the account share the quota, so a call is repeated more often than boto3's 3 times.
SSM_CONFIG = Config(retries={"mode": "adaptive", "total_max_attempts": 20})

#: Clocks of those who rotate keys may differ by this. A moment still later is a mistake: rotations before it would not
#: be carried out.
CLOCK_TOLERANCE = timedelta(hours=1)

#: Clients whose certificates are registered with one call. A run that is cut off loses those without a bundle.
BATCH = 25

INPUTS = (
    *("stack", "end", "region", "account", "serverName", "profiles", "lifetimes", "rotations"),
    *("owner", "key", "tier", "tags", "bucket", "days", "requests"),
)


@dataclass(frozen=True, slots=True)
class Order:
    """The certificates and keys that a gateway's authority must issue."""

    names: contract.Names
    region: str
    account: str
    server_name: str
    profiles: Mapping[str, str]
    """The profile, without keys, of each client that may connect."""
    schedule: Schedule
    stack_rotation: str = ""
    """When the authority, and all that it signs, was last rotated: ISO 8601 in UTC, empty for never."""
    gateway_rotation: str = ""
    """When the gateway's own keys were last rotated."""
    client_rotations: Mapping[str, str] = field(default_factory=dict)
    """When each client's key was last rotated; clients whose key never was may be missing."""
    client_renewals: Mapping[str, str] = field(default_factory=dict)
    """When each client's certificate was last renewed before its time; those that never were may be missing."""
    owner: str | None = None
    """Identifier of the deployment; None in states that were deployed before it existed."""
    key: str | None = None
    """ARN of the KMS key of the secrets; None for `aws/ssm`."""
    tier: str | None = None
    """Tier of parameters; None for the account's default."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Tags of parameters and objects, in addition to the stack's own."""
    bucket: str | None = None
    """Bucket of the clients' bundles; None if they are in SSM."""
    requests: Mapping[str, str] = field(default_factory=dict)
    """Signing requests, PEM, of those clients who have created their keys themselves."""

    def check_rotations(self, now: datetime) -> None:
        """Raise `IssuerError` for a rotation that is in the future."""
        latest = f"{now + CLOCK_TOLERANCE:%Y-%m-%dT%H:%M:%SZ}"
        of_clients = (*self.client_rotations.values(), *self.client_renewals.values())
        for moment in (self.stack_rotation, self.gateway_rotation, *of_clients):
            if moment > latest:
                raise IssuerError(f"drawbridge:rotations has {moment}, which is in the future; use the time of now")

    def renewal_of(self, client: str) -> datetime:
        """Return when a client's certificate was last renewed before its time, or a moment before all certificates."""
        moment = self.client_renewals.get(client)
        return datetime.fromisoformat(moment) if moment else datetime.min.replace(tzinfo=UTC)

    def check_requests(self) -> None:
        """Raise `IssuerError` for a signing request that no certificate can be issued for."""
        for client, request in self.requests.items():
            try:
                check_request(request, client)
            except PkiError as error:
                raise IssuerError(f"cannot issue a certificate for {client}: {error}") from None

    @classmethod
    def from_props(cls, props: Mapping[str, Any]) -> "Order":
        """Return the order in a resource's inputs, where every number is a float, as on Pulumi's wire."""
        rotations = props.get("rotations") or {}
        lifetimes = {key: timedelta(days=int(value)) for key, value in props["lifetimes"].items()}
        clients = {client: timedelta(days=int(value)) for client, value in (props.get("days") or {}).items()}
        return cls(
            names=contract.Names(props["stack"], props.get("end") or contract.GATEWAYS[0]),
            region=props["region"],
            account=props["account"],
            server_name=props["serverName"],
            profiles=props["profiles"],
            schedule=Schedule(**lifetimes, clients=clients),
            stack_rotation=rotations.get("stack", ""),
            gateway_rotation=rotations.get("gateway", ""),
            client_rotations=rotations.get("clients", {}),
            client_renewals=rotations.get("renewals", {}),
            owner=props.get("owner"),
            key=props.get("key"),
            tier=props.get("tier"),
            tags=props.get("tags") or {},
            bucket=props.get("bucket"),
            requests=props.get("requests") or {},
        )


@dataclass(frozen=True, slots=True, repr=False)
class Keys:
    """The keys of an authority and its server, created once and stored as one parameter."""

    ca: CertificateAuthority
    server_certificate: str
    server_key: str
    tls_crypt: str
    ssh: ssh.HostKey
    stack_rotation: str = ""
    """The rotation that made the authority; empty for none."""
    gateway_rotation: str = ""
    """The last rotation of the gateway's keys when they were made."""

    @classmethod
    def create(cls, order: Order, now: datetime) -> "Keys":
        """Return new keys."""
        ca = CertificateAuthority.create(order.names.authority_name, order.schedule.ca, now)
        keys = cls(ca, "", "", tls_crypt.server_key(), ssh.host_key(), order.stack_rotation, order.gateway_rotation)
        return keys.with_server(order, now)

    def rotate(self, order: Order, now: datetime) -> "Keys":
        """Return the keys after the rotations that are ordered and not carried out yet.

        An earlier moment than that of the keys is an old stack file's, and changes nothing.
        """
        if self.stack_rotation < order.stack_rotation:
            return self.create(order, now)
        if self.gateway_rotation < order.gateway_rotation:
            return replace(
                self,
                server_certificate="",
                server_key="",
                tls_crypt=tls_crypt.server_key(),
                ssh=ssh.host_key(),
                gateway_rotation=order.gateway_rotation,
            )
        return self

    def renew(self, order: Order, now: datetime) -> "Keys":
        """Return the keys with certificates of authority and server as they are ordered, new ones if necessary."""
        if order.schedule.is_authority_due(Certificate.read(self.ca.certificate), now):
            return replace(self, ca=self.ca.renew(order.schedule.ca, now)).with_server(order, now)
        return self.with_server(order, now)

    def with_server(self, order: Order, now: datetime) -> "Keys":
        """Return the keys with a server certificate as it is ordered, a new one if necessary."""
        if self.server_certificate:
            server, schedule = Certificate.read(self.server_certificate), order.schedule
            authority_end = Certificate.read(self.ca.certificate).not_after
            is_as_ordered = server.not_after == schedule.server_end(server.issued, authority_end)
            is_due = schedule.is_server_due(server.not_after, authority_end, now)
            if server.common_name == order.server_name and is_as_ordered and not is_due:
                return self
        leaf = self.ca.issue_server(order.server_name, order.schedule.server, now)
        return replace(self, server_certificate=leaf.certificate, server_key=leaf.key)

    @classmethod
    def load(cls, text: str) -> "Keys":
        """Return the keys that `dump` wrote."""
        stored = json.loads(text)
        return cls(
            CertificateAuthority(certificate=stored["ca"]["certificate"], key=stored["ca"]["key"]),
            stored["server"]["certificate"],
            stored["server"]["key"],
            stored["tlsCrypt"],
            ssh.HostKey(**stored["ssh"]),
            **{f"{key}_rotation": moment for key, moment in stored.get("rotations", {}).items()},
        )

    def dump(self) -> str:
        """Return the keys as JSON."""
        rotations = {"stack": self.stack_rotation, "gateway": self.gateway_rotation}
        return json.dumps(
            {
                "ca": {"certificate": self.ca.certificate, "key": self.ca.key},
                "server": {"certificate": self.server_certificate, "key": self.server_key},
                "tlsCrypt": self.tls_crypt,
                "ssh": {"private": self.ssh.private, "public": self.ssh.public},
                **({"rotations": rotations} if any(rotations.values()) else {}),
            }
        )

    def for_gateway(self) -> dict[str, str]:
        """Return the secrets of the gateway by `contract.GATEWAY_SECRETS`; the authority's key is not among them."""
        return {
            "ca.crt": self.ca.certificate,
            "server.crt": self.server_certificate,
            "server.key": self.server_key,
            "tls-crypt-v2.key": self.tls_crypt,
            "ssh_host_ed25519_key": self.ssh.private,
        }


def check_creation(store: ParameterStore, order: Order) -> None:
    """Raise `IssuerError` if a state without an authority finds that of another deployment.

    An authority without an owner was deployed before owners existed. Its clients would lose their certificates; without
    clients, it is the remainder of a creation that was cut off.
    """
    if store.values.get(order.names.owner) is None:
        is_foreign = order.names.keys in store.values and bool(store.under(order.names.clients))
    else:
        is_foreign = _is_foreign(store, order)
    if is_foreign:
        raise _foreign_error(order)


def check_update(store: ParameterStore, order: Order, former: str | None) -> None:
    """Raise `IssuerError` if the authority in a state is now another deployment's; `former` is the owner there."""
    if _is_foreign(store, order, former):
        raise _foreign_error(order)


def _is_foreign(store: ParameterStore, order: Order, *owners: str | None) -> bool:
    """Return whether SSM names an owner that is neither the order's nor one of `owners`, nor a restore."""
    owner = store.values.get(order.names.owner)
    return owner not in (None, order.owner, *owners) and _restore_state(store, order) is None


def _restore_state(store: ParameterStore, order: Order) -> str | None:
    """Return which of `contract.RESTORE_STATES` the authority is in; None if a deployment has it."""
    state = store.values.get(order.names.owner, "").partition(" ")[0]
    return state if state in contract.RESTORE_STATES else None


def check_restore(store: ParameterStore, order: Order) -> None:
    """Raise `IssuerError` if a restore was cut off: without its keys, a new authority would take their place."""
    if _restore_state(store, order) == contract.RESTORING:
        raise IssuerError(
            f"{order.names.authority} is restored in part only; run `drawbridge stack restore FILE --stack "
            f"{order.names.stack}` again with the same file"
        )


def _foreign_error(order: Order) -> IssuerError:
    return IssuerError(
        f"{order.names.authority} belongs to another deployment of stack {order.names.stack}, whose clients would lose "
        "their certificates; use the Pulumi backend that deployed it, or, if that deployment is gone for good, remove "
        f"the parameters under {order.names.authority}"
    )


def converge(
    store: ParameterStore, order: Order, now: datetime, stored_bundles: Bundles | None = None
) -> dict[str, Any]:
    """Make SSM and S3 hold what is ordered and return the public outputs; raises `IssuerError`.

    Without `stored_bundles`, bundles are in SSM.
    """
    order.check_rotations(now)
    check_restore(store, order)
    order.check_requests()
    # Certificates have no fractions of seconds, and their ends are compared with what is ordered.
    now = now.replace(microsecond=0)
    stored = store.values.get(order.names.keys)
    try:
        keys = Keys.load(stored).rotate(order, now).renew(order, now) if stored else Keys.create(order, now)
    except (PkiError, ValueError, KeyError, TypeError) as error:
        reason = str(error) if isinstance(error, PkiError) else type(error).__name__
        raise IssuerError(f"the authority's keys in {order.names.keys} cannot be used: {reason}") from None
    if order.owner:
        store.put(order.names.owner, order.owner, secret=False)
    store.put(order.names.keys, keys.dump(), secret=True)
    for name, value in keys.for_gateway().items():
        store.put(order.names.secret(name), value, secret=True)

    stored_bundles = stored_bundles or Bundles(ParameterBundles(store, order.names))
    register = Register(store, order.names)
    _register_unknown_bundles(stored_bundles, register, now)
    texts = stored_bundles.texts
    good = _find_good_bundles(texts, order, register, keys, now)
    if stale := _find_stale_bundles(texts, order, good):
        pulumi.log.warn(
            f"{order.names.clients}: the former bundles of {', '.join(stale)} do not connect any more; each of these "
            "clients needs its new bundle"
        )
    register.revoke_all_but({bundle.certificate.serial for bundle in good.values()}, now)
    stored_bundles.delete_all_but(good.keys())
    due = _find_due_certificates(order, keys, good, now)
    current = {client: bundle for client, bundle in good.items() if client not in due}
    changed = _render_changed_bundles(stored_bundles, order, keys, current)
    subject = f"bundles of clients under {order.names.clients}"
    progress = Progress(subject, len(order.profiles), done=len(current) - len(changed))
    for _ in stored_bundles.write(changed):
        progress.advance()
    issued: dict[str, Certificate] = {}
    waiting = [client for client in order.profiles if client not in current]
    for start in range(0, len(waiting), BATCH):
        clients = waiting[start : start + BATCH]
        issued |= _issue(stored_bundles, order, keys, register, clients, due, now, progress)
    stored_bundles.leave_former_places()
    warn_of_renewals(order.names, due, issued)
    return public_outputs(register, keys, _certificates(current) | issued)


@dataclass(frozen=True, slots=True, repr=False)
class GoodBundle:
    """A stored bundle whose certificate is valid."""

    text: str
    certificate: Certificate
    authority: Certificate
    """The authority's certificate in the bundle, which may be a former one."""
    connects: bool
    """Whether the gateway's present key opens its tls-crypt-v2 key."""


def _certificates(good: Mapping[str, GoodBundle]) -> dict[str, Certificate]:
    return {client: bundle.certificate for client, bundle in good.items()}


def _find_good_bundles(
    texts: Mapping[str, Sequence[str]], order: Order, register: Register, keys: Keys, now: datetime
) -> dict[str, GoodBundle]:
    """Return the bundles of ordered clients that have one which still works: of several, the newest that connects."""
    good = {}
    rotations = register.valid
    for client in order.profiles:
        usable = []
        for text in texts.get(client, ()):
            try:
                certificate = Certificate.read(bundles.certificate_of(text))
                authority = Certificate.read(bundles.ca_of(text))
                signed = is_same_authority(authority.certificate, keys.ca.certificate)
                complete = bool(bundles.tls_crypt_of(text)) and _has_ordered_key(text, client, order)
            except (PkiError, bundles.BundleError):
                continue
            valid = signed and complete and certificate.not_after > now and certificate.serial in rotations
            if valid and rotations[certificate.serial] >= order.client_rotations.get(client, ""):
                usable.append(GoodBundle(text, certificate, authority, _opens(keys, bundles.tls_crypt_of(text))))
        if usable:
            good[client] = max(usable, key=lambda bundle: (bundle.connects, bundle.certificate.issued))
    return good


def _has_ordered_key(bundle: str, client: str, order: Order) -> bool:
    """Return whether a bundle is for the key of the client's signing request or, without one, has a key.

    Raises `PkiError` and `BundleError`.
    """
    request = order.requests.get(client)
    if request is None:
        return bool(bundles.key_of(bundle))
    return bundles.has_key_file(bundle) and certifies(bundles.certificate_of(bundle), request, client)


def _find_due_certificates(
    order: Order, keys: Keys, good: Mapping[str, GoodBundle], now: datetime
) -> dict[str, Certificate]:
    """Return the certificates that have to be renewed: by their end, another lifetime, or an order to renew them."""
    authority_end, schedule = Certificate.read(keys.ca.certificate).not_after, order.schedule
    return {
        client: bundle.certificate
        for client, bundle in good.items()
        if bundle.certificate.not_after
        != schedule.client_end(client, bundle.certificate.issued, bundle.authority.not_after)
        or schedule.is_client_due(client, bundle.certificate.not_after, authority_end, now)
        or bundle.certificate.issued < order.renewal_of(client)
    }


def _opens(keys: Keys, key: str) -> bool:
    """Return whether the gateway's key opens a client's tls-crypt-v2 key, which says whose it is."""
    with suppress(PkiError):
        return tls_crypt.read_metadata(keys.tls_crypt, key) is not None
    return False


def _find_stale_bundles(texts: Mapping[str, Sequence[str]], order: Order, good: Mapping[str, GoodBundle]) -> list[str]:
    """Return the ordered clients whose stored bundle, which they have, the gateway will refuse from now on."""
    return [client for client in order.profiles if client in texts and not (client in good and good[client].connects)]


def _register_unknown_bundles(stored_bundles: Bundles, register: Register, now: datetime) -> None:
    """Register certificates of bundles without an entry, which somebody removed: they could never be revoked."""
    registered, unknown = register.entries, {}
    for client, texts in stored_bundles.texts.items():
        for text in texts:
            try:
                certificate = Certificate.read(bundles.certificate_of(text))
            except (PkiError, bundles.BundleError):
                continue
            if certificate.serial not in registered and certificate.not_after > now:
                unknown[client] = certificate
    register.add(unknown)


def _render_changed_bundles(
    stored_bundles: Bundles, order: Order, keys: Keys, good: Mapping[str, GoodBundle]
) -> dict[str, str]:
    """Return, by client, the bundles that have another profile, or are under another KMS key or in another place."""
    changed = {}
    for client, usable in good.items():
        stored = usable.text
        tls = _key_with_metadata(keys, bundles.tls_crypt_of(stored), usable.certificate.serial)
        key = None if client in order.requests else bundles.key_of(stored)
        bundle = _render_bundle(order, client, bundles.ca_of(stored), bundles.certificate_of(stored), key, tls)
        if not stored_bundles.has(client, bundle):
            changed[client] = bundle
    return changed


def _render_bundle(order: Order, client: str, ca: str, certificate: str, key: str | None, tls: str) -> str:
    profile = order.profiles[client] + (bundles.render_key_file(client) if key is None else "")
    return bundles.render_bundle(profile, ca, certificate, key, tls)


def _issue(
    stored_bundles: Bundles,
    order: Order,
    keys: Keys,
    register: Register,
    clients: Sequence[str],
    renewed: Mapping[str, Certificate],
    now: datetime,
    progress: Progress,
) -> dict[str, Certificate]:
    """Issue certificates to clients and write their bundles; return the certificates by the clients' names.

    Those in `renewed` stay valid beside the new ones. After a cut in the middle, the certificates without a bundle are
    revoked by the next run.
    """
    issued, texts = dict[str, Certificate](), {}
    for client in clients:
        try:
            certificate, key = _sign(order, keys, client, now)
            tls = tls_crypt.client_key(keys.tls_crypt, _key_metadata(certificate.serial))
        except PkiError as error:
            raise IssuerError(f"cannot issue a certificate for {client}: {error}") from None
        issued[client] = certificate
        texts[client] = _render_bundle(order, client, keys.ca.certificate, certificate.certificate, key, tls)
    former = {client: renewed[client].serial for client in clients if client in renewed}
    register.add(issued, order.client_rotations, former)
    for _ in stored_bundles.write(texts):
        progress.advance()
    return issued


def _sign(order: Order, keys: Keys, client: str, now: datetime) -> tuple[Certificate, str | None]:
    """Return a client's new certificate and its key, which only the client has if it sent a signing request.

    Raises `PkiError`.
    """
    # Not before the order to renew it, whose clock may be ahead: it would be carried out again and again.
    issued = max(now, order.renewal_of(client))
    lifetime = order.schedule.client_end(client, issued, Certificate.read(keys.ca.certificate).not_after) - issued
    if request := order.requests.get(client):
        return keys.ca.sign_request(request, client, lifetime, issued), None
    leaf = keys.ca.issue_client(client, lifetime, issued)
    return leaf, leaf.key


def _key_metadata(serial: int) -> bytes:
    """Return the metadata of a client's tls-crypt-v2 key, by which the gateway refuses those that are revoked."""
    return str(serial).encode()


def _key_with_metadata(keys: Keys, key: str, serial: int) -> str:
    """Return a client's tls-crypt-v2 key, a new one if it was issued before keys had metadata.

    The former key still opens sessions, so a client that does not fetch its bundle again is not locked out.
    """
    metadata = _key_metadata(serial)
    with suppress(PkiError):
        if tls_crypt.read_metadata(keys.tls_crypt, key) == metadata:
            return key
    return tls_crypt.client_key(keys.tls_crypt, metadata)


def public_outputs(register: Register, keys: Keys, clients: Mapping[str, Certificate]) -> dict[str, Any]:
    """Return the resource's outputs, none of them secret."""
    server = Certificate.read(keys.server_certificate)
    former = register.list_former(certificate.serial for certificate in clients.values())
    return {
        "caCertificate": keys.ca.certificate,
        "serverFingerprint": server.fingerprint,
        "serverNotAfter": format_time(server.not_after),
        "sshHostKey": keys.ssh.public,
        "clients": {
            client: {
                # As text: a serial has up to 160 bits, and Pulumi's numbers 53.
                "serial": str(certificate.serial),
                "fingerprint": certificate.fingerprint,
                "notAfter": format_time(certificate.not_after),
                **_former_output(former[certificate.serial]),
            }
            for client, certificate in sorted(clients.items())
        },
        "revoked": {
            str(serial): {"client": entry.client, "notAfter": format_time(entry.not_after)}
            for serial, entry in register.revoked.items()
        },
    }


def _former_output(former: Sequence[Entry]) -> dict[str, str]:
    """Return when the last of the certificates ends that a client had before its renewal, as an output."""
    return {"formerNotAfter": format_time(max(entry.not_after for entry in former))} if former else {}


class Issuer(ResourceProvider):
    """Creates, updates and deletes a gateway's authority."""

    # What is serialized is this class's name, which is not secret.
    serialize_as_secret_always = False

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        replaces = [key for key in ("stack", "end", "region", "account") if _olds.get(key) != _news.get(key)]
        changed = any(_olds.get(key) != _news.get(key) for key in INPUTS)
        order, now = Order.from_props(_news), _now()
        due = [*find_due(_olds, order.schedule, now)]
        for text in _describe_dates(_olds, order, due, now):
            pulumi.log.warn(f"{order.names.root}: {text}")
        is_due = bool(due) or _is_incomplete(_olds)
        return DiffResult(changes=changed or is_due, replaces=replaces, delete_before_replace=True)

    def create(self, props: dict[str, Any]) -> CreateResult:
        order = Order.from_props(props)
        store = _open_store(order)
        check_creation(store, order)
        if order.tags and _restore_state(store, order):
            store.tag(_list_parameters(store, order), ())
        outputs = converge(store, order, _now(), _open_bundles(store, order))
        return CreateResult(order.names.root, {**_inputs(props), **outputs})

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        order = Order.from_props(_news)
        store = _open_store(order)
        check_update(store, order, _olds.get("owner"))
        if (former := _olds.get("tags") or {}) != order.tags:
            store.tag(_list_parameters(store, order), former)
            if order.bucket:
                _open_objects(order, order.bucket, decrypt=False).tag()
        outputs = converge(store, order, _now(), _open_bundles(store, order, _olds.get("bucket")))
        return UpdateResult({**_inputs(_news), **outputs})

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        order = Order.from_props(props)
        store = _open_store(order)
        stored = store.values.get(order.names.keys)
        if stored is None or (order.owner and _is_foreign(store, order)):
            return ReadResult("", {})
        keys = Keys.load(stored)
        register = Register(store, order.names)
        texts = _open_bundles(store, order).texts
        good = _find_good_bundles(texts, order, register, keys, _now())
        return ReadResult(id_, {**_inputs(props), **public_outputs(register, keys, _certificates(good))})

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        order = Order.from_props(_props)
        # Without decryption: whoever destroys a stack need not be able to read its secrets.
        store = _open_store(order, decrypt=False)
        if order.owner and _is_foreign(store, order):
            pulumi.log.warn(f"{order.names.authority} belongs to another deployment and is not deleted")
            return
        if order.bucket:
            _open_objects(order, order.bucket, decrypt=False).delete_all_but(())
        store.delete(_list_parameters(store, order))


def _list_parameters(store: ParameterStore, order: Order) -> list[str]:
    """Return the names of the authority's parameters that exist."""
    paths = (order.names.clients, order.names.secrets, order.names.authority)
    return [name for path in paths for name in list(store.values) if name.startswith(f"{path}/")]


def _inputs(props: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs, which become outputs too: `diff` gets only the outputs of the last run."""
    return {key: props[key] for key in INPUTS if key in props}


def _is_incomplete(olds: Mapping[str, Any]) -> bool:
    """Return whether an update is due although no input changed: a bundle is missing, or an end of a revocation."""
    missing = set(olds["profiles"]) != set(olds["clients"])
    # States of earlier versions have the client alone, as text.
    return missing or any(isinstance(entry, str) for entry in olds["revoked"].values())


def _describe_dates(olds: Mapping[str, Any], order: Order, due: Sequence[str], now: datetime) -> Iterator[str]:
    """Yield what a preview says of the dates of certificates; `due` are those that are renewed."""
    if due:
        yield f"certificates that end soon are renewed: {'; '.join(due)}"
    former = Order.from_props(olds)
    yield from find_reordered(former.schedule, order.schedule, olds["clients"])
    renewed = [client for client in olds["clients"] if former.renewal_of(client) < order.renewal_of(client)]
    yield from find_ordered(renewed)
    yield from find_ending_former(olds, order.schedule, now)


def _open_store(order: Order, *, decrypt: bool = True) -> ParameterStore:
    session = boto3.Session(region_name=order.region)
    with translate_errors("reach", order.names.root):
        account = session.client("sts").get_caller_identity()["Account"]
    if account != order.account:
        raise IssuerError(
            f"the environment's AWS credentials are for account {account}, the stack's provider is in {order.account}; "
            "set AWS_PROFILE so that they are the same"
        )
    ssm = session.client("ssm", config=SSM_CONFIG)
    return ParameterStore(ssm, order.names, order.key, tier=order.tier, tags=order.tags, decrypt=decrypt)


def _open_bundles(store: ParameterStore, order: Order, former_bucket: str | None = None) -> Bundles:
    """Return the bundles where they are ordered; those in SSM, or else in a former bucket, have yet to move."""
    parameters = ParameterBundles(store, order.names)
    if order.bucket:
        return Bundles(_open_objects(order, order.bucket), [parameters])
    former: list[BundlePlace] = [_open_objects(order, former_bucket)] if former_bucket else []
    return Bundles(parameters, former)


def _open_objects(order: Order, bucket: str, *, decrypt: bool = True) -> ObjectBundles:
    s3 = boto3.Session(region_name=order.region).client("s3", config=S3_CONFIG)
    return ObjectBundles(s3, order.names, bucket, order.account, order.key, tags=order.tags, decrypt=decrypt)


def _now() -> datetime:
    return datetime.now(UTC)
