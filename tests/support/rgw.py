"""A real S3 server on loopback for tests: a Ceph of one monitor, one OSD in memory and the gateway, up in seconds.

    def test_something(s3_server, monkeypatch):
        s3_server.use(monkeypatch)                      the environment variables of `s3_server.environment()`
        uri = f"s3://{s3_server.bucket()}/folder"       a bucket of the test's own

Debian's packages: radosgw ceph-mon ceph-osd ceph-common openssl, installed without their recommendations.
"""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = ("ceph", "ceph-authtool", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin", "openssl")

PACKAGES = "radosgw ceph-mon ceph-osd ceph-common openssl"

CONFIGURATION = """
[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{mon},v1:127.0.0.1:{mon_v1}]
mon_initial_members = a
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
auth_allow_insecure_global_id_reclaim = false
keyring = {folder}/keyring
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_ipv6 = false
run_dir = {folder}
admin_socket = {folder}/$name.asok
log_file = {folder}/$name.log
pid_file = {folder}/$name.pid
crash_dir = {folder}
log_to_stderr = false
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pgp_num = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_allow_pool_delete = true
mon_max_pg_per_osd = 1000
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
mon_tick_interval = 1
osd_mon_report_interval = 1
mon_data_avail_crit = 1
mon_data_avail_warn = 2
[mon]
mon_data = {folder}/mon
[mon.a]
host = localhost
[osd]
osd_data = {folder}/osd
osd_objectstore = memstore
memstore_device_bytes = 4294967296
osd_op_num_shards = 1
osd_client_watch_timeout = 2
osd_default_notify_timeout = 2
[client.rgw]
rgw_frontends = beast endpoint=127.0.0.1:{port} ssl_endpoint=127.0.0.1:{tls} ssl_certificate={folder}/server.pem
rgw_thread_pool_size = 32
rgw_data = {folder}/rgw
rgw_enable_usage_log = false
rgw_enable_ops_log = false
rgw_gc_obj_min_wait = 5
"""


@dataclass(frozen=True)
class User:
    """Who may sign requests."""

    name: str
    access_key: str
    secret_key: str


@dataclass
class S3Server:
    """A server that runs until `stop`."""

    folder: Path
    port: int
    tls_port: int
    owner: User = field(default_factory=lambda: User("owner", "owneraccess", uuid.uuid4().hex))
    """Owns the buckets that `bucket` makes."""
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    clients: dict[User, Any] = field(default_factory=dict)

    @property
    def endpoint(self) -> str:
        """The server's URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def tls_endpoint(self) -> str:
        """The same server's URL with TLS; its certificate is trusted by who trusts `authority`."""
        return f"https://127.0.0.1:{self.tls_port}"

    @property
    def authority(self) -> Path:
        """The certificate for AWS_CA_BUNDLE."""
        return self.folder / "certificate.pem"

    @property
    def access_key(self) -> str:
        """The owner's."""
        return self.owner.access_key

    @property
    def secret_key(self) -> str:
        """The owner's."""
        return self.owner.secret_key

    def environment(self, user: User | None = None) -> dict[str, str]:
        """The variables with which a process finds this server, as its owner or another user."""
        user = user or self.owner
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": user.access_key,
            "AWS_SECRET_ACCESS_KEY": user.secret_key,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def use(self, monkeypatch: pytest.MonkeyPatch, user: User | None = None, **variables: str) -> None:
        """Sets `environment` for this process, `variables` over it; no other AWS_ or LLM2LLM_S3_ variable stays."""
        for name in [name for name in os.environ if name.startswith(("AWS_", "LLM2LLM_S3_"))]:
            monkeypatch.delenv(name)
        for name, value in {**self.environment(user), **variables}.items():
            monkeypatch.setenv(name, value)

    def boto(self, user: User | None = None) -> Any:
        """A plain boto3 client, to arrange and look at things behind the tested code's back."""
        import boto3
        from botocore.config import Config

        user = user or self.owner
        if user in self.clients:
            return self.clients[user]
        self.clients[user] = boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=user.access_key,
            aws_secret_access_key=user.secret_key,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required"),
        )
        return self.clients[user]

    def bucket(self, user: User | None = None) -> str:
        """The name of a new bucket, the owner's or another user's."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        self.boto(user).create_bucket(Bucket=name)
        return name

    def user(self) -> User:
        """A new user, who owns nothing."""
        user = User(f"user-{uuid.uuid4().hex[:12]}", uuid.uuid4().hex, uuid.uuid4().hex)
        self.admin(
            "user", "create", f"--uid={user.name}", "--display-name=test",
            f"--access-key={user.access_key}", f"--secret-key={user.secret_key}",
        )  # fmt: skip
        return user

    def let(self, user: User, bucket: str, *actions: str) -> None:
        """Lets a user do only these actions, such as `s3:GetObject`, in a bucket, from the next request on."""
        policy = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"AWS": [f"arn:aws:iam:::user/{user.name}"]},
                    "Action": list(actions),
                    "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
                }
            ],
        }
        self.boto().put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))

    def revoke(self, user: User) -> None:
        """Takes a user's key away."""
        self.admin("key", "rm", f"--uid={user.name}", "--key-type=s3", f"--access-key={user.access_key}")

    def admin(self, *arguments: str) -> str:
        """What `radosgw-admin` prints."""
        return _run("radosgw-admin", "-c", str(self.folder / "ceph.conf"), *arguments)

    def kill(self) -> None:
        """Ends the gateway at once, as a crash would; what it has acknowledged is kept."""
        gateway = self.processes.pop("radosgw")
        gateway.kill()
        gateway.wait()

    def restart(self) -> None:
        """Starts the gateway, on the ports it had, and waits until it answers."""
        self._start("radosgw", "-n", "client.rgw")
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(self.endpoint, timeout=5).close()
                return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                if time.monotonic() > deadline or self.processes["radosgw"].poll() is not None:
                    raise
                time.sleep(0.05)

    def start(self) -> None:
        """Makes the cluster and starts all of it."""
        folder, conf = self.folder, str(self.folder / "ceph.conf")
        fsid = str(uuid.uuid4())
        mon, mon_v1 = free_ports(2)
        for name in ("mon", "osd", "rgw"):
            (folder / name).mkdir()
        _run(
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
            "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", f"{folder}/key.pem", "-out", str(self.authority),
        )  # fmt: skip
        (folder / "server.pem").write_bytes((folder / "key.pem").read_bytes() + self.authority.read_bytes())
        Path(conf).write_text(
            CONFIGURATION.format(folder=folder, fsid=fsid, mon=mon, mon_v1=mon_v1, port=self.port, tls=self.tls_port)
        )
        keyring = str(folder / "keyring")
        for entity, *caps in (
            ("mon.", "mon", "allow *"),
            ("client.admin", "mon", "allow *", "osd", "allow *", "mgr", "allow *"),
            ("client.rgw", "mon", "allow rwx", "osd", "allow rwx"),
            ("osd.0", "mon", "allow profile osd", "osd", "allow *"),
        ):
            create = ["--create-keyring"] if entity == "mon." else []
            pairs = [option for who, what in zip(caps[::2], caps[1::2], strict=True) for option in ("--cap", who, what)]
            _run("ceph-authtool", *create, keyring, "--gen-key", "-n", entity, *pairs)
        addresses = f"[v2:127.0.0.1:{mon},v1:127.0.0.1:{mon_v1}]"
        _run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", addresses, f"{folder}/monmap")
        _run("ceph-mon", "-c", conf, "-i", "a", "--mkfs", "--monmap", f"{folder}/monmap", "--keyring", keyring)
        self._start("ceph-mon", "-i", "a")
        osd = str(uuid.uuid4())
        _run("ceph", "-c", conf, "osd", "new", osd)
        _run("ceph-osd", "-c", conf, "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._start("ceph-osd", "-i", "0")
        self.admin(
            "user", "create", f"--uid={self.owner.name}", "--display-name=owner",
            f"--access-key={self.access_key}", f"--secret-key={self.secret_key}",
        )  # fmt: skip
        self.restart()

    def stop(self) -> None:
        """Ends all of it and removes what it wrote."""
        while self.processes:
            _, process = self.processes.popitem()
            process.kill()
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, program: str, *arguments: str) -> None:
        # The daemons end with this process, however it ends.
        command = ["setpriv", "--pdeathsig", "KILL", program, "-f", "-c", str(self.folder / "ceph.conf"), *arguments]
        with open(self.folder / f"{program}.out", "ab") as out:
            self.processes[program] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired as problem:
        raise RuntimeError(f"{command[0]} did not end: {problem.stderr!r}") from None
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:6])} ... ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def free_ports(count: int) -> list[int]:
    """Ports that the system says are free."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A Ceph RGW of this session's own. Skips where it is not installed; on CI that is a failure."""
    if missing := [program for program in (*PROGRAMS, "setpriv") if not shutil.which(program)]:
        reason = f"no {', '.join(missing)}: apt-get install --no-install-recommends {PACKAGES}"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    port, tls_port = free_ports(2)
    # Not pytest's tmp_path: the paths of Ceph's sockets may have no more than 107 characters.
    server = S3Server(Path(tempfile.mkdtemp(prefix="s3-")), port, tls_port)
    try:
        server.start()
        yield server
    finally:
        server.stop()
