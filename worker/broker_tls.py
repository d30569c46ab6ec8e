"""A broker that is reached over TLS is never reached without checking its certificate."""

from typing import Final
from urllib.parse import parse_qs, urlsplit

_CERTIFICATE_CHECK: Final = "ssl_cert_reqs"


def with_checked_certificate(url: str) -> str:
    """The URL of a broker, saying that its certificate is checked.

    Celery's transport checks none where a ``rediss://`` URL does not ask for it, and the Redis
    client checks all of them; said in the URL, both do the same.

    Args:
        url: starts with ``redis://`` or ``rediss://``.

    Raises:
        ValueError: the URL asks for TLS without a check.
    """
    parts = urlsplit(url)
    if parts.scheme.lower() != "rediss":
        return url
    query = parse_qs(parts.query)
    check = query.get(_CERTIFICATE_CHECK, ["required"])
    if check != ["required"] or query.get("ssl_check_hostname", ["true"]) != ["true"]:
        raise ValueError(
            f"the broker's certificate must be checked: {_CERTIFICATE_CHECK}=required; name the "
            "authorities that are trusted with ssl_ca_certs=FILE"
        )
    if _CERTIFICATE_CHECK in query:
        return url
    return f"{url}{'&' if parts.query else '?'}{_CERTIFICATE_CHECK}=required"
