"""SSH host keys, read back by paramiko and by ssh-keygen. Does not prove: that a server offers them."""

import io
import shutil
import subprocess
from pathlib import Path

import paramiko
import pytest

from pki.ssh import host_key


def test_private_and_public_key_belong_together() -> None:
    key = host_key()
    kind, blob = key.public.split(" ")
    read = paramiko.Ed25519Key.from_private_key(io.StringIO(key.private))
    assert (read.get_name(), read.get_base64()) == (kind, blob) == ("ssh-ed25519", blob)
    assert host_key().public != key.public


def test_private_key_is_in_no_repr() -> None:
    assert "PRIVATE" not in repr(host_key())


@pytest.mark.allow_subprocess
@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="needs ssh-keygen on PATH")
def test_openssh_reads_it(tmp_path: Path) -> None:
    key = host_key()
    file = tmp_path / "key"
    file.touch(mode=0o600)
    file.write_text(key.private)
    done = subprocess.run(["ssh-keygen", "-y", "-f", file], check=True, capture_output=True, text=True, timeout=20)
    assert done.stdout.split()[:2] == key.public.split()
