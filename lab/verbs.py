"""Verbs of a region's control interface, as `lab.region` sends them and `lab.control` answers them."""

from enum import StrEnum

#: Path of the control interface on the API's port; the verb follows it.
PATH = "/_lab/"
#: HTTP header with the token that only root can read.
TOKEN_HEADER = "X-Lab-Token"


class Verb(StrEnum):
    """Requests to a region. Arguments and answers are JSON objects."""

    STATUS = "status"
    WAIT_RECONCILED = "wait-reconciled"
    ADD_SITE = "add-site"
    REMOVE_SITE = "remove-site"
    MOVE_SITE = "move-site"
    ADD_ROUTE = "add-route"
    FORWARD_PORT = "forward-port"
    ADD_HOST = "add-host"
    REMOVE_HOST = "remove-host"
    REBOOT_HOST = "reboot-host"
    CUT_POWER = "cut-power"
    POWER_ON = "power-on"
    USE_KERNEL = "use-kernel"
    SET_RULES = "set-rules"
    PUBLISH_IMAGES = "publish-images"
    WITHDRAW_IMAGE = "withdraw-image"
    SET_CLOCK_FORWARD = "set-clock-forward"
    FAIL_CHECK = "fail-check"
