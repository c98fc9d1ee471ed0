"""Names that the program, the gateway and the operator share.

Nothing here talks to AWS: a `Names` only spells where a stack keeps what. The program writes there, the gateway's
instance role reads there, and the command looks there, so a name exists once.
"""

from dataclasses import dataclass
from enum import StrEnum

PROJECT = "drawbridge"

#: A stack's gateways, by the letter each has in names. A stack without a pair has only the first one.
GATEWAYS = ("a", "b")


class StackOutput(StrEnum):
    """Keys of the stack's outputs (``pulumi stack output``)."""

    REGION = "region"
    """AWS region the stack lives in."""
    PUBLIC_IP = "publicIp"
    """Elastic IP, a `remote` of every bundle."""
    PRIVATE_IP = "privateIp"
    """The gateway's address inside the VPC."""
    VPC_ID = "vpcId"
    PUBLIC_SUBNET_ID = "publicSubnetId"
    PRIVATE_SUBNET_ID = "privateSubnetId"
    GATEWAY_INTERFACE_ID = "gatewayInterfaceId"
    """The network interface: target of every route."""
    GATEWAY_INSTANCE_ID = "gatewayInstanceId"
    SECURITY_GROUP_ID = "securityGroupId"
    BUCKET = "bucket"
    RELEASE = "release"
    """SHA-256 of the release the gateway should run."""
    CLIENTS = "clients"
    """{name: {"bundle": SSM parameter or S3 URI, "serial", "notAfter"}}"""
    PAIR = "pair"
    """Only of a pair: the second gateway's outputs under these same keys, without `REGION` and `BUCKET`."""


@dataclass(frozen=True, slots=True)
class Names:
    """Names of one gateway's parameters, objects and resources.

    Gateway a has the stack's own names. Those of any other gateway lie below them or end in its letter.

    >>> Names("lab").bundle("alice")
    '/drawbridge/lab/clients/alice/bundle'
    >>> Names("duo", "b").bundle("a")
    '/drawbridge/duo/b/clients/a/bundle'
    """

    stack: str
    gateway: str = GATEWAYS[0]

    @property
    def server(self) -> str:
        """Common name of the gateway's server certificate."""
        return ".".join((*self._letter, self.stack, PROJECT))

    @property
    def authority_name(self) -> str:
        """Common name of the gateway's certificate authority."""
        return self.resource(f"Drawbridge {self.stack}")

    def resource(self, name: str) -> str:
        """Return the Pulumi name of one of the gateway's resources.

        >>> Names("duo").resource("network"), Names("duo", "b").resource("network")
        ('network', 'network-b')
        """
        return "-".join((name, *self._letter))

    def display_name(self, name: str) -> str:
        """Return the name that AWS shows for one of the gateway's resources.

        >>> Names("duo", "b").display_name("gateway")
        'drawbridge-duo-gateway-b'
        """
        return resource_name(self.stack, self.resource(name))

    def tags(self, name: str) -> dict[str, str]:
        """Return the tags of one of the gateway's resources."""
        return tags(self.stack, self.resource(name))

    @property
    def _letter(self) -> tuple[str, ...]:
        """The letter that tells the gateway's names from those of gateway a; nothing for gateway a."""
        return () if self.gateway == GATEWAYS[0] else (self.gateway,)

    @property
    def root(self) -> str:
        """Prefix of this gateway's SSM parameters.

        Gateway a uses the stack's own prefix; that of any other gateway lies below it.
        """
        return "/".join(("", PROJECT, self.stack, *self._letter))

    @property
    def release(self) -> str:
        """String: JSON ``{"bucket", "key", "sha256"}`` of the release the gateway should run."""
        return f"{self.root}/release"

    @property
    def report(self) -> str:
        """String: JSON the gateway writes about the release it runs or refused."""
        return f"{self.root}/report"

    @property
    def ssh_host_key(self) -> str:
        """String: the gateway's public SSH host key, which the command pins."""
        return f"{self.root}/ssh-host-key"

    @property
    def secrets(self) -> str:
        """Path of the SecureStrings the gateway may read, named by `GATEWAY_SECRETS`."""
        return f"{self.root}/gateway"

    @property
    def authority(self) -> str:
        """Path of what only the deployer may read: the CA's key, the register of serials."""
        return f"{self.root}/authority"

    @property
    def keys(self) -> str:
        """SecureString: JSON of the authority's and the server's keys, the one place they are made in."""
        return f"{self.authority}/keys"

    @property
    def owner(self) -> str:
        """String: identifier of the deployment that may change the authority; only its state has the same one.

        After a restore it is one of `RESTORE_STATES` and the digest of the backup, until a deployment takes over.
        """
        return f"{self.authority}/owner"

    @property
    def issued(self) -> str:
        """Path of the register: Strings, each with JSON of some client certificates that have not ended."""
        return f"{self.authority}/issued"

    @property
    def clients(self) -> str:
        """Path of the clients' parameters."""
        return f"{self.root}/clients"

    def secret(self, name: str) -> str:
        """SecureString of one of `GATEWAY_SECRETS`."""
        return f"{self.secrets}/{name}"

    def bundle(self, client: str) -> str:
        """SecureString: the client's whole .ovpn file."""
        return f"{self.clients}/{client}/bundle"

    def bundles_bucket(self, account: str, region: str) -> str:
        """Bucket of the clients' bundles, where they are not in SSM.

        The longest stack and region bring its name to the 63 characters that S3 takes.
        """
        return f"{self.bucket(account, region)}-pki"

    @property
    def bundle_keys(self) -> str:
        """Prefix of the object keys of the clients' bundles."""
        return "/".join((*self._letter, "clients"))

    def bundle_key(self, client: str) -> str:
        """Object key of the client's whole .ovpn file."""
        return f"{self.bundle_keys}/{client}.ovpn"

    def bundle_address(self, client: str, bucket: str | None) -> str:
        """Return where a client's bundle is: an SSM parameter's name or, in a bucket, the object's S3 URI.

        >>> Names("lab").bundle_address("alice", None)
        '/drawbridge/lab/clients/alice/bundle'
        >>> Names("lab").bundle_address("alice", "b")
        's3://b/clients/alice.ovpn'
        """
        return f"s3://{bucket}/{self.bundle_key(client)}" if bucket else self.bundle(client)

    def bucket(self, account: str, region: str) -> str:
        """Bucket of releases and kits. Names of buckets are global, so account and region are in it."""
        return f"{PROJECT}-{self.stack}-{account}-{region}"

    def release_key(self, sha256: str) -> str:
        """Object key of one release archive."""
        return f"{self.releases}/{sha256}.tar.gz"

    @property
    def releases(self) -> str:
        """Prefix of the object keys of this gateway's releases; its role may read no other object."""
        return "/".join((*self._letter, "releases"))

    def kit_user(self, client: str) -> str:
        """IAM user of a client's own machine, which reads the client's kit and bundle."""
        return f"{PROJECT}-{self.stack}-{client}"

    def role(self, region: str) -> str:
        """IAM role of the gateway, and its instance profile. IAM has no regions, so the region is in the name."""
        return f"{self.display_name('gateway')}-{region}"

    @property
    def metrics(self) -> str:
        """CloudWatch namespace of the gateway's metrics; its role may write to no other."""
        return "/".join(("Drawbridge", self.stack, *self._letter))

    def alarm(self, name: str) -> str:
        """Return the name of one of the gateway's CloudWatch alarms.

        >>> Names("duo", "b").alarm("heartbeat")
        'drawbridge-duo-alarm-heartbeat-b'
        """
        return self.display_name(f"alarm-{name}")

    @property
    def connections(self) -> str:
        """Log group of the gateway's connection log; its role may write to no other."""
        return f"{self.root}/connections"

    def kit_key(self, name: str) -> str:
        """Object key of the kit that a client's machine is set up with."""
        return f"kits/{name}.tar.gz"

    def kit_digest(self, name: str) -> str:
        """String: SHA-256 of that kit, lower-case hex. Whoever can only change the bucket cannot change the digest."""
        return f"{self.root}/kits/{name}"


#: First word of `Names.owner` while a backup is being restored, and once all of it is there.
RESTORING, RESTORED = RESTORE_STATES = ("restoring", "restored")

#: The parameters under `Names.secrets`, by the file name each has on the gateway.
GATEWAY_SECRETS = ("ca.crt", "server.crt", "server.key", "tls-crypt-v2.key", "ssh_host_ed25519_key")


#: Tag of a security group rule that follows a moving address; its value is that of `rule_for`.
FOLLOWS_TAG = "DrawbridgeFollows"


#: Tag of a prepared image and of its snapshot; its value is the name in `images.IMAGES` of the image that it came from.
IMAGE_TAG = "DrawbridgeImage"
#: Tag of all that the build of a prepared image creates; its value is the build's ID.
BUILD_TAG = "DrawbridgeBuild"


#: Tags of all resources of a stack that is made for a time: who made it, and its end (ISO 8601, UTC).
OWNER_TAG, END_TAG = "DrawbridgeOwner", "DrawbridgeEnd"

#: Path of the claims on stacks' names and ranges; no stack's name begins with its last part.
CLAIMS = f"/{PROJECT}/_claims"


def rule_for(client: str | None) -> str:
    """Return the value of `FOLLOWS_TAG` of the rule that lets a client reach the tunnel, or an admin reach SSH.

    >>> rule_for("home"), rule_for(None)
    ('tunnel/home', 'ssh')
    """
    return f"tunnel/{client}" if client else "ssh"


def key_alias(stack: str) -> str:
    """Return the alias of the KMS key of a stack's secrets.

    >>> key_alias("lab")
    'alias/drawbridge-lab'
    """
    return f"alias/{PROJECT}-{stack}"


def alarm_prefix(stack: str) -> str:
    """Return what the names of all alarms of a stack begin with."""
    return resource_name(stack, "alarm-")


def topic_name(stack: str) -> str:
    """Return the name of the SNS topic of a stack's alarms.

    >>> topic_name("lab")
    'drawbridge-lab-alerts'
    """
    return resource_name(stack, "alerts")


def tags(stack: str, name: str = "") -> dict[str, str]:
    """Return the tags of a stack's resource, by which the audit of leftovers finds it; `name` is for AWS's console.

    >>> tags("lab", "gateway")["Name"]
    'drawbridge-lab-gateway'
    """
    return {"Project": PROJECT, "Stack": stack} | ({"Name": resource_name(stack, name)} if name else {})


def resource_name(stack: str, name: str) -> str:
    """Return the name that AWS shows for a stack's resource."""
    return f"{PROJECT}-{stack}-{name}"
