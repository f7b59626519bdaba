"""How a connection is encrypted and whom it believes. Imported only where TLS is configured: it costs megabytes."""

from __future__ import annotations

import ssl

from msrecd.errors import ConfigError
from msrecd.mqtt.settings import MqttSettings, check_key_file


def tls_context(settings: MqttSettings) -> ssl.SSLContext:
    """The verification every connection gets: the system's or the given CA, host name checked, TLS 1.2 or newer.

    Raises: ConfigError naming the file that cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=None if settings.ca_file is None else str(settings.ca_file))
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(f"mqtt.ca_file: {settings.ca_file}: {exc}") from exc
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.cert_file is not None:
        if settings.key_file is not None:
            check_key_file(settings.key_file)
        try:
            context.load_cert_chain(settings.cert_file, settings.key_file)
        except (OSError, ssl.SSLError) as exc:
            raise ConfigError(f"mqtt.cert_file: {settings.cert_file}: {exc}") from exc
    return context
