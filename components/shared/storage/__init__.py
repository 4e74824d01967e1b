"""Objects and folders in object storage or on a local disk, by the same few functions.

    write_bytes("s3://models/run-7/config.json", data)       whole or absent
    read_bytes("runs/7/config.json")                         a local path works alike
    create_bytes("s3://models/run-7/claim", data)            True for exactly one of many writers
    upload_folder("student", "s3://models/run-7/student")    readers see all of it or nothing
    download_folder("s3://models/run-7/student", "student")  every file checked against the manifest
    fetched("s3://models/run-7/student")                     a copy on this machine, kept for the next who asks
    append_generation("s3://models/production", data, after=3)   moves a pointer; False when another was faster

A URI is a local path, `s3://bucket/key`, or `minio://bucket/key`, which Kubeflow writes for the same. The server and
the credentials come from the environment, where Kubernetes and the AWS tools put them:

- credentials: boto3's standard chain: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a mounted file
  (AWS_SHARED_CREDENTIALS_FILE), workload identity (AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN), an instance's role;
  LLM2LLM_S3_ANONYMOUS=1 signs nothing;
- AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL: a server other than AWS;
- AWS_REGION or AWS_DEFAULT_REGION;
- AWS_CA_BUNDLE: a file of certificates to trust;
- LLM2LLM_S3_ADDRESSING: `path` (https://server/bucket/key; default with an endpoint of one's own) or `virtual`
  (https://bucket.server/key);
- AWS_MAX_ATTEMPTS: tries of one request; default 7, with growing, random waits, on average half a minute together.

What goes wrong is a `UserError` that says what to do and never holds a secret; what is not there is `NotThere`, one of
these. boto3 is imported at the first use of an `s3://` URI.

A server must know conditional writes (`If-None-Match: *`) for `create_bytes` and `append_generation`: AWS, Ceph and
MinIO do.
"""

from llm2llm.components.shared.storage.errors import NotThere
from llm2llm.components.shared.storage.folders import (
    FileEntry,
    delete_folder,
    download_folder,
    read_manifest,
    upload_folder,
    verify_folder,
)
from llm2llm.components.shared.storage.generations import append_generation, latest_generation
from llm2llm.components.shared.storage.model_cache import content_of, fetched
from llm2llm.components.shared.storage.objects import (
    Stored,
    create_bytes,
    delete,
    exists,
    list_objects,
    list_uris,
    read_bytes,
    size,
    write_bytes,
)
from llm2llm.components.shared.storage.uris import is_remote, join

__all__ = [
    "FileEntry",
    "NotThere",
    "Stored",
    "append_generation",
    "content_of",
    "create_bytes",
    "delete",
    "delete_folder",
    "download_folder",
    "exists",
    "fetched",
    "is_remote",
    "join",
    "latest_generation",
    "list_objects",
    "list_uris",
    "read_bytes",
    "read_manifest",
    "size",
    "upload_folder",
    "verify_folder",
    "write_bytes",
]
