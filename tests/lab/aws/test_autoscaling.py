"""Instances that another service launches and terminates, as EC2 Auto Scaling does. Does not prove scaling policies."""

from tests.support.cloud import ALL, IMAGE, Cloud, client


def test_the_instances_of_an_auto_scaling_group_come_and_go_with_it(cloud: Cloud) -> None:
    """Amazon EC2 Auto Scaling User Guide, "Auto Scaling groups": nobody calls RunInstances or TerminateInstances."""
    vpc = cloud.vpc()
    subnet, group = vpc.subnet(), vpc.group([ALL])
    neighbour = cloud.instance(subnet, group)
    template = cloud.ec2.create_launch_template(
        LaunchTemplateName="fleet",
        LaunchTemplateData={"ImageId": IMAGE, "InstanceType": "t3.nano", "SecurityGroupIds": [group]},
    )["LaunchTemplate"]["LaunchTemplateId"]
    autoscaling = client(cloud.region, "autoscaling")
    autoscaling.create_auto_scaling_group(
        AutoScalingGroupName="fleet",
        LaunchTemplate={"LaunchTemplateId": template, "Version": "1"},
        MinSize=1,
        MaxSize=1,
        VPCZoneIdentifier=subnet,
    )
    fleet = autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=["fleet"])["AutoScalingGroups"][0]
    instance = fleet["Instances"][0]["InstanceId"]
    described = cloud.ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    interface = described["NetworkInterfaces"][0]["NetworkInterfaceId"]
    assert neighbour.pings(described["PrivateIpAddress"])

    autoscaling.update_auto_scaling_group(AutoScalingGroupName="fleet", MinSize=0, DesiredCapacity=0)
    assert not neighbour.pings(described["PrivateIpAddress"])
    interfaces = cloud.ec2.describe_network_interfaces()["NetworkInterfaces"]
    assert interface not in [listed["NetworkInterfaceId"] for listed in interfaces]
