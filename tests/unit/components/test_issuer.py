"""The authority's provider on moto's SSM: what it keeps, adopts, revokes and never tells. No engine calls it here."""

import base64
import json
from contextlib import suppress
from datetime import timedelta
from typing import Any

import dill  # type: ignore[import-untyped]
import pulumi
import pytest
from botocore.client import BaseClient
from pulumi.dynamic.dynamic import serialize_provider

import contract
from components import authority_provider, register
from components.authority_provider import Issuer
from components.owner import OwnerProvider
from components.register import IssuerError
from openvpn import bundle as bundles
from pki import tls_crypt
from pki.authority import Certificate
from tests.support.issuing import create_certificates, order_certificates, read_parameters, update_certificates

NAMES = contract.Names("dev")
PROPS = order_certificates(dict.fromkeys(("alice", "bob"), "client\nremote 192.0.2.1\n"))


def create(**changes: Any) -> dict[str, Any]:
    return create_certificates(PROPS | changes)


def update(olds: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return update_certificates(NAMES.root, olds, PROPS | changes)


def revoked(outs: dict[str, Any]) -> dict[str, str]:
    """Return the client of each revoked certificate, by the certificate's serial in decimal."""
    return {serial: entry["client"] for serial, entry in outs["revoked"].items()}


def only(*names: str) -> dict[str, str]:
    return {name: PROPS["profiles"][name] for name in names}


def test_parameters_and_where_they_are(ssm: Any) -> None:
    outs = create()
    serials = {client["serial"] for client in outs["clients"].values()}
    assert read_parameters(ssm, NAMES).keys() == {
        NAMES.owner,
        NAMES.keys,
        *(NAMES.secret(name) for name in contract.GATEWAY_SECRETS),
        *(NAMES.bundle(name) for name in ("alice", "bob")),
        f"{NAMES.issued}/page-1",
    }
    assert set(json.loads(read_parameters(ssm, NAMES)[f"{NAMES.issued}/page-1"])) == serials
    kinds = ssm.get_parameters_by_path(Path=NAMES.secrets)["Parameters"]
    assert {p["Type"] for p in kinds} == {"SecureString"}
    secrets = {
        name: ssm.get_parameter(Name=NAMES.secret(name), WithDecryption=True)["Parameter"]["Value"]
        for name in contract.GATEWAY_SECRETS
    }
    assert secrets["ca.crt"] == outs["caCertificate"]
    assert Certificate.read(secrets["server.crt"]).common_name == "dev.drawbridge"
    assert Certificate.read(secrets["server.crt"]).fingerprint == outs["serverFingerprint"]
    assert outs["sshHostKey"].startswith("ssh-ed25519 ")
    assert all(len(value) <= register.PARAMETER_LIMIT for value in read_parameters(ssm, NAMES).values())


def test_bundles_are_whole_and_belong_to_their_certificates(ssm: Any) -> None:
    outs = create()
    for name, client in outs["clients"].items():
        bundle = read_parameters(ssm, NAMES)[NAMES.bundle(name)]
        certificate = Certificate.read(bundles.certificate_of(bundle))
        assert bundle.startswith(PROPS["profiles"][name])
        assert bundles.ca_of(bundle) == outs["caCertificate"]
        assert (certificate.common_name, str(certificate.serial)) == (name, client["serial"])
        assert bundles.tls_crypt_of(bundle).startswith("-----BEGIN OpenVPN tls-crypt-v2 client key-----")


def test_outputs_hold_no_key(ssm: Any) -> None:
    text = json.dumps(create())
    assert "PRIVATE" not in text
    assert "BEGIN OpenVPN" not in text
    assert "PRIVATE" in "".join(read_parameters(ssm, NAMES).values())


def test_again_changes_nothing(ssm: Any) -> None:
    outs = create()
    before = read_parameters(ssm, NAMES)
    assert update(outs) == create() == outs
    assert read_parameters(ssm, NAMES) == before
    assert {p["Version"] for p in ssm.get_parameters_by_path(Path=NAMES.root, Recursive=True)["Parameters"]} == {1}


def test_a_new_profile_keeps_the_keys(ssm: Any) -> None:
    outs = create()
    before = read_parameters(ssm, NAMES)[NAMES.bundle("alice")]
    again = update(outs, profiles={**PROPS["profiles"], "alice": "client\nremote 192.0.2.2\n"})
    after = read_parameters(ssm, NAMES)[NAMES.bundle("alice")]
    assert again["clients"] == outs["clients"]
    assert after.startswith("client\nremote 192.0.2.2\n<ca>")
    assert bundles.key_of(after) == bundles.key_of(before)
    assert bundles.tls_crypt_of(after) == bundles.tls_crypt_of(before)


def test_a_tls_crypt_key_names_its_certificate(ssm: Any) -> None:
    """So the gateway need not answer it once the certificate is revoked."""
    outs = create()
    stored = read_parameters(ssm, NAMES)
    server = stored[NAMES.secret("tls-crypt-v2.key")]
    for name, client in outs["clients"].items():
        key = bundles.tls_crypt_of(stored[NAMES.bundle(name)])
        assert tls_crypt.read_metadata(server, key) == client["serial"].encode()


@pytest.mark.parametrize("former", ["without metadata", "damaged"])
def test_a_former_tls_crypt_key_is_replaced_and_the_certificate_stays(ssm: Any, former: str) -> None:
    outs = create()
    stored = read_parameters(ssm, NAMES)
    server, name = stored[NAMES.secret("tls-crypt-v2.key")], NAMES.bundle("alice")
    key = bundles.tls_crypt_of(stored[name])
    old = tls_crypt.client_key(server) if former == "without metadata" else key.replace("\n", "\n!", 1)
    text = stored[name].replace(key, old)
    ssm.put_parameter(Name=name, Value=text, Type="SecureString", Overwrite=True)
    assert update(outs) == outs
    after = read_parameters(ssm, NAMES)[name]
    serial = outs["clients"]["alice"]["serial"].encode()
    assert tls_crypt.read_metadata(server, bundles.tls_crypt_of(after)) == serial
    assert bundles.certificate_of(after) == bundles.certificate_of(text)
    assert bundles.key_of(after) == bundles.key_of(text)


def test_removing_a_client_revokes_it_for_ever(ssm: Any) -> None:
    first = create()
    serial = first["clients"]["bob"]["serial"]
    second = update(first, profiles=only("alice"))
    assert second["clients"] == {"alice": first["clients"]["alice"]}
    assert revoked(second) == {serial: "bob"}
    assert NAMES.bundle("bob") not in read_parameters(ssm, NAMES)
    third = update(second)
    assert revoked(third) == {serial: "bob"}
    assert third["clients"]["bob"]["serial"] != serial
    fourth = update(third, profiles=only("alice"))
    assert revoked(fourth) == {serial: "bob", third["clients"]["bob"]["serial"]: "bob"}


@pytest.mark.fault("7.10")
def test_a_lost_bundle_is_made_anew_and_the_old_one_revoked(ssm: Any) -> None:
    outs = create()
    ssm.delete_parameter(Name=NAMES.bundle("alice"))
    again = update(outs)
    assert revoked(again) == {outs["clients"]["alice"]["serial"]: "alice"}
    assert again["clients"]["alice"]["serial"] != outs["clients"]["alice"]["serial"]
    assert again["clients"]["bob"] == outs["clients"]["bob"]


def test_a_bundle_without_an_entry_can_still_be_revoked(ssm: Any) -> None:
    outs = create()
    serial = outs["clients"]["bob"]["serial"]
    ssm.delete_parameter(Name=f"{NAMES.issued}/page-1")
    assert revoked(update(outs, profiles=only("alice"))) == {serial: "bob"}


@pytest.mark.fault("7.10")
def test_a_bundle_that_was_scribbled_on_is_made_anew(ssm: Any) -> None:
    outs = create()
    ssm.put_parameter(Name=NAMES.bundle("alice"), Value="nonsense", Type="SecureString", Overwrite=True)
    again = update(outs)
    assert revoked(again) == {outs["clients"]["alice"]["serial"]: "alice"}
    assert bundles.key_of(read_parameters(ssm, NAMES)[NAMES.bundle("alice")])


class CutOffError(Exception):
    pass


WRITES = 10  # the owner, keys, five for the gateway, a page of the register, and a bundle for each of two clients


@pytest.mark.fault("7.7")
@pytest.mark.parametrize("allowed", range(WRITES))
def test_a_creation_cut_off_anywhere_is_finished_by_the_next(
    ssm: Any, monkeypatch: pytest.MonkeyPatch, allowed: int
) -> None:
    put, count = register.ParameterStore.put, 0

    def cut(self: register.ParameterStore, name: str, value: str, *, secret: bool) -> None:
        nonlocal count
        if count == allowed:
            raise CutOffError
        count += 1
        put(self, name, value, secret=secret)

    with monkeypatch.context() as patch, pytest.raises(CutOffError):
        patch.setattr(register.ParameterStore, "put", cut)
        Issuer().create(PROPS)
    left = read_parameters(ssm, NAMES)
    assert len(left) == allowed
    outs = create()
    after = read_parameters(ssm, NAMES)
    assert {name: after[name] for name in left if "/issued/" not in name} == {
        name: value for name, value in left.items() if "/issued/" not in name
    }
    assert outs["clients"].keys() == {"alice", "bob"}
    # Serials that were registered and never handed out are revoked, no others.
    assert len(outs["revoked"]) == {8: 2, 9: 1}.get(allowed, 0)
    assert create() == outs


@pytest.mark.fault("7.8")
@pytest.mark.parametrize("step", ["put", "delete"])
def test_a_revocation_cut_off_is_finished_by_the_next(ssm: Any, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    outs = create()

    def cut(*_: Any, **__: Any) -> None:
        raise CutOffError

    with monkeypatch.context() as patch, pytest.raises(CutOffError):
        patch.setattr(register.ParameterStore, "delete", cut)
        if step == "put":
            patch.setattr(register.Register, "revoke_all_but", cut)
        Issuer().update(NAMES.root, outs, PROPS | {"profiles": only("alice")})
    assert NAMES.bundle("bob") in read_parameters(ssm, NAMES)
    assert revoked(update(outs, profiles=only("alice"))) == {outs["clients"]["bob"]["serial"]: "bob"}
    assert NAMES.bundle("bob") not in read_parameters(ssm, NAMES)


def test_a_revoked_name_taken_up_again_after_a_cut_gets_new_keys(ssm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    outs = create()

    def cut(*_: Any) -> None:
        raise CutOffError

    with monkeypatch.context() as patch, pytest.raises(CutOffError):
        patch.setattr(register.ParameterStore, "delete", cut)
        Issuer().update(NAMES.root, outs, PROPS | {"profiles": only("alice")})
    again = update(outs)
    assert again["clients"]["bob"]["serial"] != outs["clients"]["bob"]["serial"]
    assert revoked(again) == {outs["clients"]["bob"]["serial"]: "bob"}


def test_the_server_is_renewed_in_time_and_the_clients_stay(ssm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    outs = create(lifetimes={"ca": 3650, "server": 100, "client": 365})
    start = authority_provider._now()
    for days, due in ((69, False), (71, True)):
        monkeypatch.setattr(authority_provider, "_now", lambda days=days: start + timedelta(days=days))
        assert Issuer().diff("", outs, outs).changes is due
    again = update(outs)
    assert again["serverFingerprint"] != outs["serverFingerprint"]
    assert (
        Certificate.read(read_parameters(ssm, NAMES)[NAMES.secret("server.crt")]).fingerprint
        == again["serverFingerprint"]
    )
    assert (again["clients"], again["caCertificate"]) == (outs["clients"], outs["caCertificate"])


def test_an_expired_client_gets_a_new_bundle(ssm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    outs = create()
    start = authority_provider._now()
    monkeypatch.setattr(authority_provider, "_now", lambda: start + timedelta(days=366))
    assert Issuer().diff("", outs, outs).changes is True
    assert update(outs)["clients"]["alice"]["serial"] != outs["clients"]["alice"]["serial"]


def test_another_server_name_makes_a_new_certificate(ssm: Any) -> None:
    create(serverName="other")
    assert Certificate.read(read_parameters(ssm, NAMES)[NAMES.secret("server.crt")]).common_name == "other"


@pytest.mark.parametrize(
    ("change", "changes", "replaces"),
    [
        ({}, False, []),
        ({"profiles": only("alice")}, True, []),
        ({"region": "eu-west-2"}, True, ["region"]),
        ({"stack": "other"}, True, ["stack"]),
    ],
)
def test_diff(ssm: Any, change: dict[str, Any], changes: bool, replaces: list[str]) -> None:
    found = Issuer().diff("", create(), PROPS | change)
    assert (found.changes, found.replaces, found.delete_before_replace) == (changes, replaces, True)


def test_read_sees_what_is_there(ssm: Any) -> None:
    outs = create()
    assert Issuer().read(NAMES.root, outs).outs == outs
    ssm.delete_parameter(Name=NAMES.bundle("bob"))
    seen = Issuer().read(NAMES.root, outs).outs
    assert seen is not None
    assert seen["clients"].keys() == {"alice"}
    assert Issuer().diff("", seen, PROPS).changes is True
    Issuer().delete(NAMES.root, outs)
    assert Issuer().read(NAMES.root, outs).id == ""


def test_delete_leaves_nothing_and_nobody_elses(ssm: Any) -> None:
    outs = create()
    ssm.put_parameter(Name=NAMES.release, Value="{}", Type="String")
    ssm.put_parameter(Name="/drawbridge/dev2/gateway/ca.crt", Value="x", Type="String")
    Issuer().delete(NAMES.root, outs)
    Issuer().delete(NAMES.root, outs)
    assert read_parameters(ssm, NAMES).keys() == {NAMES.release}
    assert ssm.get_parameter(Name="/drawbridge/dev2/gateway/ca.crt")


def read_tags(ssm: Any) -> list[dict[str, str]]:
    """Return the tags of each parameter."""
    lists = [
        ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId=name)["TagList"]
        for name in read_parameters(ssm, NAMES)
    ]
    return [{tag["Key"]: tag["Value"] for tag in tags} for tags in lists]


def test_every_parameter_has_the_default_tags_also_after_they_change(ssm: Any) -> None:
    own = contract.tags("dev")
    outs = create(tags={"Team": "network", "Stack": "other"})
    assert all(tags == {"Team": "network", **own} for tags in read_tags(ssm))
    outs = update(outs, tags={"Team": "home", "Cost": "1"})
    assert all(tags == {"Team": "home", "Cost": "1", **own} for tags in read_tags(ssm))
    update(outs)
    assert len(read_tags(ssm)) > 5 and all(tags == own for tags in read_tags(ssm))


@pytest.mark.fault("4.8")
def test_a_key_whose_policy_is_new_is_tried_again(ssm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.exceptions import ClientError

    denied = ClientError({"Error": {"Code": "AccessDeniedException", "Message": "kms:Encrypt"}}, "PutParameter")
    sleeps: list[float] = []
    monkeypatch.setattr("time.sleep", sleeps.append)
    store = register.ParameterStore(ssm, NAMES, "arn:aws:kms:eu-west-1:123456789012:key/a")
    answers = iter([denied, denied, None])

    def put(**_: Any) -> None:
        if error := next(answers, denied):
            raise error

    monkeypatch.setattr(store._ssm, "put_parameter", put)
    store.put(NAMES.keys, "SECRET", secret=True)
    assert len(sleeps) == 2
    with pytest.raises(IssuerError, match=r"AccessDeniedException; .*drawbridge:secrets\.users"):
        store.put(NAMES.keys, "OTHER", secret=True)


def test_a_deletion_decrypts_nothing(ssm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    outs, decrypted = create(), []
    client: Any = BaseClient
    call = client._make_api_call

    def record(self: Any, operation: str, arguments: dict[str, Any]) -> Any:
        decrypted.append(arguments.get("WithDecryption", False))
        return call(self, operation, arguments)

    monkeypatch.setattr(BaseClient, "_make_api_call", record)
    Issuer().delete(NAMES.root, outs)
    assert decrypted and not any(decrypted)
    assert read_parameters(ssm, NAMES) == {}


def test_credentials_of_another_account_are_refused(ssm: Any) -> None:
    with pytest.raises(IssuerError, match=r"^the environment's AWS credentials are for account 123456789012, .*111"):
        create(account="111111111111")
    assert read_parameters(ssm, NAMES) == {}


def test_a_bundle_that_is_too_long_is_refused_by_name(ssm: Any) -> None:
    with pytest.raises(
        IssuerError, match=r"^/drawbridge/dev/clients/alice/bundle would have \d+ characters"
    ) as refusal:
        create(profiles={"alice": "#" * 4000 + "\n"})
    assert "####" not in str(refusal.value)


def test_errors_of_aws_repeat_no_value(ssm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.exceptions import ClientError, ParamValidationError

    quoting = [
        ClientError({"Error": {"Code": "ValidationException", "Message": "value 'SECRET' is bad"}}, "PutParameter"),
        ParamValidationError(report="SECRET"),
    ]
    store = register.ParameterStore(ssm, NAMES)
    for error in quoting:

        def fail(*_: Any, error: Exception = error, **__: Any) -> None:
            raise error

        monkeypatch.setattr(store._ssm, "put_parameter", fail)
        with pytest.raises(IssuerError) as refusal:
            store.put(NAMES.keys, "SECRET", secret=True)
        assert str(refusal.value).startswith(f"cannot write {NAMES.keys} in SSM: ")
        assert "SECRET" not in str(refusal.value)
        # A traceback prints what is not suppressed.
        assert refusal.value.__suppress_context__


def test_keys_that_cannot_be_used_are_not_overwritten(ssm: Any) -> None:
    ssm.put_parameter(Name=NAMES.keys, Value='{"ca": "SECRET"}', Type="SecureString")
    with pytest.raises(
        IssuerError, match=r"^the authority's keys in /drawbridge/dev/authority/keys cannot be used"
    ) as e:
        create()
    assert "SECRET" not in str(e.value)
    assert read_parameters(ssm, NAMES) == {NAMES.keys: '{"ca": "SECRET"}'}


def test_a_new_state_names_the_provider_by_its_module_and_class() -> None:
    pickled = base64.b64decode(serialize_provider(Issuer()))
    assert b"components.authority_provider" in pickled and b"Issuer" in pickled
    assert len(pickled) < 200  # a name, and no code
    assert type(dill.loads(pickled)) is Issuer


def test_a_state_deployed_before_the_provider_moved_still_loads_it() -> None:
    """The text is what such a state holds under `__provider`."""
    pickled = base64.b64decode("gASVIwAAAAAAAACMEWNvbXBvbmVudHMuaXNzdWVylIwGSXNzdWVylJOUKYGULg==")
    assert b"components.issuer" in pickled
    assert type(dill.loads(pickled)) is Issuer


def test_repr_of_keys_holds_none(ssm: Any) -> None:
    create()
    keys = authority_provider.Keys.load(read_parameters(ssm, NAMES)[NAMES.keys])
    assert "PRIVATE" not in repr(keys)


REFUSAL = (
    "/drawbridge/dev/authority belongs to another deployment of stack dev, whose clients would lose their "
    "certificates; use the Pulumi backend that deployed it, or, if that deployment is gone for good, remove "
    "the parameters under /drawbridge/dev/authority"
)


def remove_under(ssm: Any, path: str) -> None:
    """Do what the refusal names as its remedy."""
    for name in read_parameters(ssm, NAMES):
        if name.startswith(f"{path}/"):
            ssm.delete_parameter(Name=name)


def without_owner(**changes: Any) -> dict[str, Any]:
    """Return the outputs of an authority that was deployed before owners existed."""
    props = {key: value for key, value in PROPS.items() if key != "owner"} | changes
    outs = Issuer().create(props).outs
    assert outs is not None and "owner" not in outs
    return outs


@pytest.mark.parametrize("has_owner", [True, False])
def test_another_deployment_cannot_create_over_an_authority(ssm: Any, has_owner: bool) -> None:
    if has_owner:
        create()
    else:
        without_owner()
    before = read_parameters(ssm, NAMES)
    with pytest.raises(IssuerError) as refusal:
        create(owner="another deployment", profiles={"carol": "client\n"})
    assert str(refusal.value) == REFUSAL
    assert read_parameters(ssm, NAMES) == before


def test_the_remedy_of_a_refused_creation_is_accepted(ssm: Any) -> None:
    first = create()
    remove_under(ssm, NAMES.authority)
    second = create(owner="another deployment", profiles=only("alice"))
    assert second["caCertificate"] != first["caCertificate"]
    assert set(revoked(second).values()) == {"alice", "bob"}
    assert NAMES.bundle("bob") not in read_parameters(ssm, NAMES)


def test_a_deployment_neither_changes_nor_deletes_what_became_anothers(
    ssm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    outs = create()
    remove_under(ssm, NAMES.authority)
    create(owner="another deployment")
    before = read_parameters(ssm, NAMES)
    with pytest.raises(IssuerError) as refusal:
        update(outs, profiles=only("alice"))
    assert str(refusal.value) == REFUSAL
    assert Issuer().read(NAMES.root, outs).id == ""
    warnings: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", warnings.append)
    Issuer().delete(NAMES.root, outs)
    assert warnings == ["/drawbridge/dev/authority belongs to another deployment and is not deleted"]
    assert read_parameters(ssm, NAMES) == before


def test_an_authority_without_an_owner_gets_one_at_the_next_update(ssm: Any) -> None:
    outs = without_owner()
    assert Issuer().diff(NAMES.root, outs, PROPS).changes is True
    assert Issuer().diff(NAMES.root, outs, PROPS).replaces == []
    assert update(outs) == {**outs, "owner": "one deployment"}
    assert read_parameters(ssm, NAMES)[NAMES.owner] == "one deployment"
    # The state of an update that was cut off has no owner yet.
    assert update(outs)["clients"] == outs["clients"]


def test_an_authority_follows_its_state_to_a_new_owner(ssm: Any) -> None:
    outs = create()
    assert update(outs, owner="the same deployment")["clients"] == outs["clients"]
    assert read_parameters(ssm, NAMES)[NAMES.owner] == "the same deployment"


def test_a_state_without_an_owner_deletes_its_authority(ssm: Any) -> None:
    Issuer().delete(NAMES.root, without_owner())
    assert read_parameters(ssm, NAMES) == {}


def test_each_owner_is_another() -> None:
    owners = {OwnerProvider().create({}).id for _ in range(3)}
    assert len(owners) == 3


def test_a_state_names_the_provider_of_owners_by_its_module_and_class() -> None:
    pickled = base64.b64decode(serialize_provider(OwnerProvider()))
    assert b"components.owner" in pickled and b"OwnerProvider" in pickled
    assert len(pickled) < 200  # a name, and no code


# Rotations

FIRST, SECOND = "2020-01-01T00:00:00Z", "2020-01-01T00:00:01Z"


def material(ssm: Any) -> dict[str, str]:
    """Everything that is secret, by what it is; of bob, who is never rotated alone, the parts of his bundle."""
    stored = read_parameters(ssm, NAMES)
    names = {name: NAMES.secret(name) for name in contract.GATEWAY_SECRETS}
    parts = {"certificate": bundles.certificate_of, "key": bundles.key_of, "tls-crypt": bundles.tls_crypt_of}
    return {
        "ca.key": json.loads(stored[NAMES.keys])["ca"]["key"],
        **{name: stored[path] for name, path in names.items()},
        **{
            f"{client} {part}": read(stored[NAMES.bundle(client)])
            for client in ("alice", "bob")
            for part, read in parts.items()
        },
    }


AUTHORITY = {"ca.crt", "ca.key"}
SERVER = {"server.crt", "server.key", "tls-crypt-v2.key", "ssh_host_ed25519_key"}
ALICE = {"alice certificate", "alice key", "alice tls-crypt"}
TLS_CRYPT = {"alice tls-crypt", "bob tls-crypt"}
BOB = {"bob certificate", "bob key", "bob tls-crypt"}

ROTATIONS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "client": ({"clients": {"alice": FIRST}}, ALICE),
    "gateway": ({"gateway": FIRST}, SERVER | TLS_CRYPT),
    "stack": ({"stack": FIRST}, AUTHORITY | SERVER | ALICE | BOB),
}


@pytest.mark.parametrize("rotation", ROTATIONS)
def test_a_rotation_replaces_its_keys_once_and_no_others(ssm: Any, rotation: str) -> None:
    rotations, replaced = ROTATIONS[rotation]
    outs, before = create(), material(ssm)
    assert Issuer().diff("", outs, PROPS | {"rotations": rotations}).changes is True
    again = update(outs, rotations=rotations)
    after = material(ssm)
    assert {name for name in before if before[name] != after[name]} == replaced
    assert all(len(value) <= register.PARAMETER_LIMIT for value in read_parameters(ssm, NAMES).values())
    # A second deployment has nothing to change, and changes nothing if it runs all the same.
    assert Issuer().diff("", again, PROPS | {"rotations": rotations}).changes is False
    stored = read_parameters(ssm, NAMES)
    assert update(again, rotations=rotations) == again
    assert read_parameters(ssm, NAMES) == stored


def test_a_rotation_of_a_client_revokes_its_former_certificate(ssm: Any) -> None:
    outs = create()
    again = update(outs, rotations={"clients": {"alice": FIRST}})
    assert revoked(again) == {outs["clients"]["alice"]["serial"]: "alice"}
    assert again["clients"]["bob"] == outs["clients"]["bob"]
    third = update(again, rotations={"clients": {"alice": SECOND}})
    assert len(third["revoked"]) == 2


def test_after_a_rotation_of_the_gateway_no_former_key_belongs_to_a_present_one(ssm: Any) -> None:
    """The old server key reads no new client's key, the new one no old client's key: each side hears only silence."""
    outs, before = create(), material(ssm)
    again, after = update(outs, rotations={"gateway": FIRST}), material(ssm)
    for old, new in ((before, after), (after, before)):
        assert tls_crypt.read_metadata(old["tls-crypt-v2.key"], new["alice tls-crypt"]) is None
    serial = outs["clients"]["alice"]["serial"].encode()
    assert tls_crypt.read_metadata(after["tls-crypt-v2.key"], after["alice tls-crypt"]) == serial
    assert (again["clients"], again["revoked"]) == (outs["clients"], {})
    assert again["sshHostKey"] != outs["sshHostKey"]


def test_after_a_rotation_of_the_stack_all_former_certificates_are_revoked(ssm: Any) -> None:
    outs = create()
    again = update(outs, rotations={"stack": FIRST})
    assert revoked(again) == {client["serial"]: name for name, client in outs["clients"].items()}
    for name in ("alice", "bob"):
        assert (
            bundles.ca_of(read_parameters(ssm, NAMES)[NAMES.bundle(name)])
            == again["caCertificate"]
            != outs["caCertificate"]
        )


@pytest.mark.parametrize("earlier", [{}, {"stack": FIRST, "gateway": FIRST, "clients": {"alice": FIRST}}])
def test_an_old_stack_file_brings_no_key_back_and_keeps_no_later_rotation_away(
    ssm: Any, earlier: dict[str, Any]
) -> None:
    outs = update(create(), rotations={"stack": SECOND, "gateway": SECOND, "clients": {"alice": SECOND}})
    before = read_parameters(ssm, NAMES)
    old = update(outs, rotations=earlier)
    assert read_parameters(ssm, NAMES) == before
    later = "2020-01-01T00:00:02Z"
    for rotation in ({"stack": later}, {"gateway": later}, {"clients": {"alice": later}}):
        before = read_parameters(ssm, NAMES)
        old = update(old, rotations=rotation)
        assert read_parameters(ssm, NAMES) != before


def test_a_new_authority_is_not_rotated_again(ssm: Any) -> None:
    rotations = {"stack": FIRST, "gateway": FIRST, "clients": {"alice": FIRST}}
    outs, before = create(rotations=rotations), read_parameters(ssm, NAMES)
    assert update(outs, rotations=rotations) == outs
    assert read_parameters(ssm, NAMES) == before


@pytest.mark.fault("7.9")
@pytest.mark.parametrize("rotation", ROTATIONS)
def test_a_rotation_cut_off_anywhere_is_finished_by_the_next(
    ssm: Any, monkeypatch: pytest.MonkeyPatch, rotation: str
) -> None:
    rotations, replaced = ROTATIONS[rotation]
    outs, before = create(), material(ssm)
    put, delete = register.ParameterStore._call, register.ParameterStore.delete
    allowed, count = 0, 0

    def write(self: register.ParameterStore, call: Any) -> None:
        nonlocal count
        count += 1
        if count > allowed:
            raise CutOffError
        put(self, call)

    def remove(self: register.ParameterStore, names: Any) -> None:
        nonlocal count
        count += 1
        if count > allowed:
            raise CutOffError
        delete(self, names)

    # The state keeps the inputs of the last run that came to its end. Each run comes one call further than the last.
    while True:
        count = 0
        with monkeypatch.context() as patch, suppress(CutOffError):
            patch.setattr(register.ParameterStore, "_call", write)
            patch.setattr(register.ParameterStore, "delete", remove)
            again = update(outs, rotations=rotations)
            break
        allowed += 1
        assert allowed < 40
    assert allowed > 2
    after = material(ssm)
    assert {name for name in before if before[name] != after[name]} == replaced
    for name, client in again["clients"].items():
        key = bundles.tls_crypt_of(read_parameters(ssm, NAMES)[NAMES.bundle(name)])
        assert tls_crypt.read_metadata(after["tls-crypt-v2.key"], key) == client["serial"].encode()
        assert client["serial"] not in again["revoked"]
    former = {client["serial"] for name, client in outs["clients"].items() if f"{name} certificate" in replaced}
    assert former <= set(again["revoked"])
    assert update(again, rotations=rotations) == again


@pytest.mark.parametrize(
    ("rotation", "stale"), [("client", "alice"), ("gateway", "alice, bob"), ("stack", "alice, bob"), (None, None)]
)
def test_a_deployment_says_whose_bundles_end(
    ssm: Any, monkeypatch: pytest.MonkeyPatch, rotation: str | None, stale: str | None
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", warnings.append)
    outs = create()
    update(outs, rotations=ROTATIONS[rotation][0] if rotation else {})
    assert warnings == [
        f"/drawbridge/dev/clients: the former bundles of {client} do not connect any more; each of these clients needs "
        "its new bundle"
        for client in filter(None, [stale])
    ]


def test_a_rotation_in_the_future_is_refused(ssm: Any) -> None:
    outs, before = create(), read_parameters(ssm, NAMES)
    for rotations in ({"stack": "2999-01-01T00:00:00Z"}, {"clients": {"alice": "2999-01-01T00:00:00Z"}}):
        with pytest.raises(
            IssuerError,
            match=r"^drawbridge:rotations has 2999-01-01T00:00:00Z, which is in the future; use the time of now$",
        ):
            update(outs, rotations=rotations)
    assert read_parameters(ssm, NAMES) == before
