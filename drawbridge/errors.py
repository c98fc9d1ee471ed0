"""Errors of the command, each with what to do next.

DrawbridgeError
├── StackError              the stack's name or file cannot be used, or its settings are wrong
├── DeploymentError         the program did not run to its end in the lab
├── AwsError                AWS refused, or could not be reached
│   ├── AccessDeniedError   the credentials lack a permission
│   ├── CredentialsError    no credentials, or expired ones
│   └── NotDeployedError    the stack, or a part of it, is not deployed
├── PulumiError             Pulumi's CLI is missing, or failed
├── ImageBuildError         a prepared image could not be built
├── BundleFileError         a bundle's file cannot be read or written, or is damaged
├── MachineError            a client's machine cannot be read
├── BackupError             a backup cannot be taken, read or restored
├── QrCodeError             a QR code does not fit the terminal
└── GatewayError            something between here and the gateway
    ├── UnreachableError    no connection
    ├── HostKeyError        another machine answers at the gateway's address
    ├── LoginError          the gateway does not let this user in
    ├── RemoteError         a command on the gateway failed
    └── MalformedError      the gateway wrote something that is not in its format
"""


class DrawbridgeError(Exception):
    """Base of all; `remedy` is what to do or run next, if the message does not say it. Neither holds a secret."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


class StackError(DrawbridgeError):
    """The stack's name or file cannot be used."""


class DeploymentError(DrawbridgeError):
    """The program did not run to its end in the lab."""


class AwsError(DrawbridgeError):
    """AWS refused, or could not be reached."""


class AccessDeniedError(AwsError):
    """The credentials lack a permission; `permission` is its name in IAM, such as `ssm:GetParameter`."""

    def __init__(self, message: str, remedy: str, permission: str) -> None:
        super().__init__(message, remedy)
        self.permission = permission


class CredentialsError(AwsError):
    """No credentials, or expired ones."""


class NotDeployedError(AwsError):
    """The stack, or a part of it, is not deployed."""


class PulumiError(DrawbridgeError):
    """Pulumi's CLI is missing, or failed."""


class ImageBuildError(DrawbridgeError):
    """A prepared image could not be built."""


class BundleFileError(DrawbridgeError):
    """A bundle's file cannot be read or written, or is damaged."""


class MachineError(DrawbridgeError):
    """A client's machine, or the file that describes it, cannot be read."""


class BackupError(DrawbridgeError):
    """A backup cannot be taken, read or restored."""


class QrCodeError(DrawbridgeError):
    """A QR code does not fit the terminal."""


class GatewayError(DrawbridgeError):
    """Something between here and the gateway."""


class UnreachableError(GatewayError):
    """No connection to the gateway."""


class HostKeyError(GatewayError):
    """Another machine answers at the gateway's address, or someone sits in between."""


class LoginError(GatewayError):
    """The gateway does not let this user in."""


class RemoteError(GatewayError):
    """A command on the gateway failed."""


class MalformedError(GatewayError):
    """The gateway wrote something that is not in its format; the message repeats none of it."""
