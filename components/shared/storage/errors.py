"""One clear error for each thing that goes wrong between here and a server."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.storage.uris import S3Name


class NotThere(UserError):
    """Nothing is stored under this name."""


def not_there(place: object) -> NotThere:
    """The error for a place where nothing is."""
    return NotThere(f"{place} is not there: check the name")


_ACTIONS = {
    "ListObjectsV2": "s3:ListBucket",
    "HeadObject": "s3:GetObject",
    "DeleteObjects": "s3:DeleteObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
}
"""The permission that an operation needs, where it is not called like the operation."""

_NO_KEY = "the server does not know this access key: check AWS_ACCESS_KEY_ID, and that the key was not revoked"
_EXPIRED = "the session's token is no longer valid: fetch new credentials"
_REFUSED = {
    "NoSuchBucket": "there is no such bucket: create it, or correct its name and AWS_ENDPOINT_URL",
    "InvalidBucketName": "the server takes this for no bucket's name: correct it",
    "InvalidAccessKeyId": _NO_KEY,
    "SignatureDoesNotMatch": "the secret does not belong to the access key: check AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": _EXPIRED,
    "InvalidToken": _EXPIRED,
    "RequestTimeTooSkewed": "this machine's clock and the server's are too far apart: set the clock (NTP)",
    "QuotaExceeded": "the bucket's or user's quota is used up: delete something or raise the quota",
    "XMinioAdminBucketQuotaExceeded": "the bucket's quota is used up: delete something or raise the quota",
    "XMinioStorageFull": "the server's disks are full: delete something or add disks",
    "EntityTooLarge": "the server takes no object as large as this",
    "BadDigest": "what arrived at the server is not what was sent: the network damages data",
    "NotImplemented": "the server lacks this operation; for conditional writes it must know `If-None-Match: *`",
}
_WRONG_REGION = {"AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException", "301"}
_THROTTLED = {
    "SlowDown",
    "SlowDownRead",
    "SlowDownWrite",
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "BandwidthLimitExceeded",
    "TooManyRequests",
    "429",
}


def is_absent(problem: Exception) -> bool:
    """Whether the server said that the object is not there (a missing bucket is something else)."""
    return code_of(problem) == "NoSuchKey"


def code_of(problem: Exception) -> str:
    """The server's own code for what went wrong; empty when it never answered."""
    return str(_error(problem).get("Code", ""))


def _error(problem: Exception) -> dict[str, Any]:
    return dict(getattr(problem, "response", None) or {}).get("Error", {}) or {}


def explained(problem: Exception, place: S3Name, endpoint: str) -> UserError:
    """The UserError for what boto3 raised.

    Args:
        problem: From boto3, botocore or s3transfer. Its own text is never passed on: it can quote a request.
        place: The object or folder that was asked for.
        endpoint: The server's URL.
    """
    from botocore import exceptions as boto
    from botocore.parsers import ResponseParserError

    if isinstance(problem, UserError):
        return problem
    server = _server(endpoint)
    if isinstance(problem, boto.ClientError):
        return _answered(problem, place, server)
    if isinstance(problem, (boto.NoCredentialsError, boto.PartialCredentialsError)):
        lacking = "no" if isinstance(problem, boto.NoCredentialsError) else "only half of the"
        return UserError(
            f"{place}: there are {lacking} credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, mount a file "
            "and set AWS_SHARED_CREDENTIALS_FILE, give the pod a service account with a role, or set "
            "LLM2LLM_S3_ANONYMOUS=1 for a public bucket"
        )
    if isinstance(problem, ResponseParserError):
        return no_s3(place, endpoint)
    if isinstance(problem, boto.SSLError):
        return UserError(f"{place}: no secure connection to {server}: {_tls(str(problem))}")
    if isinstance(problem, boto.ReadTimeoutError):
        return UserError(
            f"{place}: {server} accepts connections but does not answer in time: see whether it is overloaded"
        )
    if isinstance(
        problem, (boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError, ConnectionError, TimeoutError)
    ):
        return UserError(f"{place}: {server} cannot be reached: check AWS_ENDPOINT_URL, the network and the server")
    if isinstance(
        problem,
        (boto.CredentialRetrievalError, boto.TokenRetrievalError, boto.MetadataRetrievalError, boto.SSOError),
    ):
        return UserError(
            f"{place}: the credentials could not be fetched ({type(problem).__name__}): check the environment's AWS_ "
            "variables and the files that they name"
        )
    return UserError(f"{place}: {type(problem).__name__} while talking to {server}")


def no_s3(place: S3Name, endpoint: str) -> UserError:
    """The error for a server whose answers are not those of S3, such as a web page."""
    server = _server(endpoint)
    return UserError(f"{place}: {server} does not speak S3: check AWS_ENDPOINT_URL; a console has a port of its own")


def _answered(problem: Any, place: S3Name, server: str) -> UserError:
    """What a server that answered has said."""
    code, operation = code_of(problem), problem.operation_name
    about = dict(problem.response.get("ResponseMetadata") or {})
    status, tries = about.get("HTTPStatusCode", 0), about.get("RetryAttempts", 0) + 1
    if operation.startswith("AssumeRole"):
        return UserError(
            f"{place}: the identity service refused the role ({code}): check AWS_ROLE_ARN, the role's trust policy and "
            "the service account's token"
        )
    if is_absent(problem) or (operation, status) == ("HeadObject", 404):
        return not_there(place)
    if code in _REFUSED:
        what = f"s3://{place.bucket}" if "Bucket" in code else str(place)
        return UserError(f"{what}: {_REFUSED[code]}")
    if code in _WRONG_REGION:
        headers = about.get("HTTPHeaders") or {}
        region = _error(problem).get("Region") or headers.get("x-amz-bucket-region")
        right = f"set AWS_REGION={region}" if region else "set AWS_REGION to the bucket's region"
        return UserError(f"s3://{place.bucket}: the bucket is in another region: {right}")
    if code in _THROTTLED or status in (429, 503):
        return UserError(
            f"{place}: {server} was too busy ({code}) {tries} times in a row: try later, or raise AWS_MAX_ATTEMPTS"
        )
    if code == str(status) and operation != "HeadObject" and status < 500:
        return no_s3(place, server)
    if status in (401, 403):
        action = _ACTIONS.get(operation, f"s3:{operation}")
        # AWS and Ceph tell that an object is not there only to who may list the bucket.
        hint = " (or, if nothing is stored there, s3:ListBucket)" if action == "s3:GetObject" else ""
        return UserError(f"{place}: not permitted: these credentials need {action} there{hint}")
    if status == 507:
        return UserError(f"{place}: {_REFUSED['XMinioStorageFull']}")
    if status >= 500:
        return UserError(
            f"{place}: {server} failed ({code or status}) {tries} times in a row: look at its log, and check "
            "AWS_ENDPOINT_URL"
        )
    return UserError(f"{place}: {server} refused {operation} ({code or status})")


def _tls(text: str) -> str:
    if "WRONG_VERSION_NUMBER" in text or "record layer" in text:
        return "it speaks plain HTTP there: write http:// in AWS_ENDPOINT_URL, or use its TLS port"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        if "expired" in text:
            return "its certificate has expired: renew it"
        if "mismatch" in text or "doesn't match" in text:
            return "its certificate is for another name: use that name in AWS_ENDPOINT_URL"
        return "its certificate is not trusted: set AWS_CA_BUNDLE to a file with the authority's certificate"
    return "the TLS handshake failed: check AWS_ENDPOINT_URL and AWS_CA_BUNDLE"


def _server(endpoint: str) -> str:
    """The endpoint without what may stand before an @ in it."""
    parts = urlsplit(endpoint)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
