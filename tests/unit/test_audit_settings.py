"""What a start writes into the audit trail: every setting, no secret."""

from dataclasses import fields

from app.access.started import started_with
from app.config import Settings

SECRETS = {
    "INFLUX_TOKEN": "s3cret-influx",
    "MEMDUMP_OIDC_CLIENT_SECRET": "s3cret-client",
}
OIDC = {
    "MEMDUMP_AUTH": "oidc",
    "MEMDUMP_OIDC_ISSUER": "https://login.example.org",
    "MEMDUMP_OIDC_CLIENT_ID": "dumps",
    "MEMDUMP_PUBLIC_URL": "https://dumps.example.org",
    "MEMDUMP_GROUP_ROLES": '{"*": "viewer"}',
    "INFLUX_URL": "http://127.0.0.1:8181",
    "LIBVIRT_URI": "qemu+ssh://somebody:s3cret-uri@kvm-07/system",
}


def test_a_start_tells_every_setting_and_no_secret() -> None:
    settings = Settings.from_environment({**OIDC, **SECRETS})
    noted = started_with(settings)
    assert set(noted.details) == {each.name for each in fields(settings)}
    assert "s3cret" not in str(noted)
    assert (noted.details["influx_token"], noted.details["auth"]) == ("set", "oidc")
    assert noted.details["libvirt_uri"] == "qemu+ssh://…@kvm-07/system"
