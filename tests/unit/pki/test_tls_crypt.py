"""Keys for tls-crypt-v2 against the written format, and against keys that OpenVPN itself makes.

Does not prove: that an OpenVPN server takes them (unit/openvpn/test_real_openvpn.py does).
"""

import base64
import hashlib
import hmac
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from pki.authority import PkiError
from pki.tls_crypt import METADATA_LIMIT, client_key, read_metadata, server_key


def content(pem: str) -> bytes:
    head, *body, foot = pem.splitlines()
    assert (head, foot) == (f"-----BEGIN {head[11:-5]}-----", f"-----END {head[11:-5]}-----")
    return base64.b64decode("".join(body))


def unwrap(server: str, client: str) -> bytes:
    """A client key's metadata, type and all, as a server gets at it; fails if the key is wrapped for another."""
    encrypt_key, sign_key = content(server)[:32], content(server)[64:96]
    key, wrapped = content(client)[:256], content(client)[256:]
    tag, secret, length = wrapped[:32], wrapped[32:-2], wrapped[-2:]
    decryptor = Cipher(algorithms.AES(encrypt_key), modes.CTR(tag[:16])).decryptor()
    plain = decryptor.update(secret) + decryptor.finalize()
    assert int.from_bytes(length, "big") == len(wrapped) <= 1024
    assert hmac.compare_digest(tag, hmac.digest(sign_key, length + plain, hashlib.sha256))
    assert plain[:256] == key
    return plain[256:]


def test_server_key_is_two_keys_of_512_bits() -> None:
    assert server_key().startswith("-----BEGIN OpenVPN tls-crypt-v2 server key-----\n")
    assert len(content(server_key())) == 128
    assert server_key() != server_key()


@pytest.mark.parametrize("metadata", [b"", b"alice", bytes(METADATA_LIMIT)], ids=["none", "some", "most"])
def test_client_key_unwraps(metadata: bytes) -> None:
    server = server_key()
    assert unwrap(server, client_key(server, metadata)) == b"\x00" + metadata
    assert read_metadata(server, client_key(server, metadata)) == metadata
    assert read_metadata(server_key(), client_key(server, metadata)) is None


def test_client_key_is_wrapped_for_one_server() -> None:
    with pytest.raises(AssertionError):
        unwrap(server_key(), client_key(server_key()))


def test_every_client_key_is_another() -> None:
    server = server_key()
    assert client_key(server) != client_key(server)


def test_too_much_metadata_is_refused() -> None:
    with pytest.raises(PkiError, match=f"room for {METADATA_LIMIT} bytes of metadata, not for {METADATA_LIMIT + 1}"):
        client_key(server_key(), bytes(METADATA_LIMIT + 1))


@pytest.mark.parametrize("text", ["", "c2VjcmV0", "ä"])
def test_text_that_is_no_server_key_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(PkiError) as caught:
        client_key(text)
    assert str(caught.value) == "the text is not a valid OpenVPN tls-crypt-v2 server key"


def test_client_key_is_no_server_key() -> None:
    with pytest.raises(PkiError):
        client_key(client_key(server_key()))


@pytest.mark.allow_subprocess
@pytest.mark.skipif(not shutil.which("openvpn"), reason="needs openvpn on PATH")
def test_openvpn_s_own_keys_have_the_same_form(tmp_path: Path) -> None:
    def openvpn(*argv: str) -> None:
        subprocess.run(["openvpn", *argv], cwd=tmp_path, check=True, capture_output=True, timeout=20)

    openvpn("--genkey", "tls-crypt-v2-server", "theirs.server")
    assert unwrap((tmp_path / "theirs.server").read_text(), client_key((tmp_path / "theirs.server").read_text()))

    ours = server_key()
    (tmp_path / "ours.server").touch(mode=0o600)
    (tmp_path / "ours.server").write_text(ours)
    user_data = base64.b64encode(b"alice").decode()
    openvpn("--tls-crypt-v2", "ours.server", "--genkey", "tls-crypt-v2-client", "theirs.client", user_data)
    assert unwrap(ours, (tmp_path / "theirs.client").read_text()) == b"\x00alice"
