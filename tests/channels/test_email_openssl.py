"""Mail by SNS whose certificates and signatures are OpenSSL's: another hand than the library that checks them."""

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from attrs import evolve, field, frozen
from providers import CERTIFICATE, MAIL, SES, channel, received, refused, sns

OPENSSL = shutil.which("openssl")

pytestmark = pytest.mark.skipif(
    OPENSSL is None, reason="openssl is not installed, so its certificates are not checked: apt-get install openssl"
)


@frozen
class Signer:
    """A key, and its certificate for a host, valid for 30 days from now."""

    folder: Path
    host: str = "sns.amazonaws.com"
    certificate: bytes = field(init=False)

    def __attrs_post_init__(self):
        made = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-keyout", "key.pem")
        named = ("-subj", f"/CN={self.host}", "-addext", f"subjectAltName=DNS:{self.host}")
        object.__setattr__(self, "certificate", self.run(*made, *named))

    def sign(self, signed, _, digest):
        """Sign, as a key of the library does."""
        return self.run("dgst", f"-{digest.name}", "-sign", "key.pem", given=signed)

    def run(self, *arguments, given=b""):
        """Give what OpenSSL answers."""
        done = subprocess.run([OPENSSL, *arguments], cwd=self.folder, input=given, capture_output=True, check=True)
        return done.stdout


@pytest.fixture(scope="module")
def signer(tmp_path_factory):
    """Give the key that SNS signs with."""
    return Signer(tmp_path_factory.mktemp("sns"))


def delivered(signer, *, at=None, certificate=b"", **more):
    """Give a mail that SNS delivers now, or at another time, and what stands where its certificate is."""
    asked = sns(received(MAIL.decode()), key=signer, fetched={CERTIFICATE: certificate or signer.certificate}, **more)
    return evolve(asked, received_at=at or datetime.now(UTC))


@pytest.mark.parametrize("version", ["1", "2"])
def test_mail_that_openssl_signed_is_read(signer, version):
    """Both versions of SNS's signature are let in, and the mail is read."""
    asked = delivered(signer, version=version)

    channel(SES).verify(asked)

    assert [one.text for one in channel(SES).parse(asked)] == ["Is it blue?"]


def test_mail_with_a_changed_word_is_refused(signer):
    """A signature is of every byte of the message."""
    good = delivered(signer)

    assert refused(channel(SES), evolve(good, body=good.body.replace(b"blue", b"grey")))


@pytest.mark.parametrize("days", [-1, 31])
def test_certificate_of_openssl_is_believed_in_its_time_alone(signer, days):
    """One that has expired when the mail comes, or is not valid yet, proves nothing."""
    assert refused(channel(SES), delivered(signer, at=datetime.now(UTC) + timedelta(days=days)))


def test_certificate_of_another_key_proves_nothing(signer, tmp_path):
    """What one key signed is not proven by the certificate of another, though it names the same host."""
    other = Signer(tmp_path)

    assert refused(channel(SES), delivered(signer, certificate=other.certificate))
    assert not refused(channel(SES), delivered(other))


@pytest.mark.parametrize("host", ["sns.eu-west-1.amazonaws.com.evil.example", "s3.eu-west-1.amazonaws.com"])
def test_certificate_at_another_host_proves_nothing(tmp_path, host):
    """Whoever has a host of their own signs with a certificate of its name: it is neither wanted nor believed."""
    elsewhere = Signer(tmp_path, host)
    address = CERTIFICATE.replace("sns.eu-west-1.amazonaws.com", host)

    asked = evolve(delivered(elsewhere, SigningCertURL=address), fetched={address: elsewhere.certificate})

    assert channel(SES).wants(asked) == ()
    assert refused(channel(SES), asked)
