"""Sign links to objects of a stack that work for a limited time, without credentials.

Source: Amazon S3 User Guide, "Download and upload objects with presigned URLs": a link has the permissions of whoever
has signed it, it works any number of times, and it ends with temporary credentials.
"""

from botocore.config import Config

from drawbridge.operate.account import Account, translate_aws_errors


def presign(account: Account, bucket: str, key: str, seconds: int, *, content_type: str | None = None) -> str:
    """Return a link to an object that works for so many seconds; raises `AwsError`.

    It is not checked whether the object exists. A lab's link leads to the lab's S3 by AWS's name, because clients do
    not reach the lab's API on this machine's loopback address.
    """
    region = account.session.region_name
    endpoint = f"https://s3.{region}.amazonaws.com" if account.endpoint else None
    parameters = {"Bucket": bucket, "Key": key, **({"ResponseContentType": content_type} if content_type else {})}
    with translate_aws_errors(account.stack):
        signed = Config(signature_version="s3v4", s3={"addressing_style": "virtual"})
        s3 = account.session.client("s3", endpoint_url=endpoint, config=signed)
        return str(s3.generate_presigned_url("get_object", Params=parameters, ExpiresIn=seconds))
