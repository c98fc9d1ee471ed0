"""Refuse calls of CloudWatch Logs that moto takes.

Source: Amazon CloudWatch Logs API Reference, "PutLogEvents" and "PutRetentionPolicy".
"""

from lab.api.errors import ApiError
from lab.api.moto_inventory import Inventory
from lab.api.request import ApiRequest

#: Bytes and events of one request; each event counts as its message in UTF-8 and 26 bytes.
MAX_BATCH, MAX_EVENTS, EVENT_OVERHEAD = 1_048_576, 10_000, 26

#: Milliseconds that a request's events may span.
MAX_SPAN = 24 * 3600 * 1000

#: Days that AWS takes for a retention policy.
RETENTIONS = frozenset(
    (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653)
)


def check_log_events(request: ApiRequest, _: Inventory) -> ApiError | None:
    """Refuse a batch of log events that is empty, too large, out of order, or longer than a day."""
    events = request.parameters["logEvents"]
    messages = [str(event["message"]).encode() for event in events]
    if not all(messages):
        return ApiError("InvalidParameterException", "Log event message must not be empty.")
    if len(events) > MAX_EVENTS or sum(len(message) + EVENT_OVERHEAD for message in messages) > MAX_BATCH:
        return ApiError("InvalidParameterException", f"Upload too large: more than {MAX_BATCH} bytes or 10000 events")
    times = [int(event["timestamp"]) for event in events]
    if times != sorted(times):
        return ApiError(
            "InvalidParameterException",
            "Log events in a single PutLogEvents request must be in chronological order.",
        )
    if times and times[-1] - times[0] > MAX_SPAN:
        return ApiError(
            "InvalidParameterException",
            "The batch of log events in a single PutLogEvents request cannot span more than 24 hours.",
        )
    return None


def check_retention(request: ApiRequest, _: Inventory) -> ApiError | None:
    """Refuse a retention that is not one of AWS's numbers of days."""
    days = request.parameters["retentionInDays"]
    if days in RETENTIONS:
        return None
    return ApiError("InvalidParameterException", f"{days} is not a valid retentionInDays.")
