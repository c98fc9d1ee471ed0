"""Manage IAM roles, policies, instance profiles, users and access keys."""

from typing import Any

from engine.provider.resource_type import (
    ResourceType,
    differs,
    none_if_not_found,
    register,
    tag_changes,
    tag_list,
    tag_outputs,
    without_none,
)
from engine.provider.values import Props, secret
from engine.provider.vpc import document


class _Iam(ResourceType):
    id_from_inputs = True

    @property
    def iam(self) -> Any:
        """The IAM client."""
        return self.aws.client("iam")

    def _retag(self, noun: str, argument: dict[str, str], olds: Props, news: Props) -> None:
        removed, changed = tag_changes(olds, news)
        if removed:
            getattr(self.iam, f"untag_{noun}")(**argument, TagKeys=removed)
        if changed:
            getattr(self.iam, f"tag_{noun}")(**argument, Tags=tag_list(changed))

    def find(self, inputs: Props) -> list[str]:
        id = self._natural(inputs)
        return [id] if self.read(id, inputs) is not None else []

    def _natural(self, inputs: Props) -> str:
        return str(inputs["name"])


@register
class Role(_Iam):
    token = "aws:iam/role:Role"
    replace_on_change = frozenset({"name", "path"})
    updatable = frozenset(
        {"assumeRolePolicy", "description", "maxSessionDuration", "permissionsBoundary", "forceDetachPolicies", "tags"}
    )
    autoname = "name"

    def create(self, inputs: Props) -> str:
        self.iam.create_role(
            RoleName=inputs["name"],
            AssumeRolePolicyDocument=document(inputs["assumeRolePolicy"]),
            Tags=tag_list(inputs.get("tags")),
            Path=inputs.get("path", "/"),
            MaxSessionDuration=inputs.get("maxSessionDuration", 3600),
            **without_none(
                Description=inputs.get("description"),
                PermissionsBoundary=inputs.get("permissionsBoundary"),
            ),
        )
        return str(inputs["name"])

    def read(self, id: str, inputs: Props) -> Props | None:
        response = none_if_not_found(self.iam.get_role, RoleName=id)
        if response is None:
            return None
        role = response["Role"]
        return {
            "arn": role["Arn"],
            "name": role["RoleName"],
            "path": role["Path"],
            "uniqueId": role["RoleId"],
            "createDate": role["CreateDate"].isoformat(),
            "maxSessionDuration": role.get("MaxSessionDuration", 3600),
            **tag_outputs(role.get("Tags")),
        }

    def update(self, id: str, olds: Props, news: Props) -> None:
        if differs(olds, news, "assumeRolePolicy"):
            self.iam.update_assume_role_policy(RoleName=id, PolicyDocument=document(news["assumeRolePolicy"]))
        if differs(olds, news, "description", "maxSessionDuration"):
            settings = without_none(
                Description=news.get("description"), MaxSessionDuration=news.get("maxSessionDuration")
            )
            self.iam.update_role(RoleName=id, **settings)
        if differs(olds, news, "permissionsBoundary"):
            if news.get("permissionsBoundary"):
                self.iam.put_role_permissions_boundary(RoleName=id, PermissionsBoundary=news["permissionsBoundary"])
            else:
                self.iam.delete_role_permissions_boundary(RoleName=id)
        self._retag("role", {"RoleName": id}, olds, news)

    def delete(self, id: str, outputs: Props) -> None:
        for profile in self.iam.list_instance_profiles_for_role(RoleName=id)["InstanceProfiles"]:
            self.iam.remove_role_from_instance_profile(InstanceProfileName=profile["InstanceProfileName"], RoleName=id)
        if outputs.get("forceDetachPolicies"):
            for policy in self.iam.list_attached_role_policies(RoleName=id)["AttachedPolicies"]:
                self.iam.detach_role_policy(RoleName=id, PolicyArn=policy["PolicyArn"])
            for name in self.iam.list_role_policies(RoleName=id)["PolicyNames"]:
                self.iam.delete_role_policy(RoleName=id, PolicyName=name)
        self.iam.delete_role(RoleName=id)


class _InlinePolicy(_Iam):
    updatable = frozenset({"policy"})
    autoname = "name"
    owner: str
    """The noun in IAM's calls, and the input that names the policy's owner."""

    def create(self, inputs: Props) -> str:
        self._put(inputs)
        return self._natural(inputs)

    def _natural(self, inputs: Props) -> str:
        return f"{inputs[self.owner]}:{inputs['name']}"

    def _whose(self, owner: str) -> dict[str, str]:
        return {f"{self.owner.capitalize()}Name": owner}

    def _put(self, inputs: Props) -> None:
        put = getattr(self.iam, f"put_{self.owner}_policy")
        put(**self._whose(inputs[self.owner]), PolicyName=inputs["name"], PolicyDocument=document(inputs["policy"]))

    def read(self, id: str, inputs: Props) -> Props | None:
        owner, _, name = id.partition(":")
        get = getattr(self.iam, f"get_{self.owner}_policy")
        response = none_if_not_found(get, **self._whose(owner), PolicyName=name)
        return None if response is None else {"name": name, self.owner: owner}

    def update(self, id: str, olds: Props, news: Props) -> None:
        if differs(olds, news, "policy"):
            self._put(news)

    def delete(self, id: str, outputs: Props) -> None:
        owner, _, name = id.partition(":")
        getattr(self.iam, f"delete_{self.owner}_policy")(**self._whose(owner), PolicyName=name)


@register
class RolePolicy(_InlinePolicy):
    token = "aws:iam/rolePolicy:RolePolicy"
    replace_on_change = frozenset({"name", "role"})
    owner = "role"


@register
class UserPolicy(_InlinePolicy):
    token = "aws:iam/userPolicy:UserPolicy"
    replace_on_change = frozenset({"name", "user"})
    owner = "user"


@register
class Policy(_Iam):
    token = "aws:iam/policy:Policy"
    replace_on_change = frozenset({"name", "path", "description"})
    updatable = frozenset({"policy", "tags"})
    autoname = "name"

    def create(self, inputs: Props) -> str:
        response = self.iam.create_policy(
            PolicyName=inputs["name"],
            PolicyDocument=document(inputs["policy"]),
            Tags=tag_list(inputs.get("tags")),
            **without_none(Path=inputs.get("path"), Description=inputs.get("description")),
        )
        return str(response["Policy"]["Arn"])

    def _natural(self, inputs: Props) -> str:
        return f"arn:aws:iam::{self.aws.account}:policy{inputs.get('path', '/')}{inputs['name']}"

    def read(self, id: str, inputs: Props) -> Props | None:
        response = none_if_not_found(self.iam.get_policy, PolicyArn=id)
        if response is None:
            return None
        policy = response["Policy"]
        return {
            "arn": policy["Arn"],
            "name": policy["PolicyName"],
            "path": policy["Path"],
            "policyId": policy["PolicyId"],
            "attachmentCount": policy.get("AttachmentCount", 0),
            **tag_outputs(policy.get("Tags")),
        }

    def update(self, id: str, olds: Props, news: Props) -> None:
        if differs(olds, news, "policy"):
            self._prune(id, keep=4)  # AWS keeps at most five versions
            self.iam.create_policy_version(PolicyArn=id, PolicyDocument=document(news["policy"]), SetAsDefault=True)
        self._retag("policy", {"PolicyArn": id}, olds, news)

    def _prune(self, id: str, keep: int) -> None:
        versions = self.iam.list_policy_versions(PolicyArn=id)["Versions"]
        spare = sorted((v for v in versions if not v["IsDefaultVersion"]), key=lambda v: v["CreateDate"])
        for version in spare[: max(0, len(versions) - keep)]:
            self.iam.delete_policy_version(PolicyArn=id, VersionId=version["VersionId"])

    def delete(self, id: str, outputs: Props) -> None:
        self._prune(id, keep=1)
        self.iam.delete_policy(PolicyArn=id)


@register
class RolePolicyAttachment(_Iam):
    token = "aws:iam/rolePolicyAttachment:RolePolicyAttachment"
    replace_on_change = frozenset({"role", "policyArn"})

    def _natural(self, inputs: Props) -> str:
        return f"{inputs['role']}/{inputs['policyArn']}"

    def create(self, inputs: Props) -> str:
        self.iam.attach_role_policy(RoleName=inputs["role"], PolicyArn=inputs["policyArn"])
        return self._natural(inputs)

    def read(self, id: str, inputs: Props) -> Props | None:
        role, _, arn = id.partition("/")
        response = none_if_not_found(self.iam.list_attached_role_policies, RoleName=role)
        attached = [row["PolicyArn"] for row in (response or {}).get("AttachedPolicies", ())]
        return {} if arn in attached else None

    def delete(self, id: str, outputs: Props) -> None:
        role, _, arn = id.partition("/")
        self.iam.detach_role_policy(RoleName=role, PolicyArn=arn)


@register
class InstanceProfile(_Iam):
    token = "aws:iam/instanceProfile:InstanceProfile"
    replace_on_change = frozenset({"name", "path"})
    updatable = frozenset({"role", "tags"})
    autoname = "name"

    def create(self, inputs: Props) -> str:
        self.iam.create_instance_profile(
            InstanceProfileName=inputs["name"],
            Tags=tag_list(inputs.get("tags")),
            Path=inputs.get("path", "/"),
        )
        self.update(inputs["name"], {"tags": inputs.get("tags")}, inputs)
        return str(inputs["name"])

    def read(self, id: str, inputs: Props) -> Props | None:
        response = none_if_not_found(self.iam.get_instance_profile, InstanceProfileName=id)
        if response is None:
            return None
        profile = response["InstanceProfile"]
        roles = profile.get("Roles") or []
        return {
            "arn": profile["Arn"],
            "name": profile["InstanceProfileName"],
            "path": profile["Path"],
            "uniqueId": profile["InstanceProfileId"],
            "createDate": profile["CreateDate"].isoformat(),
            "role": roles[0]["RoleName"] if roles else "",
            **tag_outputs(profile.get("Tags")),
        }

    def update(self, id: str, olds: Props, news: Props) -> None:
        if differs(olds, news, "role"):
            self._empty(id)
            if news.get("role"):
                self.iam.add_role_to_instance_profile(InstanceProfileName=id, RoleName=news["role"])
        self._retag("instance_profile", {"InstanceProfileName": id}, olds, news)

    def _empty(self, id: str) -> None:
        for role in self.iam.get_instance_profile(InstanceProfileName=id)["InstanceProfile"].get("Roles") or ():
            self.iam.remove_role_from_instance_profile(InstanceProfileName=id, RoleName=role["RoleName"])

    def delete(self, id: str, outputs: Props) -> None:
        self._empty(id)
        self.iam.delete_instance_profile(InstanceProfileName=id)


@register
class User(_Iam):
    token = "aws:iam/user:User"
    replace_on_change = frozenset({"name", "path"})
    updatable = frozenset({"permissionsBoundary", "tags", "forceDestroy"})
    autoname = "name"

    def create(self, inputs: Props) -> str:
        self.iam.create_user(
            UserName=inputs["name"],
            Tags=tag_list(inputs.get("tags")),
            Path=inputs.get("path", "/"),
            **without_none(PermissionsBoundary=inputs.get("permissionsBoundary")),
        )
        return str(inputs["name"])

    def read(self, id: str, inputs: Props) -> Props | None:
        response = none_if_not_found(self.iam.get_user, UserName=id)
        if response is None:
            return None
        user = response["User"]
        outputs = {"arn": user["Arn"], "name": user["UserName"], "path": user["Path"], "uniqueId": user["UserId"]}
        return outputs | tag_outputs(user.get("Tags"))

    def update(self, id: str, olds: Props, news: Props) -> None:
        if differs(olds, news, "permissionsBoundary"):
            if news.get("permissionsBoundary"):
                self.iam.put_user_permissions_boundary(UserName=id, PermissionsBoundary=news["permissionsBoundary"])
            else:
                self.iam.delete_user_permissions_boundary(UserName=id)
        self._retag("user", {"UserName": id}, olds, news)

    def delete(self, id: str, outputs: Props) -> None:
        if outputs.get("forceDestroy"):
            for key in self.iam.list_access_keys(UserName=id)["AccessKeyMetadata"]:
                self.iam.delete_access_key(UserName=id, AccessKeyId=key["AccessKeyId"])
            none_if_not_found(self.iam.delete_login_profile, UserName=id)
        self.iam.delete_user(UserName=id)


@register
class AccessKey(_Iam):
    token = "aws:iam/accessKey:AccessKey"
    replace_on_change = frozenset({"user"})
    updatable = frozenset({"status"})

    def __init__(self, aws: Any) -> None:
        super().__init__(aws)
        self._secrets: dict[str, str] = {}

    def create(self, inputs: Props) -> str:
        key = self.iam.create_access_key(UserName=inputs["user"])["AccessKey"]
        self._secrets[key["AccessKeyId"]] = key["SecretAccessKey"]
        self.update(key["AccessKeyId"], {}, inputs)
        return str(key["AccessKeyId"])

    def read(self, id: str, inputs: Props) -> Props | None:
        response = none_if_not_found(self.iam.list_access_keys, UserName=inputs["user"])
        for key in (response or {}).get("AccessKeyMetadata", ()):
            if key["AccessKeyId"] == id:
                # AWS returns the secret once, at creation.
                secret_output = {"secret": secret(self._secrets.pop(id))} if id in self._secrets else {}
                return {"status": key["Status"], "createDate": key["CreateDate"].isoformat(), **secret_output}
        return None

    def update(self, id: str, olds: Props, news: Props) -> None:
        if news.get("status") and differs(olds, news, "status"):
            self.iam.update_access_key(UserName=news["user"], AccessKeyId=id, Status=news["status"])

    def delete(self, id: str, outputs: Props) -> None:
        self.iam.delete_access_key(UserName=outputs["user"], AccessKeyId=id)

    def find(self, inputs: Props) -> list[str]:
        return []  # the secret is lost, so the key is useless; the user's forceDestroy removes it
