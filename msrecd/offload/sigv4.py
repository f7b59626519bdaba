"""Signature version 4 of Amazon S3, over the standard library (boto3 would be 15 MB and 25 MiB of memory).

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html. Pure.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import quote

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Who signs; the secrets show in no text."""

    access_key: str
    secret_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)


def signed_headers(
    credentials: Credentials,
    *,
    method: str,
    host: str,
    path: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
    payload_sha256: str,
    region: str,
    now: datetime,
) -> dict[str, str]:
    """All headers of a request, the signature among them.

    Args:
        path: percent-encoded, as it is sent.
        headers: further ones, with lower-case names; all are signed.
        payload_sha256: of the body, hex.
        now: UTC.
    """
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    all_headers = {**headers, "host": host, "x-amz-content-sha256": payload_sha256, "x-amz-date": stamp}
    if credentials.session_token:
        all_headers["x-amz-security-token"] = credentials.session_token
    names = sorted(all_headers)
    signed = ";".join(names)
    canonical = "\n".join(
        (
            method,
            path,
            canonical_query(query),
            "".join(f"{name}:{' '.join(all_headers[name].split())}\n" for name in names),
            signed,
            payload_sha256,
        )
    )
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{credentials.secret_key}".encode()
    for part in (stamp[:8], region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    authorization = f"AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, SignedHeaders={signed}, "
    return {**all_headers, "authorization": f"{authorization}Signature={signature}"}


def canonical_query(query: Mapping[str, str]) -> str:
    """The query, as it is signed and sent."""
    return "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in sorted(query.items()))


def encoded_path(bucket: str, key: str) -> str:
    """The path of an object: each part percent-encoded once, slashes kept."""
    return "/" + quote(f"{bucket}/{key}" if key else bucket, safe="/-_.~")
