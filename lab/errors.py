"""Errors of the lab.

LabError
├── NotPermitted    the machine lacks root, /dev/net/tun or a Debian tool
├── AlreadyUp       another region of the same name runs, or its port is taken
├── NotUp           no region of that name runs
├── ImageError      the image of the machines could not be built
├── MachineDown     a machine went down before a command in it had ended
└── CommandFailed   a tool of the system (ip, nft, mount …) refused
"""


class LabError(Exception):
    """Base of all errors of the lab; its text is one clear sentence with the remedy."""


class NotPermitted(LabError):
    """The machine lacks what packets in namespaces need."""


class AlreadyUp(LabError):
    """A region of this name is running, or being brought up or down."""


class NotUp(LabError):
    """No region of this name is running."""


class ImageError(LabError):
    """The machines' image could not be built."""


class MachineDown(LabError):
    """A machine is down, or went down before a command in it had ended. Its next boot may answer."""


class CommandFailed(LabError):
    """A system tool exited non-zero; the text holds its name and the last line of its errors."""
