"""Errors of the lab.

LabError
├── InvalidName     no lab can have that name
├── NotPermitted    the machine lacks root, /dev/net/tun or a Debian tool
├── AlreadyUp       a region of the same name runs
├── InTransition    another command is bringing it up or down
├── PortInUse       another process listens on its port
├── NotUp           no region of that name runs
├── ImageError      the image of the machines could not be built
├── MachineDown     a machine went down before a command in it had ended
└── CommandFailed   a tool of the system (ip, nft, mount …) refused
    └── NotInstalled    the tool is not there
"""


class LabError(Exception):
    """Base of all errors of the lab. The text says what is wrong; who shows it adds the remedy for its class."""


class InvalidName(LabError):
    """A text that names no directory of a lab's own, so that its removal could be that of other files."""


class NotPermitted(LabError):
    """The machine lacks what packets in namespaces need."""


class AlreadyUp(LabError):
    """A region of this name is running."""


class InTransition(LabError):
    """Another command is bringing the region of this name up or down."""


class PortInUse(LabError):
    """Another process listens on the port of the API."""


class NotUp(LabError):
    """No region of this name is running."""


class ImageError(LabError):
    """The machines' image could not be built."""


class MachineDown(LabError):
    """A machine is down, or went down before a command in it had ended. Its next boot may answer."""


class CommandFailed(LabError):
    """A system tool exited non-zero; the text holds its name and the last line of its errors."""


class NotInstalled(CommandFailed):
    """A tool that the lab needs is not installed on this machine."""
