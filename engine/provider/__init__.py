"""Create, read, update and delete AWS resources as a Pulumi provider does, written once on boto3."""
