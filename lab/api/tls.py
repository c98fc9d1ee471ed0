"""Issue the certificates of the lab's AWS endpoints.

Each region has an authority of its own, which its machines trust. A client gets a certificate for whatever name it
sends, because AWS's endpoints have names without end (bucket.s3.region…). Source: RFC 6066 section 3 (server name
indication).
"""

import ssl
import threading

import trustme


class EndpointAuthority:
    """A certificate authority that lives as long as the process and keeps its key in memory."""

    def __init__(self) -> None:
        self._authority = trustme.CA(path_length=0, organization_name="AWS lab", organization_unit_name="Endpoints")
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._lock = threading.Lock()

    @property
    def certificate(self) -> str:
        """The authority's certificate as PEM."""
        return self._authority.cert_pem.bytes().decode()

    def create_server_context(self) -> ssl.SSLContext:
        """Return a server's TLS context that shows each client a certificate for the name it sends."""
        context = self._get_context("amazonaws.com")

        def select_certificate(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
            if name:
                connection.context = self._get_context(name)

        context.sni_callback = select_certificate
        return context

    def _get_context(self, name: str) -> ssl.SSLContext:
        with self._lock:
            if name not in self._contexts:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                self._authority.issue_cert(name).configure_cert(context)
                self._contexts[name] = context
            return self._contexts[name]
