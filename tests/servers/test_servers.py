from __future__ import annotations


def test_obstore(bucket, proxy):
    from obstore.store import S3Store

    bucket.put("k", b"x" * 1000)
    store = S3Store(bucket.name, client_options={"allow_http": True})
    assert bytes(store.get_range("k", start=10, end=20)) == b"x" * 10
    store.put("z", b"1" * 10_000_000)
    assert bytes(store.get("z").bytes()) == b"1" * 10_000_000
    assert [o["path"] for b in store.list() for o in b] == ["k", "z"]
    proxy.set(fault_share=1.0, fault_kinds=("503",), max_faults=2, storm=2)
    store.get("k")
    for r in proxy.log():
        print(r)


def test_boto(bucket, proxy):
    import boto3

    c = boto3.client("s3")
    c.put_object(Bucket=bucket.name, Key="a", Body=b"123")
    assert c.get_object(Bucket=bucket.name, Key="a")["Body"].read() == b"123"
    c.close()
    for r in proxy.log():
        print(r)
