"""Check that a gateway with alarms sends the metrics that these are for."""

from collections.abc import Iterator

from settings.draft import Draft
from settings.problems import Problem, problem_at


def check_metrics(draft: Draft) -> Iterator[Problem]:
    """Check that alarms have metrics."""
    if draft.alerts is not None and draft.gateway is not None and draft.gateway.metrics == "off":
        reason = "leaves the alarms of drawbridge:alerts without metrics"
        yield problem_at("gateway.metrics", "off", reason, "use basic or full, or remove drawbridge:alerts")


CHECKS = (check_metrics,)
