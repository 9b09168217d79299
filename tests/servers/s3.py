"""A real S3 protocol server (moto's) on loopback.

    python -m tests.servers.s3 --bucket NAME -- COMMAND...

runs COMMAND with the environment of a new server that holds an empty bucket, and ends with COMMAND's code.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .children import START_SECONDS, child, die_with_parent, die_with_stdin, module

REGION = "us-east-1"


def environment_of(endpoint: str) -> dict[str, str]:
    """Return what tells S3 clients to use an endpoint, with credentials that moto does not look at."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1,localhost",  # loopback never goes through the machine's own proxy
        "no_proxy": "127.0.0.1,localhost",
    }


class S3Server:
    """A running server.

    Attributes:
        endpoint: its URL.
        environment: the variables that make S3 clients use it.
        client: a boto3 client of it, closed with the server.
    """

    def __init__(self, endpoint: str) -> None:
        import boto3
        from botocore.config import Config

        self.endpoint = endpoint
        self.environment = environment_of(endpoint)
        session = boto3.Session("testing", "testing", region_name=REGION)
        config = Config(proxies={}, s3={"addressing_style": "path"})
        self.client: Any = session.client("s3", endpoint_url=endpoint, config=config)

    def create_bucket(self, name: str) -> None:
        """Create an empty bucket."""
        self.client.create_bucket(Bucket=name)

    def upload(self, folder: Path, bucket: str, prefix: str = "") -> str:
        """Upload all files below a folder, named by their paths in it, and return the URL of what was uploaded."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                key = "/".join(filter(None, [prefix.strip("/"), path.relative_to(folder).as_posix()]))
                self.put(bucket, key, path.read_bytes())
        return f"s3://{bucket}/{prefix}".rstrip("/")

    def put(self, bucket: str, key: str, data: bytes) -> None:
        """Upload one object; all may read it, by plain HTTP too: `endpoint/bucket/key`."""
        self.client.put_object(Bucket=bucket, Key=key, Body=data, ACL="public-read")

    def keys(self, bucket: str) -> dict[str, int]:
        """Return the size in bytes of each object."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return {entry["Key"]: entry["Size"] for page in pages for entry in page.get("Contents", [])}

    def drop_bucket(self, name: str) -> None:
        """Delete a bucket and all its objects."""
        keys = [{"Key": key} for key in self.keys(name)]
        for first in range(0, len(keys), 1000):
            self.client.delete_objects(Bucket=name, Delete={"Objects": keys[first : first + 1000]})
        self.client.delete_bucket(Bucket=name)


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Run a server on a free port of loopback until the end of the block."""
    with child(module("s3", "--serve")) as running:
        server = S3Server(json.loads(running.line(START_SECONDS))["endpoint"])
        try:
            yield server
        finally:
            server.client.close()


def _serve() -> None:
    die_with_parent()
    die_with_stdin()
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    print(json.dumps({"endpoint": f"http://{host}:{port}"}), flush=True)
    threading.Event().wait()


def main() -> int:
    """Run a command beside a server, or serve."""
    parser = argparse.ArgumentParser(prog="tests.servers.s3", description=__doc__)
    parser.add_argument("--serve", action="store_true", help="only serve, until standard input ends")
    parser.add_argument("--bucket", action="append", default=[], help="a bucket to create")
    parser.add_argument("command", nargs="*", help="what runs beside the server")
    options = parser.parse_args()
    if options.serve:
        _serve()
    if not options.command:
        parser.error("no command; give one after --")
    with s3_server() as server:
        for bucket in options.bucket:
            server.create_bucket(bucket)
        return subprocess.run(options.command, env={**os.environ, **server.environment}).returncode


if __name__ == "__main__":
    sys.exit(main())
