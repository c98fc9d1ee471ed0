"""Names that the program, the gateway and the operator share.

Nothing here talks to AWS: a `Names` only spells where a stack keeps what. The program writes there, the gateway's
instance role reads there, and the command looks there, so a name exists once.
"""

from dataclasses import dataclass

PROJECT = "drawbridge"

#: Keys of the stack's outputs (``pulumi stack output``).
OUTPUTS = (
    "region",  # AWS region the stack lives in
    "publicIp",  # Elastic IP, the `remote` of every bundle
    "privateIp",  # the gateway's address inside the VPC
    "vpcId",
    "publicSubnetId",
    "privateSubnetId",
    "gatewayInterfaceId",  # the network interface: target of every route
    "gatewayInstanceId",
    "securityGroupId",
    "bucket",
    "release",  # SHA-256 of the release the gateway should run
    "clients",  # {name: {"bundle": SSM parameter, "serial", "notAfter"}}
)


#: The output with what `OUTPUTS` says of a pair's second gateway; region and bucket are both gateways'.
SECOND_OUTPUT = "pair"

#: What tells the names of a pair's second gateway from the first one's, which are those of any stack's gateway.
SECOND = "b"


@dataclass(frozen=True, slots=True)
class Names:
    """Where one gateway of a stack keeps its parameters and objects.

    >>> Names("lab").bundle("alice")
    '/drawbridge/lab/clients/alice/bundle'
    >>> Names("duo", SECOND).bundle("a")
    '/drawbridge/duo/b/clients/a/bundle'
    """

    stack: str
    end: str = ""
    """`SECOND`, or nothing."""

    @property
    def root(self) -> str:
        """Common prefix of all of the gateway's SSM parameters; the first one's is that of all of the stack's."""
        return "/".join(("", PROJECT, self.stack, *filter(None, (self.end,))))

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
    def gateway(self) -> str:
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
    def issued(self) -> str:
        """Path of the register: a String for each client certificate ever issued, named by its decimal serial."""
        return f"{self.authority}/issued"

    @property
    def clients(self) -> str:
        """Path of the clients' parameters."""
        return f"{self.root}/clients"

    def secret(self, name: str) -> str:
        """SecureString of one of `GATEWAY_SECRETS`."""
        return f"{self.gateway}/{name}"

    def bundle(self, client: str) -> str:
        """SecureString: the client's whole .ovpn file."""
        return f"{self.clients}/{client}/bundle"

    def bucket(self, account: str, region: str) -> str:
        """Bucket of releases and kits. Names of buckets are global, so account and region are in it."""
        return f"{PROJECT}-{self.stack}-{account}-{region}"

    def release_key(self, sha256: str) -> str:
        """Object key of one release archive."""
        return f"{self.releases}/{sha256}.tar.gz"

    @property
    def releases(self) -> str:
        """What the keys of the gateway's releases begin with; its role may read no other object."""
        return f"{self.end}/releases" if self.end else "releases"

    def member(self, client: str) -> str:
        """IAM user of a client's machine, where it needs one."""
        return f"{PROJECT}-{self.stack}-{client}"

    @property
    def metrics(self) -> str:
        """CloudWatch namespace of the gateway's figures; its role may write to no other."""
        return "/".join(filter(None, ("Drawbridge", self.stack, self.end)))

    def kit_key(self, name: str) -> str:
        """Object key of one kit, what a client's machine is set up with."""
        return f"kits/{name}.tar.gz"


#: What lies under `Names.gateway`, by the file name it has on the gateway.
GATEWAY_SECRETS = ("ca.crt", "server.crt", "server.key", "tls-crypt-v2.key", "ssh_host_ed25519_key")


#: Tag of a security group rule that follows an address, `ssh` or `tunnel/<client>`: `access allow-me` looks for it.
DOOR = "Door"


def door(client: str | None) -> str:
    """Value of `DOOR` for a client's way to the tunnel, or for the admin's to SSH.

    >>> door("home"), door(None)
    ('tunnel/home', 'ssh')
    """
    return f"tunnel/{client}" if client else "ssh"


def tags(stack: str, name: str = "") -> dict[str, str]:
    """Tags of every resource of a stack; the audit of leftovers searches for them. `name` is what consoles show of it.

    >>> tags("lab", "gateway")["Name"]
    'drawbridge-lab-gateway'
    """
    return {"Project": PROJECT, "Stack": stack} | ({"Name": resource_name(stack, name)} if name else {})


def resource_name(stack: str, name: str) -> str:
    """Name of one resource of a stack, where AWS wants one or shows one."""
    return f"{PROJECT}-{stack}-{name}"


def at(end: str, name: str) -> str:
    """Name of a thing at one end of a pair; anywhere else it is just that.

    >>> at("", "gateway"), at(SECOND, "gateway")
    ('gateway', 'gateway-b')
    """
    return f"{name}-{end}" if end else name
