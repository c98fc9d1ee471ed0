"""Manage network interfaces, Elastic IPs, instances and key pairs."""

import base64
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from engine.provider.resource_type import (
    ClientError,
    Ec2ResourceType,
    ProviderError,
    ResourceType,
    differs,
    register,
    tag_outputs,
    without_none,
)
from engine.provider.values import UNKNOWN, Props

WAIT = {"Delay": 1, "MaxAttempts": 120}
"""Seconds between polls and number of polls while an instance changes state."""

PROFILE_TIMEOUT = 120
"""Seconds until EC2 must see a new instance profile."""
PROFILE_DELAY = 1.0
"""Seconds between launches while EC2 does not see it."""


@register
class NetworkInterface(Ec2ResourceType):
    token = "aws:ec2/networkInterface:NetworkInterface"
    replace_on_change = frozenset({"subnetId", "privateIps", "privateIp", "interfaceType"})
    updatable = frozenset(
        {"securityGroups", "sourceDestCheck", "description", "tags"}
        | {"ipv6PrefixCount", "ipv6Prefixes", "ipv6AddressCount", "ipv6Addresses"}
    )
    resource, describe, items = "network-interface", "describe_network_interfaces", "NetworkInterfaces"
    id_key = "NetworkInterfaceId"

    def create(self, inputs: Props) -> str:
        addresses = inputs.get("privateIps") or ([inputs["privateIp"]] if inputs.get("privateIp") else [])
        response = self.ec2.create_network_interface(
            **without_none(
                SubnetId=inputs["subnetId"],
                PrivateIpAddress=addresses[0] if addresses else None,
                Groups=inputs.get("securityGroups"),
                Description=inputs.get("description"),
                InterfaceType=inputs.get("interfaceType"),
                # Counts of 0 are left out, as the provider does.
                Ipv6AddressCount=inputs.get("ipv6AddressCount") or None,
                Ipv6PrefixCount=inputs.get("ipv6PrefixCount") or None,
                Ipv6Addresses=[{"Ipv6Address": address} for address in inputs.get("ipv6Addresses") or ()] or None,
                Ipv6Prefixes=[{"Ipv6Prefix": prefix} for prefix in inputs.get("ipv6Prefixes") or ()] or None,
            ),
            **self.tagging(inputs),
        )["NetworkInterface"]
        id = str(response["NetworkInterfaceId"])
        if addresses[1:]:
            self.ec2.assign_private_ip_addresses(NetworkInterfaceId=id, PrivateIpAddresses=addresses[1:])
        if not inputs.get("sourceDestCheck", True):
            self.ec2.modify_network_interface_attribute(NetworkInterfaceId=id, SourceDestCheck={"Value": False})
        self._check_assigned(id, "Ipv6Prefixes", "Ipv6Prefix", inputs.get("ipv6PrefixCount") or 0)
        self._check_assigned(id, "Ipv6Addresses", "Ipv6Address", inputs.get("ipv6AddressCount") or 0)
        return id

    def _check_assigned(self, id: str, member: str, key: str, count: int) -> None:
        """Raise ProviderError if the API accepted a number of IPv6 addresses or prefixes and assigned fewer."""
        if len(self._ipv6(self.item(id) or {}, member, key)) < count:
            raise ProviderError(f"{id}: the AWS API accepted the request for {member}, but assigned too few")

    def update(self, id: str, olds: Props, news: Props) -> None:
        self.retag(id, olds, news)
        modify = self.ec2.modify_network_interface_attribute
        if differs(olds, news, "securityGroups") and news.get("securityGroups"):
            modify(NetworkInterfaceId=id, Groups=news["securityGroups"])
        if olds.get("sourceDestCheck", True) != news.get("sourceDestCheck", True):
            modify(NetworkInterfaceId=id, SourceDestCheck={"Value": news.get("sourceDestCheck", True)})
        if differs(olds, news, "description"):
            modify(NetworkInterfaceId=id, Description={"Value": news.get("description", "")})
        self._assign(
            id, "Ipv6Prefix", "Ipv6Prefixes", "Ipv6Prefixes", news.get("ipv6Prefixes"), news.get("ipv6PrefixCount")
        )
        self._assign(
            id, "Ipv6Address", "Ipv6Addresses", "Ipv6Addresses", news.get("ipv6Addresses"), news.get("ipv6AddressCount")
        )

    def _assign(
        self, id: str, key: str, member: str, argument: str, values: list[str] | None, count: int | None
    ) -> None:
        """Bring the interface to these IPv6 addresses or prefixes, or to this many of AWS's choice."""
        if values is None and count is None:
            return
        present = self._ipv6(self.item(id) or {}, member, key)
        surplus = [value for value in present if values is not None and value not in values]
        surplus += present[count:] if values is None and count is not None else []
        missing = [value for value in values or () if value not in present]
        if surplus:
            self.ec2.unassign_ipv6_addresses(NetworkInterfaceId=id, **{argument: surplus})
        if missing:
            self.ec2.assign_ipv6_addresses(NetworkInterfaceId=id, **{argument: missing})
        if count is not None and count > len(present):
            self.ec2.assign_ipv6_addresses(NetworkInterfaceId=id, **{f"{key}Count": count - len(present)})
        after = self._ipv6(self.item(id) or {}, member, key)
        if len(after) < (count or 0) or not set(missing) <= set(after):
            raise ProviderError(f"{id}: the AWS API accepted the request for {member}, but assigned too few")

    @staticmethod
    def _ipv6(item: dict[str, Any], member: str, key: str) -> list[str]:
        return [str(row[key]) for row in item.get(member) or ()]

    def outputs(self, item: dict[str, Any]) -> Props:
        attachment = item.get("Attachment") or {}
        addresses = [row["PrivateIpAddress"] for row in item.get("PrivateIpAddresses") or ()]
        return {
            "arn": self.aws.arn("ec2", f"network-interface/{item['NetworkInterfaceId']}"),
            "subnetId": item["SubnetId"],
            "privateIp": item.get("PrivateIpAddress", ""),
            "privateIps": addresses,
            "privateDnsName": item.get("PrivateDnsName", ""),
            "macAddress": item.get("MacAddress", ""),
            "securityGroups": [group["GroupId"] for group in item.get("Groups") or ()],
            "sourceDestCheck": bool(item.get("SourceDestCheck", True)),
            "interfaceType": item.get("InterfaceType", "interface"),
            "ipv6Prefixes": self._ipv6(item, "Ipv6Prefixes", "Ipv6Prefix"),
            "ipv6Addresses": self._ipv6(item, "Ipv6Addresses", "Ipv6Address"),
            "ownerId": item.get("OwnerId", self.aws.account),
            "attachments": [{"instance": attachment["InstanceId"], "deviceIndex": attachment.get("DeviceIndex", 0)}]
            if attachment.get("InstanceId")
            else [],
        }

    def delete(self, id: str, outputs: Props) -> None:
        attachment = (self.item(id) or {}).get("Attachment") or {}
        # A first interface cannot be detached: AWS frees it when its instance ends (moto keeps the record).
        if attachment.get("AttachmentId") and attachment.get("DeviceIndex"):
            self.ec2.detach_network_interface(AttachmentId=attachment["AttachmentId"], Force=True)
            self.ec2.get_waiter("network_interface_available").wait(NetworkInterfaceIds=[id], WaiterConfig=WAIT)
        self.ec2.delete_network_interface(NetworkInterfaceId=id)


@register
class Eip(Ec2ResourceType):
    token = "aws:ec2/eip:Eip"
    replace_on_change = frozenset({"domain"})
    updatable = frozenset({"networkInterface", "instance", "associateWithPrivateIp", "tags"})
    resource, describe, items, id_key = "elastic-ip", "describe_addresses", "Addresses", "AllocationId"
    defaults = {"domain": "vpc"}  # noqa: RUF012 - ClassVar[Mapping] in the base

    def create(self, inputs: Props) -> str:
        id = str(self.ec2.allocate_address(Domain=inputs["domain"], **self.tagging(inputs))["AllocationId"])
        self.update(id, {"tags": inputs.get("tags")}, inputs)
        return id

    def item(self, id: str) -> dict[str, Any] | None:
        addresses = [a for a in self.ec2.describe_addresses()["Addresses"] if a.get("AllocationId") == id]
        return addresses[0] if addresses else None

    def update(self, id: str, olds: Props, news: Props) -> None:
        self.retag(id, olds, news)
        if differs(olds, news, "networkInterface", "instance", "associateWithPrivateIp"):
            current = (self.item(id) or {}).get("AssociationId")
            if current:
                self.ec2.disassociate_address(AssociationId=current)
            if news.get("networkInterface") or news.get("instance"):
                self.ec2.associate_address(
                    AllocationId=id,
                    **without_none(
                        NetworkInterfaceId=news.get("networkInterface"),
                        InstanceId=news.get("instance"),
                        PrivateIpAddress=news.get("associateWithPrivateIp"),
                    ),
                )

    def outputs(self, item: dict[str, Any]) -> Props:
        host = item["PublicIp"].replace(".", "-")
        return {
            "arn": self.aws.arn("ec2", f"elastic-ip/{item['AllocationId']}"),
            "allocationId": item["AllocationId"],
            "associationId": item.get("AssociationId", ""),
            "domain": item.get("Domain", "vpc"),
            "publicIp": item["PublicIp"],
            "publicDns": f"ec2-{host}.{self.aws.region}.compute.amazonaws.com",
            "privateIp": item.get("PrivateIpAddress", ""),
            "networkInterface": item.get("NetworkInterfaceId", ""),
            "instance": item.get("InstanceId", ""),
        }

    def delete(self, id: str, outputs: Props) -> None:
        current = (self.item(id) or {}).get("AssociationId")
        if current:
            self.ec2.disassociate_address(AssociationId=current)
        self.ec2.release_address(AllocationId=id)


@register
class EipAssociation(ResourceType):
    token = "aws:ec2/eipAssociation:EipAssociation"
    replace_on_change = frozenset(
        {"allocationId", "networkInterfaceId", "instanceId", "privateIpAddress", "allowReassociation"}
    )
    delete_before_replace = True  # an address has one association
    id_from_inputs = True

    def create(self, inputs: Props) -> str:
        response = self.aws.client("ec2").associate_address(
            AllocationId=inputs["allocationId"],
            **without_none(
                NetworkInterfaceId=inputs.get("networkInterfaceId"),
                InstanceId=inputs.get("instanceId"),
                PrivateIpAddress=inputs.get("privateIpAddress"),
                AllowReassociation=inputs.get("allowReassociation"),
            ),
        )
        return str(response["AssociationId"])

    def _address(self, allocation: str) -> dict[str, Any]:
        addresses = self.aws.client("ec2").describe_addresses()["Addresses"]
        return next((a for a in addresses if a.get("AllocationId") == allocation), {})

    def read(self, id: str, inputs: Props) -> Props | None:
        address = self._address(inputs["allocationId"])
        if address.get("AssociationId") != id:
            return None
        return {
            "publicIp": address["PublicIp"],
            "privateIpAddress": address.get("PrivateIpAddress", ""),
            "networkInterfaceId": address.get("NetworkInterfaceId", ""),
            "instanceId": address.get("InstanceId", ""),
        }

    def delete(self, id: str, outputs: Props) -> None:
        self.aws.client("ec2").disassociate_address(AssociationId=id)

    def find(self, inputs: Props) -> list[str]:
        address = self._address(inputs["allocationId"])
        interface = inputs.get("networkInterfaceId", address.get("NetworkInterfaceId"))
        is_associated = address.get("AssociationId") and address.get("NetworkInterfaceId") == interface
        return [str(address["AssociationId"])] if is_associated else []


METADATA = {
    "httpTokens": "HttpTokens",
    "httpPutResponseHopLimit": "HttpPutResponseHopLimit",
    "httpEndpoint": "HttpEndpoint",
    "httpProtocolIpv6": "HttpProtocolIpv6",
    "instanceMetadataTags": "InstanceMetadataTags",
}


@register
class Instance(Ec2ResourceType):
    token = "aws:ec2/instance:Instance"
    replace_on_change = frozenset(
        {"ami", "subnetId", "networkInterfaces", "primaryNetworkInterface", "keyName", "privateIp", "availabilityZone"}
        | {"associatePublicIpAddress", "rootBlockDevice.encrypted", "rootBlockDevice.kmsKeyId"}
    )
    updatable = frozenset(
        {
            "instanceType",
            "userData",
            "userDataBase64",
            "userDataReplaceOnChange",
            "iamInstanceProfile",
            "metadataOptions",
        }
        | {
            "vpcSecurityGroupIds",
            "sourceDestCheck",
            "disableApiTermination",
            "monitoring",
            "creditSpecification",
            "tags",
        }
        | {"volumeTags", "rootBlockDevice"}
    )
    resource, describe, items, id_key = "instance", "describe_instances", "Reservations", "InstanceId"

    def item(self, id: str) -> dict[str, Any] | None:
        return next((item for item in self._all() if item["InstanceId"] == id), None)

    def _all(self) -> list[dict[str, Any]]:
        """Describe every instance that is not gone (a terminated one is listed for an hour)."""
        reservations = self.ec2.describe_instances()["Reservations"]
        items = [item for reservation in reservations for item in reservation["Instances"]]
        return [item for item in items if item["State"]["Name"] not in ("terminated", "shutting-down")]

    def create(self, inputs: Props) -> str:
        primary = (inputs.get("primaryNetworkInterface") or {}).get("networkInterfaceId")
        attachments = inputs.get("networkInterfaces") or (
            [{"networkInterfaceId": primary, "deviceIndex": 0}] if primary else []
        )
        arguments: dict[str, Any] = without_none(
            ImageId=inputs["ami"],
            InstanceType=inputs["instanceType"],
            KeyName=inputs.get("keyName"),
            UserData=self._user_data(inputs),
            DisableApiTermination=inputs.get("disableApiTermination", False),
            EbsOptimized=False,
            HibernationOptions={"Configured": False},
            Monitoring={"Enabled": inputs.get("monitoring", False)},
            Placement={"AvailabilityZone": inputs.get("availabilityZone", "")},
        )
        if attachments:
            arguments["NetworkInterfaces"] = [self._attachment(row) for row in attachments]
        elif inputs.get("associatePublicIpAddress") is not None:
            arguments["NetworkInterfaces"] = [
                without_none(
                    DeviceIndex=0,
                    SubnetId=inputs.get("subnetId"),
                    AssociatePublicIpAddress=inputs["associatePublicIpAddress"],
                    Groups=inputs.get("vpcSecurityGroupIds"),
                    PrivateIpAddress=inputs.get("privateIp"),
                )
            ]
        else:
            arguments |= without_none(
                SubnetId=inputs.get("subnetId"),
                SecurityGroupIds=inputs.get("vpcSecurityGroupIds"),
                PrivateIpAddress=inputs.get("privateIp"),
            )
        if inputs.get("iamInstanceProfile"):
            arguments["IamInstanceProfile"] = {"Name": inputs["iamInstanceProfile"]}
        if inputs.get("metadataOptions"):
            arguments["MetadataOptions"] = self._metadata(inputs)
        if inputs.get("rootBlockDevice"):
            arguments["BlockDeviceMappings"] = [self._root(inputs)]
        if inputs.get("creditSpecification") and self._is_burstable(inputs["instanceType"]):
            arguments["CreditSpecification"] = {"CpuCredits": inputs["creditSpecification"]["cpuCredits"]}
        specifications = self.tagging(inputs).get("TagSpecifications", [])
        if inputs.get("volumeTags"):
            tags = [{"Key": key, "Value": value} for key, value in inputs["volumeTags"].items()]
            specifications.append({"ResourceType": "volume", "Tags": tags})
        if specifications:
            arguments["TagSpecifications"] = specifications
        id = self._run(arguments)
        self.ec2.get_waiter("instance_running").wait(InstanceIds=[id], WaiterConfig=WAIT)
        if not inputs.get("sourceDestCheck", True):
            self.ec2.modify_instance_attribute(InstanceId=id, SourceDestCheck={"Value": False})
        return id

    def _run(self, arguments: Mapping[str, Any]) -> str:
        """Launch the instance, again until EC2 sees a new instance profile, and return its id.

        The provider waits for the same error as long (`iamPropagationTimeout` of terraform-provider-aws).
        """
        deadline = time.monotonic() + PROFILE_TIMEOUT
        while True:
            try:
                response = self.ec2.run_instances(MinCount=1, MaxCount=1, **arguments)
                return str(response["Instances"][0]["InstanceId"])
            except ClientError as error:
                if "Invalid IAM Instance Profile" not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(PROFILE_DELAY)

    @staticmethod
    def _attachment(row: Props) -> dict[str, Any]:
        return {
            "NetworkInterfaceId": row["networkInterfaceId"],
            "DeviceIndex": row.get("deviceIndex", 0),
            "DeleteOnTermination": row.get("deleteOnTermination", False),
            "NetworkCardIndex": row.get("networkCardIndex", 0),
        }

    @staticmethod
    def _user_data(inputs: Props) -> str | None:
        if inputs.get("userDataBase64"):
            return base64.b64decode(inputs["userDataBase64"]).decode(errors="surrogateescape")
        return inputs.get("userData")

    @staticmethod
    def _metadata(inputs: Props) -> dict[str, Any]:
        options = {"httpProtocolIpv6": "disabled", **(inputs.get("metadataOptions") or {})}
        return {METADATA[key]: value for key, value in options.items() if key in METADATA}

    def _root(self, inputs: Props) -> dict[str, Any]:
        device = inputs["rootBlockDevice"]
        images = self.ec2.describe_images(ImageIds=[inputs["ami"]])["Images"]
        return {
            "DeviceName": device.get("deviceName")
            or (images[0].get("RootDeviceName") if images else None)
            or "/dev/xvda",
            "Ebs": without_none(
                VolumeSize=device.get("volumeSize"),
                VolumeType=device.get("volumeType"),
                Encrypted=device.get("encrypted"),
                KmsKeyId=device.get("kmsKeyId"),
                Iops=device.get("iops"),
                Throughput=device.get("throughput"),
                DeleteOnTermination=device.get("deleteOnTermination", True),
            ),
        }

    def planned_defaults(self, inputs: Props) -> Mapping[str, Any]:
        # The input defaults to true, and the output is the primary interface's. Only the deprecated
        # `networkInterfaces` suppresses the difference (terraform-provider-aws, issue 44768).
        return {} if inputs.get("networkInterfaces") else {"sourceDestCheck": True}

    def replaced_inputs(self, olds: Props, news: Props) -> frozenset[str]:
        replaced = frozenset({"userData", "userDataBase64"} if news.get("userDataReplaceOnChange") else ())
        types = [str(inputs.get("instanceType", UNKNOWN)) for inputs in (olds, news)]
        if types[0] != types[1] and UNKNOWN not in types:
            architectures = [self._architectures(name) for name in types]
            if not architectures[0] & architectures[1]:
                replaced |= {"instanceType"}
        return replaced

    def _architectures(self, instance_type: str) -> set[str]:
        rows = self.ec2.describe_instance_types(InstanceTypes=[instance_type])["InstanceTypes"]
        return {architecture for row in rows for architecture in row["ProcessorInfo"]["SupportedArchitectures"]}

    def _is_burstable(self, instance_type: str) -> bool:
        rows = self.ec2.describe_instance_types(InstanceTypes=[instance_type])["InstanceTypes"]
        return any(row.get("BurstablePerformanceSupported") for row in rows)

    def update(self, id: str, olds: Props, news: Props) -> None:
        self.retag(id, olds, news)
        modify = self.ec2.modify_instance_attribute
        # The call writes through to the primary interface.
        if "sourceDestCheck" in news and differs(olds, news, "sourceDestCheck"):
            modify(InstanceId=id, SourceDestCheck={"Value": news["sourceDestCheck"]})
        if differs(olds, news, "metadataOptions") and news.get("metadataOptions"):
            self.ec2.modify_instance_metadata_options(InstanceId=id, **self._metadata(news))
        if differs(olds, news, "vpcSecurityGroupIds") and news.get("vpcSecurityGroupIds"):
            modify(InstanceId=id, Groups=news["vpcSecurityGroupIds"])
        if "disableApiTermination" in news and differs(olds, news, "disableApiTermination"):
            modify(InstanceId=id, DisableApiTermination={"Value": news["disableApiTermination"]})
        if olds and differs(olds, news, "iamInstanceProfile"):
            self._profile(id, news.get("iamInstanceProfile"))
        if olds and differs(olds, news, "rootBlockDevice"):
            self._resize(id, news.get("rootBlockDevice") or {})
        # The instance must be stopped for these. An adopted instance was created with the new values.
        if olds and differs(olds, news, "instanceType", "userData", "userDataBase64"):
            with self._stopped(id):
                if differs(olds, news, "instanceType"):
                    modify(InstanceId=id, InstanceType={"Value": news["instanceType"]})
                if differs(olds, news, "userData", "userDataBase64"):
                    self._put_user_data(id, (self._user_data(news) or "").encode())
        if differs(olds, news, "creditSpecification") and news.get("creditSpecification"):
            change = {"InstanceId": id, "CpuCredits": news["creditSpecification"]["cpuCredits"]}
            self.ec2.modify_instance_credit_specification(InstanceCreditSpecifications=[change])

    def _put_user_data(self, id: str, content: bytes) -> None:
        modify = self.ec2.modify_instance_attribute
        try:
            modify(InstanceId=id, UserData={"Value": content})
        except ClientError as error:
            # boto3 encodes the value, as EC2 expects; moto decodes it once and then expects it to be encoded still.
            if error.response.get("Error", {}).get("Code") != "InvalidUserData.Malformed":
                raise
            modify(InstanceId=id, UserData={"Value": base64.b64encode(content)})

    def _resize(self, id: str, device: Props) -> None:
        item = self.item(id) or {}
        volumes = {row["DeviceName"]: row["Ebs"]["VolumeId"] for row in item.get("BlockDeviceMappings") or ()}
        root = volumes.get(item.get("RootDeviceName", "")) or next(iter(volumes.values()), None)
        changes = without_none(
            Size=device.get("volumeSize"),
            VolumeType=device.get("volumeType"),
            Iops=device.get("iops"),
            Throughput=device.get("throughput"),
        )
        if root and changes:
            self.ec2.modify_volume(VolumeId=root, **changes)

    @contextmanager
    def _stopped(self, id: str) -> Iterator[None]:
        self.ec2.stop_instances(InstanceIds=[id], Force=False)
        self.ec2.get_waiter("instance_stopped").wait(InstanceIds=[id], WaiterConfig=WAIT)
        try:
            yield
        finally:
            self.ec2.start_instances(InstanceIds=[id])
            self.ec2.get_waiter("instance_running").wait(InstanceIds=[id], WaiterConfig=WAIT)

    def _profile(self, id: str, name: str | None) -> None:
        filters = [{"Name": "instance-id", "Values": [id]}]
        rows = self.ec2.describe_iam_instance_profile_associations(Filters=filters)["IamInstanceProfileAssociations"]
        if rows and name:
            self.ec2.replace_iam_instance_profile_association(
                AssociationId=rows[0]["AssociationId"], IamInstanceProfile={"Name": name}
            )
        elif rows:
            self.ec2.disassociate_iam_instance_profile(AssociationId=rows[0]["AssociationId"])
        elif name:
            self.ec2.associate_iam_instance_profile(InstanceId=id, IamInstanceProfile={"Name": name})

    def outputs(self, item: dict[str, Any]) -> Props:
        interfaces = item.get("NetworkInterfaces") or []
        return {
            "arn": self.aws.arn("ec2", f"instance/{item['InstanceId']}"),
            "ami": item["ImageId"],
            "instanceType": item["InstanceType"],
            "instanceState": item["State"]["Name"],
            "availabilityZone": (item.get("Placement") or {}).get("AvailabilityZone", ""),
            "subnetId": item.get("SubnetId", ""),
            "privateIp": item.get("PrivateIpAddress", ""),
            "privateDns": item.get("PrivateDnsName", ""),
            "publicIp": item.get("PublicIpAddress", ""),
            "publicDns": item.get("PublicDnsName", ""),
            "keyName": item.get("KeyName", ""),
            "primaryNetworkInterfaceId": interfaces[0]["NetworkInterfaceId"] if interfaces else "",
            "sourceDestCheck": self._source_dest_check(interfaces),
            "vpcSecurityGroupIds": sorted(group["GroupId"] for group in item.get("SecurityGroups") or ()),
        }

    def _source_dest_check(self, interfaces: Sequence[Mapping[str, Any]]) -> bool:
        """Return the check of the primary interface."""
        if not interfaces:
            return True
        rows = self.ec2.describe_network_interfaces(NetworkInterfaceIds=[interfaces[0]["NetworkInterfaceId"]])
        return bool(rows["NetworkInterfaces"][0].get("SourceDestCheck", True))

    def find(self, inputs: Props) -> list[str]:
        if not inputs.get("tags"):
            return []
        tags = inputs["tags"]
        return [i["InstanceId"] for i in self._all() if tag_outputs(i.get("Tags"))["tags"] == tags]

    def delete(self, id: str, outputs: Props) -> None:
        self.ec2.modify_instance_attribute(InstanceId=id, DisableApiTermination={"Value": False})
        self.ec2.terminate_instances(InstanceIds=[id])
        self.ec2.get_waiter("instance_terminated").wait(InstanceIds=[id], WaiterConfig=WAIT)


@register
class KeyPair(Ec2ResourceType):
    token = "aws:ec2/keyPair:KeyPair"
    replace_on_change = frozenset({"keyName", "publicKey"})
    updatable = frozenset({"tags"})
    autoname = "keyName"
    resource, describe, items, id_key = "key-pair", "describe_key_pairs", "KeyPairs", "KeyName"
    id_from_inputs = True

    def create(self, inputs: Props) -> str:
        material = inputs["publicKey"].encode()
        self.ec2.import_key_pair(KeyName=inputs["keyName"], PublicKeyMaterial=material, **self.tagging(inputs))
        return str(inputs["keyName"])

    def outputs(self, item: dict[str, Any]) -> Props:
        return {
            "arn": self.aws.arn("ec2", f"key-pair/{item['KeyName']}"),
            "keyName": item["KeyName"],
            "keyPairId": item.get("KeyPairId", ""),
            "fingerprint": item.get("KeyFingerprint", ""),
        }

    def update(self, id: str, olds: Props, news: Props) -> None:
        self.retag(self.outputs(self.item(id) or {"KeyName": id})["keyPairId"], olds, news)

    def delete(self, id: str, outputs: Props) -> None:
        self.ec2.delete_key_pair(KeyName=id)

    def find(self, inputs: Props) -> list[str]:
        return [inputs["keyName"]] if self.item(inputs["keyName"]) else []
