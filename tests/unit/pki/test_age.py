"""Files in the age format. Does not prove that a passphrase is hard to guess.

`FOREIGN` was written by another implementation, pyrage 1.4.0, which also read files of this one.
"""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki import age

PASSPHRASE = "six words that nobody can guess"

#: A cost that tests can pay often.
QUICK = 4

#: The content `CONTENT`, encrypted with `PASSPHRASE`.
FOREIGN = """
YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IHNjcnlwdCBrVkJtMGc0RHB3aEVGVTZucUxOd25nIDE1CmQ4ZC9JdXdRZm5NWkYwUURwMWZTVnlQRWxqWkdu
Tlg3Tlo1cVF2Rlo2SjgKLS0tIFc5MndLMXAvMDFHNnZCc1hkNERRZjRveHc2clIyRHlKZWIvdGQvN2tDRlEKSNaMSpSte0kCABf4S1xaTI9vqS+kLkkf
FweZX3aBHY9g+hkayljBamWs
"""
CONTENT = b"A backup.\n"


def encrypt(content: bytes) -> bytes:
    return age.encrypt_file(content, PASSPHRASE, work_factor=QUICK)


def test_a_file_of_another_implementation_is_read() -> None:
    assert age.decrypt_file(base64.b64decode(FOREIGN), PASSPHRASE) == CONTENT


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 131072, 200_000])
def test_a_file_is_read_as_it_was_written(size: int) -> None:
    content = bytes(number % 251 for number in range(size))
    assert age.decrypt_file(encrypt(content), PASSPHRASE) == content


def test_two_files_of_one_content_have_nothing_in_common() -> None:
    first, second = (encrypt(CONTENT).partition(b"scrypt ")[2] for _ in range(2))
    assert first[:22] != second[:22]
    assert first[-40:] != second[-40:]


def test_a_wrong_passphrase_is_an_error_of_its_own() -> None:
    with pytest.raises(age.PassphraseError, match="the passphrase is wrong"):
        age.decrypt_file(encrypt(CONTENT), PASSPHRASE.upper())


@given(st.data())
def test_a_file_that_was_cut_is_never_read(data: st.DataObject) -> None:
    file = encrypt(b"x" * 70_000)
    length = data.draw(st.integers(0, len(file) - 1) | st.sampled_from([len(file) - 4480, 65_700, 200]))
    with pytest.raises(age.AgeError):
        age.decrypt_file(file[:length], PASSPHRASE)


@given(st.data())
def test_a_file_that_was_changed_is_never_read(data: st.DataObject) -> None:
    file = bytearray(encrypt(CONTENT))
    position = data.draw(st.integers(0, len(file) - 1))
    file[position] ^= 1 << data.draw(st.integers(0, 7))
    # A higher cost would be paid before the change is found.
    if file.split(b"\n")[1].endswith(b" %d" % QUICK):
        with pytest.raises(age.AgeError):
            age.decrypt_file(bytes(file), PASSPHRASE)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (b"", "not an age file"),
        (b"PK\x03\x04", "not an age file"),
        (b"age-encryption.org/v1\n-> X25519 AAAA\nAAAA\n--- AAAA\n", "for keys and not with a passphrase"),
        (b"age-encryption.org/v1\n-> scr", "cut off or changed"),
    ],
)
def test_files_that_no_passphrase_opens(file: bytes, message: str) -> None:
    with pytest.raises(age.AgeError, match=message):
        age.decrypt_file(file, PASSPHRASE)


def test_a_file_cannot_make_the_machine_run_out_of_memory() -> None:
    file = encrypt(CONTENT).replace(b" %d\n" % QUICK, b" 40\n", 1)
    with pytest.raises(age.AgeError, match="work factor 40"):
        age.decrypt_file(file, PASSPHRASE)
