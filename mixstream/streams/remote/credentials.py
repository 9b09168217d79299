"""Credentials of S3 that obstore does not find by itself: those of profiles, which boto3 reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixstream.errors import MissingExtraError, RemoteError
from mixstream.streams.remote.environment import is_on

_ENOUGH = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE")  # the environment's own, before any profile


def s3_credentials(environ: Mapping[str, str]) -> Any:
    """Return what gives obstore its credentials, renewed as they expire, or None where obstore finds them itself.

    The order is boto3's: the environment, the profile (``AWS_PROFILE``, else ``default``), the machine's own role.

    Raises:
        MissingExtraError: there is a profile, and no boto3 to read it.
        RemoteError: the profile is not there, or there are no credentials at all.
    """
    if is_on(environ.get("AWS_SKIP_SIGNATURE")) or any(environ.get(name) for name in _ENOUGH):
        return None
    try:
        from botocore.exceptions import BotoCoreError
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ModuleNotFoundError:
        if environ.get("AWS_PROFILE") or _credentials_file(environ).exists():
            raise MissingExtraError(
                "AWS profiles are read by the package 'boto3'; install it with pip install boto3, or set "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ) from None
        return None
    try:
        return Boto3CredentialProvider()
    except BotoCoreError as problem:
        raise RemoteError(f"s3: the profile cannot be used ({problem}); see AWS_PROFILE and ~/.aws") from None
    except ValueError:  # of the provider: boto3 found none
        raise RemoteError(
            "s3: no credentials in the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), in a profile "
            "(AWS_PROFILE, ~/.aws/credentials) or of this machine; set them, or AWS_SKIP_SIGNATURE=true for a "
            "bucket that is open to all"
        ) from None


def _credentials_file(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials").expanduser()
