"""Read the tags that Pulumi's AWS provider gives to every resource."""

import pulumi


def read_default_tags() -> dict[str, str]:
    """Return the tags of the stack's `aws:defaultTags`, for what the provider does not tag."""
    section = pulumi.Config("aws").get_object("defaultTags") or {}
    return {str(key): str(value) for key, value in (section.get("tags") or {}).items()}
